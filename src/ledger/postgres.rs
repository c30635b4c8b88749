//! Connections to Postgres: how they are opened, why they could not be, and the SQLSTATE of what they answered.
//!
//! diesel passes on only a message, in the server's language. Whether an entry is poison or the server is shutting down
//! must not hang on that, so each connection looks at what it receives (`Wire`) and keeps the SQLSTATE of the last error.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Context, Poll};
use std::time::Duration;

use bb8::ManageConnection;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::PoolableConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{ChannelBinding, Host, TargetSessionAttrs};
use tokio_postgres::tls::{self, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};

use super::error::{Failure, LedgerError, Result, of_sqlstate};
use super::postgres_url;
use super::tls::{NoSession, Tls};

/// How long a server may take to let us in. A local one answers in milliseconds; a caller who waits longer than this is
/// better told that the ledger is away.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server must have for SCRAM-SHA-256-PLUS.
const BINDING_ADVICE: &str = "channel_binding=require wants a password by SCRAM, TLS up to Postgres itself, and a certificate \
    signed by RSA or ECDSA; where one of these is missing, set channel_binding=prefer";

/// A connection, and what was seen on its wire.
pub(super) struct PgConnection {
    pub(super) diesel: AsyncPgConnection,
    seen: Arc<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    sqlstate: Mutex<Option<String>>,
    closed: AtomicBool,
}

impl Seen {
    /// Whether the last error said that the role may not do what it tried (`insufficient_privilege`).
    pub(super) fn lacks_privilege(&self) -> bool {
        self.sqlstate.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some("42501")
    }
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

    fn is_closed(&self) -> bool {
        self.seen.closed.load(Ordering::Acquire)
    }
}

/// Opens connections, for the pool and outside it.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<Tls>,
    /// Why the last attempt failed, for the caller who waited in vain.
    last_error: Arc<Mutex<Option<LedgerError>>>,
}

impl Connector {
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self> {
        let (config, tls) = postgres_url::read(url, ca_file)?;
        Ok(Self { config, tls, last_error: Arc::default() })
    }

    /// Tries the hosts in turn.
    pub(super) async fn open(&self) -> Result<PgConnection> {
        let hosts = self.config.get_hosts().len().max(self.config.get_hostaddrs().len());
        let mut last = LedgerError::Internal("the database URL names no host".to_owned());
        for index in 0..hosts {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.open_host(index)).await;
            match attempt.unwrap_or_else(|_| {
                Err(LedgerError::Unavailable(format!(
                    "{} took over {CONNECT_TIMEOUT:?} to let us in",
                    self.place(index)
                )))
            }) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_host(&self, index: usize) -> Result<PgConnection> {
        let seen = Arc::new(Seen::default());
        let stream = self.dial(index).await.map_err(|error| {
            LedgerError::Unavailable(format!(
                "nothing answers at {} ({error}); start Postgres there, or set another address",
                self.place(index)
            ))
        })?;
        let stream = match &self.tls {
            Some(tls) => self.encrypted(tls, stream, index).await?,
            None => stream,
        };
        let wire = Wire { stream, seen: Arc::clone(&seen), header: Vec::with_capacity(5), body: Vec::new(), left: 0 };
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
        let diesel = AsyncPgConnection::try_from(client).await.map_err(|e| LedgerError::Unavailable(e.to_string()))?;
        Ok(PgConnection { diesel, seen })
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
        let row = client.query_one("SHOW transaction_read_only", &[]).await;
        match row.map_err(|error| self.refusal(index, &error))?.get::<_, &str>(0) {
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
        let (connection, error) = match self.open().await {
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
        Ok(())
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        connection.is_closed() || connection.diesel.is_broken()
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

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// What a password can be bound to, so that it is of use on this stream alone.
    fn channel_binding(&self) -> tls::ChannelBinding {
        tls::ChannelBinding::none()
    }
}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// Hands the driver a stream on which TLS, where it is asked for, is spoken already.
struct Established;

impl TlsConnect<Wire> for Established {
    type Stream = Wire;
    type Error = Infallible;
    type Future = Ready<Result<Wire, Infallible>>;

    fn connect(self, wire: Wire) -> Self::Future {
        ready(Ok(wire))
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> tls::ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Passes bytes through unchanged and remembers the SQLSTATE of each ErrorResponse among them.
/// Messages are a byte of kind, a length that counts itself, and a body (PostgreSQL 15, 55.7).
struct Wire {
    stream: Box<dyn Stream>,
    seen: Arc<Seen>,
    header: Vec<u8>,
    /// The body so far, of an ErrorResponse only.
    body: Vec<u8>,
    /// Bytes of the present message still to come.
    left: usize,
}

impl Wire {
    fn look_at(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.header.len() < 5 {
                let (taken, rest) = bytes.split_at(bytes.len().min(5 - self.header.len()));
                self.header.extend_from_slice(taken);
                bytes = rest;
                if let [_, a, b, c, d] = self.header[..] {
                    self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
                } else {
                    return;
                }
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(self.left));
            if self.header[0] == b'E' {
                self.body.extend_from_slice(taken);
            }
            self.left -= taken.len();
            bytes = rest;
            if self.left == 0 {
                self.end_message();
            }
        }
    }

    fn end_message(&mut self) {
        // Fields are a byte of kind and a text, each ended by a zero; `C` is the SQLSTATE.
        let field = self.body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
        if let Some(sqlstate) = field.and_then(|field| std::str::from_utf8(field).ok()) {
            *self.seen.sqlstate.lock().unwrap_or_else(PoisonError::into_inner) = Some(sqlstate.to_owned());
        }
        self.header.clear();
        self.body.clear();
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.look_at(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Stream for tokio::io::DuplexStream {}

    #[test]
    fn the_sqlstate_is_found_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for (kind, body) in [
            (b'Z', &b"I"[..]),
            (b'1', b""),
            (b'N', b"SNOTICE\0C00000\0\0"),
            (b'E', b"SERROR\0VERROR\0C22021\0Mno\0\0"),
            (b'Z', b"E"),
        ] {
            bytes.push(kind);
            bytes.extend((body.len() as u32 + 4).to_be_bytes());
            bytes.extend(body);
        }
        for len in 1..bytes.len() {
            let seen = Arc::new(Seen::default());
            let (stream, _other) = tokio::io::duplex(1);
            let mut wire = Wire {
                stream: Box::new(stream),
                seen: Arc::clone(&seen),
                header: Vec::new(),
                body: Vec::new(),
                left: 0,
            };
            bytes.chunks(len).for_each(|chunk| wire.look_at(chunk));
            assert_eq!(seen.sqlstate.lock().unwrap().as_deref(), Some("22021"), "chunks of {len}");
            assert!(wire.header.is_empty() && wire.body.is_empty());
        }
    }
}
