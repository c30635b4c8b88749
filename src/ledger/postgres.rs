//! Connections to Postgres: how they are opened, why they could not be, and the SQLSTATE of what they answered.
//!
//! A pool's connection is a session that takes writes, and whose statements have a limit. One whose caller has gone away
//! before the answer is cancelled and dropped (`Held`), so that a locked table keeps no connection busy for nobody.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8::ManageConnection;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::PoolableConnection;
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{ChannelBinding, Host, TargetSessionAttrs};
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage};

use super::error::{Failure, LedgerError, Result, of_sqlstate};
use super::postgres_url;
use super::tls::{NoSession, Tls};
use super::wire::{Established, Seen, Stream, Wire};

/// How long a server may take to let us in. A local one answers in milliseconds; a caller who waits longer than this is
/// better told that the ledger is away.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server must have for SCRAM-SHA-256-PLUS.
const BINDING_ADVICE: &str = "channel_binding=require wants a password by SCRAM, TLS up to Postgres itself, and a certificate \
    signed by RSA or ECDSA; where one of these is missing, set channel_binding=prefer";

/// How often, and how many times, the word that nobody waits for a query is sent while its connection lives. Its own limit
/// ends a query that has not heard any of them.
const CANCEL_AGAIN: Duration = Duration::from_millis(250);
const CANCEL_TRIES_MAX: usize = 8;

/// A process that was stopped in the middle of a transaction holds its locks no longer than this: others wait for cursors, and
/// for the lease. One that runs is never so long between two statements.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// A connection, and what was seen on its wire.
pub(super) struct PgConnection {
    pub(super) diesel: AsyncPgConnection,
    seen: Arc<Seen>,
    cancel: CancelToken,
    /// Which of the hosts it leads to.
    host: usize,
    /// As [`Connector::round`] when it was opened.
    round: u64,
    /// Whoever asked has gone away before the answer.
    is_abandoned: bool,
}

impl PgConnection {
    pub(super) fn explain(&self, failure: Failure) -> LedgerError {
        let sqlstate = self.seen.sqlstate.lock().unwrap_or_else(PoisonError::into_inner);
        failure.explain(sqlstate.as_deref())
    }

    pub(super) fn explain_commit(&self, failure: Failure) -> LedgerError {
        let sqlstate = self.seen.sqlstate.lock().unwrap_or_else(PoisonError::into_inner);
        failure.explain_commit(sqlstate.as_deref())
    }

    /// What tells of the last error even when the connection has been given away.
    pub(super) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    /// A session that only reads is not used again, and neither are the others.
    pub(super) fn refuse_reading_only(&self) -> LedgerError {
        self.seen.only_reads.store(true, Ordering::Release);
        LedgerError::Unavailable(ONLY_READS_SENTENCE.to_owned())
    }

    fn is_closed(&self) -> bool {
        self.seen.closed.load(Ordering::Acquire)
    }
}

const ONLY_READS_SENTENCE: &str =
    "Postgres only reads: it is a standby, or default_transaction_read_only is set for it, the database or the role";

/// Opens connections, for the pools and outside them.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<Tls>,
    /// How long a statement on a pooled connection may take: Postgres ends it even where the word that nobody waits for it any
    /// more does not arrive.
    statement_timeout: Duration,
    /// Grows whenever a session is found to take no writes. Those that were opened before are dropped: a role's setting holds
    /// for a whole session, even when it has been taken back.
    round: Arc<AtomicU64>,
    /// Why the last attempt failed, for the caller who waited in vain.
    last_error: Arc<Mutex<Option<LedgerError>>>,
}

impl Connector {
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self> {
        let (config, tls) = postgres_url::read(url, ca_file)?;
        let statement_timeout = Duration::ZERO;
        Ok(Self { config, tls, statement_timeout, round: Arc::default(), last_error: Arc::default() })
    }

    pub(super) fn with_statement_timeout(&self, statement_timeout: Duration) -> Self {
        Self { statement_timeout, ..self.clone() }
    }

    /// A connection as the server gives it, without a limit for its statements.
    pub(super) async fn open(&self) -> Result<PgConnection> {
        let round = self.round.load(Ordering::Acquire);
        let (client, seen, host) = self.client().await?;
        let cancel = client.cancel_token();
        let diesel = AsyncPgConnection::try_from(client).await.map_err(|e| LedgerError::Unavailable(e.to_string()))?;
        Ok(PgConnection { diesel, seen, cancel, host, round, is_abandoned: false })
    }

    /// A connection for a pool: it takes writes, and its statements have a limit.
    async fn open_pooled(&self) -> Result<PgConnection> {
        let round = self.round.load(Ordering::Acquire);
        let (client, seen, host) = self.client().await?;
        let (limit_ms, idle_ms) = (self.statement_timeout.as_millis(), IDLE_IN_TRANSACTION.as_millis());
        let asked = format!(
            "SET statement_timeout = {limit_ms}; SET idle_in_transaction_session_timeout = {idle_ms}; \
             SHOW transaction_read_only"
        );
        if self.ask(host, &client, &asked).await? != "off" {
            return Err(LedgerError::Unavailable(ONLY_READS_SENTENCE.to_owned()));
        }
        let cancel = client.cancel_token();
        let diesel = AsyncPgConnection::try_from(client).await.map_err(|e| LedgerError::Unavailable(e.to_string()))?;
        Ok(PgConnection { diesel, seen, cancel, host, round, is_abandoned: false })
    }

    /// Fails where a connection is not a session of its own, as behind a pooler that hands a session out for each
    /// transaction. Two connections take turns, in an order in which such a pooler gives one of them the other's session or
    /// another one than before, whether it hands out the session that was used last or first.
    pub(super) async fn expect_own_sessions(&self) -> Result<()> {
        let (first, _, host) = self.client().await?;
        let (second, _, _) = self.client().await?;
        let mut sessions = [None, None];
        for turn in [0, 1, 1, 0].repeat(3) {
            let client = if turn == 0 { &first } else { &second };
            let session = Some(self.ask(host, client, "SELECT pg_backend_pid()").await?);
            let (known, others) = (sessions[turn].take(), &sessions[1 - turn]);
            if session == *others || known.is_some_and(|known| Some(known) != session) {
                return Err(LedgerError::Internal(format!(
                    "Postgres at {} is behind a pooler that shares sessions between transactions: set pool_mode = session \
                     in PgBouncer, or point DATABASE_URL at Postgres itself",
                    self.place(host)
                )));
            }
            sessions[turn] = session;
        }
        Ok(())
    }

    /// The only value of the only row of statements that need no preparation.
    async fn ask(&self, host: usize, client: &Client, statements: &str) -> Result<String> {
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, client.simple_query(statements)).await;
        let messages = answer.map_err(|_| self.slow(host))?.map_err(|error| self.refusal(host, &error))?;
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        value.map(str::to_owned).ok_or_else(|| LedgerError::Internal(format!("{statements}: no row was answered")))
    }

    /// Tries the hosts in turn.
    async fn client(&self) -> Result<(Client, Arc<Seen>, usize)> {
        let hosts = self.config.get_hosts().len().max(self.config.get_hostaddrs().len());
        let mut last = LedgerError::Internal("the database URL names no host".to_owned());
        for index in 0..hosts {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.open_host(index)).await;
            match attempt.unwrap_or_else(|_| Err(self.slow(index))) {
                Ok((client, seen)) => return Ok((client, seen, index)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn slow(&self, index: usize) -> LedgerError {
        LedgerError::Unavailable(format!("{} took over {CONNECT_TIMEOUT:?} to let us in", self.place(index)))
    }

    async fn open_host(&self, index: usize) -> Result<(Client, Arc<Seen>)> {
        let seen = Arc::new(Seen::default());
        let stream = self.reach(index).await?;
        let wire = Wire::over(stream, Arc::clone(&seen));
        let refused = |error| self.refusal(index, &error);
        let (client, connection) = self.config.connect_raw(wire, Established).await.map_err(refused)?;
        let driver = Arc::clone(&seen);
        // Ends when the client is dropped or the server goes away.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
            driver.closed.store(true, Ordering::Release);
        });
        if self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
            self.expect_writable(index, &client).await?;
        }
        Ok((client, seen))
    }

    /// Ends what a connection is at, on a connection of its own, as the protocol wants it. The connection itself is dropped:
    /// the word may arrive late, and would end what comes next on it.
    fn cancel(&self, connection: &mut PgConnection) {
        connection.is_abandoned = true;
        let (connector, host) = (self.clone(), connection.host);
        let (cancel, seen) = (connection.cancel.clone(), Arc::clone(&connection.seen));
        // Where the runtime is ending, so are its connections.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for _ in 0..CANCEL_TRIES_MAX {
                let cancelled = tokio::time::timeout(CONNECT_TIMEOUT, async {
                    let stream = connector.reach(host).await.map_err(|error| error.to_string())?;
                    let stream = Wire::over(stream, Arc::default());
                    cancel.cancel_query_raw(stream, Established).await.map_err(|error| error.to_string())
                });
                if let Ok(Err(error)) = cancelled.await {
                    tracing::debug!(error, "a query could not be cancelled");
                }
                // The word may have overtaken the query: the connection ends once that has its answer.
                tokio::time::sleep(CANCEL_AGAIN).await;
                if seen.closed.load(Ordering::Acquire) {
                    return;
                }
            }
        });
    }

    async fn reach(&self, index: usize) -> Result<Box<dyn Stream>> {
        let stream = self.dial(index).await.map_err(|error| {
            LedgerError::Unavailable(format!(
                "nothing answers at {} ({error}); start Postgres there, or set another address",
                self.place(index)
            ))
        })?;
        match &self.tls {
            Some(tls) => self.encrypted(tls, stream, index).await,
            None => Ok(stream),
        }
    }

    async fn dial(&self, index: usize) -> io::Result<Box<dyn Stream>> {
        let port = self.port(index);
        if let Some(address) = self.config.get_hostaddrs().get(index) {
            return Ok(Box::new(kept_alive(TcpStream::connect((*address, port)).await?)?));
        }
        match &self.config.get_hosts()[index] {
            Host::Tcp(name) => Ok(Box::new(kept_alive(TcpStream::connect((name.as_str(), port)).await?)?)),
            Host::Unix(folder) => Ok(Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?)),
        }
    }

    async fn encrypted(&self, tls: &Tls, stream: Box<dyn Stream>, index: usize) -> Result<Box<dyn Stream>> {
        let host = match self.config.get_hosts().get(index) {
            Some(Host::Tcp(name)) => name.clone(),
            // Nobody listens in on a socket of this machine, and no certificate names one.
            Some(Host::Unix(_)) => return Ok(stream),
            None => self.config.get_hostaddrs()[index].to_string(),
        };
        tls.over(stream, &host).await.map_err(|error| match error {
            NoSession::Lost(error) => {
                LedgerError::Unavailable(format!("{} broke off while TLS was set up: {error}", self.place(index)))
            }
            NoSession::Refused(why) => {
                LedgerError::Internal(format!("Postgres at {} is not trusted: {why}", self.place(index)))
            }
        })
    }

    async fn expect_writable(&self, index: usize, client: &Client) -> Result<()> {
        match self.ask(index, client, "SHOW transaction_read_only").await?.as_str() {
            "off" => Ok(()),
            _ => Err(LedgerError::Unavailable(format!("{} only reads: it is a standby", self.place(index)))),
        }
    }

    fn port(&self, index: usize) -> u16 {
        let ports = self.config.get_ports();
        ports.get(index).or(ports.first()).copied().unwrap_or(5432)
    }

    fn place(&self, index: usize) -> String {
        let host = match self.config.get_hosts().get(index) {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => self.config.get_hostaddrs()[index].to_string(),
        };
        format!("{host}:{}", self.port(index))
    }

    /// Why a server that answered did not let us in.
    fn refusal(&self, index: usize, error: &tokio_postgres::Error) -> LedgerError {
        let place = self.place(index);
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        let Some(said) = error.as_db_error() else {
            let reason = std::error::Error::source(error).map_or(error.to_string(), ToString::to_string);
            let sentence = format!("no Postgres that lets us in answers at {place}: {reason}");
            if std::error::Error::source(error).is_some_and(|e| e.is::<io::Error>()) || error.is_closed() {
                return LedgerError::Unavailable(sentence);
            }
            // A password that is missing, or encryption that is asked for, does not mend itself.
            return LedgerError::Internal(match self.config.get_channel_binding() {
                ChannelBinding::Require => format!("{sentence}; {BINDING_ADVICE}"),
                _ => sentence,
            });
        };
        match said.code().code() {
            // Says which of its rules for hosts, users and encryption lets nobody in; no secret is in it.
            "28000" => LedgerError::Internal(format!(
                "Postgres at {place} does not let the user {user:?} in: {}; where it wants TLS, add sslmode=verify-full",
                said.message()
            )),
            code if code.starts_with("28") => LedgerError::Internal(format!(
                "Postgres at {place} refuses the user {user:?} or the password in the database URL"
            )),
            "3D000" => LedgerError::Internal(format!(
                "Postgres at {place} has no database {database:?}; create it, for example with: createdb {database}"
            )),
            // A server that can't set up a session, as with a full disk, where it says "could not write init file".
            "XX000" => LedgerError::Unavailable(format!("Postgres at {place}: {}", said.message())),
            code => of_sqlstate(code, format!("Postgres at {place}: {}", said.message())),
        }
    }

    /// For a caller who got no connection in time.
    pub(super) fn out_of_reach(&self) -> LedgerError {
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        last.unwrap_or_else(|| {
            LedgerError::Unavailable(format!("no connection to Postgres was free within {CONNECT_TIMEOUT:?}"))
        })
    }
}

impl ManageConnection for Connector {
    type Connection = PgConnection;
    type Error = LedgerError;

    async fn connect(&self) -> Result<PgConnection> {
        let (connection, error) = match self.open_pooled().await {
            Ok(connection) => (Ok(connection), None),
            // The pool drops what it is given and tries again, so the reason is kept here.
            Err(error) => (Err(LedgerError::Unavailable(error.to_string())), Some(error)),
        };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        connection
    }

    /// No query: a connection knows by itself when the server has gone away.
    async fn is_valid(&self, connection: &mut PgConnection) -> Result<()> {
        if connection.is_closed() {
            return Err(LedgerError::Unavailable("the connection was closed".to_owned()));
        }
        if connection.round < self.round.load(Ordering::Acquire) {
            return Err(LedgerError::Unavailable(ONLY_READS_SENTENCE.to_owned()));
        }
        Ok(())
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        if connection.seen.only_reads.load(Ordering::Acquire) && connection.round == self.round.load(Ordering::Acquire)
        {
            tracing::warn!("{ONLY_READS_SENTENCE}; its sessions are dropped");
            self.round.fetch_add(1, Ordering::AcqRel);
        }
        connection.is_abandoned
            || connection.is_closed()
            || connection.seen.only_reads.load(Ordering::Acquire)
            || connection.seen.is_outdated.load(Ordering::Acquire)
            || connection.diesel.is_broken()
    }
}

/// A connection of a pool, until its answer is there.
pub(super) struct Held<'a> {
    connection: bb8::PooledConnection<'a, Connector>,
    connector: &'a Connector,
    is_answered: bool,
}

impl<'a> Held<'a> {
    pub(super) fn new(connection: bb8::PooledConnection<'a, Connector>, connector: &'a Connector) -> Self {
        Self { connection, connector, is_answered: false }
    }

    /// To be called with every answer: a connection that is dropped before is taken for one whose caller has gone away, and
    /// what it is at is cancelled.
    pub(super) fn finish<T>(&mut self, answer: Result<T, Failure>) -> Result<T> {
        self.is_answered = true;
        answer.map_err(|failure| self.connection.explain(failure))
    }

    /// The same for the end of a transaction.
    pub(super) fn finish_commit<T>(&mut self, answer: Result<T, Failure>) -> Result<T> {
        self.is_answered = true;
        answer.map_err(|failure| self.connection.explain_commit(failure))
    }
}

impl std::ops::Deref for Held<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl std::ops::DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.connector.cancel(&mut self.connection);
        }
    }
}

/// A host that vanished without a word is noticed after half a minute: 15 s of silence, then three probes.
fn kept_alive(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    // The same for a host that vanished while something was on its way to it.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}
