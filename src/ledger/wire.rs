//! What a connection to Postgres receives, looked at for the SQLSTATE of its last error.
//!
//! diesel passes on only a message, in the server's language. Whether an entry is poison or the server is shutting down
//! must not hang on that, so each connection looks at what it receives and keeps the SQLSTATE of the last error.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{self, TlsConnect, TlsStream};

#[derive(Default)]
pub(super) struct Seen {
    pub(super) sqlstate: Mutex<Option<String>>,
    pub(super) closed: AtomicBool,
    /// The session was found to take no writes.
    pub(super) only_reads: AtomicBool,
    /// The session has prepared statements for tables that were altered since.
    pub(super) is_outdated: AtomicBool,
}

/// What Postgres says of a write where it only reads (`read_only_sql_transaction`).
const ONLY_READS: &str = "25006";
/// What it says of a statement that was prepared before a column had its present type (`feature_not_supported`).
pub(super) const PLAN_OUTDATED: &str = "0A000";

impl Seen {
    /// Whether the last error said that the role may not do what it tried (`insufficient_privilege`).
    pub(super) fn lacks_privilege(&self) -> bool {
        self.sqlstate.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some("42501")
    }
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
pub(super) struct Established;

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
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    seen: Arc<Seen>,
    header: Vec<u8>,
    /// The body so far, of an ErrorResponse only.
    body: Vec<u8>,
    /// Bytes of the present message still to come.
    left: usize,
}

impl Wire {
    pub(super) fn over(stream: Box<dyn Stream>, seen: Arc<Seen>) -> Self {
        Self { stream, seen, header: Vec::with_capacity(5), body: Vec::new(), left: 0 }
    }

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
            if sqlstate == ONLY_READS {
                self.seen.only_reads.store(true, Ordering::Release);
            }
            if sqlstate == PLAN_OUTDATED {
                self.seen.is_outdated.store(true, Ordering::Release);
            }
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
            let mut wire = Wire::over(Box::new(stream), Arc::clone(&seen));
            bytes.chunks(len).for_each(|chunk| wire.look_at(chunk));
            assert_eq!(seen.sqlstate.lock().unwrap().as_deref(), Some("22021"), "chunks of {len}");
            assert!(wire.header.is_empty() && wire.body.is_empty());
        }
    }
}
