//! A client that costs as little as it can: HTTP/1.1 with keep-alive over one socket, one request at a time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    stream: TcpStream,
    address: String,
    answer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, address: address.to_owned(), answer: Vec::with_capacity(4_096) }
    }

    /// Posts a GraphQL request as a user; the whole answer with its head.
    pub async fn post(&mut self, user: &str, body: &str) -> &str {
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: {}\r\nx-acclaim-user: {user}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        loop {
            assert!(self.stream.read_buf(&mut self.answer).await.unwrap() > 0, "the server closed the connection");
            let Some(head) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.answer[..head]).unwrap().to_ascii_lowercase();
            let (_, len) = text.split_once("content-length: ").expect("an answer with a length");
            let len: usize = len.split("\r\n").next().unwrap().trim().parse().unwrap();
            if self.answer.len() >= head + 4 + len {
                return std::str::from_utf8(&self.answer).unwrap();
            }
        }
    }
}
