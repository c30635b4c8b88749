//! The connection that ordinary steps share, and what keeps it alive.
//!
//! Invariant: a call never waits longer than its limit, and never for a connection to be made: while Redis is away, or has
//! left a call unanswered, calls are refused at once, and a task of the link's own finds out when it is back. So a hung
//! Redis costs the calls that were under way their limit, and all others nothing.

use std::sync::{Arc, Mutex, MutexGuard};
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
/// Why a call is refused at once.
const AWAY: &str = "Redis is away, or does not answer";
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
    connection: Mutex<Connection>,
    /// Wakes the keeper before its next probe.
    suspect: Notify,
}

struct Connection {
    /// `None` while Redis is away, or silent.
    usable: Option<MultiplexedConnection>,
    /// The run id of the server that it leads to.
    server: Arc<str>,
    /// The witness of the epoch that this node works in, by its SHA-1. A server without it may have the same keys and scripts,
    /// as a replica that was promoted has, and yet not be where the epoch began.
    expected: Option<Arc<str>>,
    /// The witness that was seen over this connection. It leads to one process of one server, which keeps its scripts.
    witnessed: Option<Arc<str>>,
    /// Counts the connections made.
    made: u64,
    /// Counts how often calls were let through again: what a call finds out later says nothing of the time after.
    opened: u64,
}

/// One connection, so that what is asked over it is asked of one process of one server.
pub struct Pinned {
    connection: MultiplexedConnection,
    made: u64,
    opened: u64,
}

/// A connection that was just made.
struct Made {
    connection: MultiplexedConnection,
    server: Arc<str>,
    witnessed: Option<Arc<str>>,
}

impl Link {
    pub async fn connect(client: Client) -> Result<Self, RedisError> {
        let Made { connection, server, witnessed } = connect(&client, None).await?;
        let usable = Some(connection.clone());
        let first = Connection { usable, server, expected: None, witnessed, made: 0, opened: 0 };
        let shared = Arc::new(Shared { client, connection: Mutex::new(first), suspect: Notify::new() });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), connection));
        Ok(Self { shared, _keeper: Arc::new(AbortOnDropHandle::new(keeper)) })
    }

    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The run id of the server that calls go to.
    pub fn server(&self) -> Arc<str> {
        self.shared.lock().server.clone()
    }

    /// The present connection, for as long as it lasts.
    pub fn pin(&self) -> Result<Pinned> {
        self.shared.usable().ok_or_else(|| EngineError::Unavailable(AWAY.to_owned()))
    }

    /// Lets steps run from now on only where this witness is, as it is behind the pinned connection.
    pub fn expect(&self, witness: Arc<str>, seen_over: &Pinned) {
        let mut connection = self.shared.lock();
        if connection.made == seen_over.made {
            connection.witnessed = Some(witness.clone());
        }
        connection.expected = Some(witness);
    }

    /// One command, in one round trip.
    pub async fn call(&self, cmd: &Cmd, limit: Duration) -> Result<Value> {
        self.try_call(cmd, limit).await?.map_err(refusal)
    }

    /// As [`Link::call`]; what Redis itself answers as an error comes inside.
    pub async fn try_call(&self, cmd: &Cmd, limit: Duration) -> Result<Result<Value, RedisError>> {
        self.try_call_over(&mut self.pin()?, cmd, limit).await
    }

    /// As [`Link::call`], over one connection.
    pub async fn call_over(&self, pinned: &mut Pinned, cmd: &Cmd, limit: Duration) -> Result<Value> {
        self.try_call_over(pinned, cmd, limit).await?.map_err(refusal)
    }

    async fn try_call_over(
        &self,
        pinned: &mut Pinned,
        cmd: &Cmd,
        limit: Duration,
    ) -> Result<Result<Value, RedisError>> {
        let lost = match timeout(limit, cmd.query_async::<Value>(&mut pinned.connection)).await {
            Ok(Err(error)) if is_of_connection(&error) => error.to_string(),
            Ok(answer) => return Ok(answer),
            Err(_) => format!("Redis did not answer within {} ms", limit.as_millis()),
        };
        self.shared.close(pinned.opened);
        Err(EngineError::Unanswered(lost))
    }

    /// As [`Link::call`], where the expected witness is.
    pub async fn eval(&self, script: &Script, keys: &[String], args: &Args, limit: Duration) -> Result<Value> {
        let is_elsewhere = self.shared.is_elsewhere();
        #[cfg(feature = "planted-bugs")]
        let is_elsewhere = is_elsewhere && !crate::domain::planted::Bug::ReloadOnNoscript.is_planted();
        if is_elsewhere {
            return Err(EngineError::Lost(
                "Redis was restarted, or is another one: it has not seen the epoch begin".to_owned(),
            ));
        }
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args.ends.len(), 64 + 64 * keys.len() + args.bytes.len());
        cmd.arg("EVALSHA").arg(script.sha()).arg(keys.len()).arg(keys);
        args.iter().for_each(|arg| {
            cmd.arg(arg);
        });
        #[cfg(feature = "planted-bugs")]
        if crate::domain::planted::Bug::ReloadOnNoscript.is_planted() {
            let answer = self.call(&cmd, limit).await;
            if !matches!(answer, Err(EngineError::Lost(_))) {
                return answer;
            }
            self.call(redis::cmd("SCRIPT").arg("LOAD").arg(script.source), limit).await?;
        }
        self.call(&cmd, limit).await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("nothing panics while it holds the lock")
    }

    fn usable(&self) -> Option<Pinned> {
        let held = self.lock();
        Some(Pinned { connection: held.usable.clone()?, made: held.made, opened: held.opened })
    }

    /// Whether calls would go where the expected witness is not.
    fn is_elsewhere(&self) -> bool {
        let connection = self.lock();
        connection.usable.is_some() && connection.expected.is_some() && connection.expected != connection.witnessed
    }

    /// Lets calls through again, over the connection that there was.
    fn open(&self, usable: MultiplexedConnection) {
        let mut connection = self.lock();
        connection.opened += 1;
        connection.usable = Some(usable);
    }

    /// Lets calls through over a new connection.
    fn replace(&self, made: Made) {
        let mut connection = self.lock();
        connection.made += 1;
        connection.opened += 1;
        connection.usable = Some(made.connection);
        connection.server = made.server;
        connection.witnessed = made.witnessed;
    }

    /// Refuses calls until a probe is answered, unless that has happened since `opened`.
    fn close(&self, opened: u64) {
        let mut connection = self.lock();
        if connection.opened == opened {
            connection.usable = None;
            self.suspect.notify_one();
        }
    }

    fn is_closed(&self) -> bool {
        self.lock().usable.is_none()
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

/// Probes the connection every second, or when a call has found it dead or silent, and makes a new one when it is dead.
async fn keep(shared: Arc<Shared>, mut connection: MultiplexedConnection) {
    loop {
        // Either way the connection is probed.
        let _ = timeout(PROBE_INTERVAL, shared.suspect.notified()).await;
        let probe = redis::cmd("PING");
        let is_alive = match timeout(PROBE_INTERVAL, probe.query_async::<Value>(&mut connection)).await {
            Ok(answer) => !answer.is_err_and(|error| is_of_connection(&error)),
            Err(_) => false,
        };
        if !is_alive {
            shared.lock().usable = None;
            let mut backoff = Backoff::default();
            let made = loop {
                let expected = shared.lock().expected.clone();
                match connect(&shared.client, expected).await {
                    Ok(made) => break made,
                    Err(error) => tracing::debug!(%error, "no connection to Redis yet"),
                }
                backoff.wait().await;
            };
            connection = made.connection.clone();
            shared.replace(made);
        } else if shared.is_closed() {
            shared.open(connection.clone());
        }
    }
}

/// A connection, with the run id of the server that it leads to (new with each start of a server, and never a replica's), and
/// whether that has the witness.
async fn connect(client: &Client, expected: Option<Arc<str>>) -> Result<Made, RedisError> {
    let mut connection = connect_with(client, PIPELINE_LEN).await?;
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let asked = async {
        let said = info.query_async::<String>(&mut connection).await?;
        let is_there = match &expected {
            Some(witness) => exists([&**witness]).query_async::<(bool,)>(&mut connection).await?.0,
            None => false,
        };
        Ok::<_, RedisError>((said, is_there))
    };
    let (said, is_there) = match timeout(CONNECT_LIMIT, asked).await {
        Ok(answers) => answers?,
        Err(_) => return Err((ErrorKind::Io, "Redis did not answer INFO in time").into()),
    };
    let run_id = said.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim();
    Ok(Made { connection, server: run_id.into(), witnessed: expected.filter(|_| is_there) })
}

/// Asks which scripts a server has, by their SHA-1.
pub fn exists<'a>(scripts: impl IntoIterator<Item = &'a str>) -> Cmd {
    let mut cmd = redis::cmd("SCRIPT");
    cmd.arg("EXISTS");
    scripts.into_iter().for_each(|sha| {
        cmd.arg(sha);
    });
    cmd
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

/// What an error of Redis means to the caller. Those that Redis checks before a script's first write leave nothing behind;
/// a script that failed in its middle may have left anything.
pub fn refusal(error: RedisError) -> EngineError {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, NoPerm, NoScript, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Server(NoScript) => {
            EngineError::Lost("Redis has no scripts: it was restarted, or is another one".to_owned())
        }
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | Moved | NoPerm | ReadOnly | TryAgain) => {
            EngineError::Unavailable(error.to_string())
        }
        _ if error.code() == Some("OOM") => EngineError::Full("Redis is at its maxmemory".to_owned()),
        // Busy with somebody's script; a replica that does not take writes as it should; not signed in.
        _ if matches!(error.code(), Some("BUSY" | "NOREPLICAS" | "MISCONF" | "NOAUTH")) => {
            EngineError::Unavailable(error.to_string())
        }
        _ => EngineError::Unanswered(error.to_string()),
    }
}
