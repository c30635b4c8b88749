//! A subscriber over graphql-transport-ws, and the view it keeps by applying what it is sent.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Nothing that is awaited here takes longer on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects and initialises.
    pub async fn connect(url: &str, init: Value) -> Self {
        let mut request = format!("{}/graphql/ws", url.replace("http", "ws")).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let mut socket = Self(connect_async(request).await.unwrap().0);
        socket.send(json!({ "type": "connection_init", "payload": init })).await;
        assert_eq!(socket.receive().await["type"], "connection_ack");
        socket
    }

    pub async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message that is not a ping.
    pub async fn receive(&mut self) -> Value {
        loop {
            let message =
                timeout(LIMIT, self.0.next()).await.expect("a message in time").expect("an open socket").unwrap();
            if let Message::Text(text) = message {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] != "ping" {
                    return message;
                }
            }
        }
    }

    /// The code that the server closes with; what comes before is passed over.
    pub async fn closed_with(&mut self) -> Option<u16> {
        while let Some(message) = timeout(LIMIT, self.0.next()).await.expect("a close in time") {
            match message {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Subscribes to the daily board and takes its snapshot.
    pub async fn watch_board(&mut self, top: usize) -> View {
        let query = "subscription($top: Int!) { boardChanges(top: $top) { __typename position seq ... on BoardSnapshot { reason totalCount entries { rank productId score product { name } } } ... on BoardDelta { fromSeq totalCount changes { kind productId fromRank toRank score } } } }";
        self.send(
            json!({ "id": "board", "type": "subscribe", "payload": { "query": query, "variables": { "top": top } } }),
        )
        .await;
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
    fn take(&mut self, message: &Value) {
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
