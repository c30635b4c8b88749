//! The short way of an operation's messages: from its group straight into the connection's socket.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::graphql::{Outlet, Payload, Put};
use crate::server::wire::Wire;

/// Of a server's frame, which has no mask (RFC 6455, section 5.2).
const HEADER_LEN_MAX: usize = 10;

/// What ends the message after its payload.
const END: &[u8] = b"}";

pub struct Straight {
    pub wire: Arc<Wire>,
    /// What stands before the payload in each `next` message.
    pub start: Arc<str>,
}

impl Outlet for Straight {
    fn put(&self, payload: &Payload) -> Put {
        let len = self.start.len() + payload.len() + END.len();
        // One piece: a copy of a few KB costs less than a system call that gathers pieces.
        let mut message = Vec::with_capacity(HEADER_LEN_MAX + len);
        let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        header.format(len as u64, &mut message).expect("writing to memory does not fail");
        message.extend_from_slice(self.start.as_bytes());
        message.extend_from_slice(payload);
        message.extend_from_slice(END);
        self.wire.put(message.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

    use super::*;
    use crate::server::socket::protocol::Operation;
    use crate::server::wire::Socket;

    #[tokio::test]
    async fn what_is_put_is_what_the_task_would_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(server);
        let operation = Operation::new("a\"b");
        let straight = operation.straight(socket.wire());
        // A frame's length is written in one byte, in three, or in nine.
        let payloads = [1, 200, 70_000].map(|len| Payload::from(format!("\"{}\"", "é".repeat(len))));
        let mut reading = Vec::new();
        for payload in &payloads {
            assert_ne!(straight.put(payload), Put::Refused);
            let (flushed, read) = tokio::join!(socket.flush(), async {
                let mut bytes = vec![0; payload.len()];
                client.read_exact(&mut bytes).await.map(|_| bytes)
            });
            flushed.unwrap();
            reading.extend(read.unwrap());
        }
        drop((socket, straight));
        client.read_to_end(&mut reading).await.unwrap();
        let mut messages = WebSocket::from_raw_socket(Cursor::new(reading), Role::Client, None);
        for payload in &payloads {
            let sent = operation.next(payload);
            assert_eq!(messages.read().unwrap().to_text().unwrap(), sent.to_text().unwrap());
        }
    }
}
