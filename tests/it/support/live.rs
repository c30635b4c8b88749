//! A subscriber over graphql-transport-ws, and the view it keeps by applying what it is sent.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Nothing that is awaited here takes longer on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A live board, as a client of [`View`] asks for it.
const LIVE: &str = "subscription($top: Int!, $resume: String, $maxRate: Float! = 10) { boardChanges(top: $top, resume: $resume, resumeWith: DELTA, maxRate: $maxRate) { __typename position seq at ... on BoardSnapshot { reason totalCount entries { rank productId score product { name } } } ... on BoardDelta { fromSeq totalCount changes { kind productId fromRank toRank score product { name } } } } }";

pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Length of all texts so far.
    pub received_len: usize,
}

impl Socket {
    /// Connects and initialises.
    pub async fn connect(url: &str, init: Value) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        Self::over(stream, url, init).await
    }

    /// Connects with room for `buffer_len` bytes, so that whatever is not read soon stays with the server.
    pub async fn connect_narrow(url: &str, buffer_len: u32) -> Self {
        let narrow = TcpSocket::new_v4().unwrap();
        narrow.set_recv_buffer_size(buffer_len).unwrap();
        let stream = narrow.connect(url.trim_start_matches("http://").parse().unwrap()).await.unwrap();
        Self::over(stream, url, json!({})).await
    }

    async fn over(stream: TcpStream, url: &str, init: Value) -> Self {
        let mut request = format!("{}/graphql/ws", url.replace("http", "ws")).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        // The library's own 128 KiB are much for thousands of sockets.
        let config = WebSocketConfig::default().read_buffer_size(4_096);
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await.unwrap();
        let mut socket = Self { stream, received_len: 0 };
        socket.send(json!({ "type": "connection_init", "payload": init })).await;
        assert_eq!(socket.receive().await["type"], "connection_ack");
        socket
    }

    pub async fn send(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Writes without reading anything; an error once the connection is gone.
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.stream.send(Message::Ping(Vec::new().into())).await
    }

    /// The next message that is not a ping.
    pub async fn receive(&mut self) -> Value {
        loop {
            let message =
                timeout(LIMIT, self.stream.next()).await.expect("a message in time").expect("an open socket").unwrap();
            if let Message::Text(text) = message {
                self.received_len += text.len();
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] != "ping" {
                    return message;
                }
            }
        }
    }

    /// The code that the server closes with; what comes before is passed over.
    pub async fn closed_with(&mut self) -> Option<u16> {
        while let Some(message) = timeout(LIMIT, self.stream.next()).await.expect("a close in time") {
            match message {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Subscribes to the daily board: `top`, and `resume` and `maxRate` where they are given.
    pub async fn subscribe(&mut self, id: &str, variables: Value) {
        let payload = json!({ "query": LIVE, "variables": variables });
        self.send(json!({ "id": id, "type": "subscribe", "payload": payload })).await;
    }

    /// Subscribes to the daily board and takes its snapshot.
    pub async fn watch_board(&mut self, top: usize) -> View {
        self.subscribe("board", json!({ "top": top })).await;
        let mut view = View::default();
        view.take(&self.receive().await);
        assert_eq!(view.reasons.len(), 1, "the first message is a snapshot");
        view
    }
}

/// What a client shows: places from the top as (product, score).
#[derive(Default)]
pub struct View {
    pub shown: Vec<(String, f64)>,
    pub reasons: Vec<String>,
    pub deltas: usize,
    pub position: String,
    seq: u64,
}

impl View {
    /// What a page shows that was read at a position.
    pub fn of_page(position: &str, nodes: &Value) -> Self {
        let place = |node: &Value| (node["productId"].as_str().unwrap().to_owned(), node["score"].as_f64().unwrap());
        let seq = position.trim_end_matches('+').split_once('-').unwrap().1.parse().unwrap();
        Self { shown: nodes.as_array().unwrap().iter().map(place).collect(), seq, ..Self::default() }
    }

    /// Applies one message as the schema says.
    pub fn take(&mut self, message: &Value) {
        assert_eq!(message["type"], "next", "{message}");
        self.take_payload(&message["payload"]);
    }

    /// Applies one payload as the schema says.
    pub fn take_payload(&mut self, message: &Value) {
        let event = &message["data"]["boardChanges"];
        let seq = event["seq"].as_u64().unwrap_or_else(|| panic!("{message}"));
        match event["__typename"].as_str().unwrap() {
            "BoardSnapshot" => {
                let place =
                    |entry: &Value| (entry["productId"].as_str().unwrap().to_owned(), entry["score"].as_f64().unwrap());
                self.shown = event["entries"].as_array().unwrap().iter().map(place).collect();
                self.reasons.push(event["reason"].as_str().unwrap().to_owned());
            }
            "BoardDelta" => {
                assert_eq!(event["fromSeq"].as_u64().unwrap(), self.seq, "a gap in what was sent");
                assert!(seq > self.seq);
                let changes = event["changes"].as_array().unwrap();
                self.shown.retain(|(product, _)| changes.iter().all(|change| change["productId"] != product.as_str()));
                for change in changes.iter().filter(|change| !change["toRank"].is_null()) {
                    let place = (change["productId"].as_str().unwrap().to_owned(), change["score"].as_f64().unwrap());
                    self.shown.insert(change["toRank"].as_u64().unwrap() as usize - 1, place);
                }
                self.deltas += 1;
            }
            "BoardHeartbeat" => assert_eq!(seq, self.seq, "nothing has changed"),
            other => panic!("{other}"),
        }
        self.seq = seq;
        self.position = event["position"].as_str().unwrap_or_default().to_owned();
    }

    /// Applies what comes until the view is as wanted.
    pub async fn follow_until(
        &mut self,
        socket: &mut Socket,
        what: &str,
        mut wanted: impl AsyncFnMut(&Vec<(String, f64)>) -> bool,
    ) {
        while !wanted(&self.shown).await {
            let message = timeout(LIMIT, socket.receive()).await.unwrap_or_else(|_| panic!("not in time: {what}"));
            self.take(&message);
        }
    }
}
