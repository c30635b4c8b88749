//! The connection that ordinary steps share, and what keeps it alive.
//!
//! Invariant: a call never waits longer than its limit, and never for a connection to be made: while Redis is away it
//! is refused at once, and a task of the link's own connects again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::script::Script;
use crate::engine::{Backoff, EngineError, Result};

/// An ordinary step takes well under a millisecond; a client is to hear within 250 ms that the engine is away.
pub const STEP_LIMIT: Duration = Duration::from_millis(200);
/// A step over a whole board, or thousands of values: it may hold Redis up for a tenth of a second, and so may those
/// before it.
pub const BULK_LIMIT: Duration = Duration::from_secs(5);
/// Values in a step from which on it is given [`BULK_LIMIT`]: at about a microsecond each they stay far below
/// [`STEP_LIMIT`].
const BULK_LEN: usize = 2_000;
/// Making a connection takes a few round trips, perhaps to another region.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How often an idle connection is tried, so that the first step after a quiet time does not find it dead.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Steps waiting to be written: more than a node has requests in flight, so that none waits for room.
const PIPELINE_LEN: usize = 1_024;

/// The limit of a step that brings or fetches so many values.
pub fn limit_for(values: usize) -> Duration {
    if values < BULK_LEN { STEP_LIMIT } else { BULK_LIMIT }
}

#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    client: Client,
    /// `None` while Redis is away.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Wakes the keeper before its next probe.
    suspect: Notify,
}

impl Link {
    pub async fn connect(client: Client) -> Result<Self, RedisError> {
        let connection = connect(&client).await?;
        let shared = Arc::new(Shared { client, connection: Mutex::new(Some(connection)), suspect: Notify::new() });
        let keeper = tokio::spawn(keep(Arc::clone(&shared)));
        Ok(Self { shared, _keeper: Arc::new(AbortOnDropHandle::new(keeper)) })
    }

    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// One command, in one round trip.
    pub async fn call(&self, cmd: &Cmd, limit: Duration) -> Result<Value> {
        self.try_call(cmd, limit).await?.map_err(refusal)
    }

    /// As [`Link::call`]; what Redis itself answers as an error comes inside.
    pub async fn try_call(&self, cmd: &Cmd, limit: Duration) -> Result<Result<Value, RedisError>> {
        let connection = self.shared.connection();
        let Some(mut connection) = connection else {
            return Err(EngineError::Unavailable("there is no connection to Redis".to_owned()));
        };
        match timeout(limit, cmd.query_async::<Value>(&mut connection)).await {
            Ok(Err(error)) if is_of_connection(&error) => {
                self.shared.suspect.notify_one();
                Err(refusal(error))
            }
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.shared.suspect.notify_one();
                Err(EngineError::Unavailable(format!("Redis did not answer within {} ms", limit.as_millis())))
            }
        }
    }

    pub async fn eval(&self, script: &Script, keys: &[String], args: &Args, limit: Duration) -> Result<Value> {
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args.ends.len(), 64 + 64 * keys.len() + args.bytes.len());
        cmd.arg("EVALSHA").arg(script.sha()).arg(keys.len()).arg(keys);
        args.iter().for_each(|arg| {
            cmd.arg(arg);
        });
        self.call(&cmd, limit).await
    }
}

impl Shared {
    fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.lock().expect("nothing panics while it holds the lock").clone()
    }

    fn set_connection(&self, connection: Option<MultiplexedConnection>) {
        *self.connection.lock().expect("nothing panics while it holds the lock") = connection;
    }
}

/// The arguments of a script, written one after the other into one buffer.
#[derive(Default)]
pub struct Args {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Args {
    pub fn push(&mut self, arg: impl std::fmt::Display) -> &mut Self {
        use std::io::Write;
        write!(self.bytes, "{arg}").expect("writing to memory does not fail");
        self.ends.push(self.bytes.len());
        self
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Probes the connection every second, or when a call found it suspect, and makes a new one when it is dead.
async fn keep(shared: Arc<Shared>) {
    loop {
        // Either way the connection is probed.
        let _ = timeout(PROBE_INTERVAL, shared.suspect.notified()).await;
        let is_alive = match shared.connection() {
            Some(mut connection) => {
                let probe = redis::cmd("PING");
                let answer = timeout(PROBE_INTERVAL, probe.query_async::<Value>(&mut connection)).await;
                matches!(answer, Ok(Ok(_))) || matches!(answer, Ok(Err(error)) if !is_of_connection(&error))
            }
            None => false,
        };
        if !is_alive {
            shared.set_connection(None);
            let mut backoff = Backoff::default();
            loop {
                match connect(&shared.client).await {
                    Ok(connection) => break shared.set_connection(Some(connection)),
                    Err(error) => tracing::debug!(%error, "no connection to Redis yet"),
                }
                backoff.wait().await;
            }
        }
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    connect_with(client, PIPELINE_LEN).await
}

/// A connection whose calls have no limit of their own; a new one that does not answer is none.
pub async fn connect_with(client: &Client, pipeline_len: usize) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(pipeline_len);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Whether an error says that the connection is of no use any more.
fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

/// What an error of Redis means to the caller.
pub fn refusal(error: RedisError) -> EngineError {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => {
            EngineError::Lost("Redis has no scripts: it was restarted, or is another one".to_owned())
        }
        _ => EngineError::Unavailable(error.to_string()),
    }
}
