//! The socket of a connection, into which others than the connection's task may put whole messages while the task has nothing
//! to write.
//!
//! Invariant: what is put never falls into the middle of what the task writes, nor the other way round. For that the task
//! hands over whole messages, and goes on with one that was cut short before it begins another; tungstenite does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::capacity::ConnectionPlace;
use crate::graphql::Put;

/// What the connection's task reads and writes.
pub struct Socket {
    read: OwnedReadHalf,
    wire: Arc<Wire>,
    /// Its place among all connections, which an upgraded one takes along.
    _place: Option<ConnectionPlace>,
}

/// What others put messages into.
pub struct Wire(Mutex<Writing>);

struct Writing {
    half: OwnedWriteHalf,
    /// Of a message that was put: goes out before anything else.
    rest: Bytes,
    /// Whether the connection's task has more to write of what it began.
    is_taken: bool,
}

impl Socket {
    pub fn new(socket: TcpStream) -> Self {
        let (read, half) = socket.into_split();
        let wire = Arc::new(Wire(Mutex::new(Writing { half, rest: Bytes::new(), is_taken: false })));
        Self { read, wire, _place: None }
    }

    /// Holds a place for as long as it is open.
    pub fn in_place(self, place: ConnectionPlace) -> Self {
        Self { _place: Some(place), ..self }
    }

    pub fn wire(&self) -> Arc<Wire> {
        self.wire.clone()
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().expect("nothing panics while it writes")
    }

    /// Writes a message at once, or as much of it as there is room for: then the connection's task has to flush the rest.
    /// Refused where there is no room, and where the task is writing.
    pub fn put(&self, mut message: Bytes) -> Put {
        let mut writing = self.lock();
        if writing.is_taken || writing.has_rest() {
            return Put::Refused;
        }
        // An error is met again by the task, which ends the connection for it.
        let Ok(written) = writing.half.try_write(&message) else { return Put::Refused };
        message.advance(written);
        if message.is_empty() {
            return Put::Whole;
        }
        writing.rest = message;
        Put::Part
    }

    /// Whether a message was put in part.
    pub fn has_rest(&self) -> bool {
        self.lock().has_rest()
    }
}

impl Writing {
    fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_rest() {
            let written = ready!(Pin::new(&mut self.half).poll_write(cx, &self.rest))?;
            self.rest.advance(written);
            if !self.has_rest() {
                // Even an empty one holds its memory.
                self.rest = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // What waits to be written goes before what comes while it waits.
        self.is_taken = true;
        ready!(self.poll_rest(cx))?;
        let half = Pin::new(&mut self.half);
        let written = ready!(match parts {
            [only] => half.poll_write(cx, only),
            parts => half.poll_write_vectored(cx, parts),
        })?;
        self.is_taken = written < parts.iter().map(|part| part.len()).sum();
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.lock().poll_write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.lock().poll_rest(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writing = self.wire.lock();
        ready!(writing.poll_rest(cx))?;
        Pin::new(&mut writing.half).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const ROUNDS: usize = 20;

    /// Its number, as often as makes lengths that fill no buffer evenly.
    fn message(number: u64) -> Vec<u8> {
        number.to_be_bytes().repeat(1_000 + (number as usize * 997) % 5_000)
    }

    async fn ends() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0), client)
    }

    /// Once the other side has taken everything, there is soon room.
    async fn until_put(wire: &Wire, message: &'static [u8]) {
        let put = async {
            while wire.put(Bytes::from_static(message)) != Put::Whole {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), put).await.expect("nothing is in the way for ever");
    }

    #[tokio::test]
    async fn what_is_put_and_what_the_task_writes_do_not_mix() {
        let (mut socket, mut client) = ends().await;
        let wire = socket.wire();
        let (mut numbers, mut parts, mut waits) = (0.., 0, 0);
        let mut next = || message(numbers.next().unwrap());
        for _ in 0..ROUNDS {
            // The client reads nothing until there is room for nothing more.
            let mut owed = Vec::new();
            let refused = loop {
                let message = next();
                let put = wire.put(message.clone().into());
                if put == Put::Refused {
                    break message;
                }
                assert!(!wire.has_rest() || put == Put::Part);
                parts += usize::from(put == Put::Part);
                owed.extend(message);
            };
            owed.extend(&refused);
            let written = async {
                socket.write_all(&refused).await.unwrap();
                socket.flush().await.unwrap();
            };
            let mut written = pin!(written);
            // The system may have made room meanwhile.
            let is_waiting = written.as_mut().now_or_never().is_none();
            if is_waiting {
                assert_eq!(wire.put(next().into()), Put::Refused, "the task has begun to write");
                waits += 1;
            }
            let mut received = vec![0; owed.len()];
            let finished = async {
                if is_waiting {
                    written.await;
                }
            };
            let ((), read) = tokio::join!(finished, client.read_exact(&mut received));
            read.unwrap();
            assert!(received == owed, "something was torn, lost or told twice");
            until_put(&wire, b"again").await;
            client.read_exact(&mut received[..5]).await.unwrap();
            assert_eq!(&received[..5], b"again");
        }
        assert!(parts > 0 && waits > 0, "there was always room, so that nothing was shown");
    }

    #[tokio::test]
    async fn nothing_is_put_before_what_the_task_writes_or_into_its_middle() {
        // More than buffers hold.
        let long = vec![7; 16 << 20];
        for (is_full, message) in [(true, &long[..5]), (false, &long[..])] {
            let (mut socket, mut client) = ends().await;
            let wire = socket.wire();
            let (mut received, mut len, mut owed) = (vec![0; 2 * long.len()], 0, message.len());
            while is_full && let Ok(written) = wire.lock().half.try_write(&long) {
                owed += written;
            }
            let mut written = pin!(socket.write_all(message));
            assert!(written.as_mut().now_or_never().is_none());
            while wire.lock().half.writable().now_or_never().is_none() {
                len += client.read(&mut received[len..]).await.unwrap();
            }
            assert_eq!(wire.put(Bytes::from_static(b"between")), Put::Refused, "though there is room");
            let (written, read) = tokio::join!(written, client.read_exact(&mut received[len..owed]));
            written.and(read).unwrap();
            assert!(received[..owed].iter().all(|byte| *byte == 7));
            until_put(&wire, b"after").await;
        }
    }
}
