//! One operation over each transport, as whoever holds a token.

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::live::Socket;
use crate::support::stack::Server;

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Http,
    WebSocket,
    EventStream,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Http, Self::WebSocket, Self::EventStream];
}

/// Operations in a row, over one transport, as one caller.
pub struct Asking<'a> {
    server: &'a Server,
    token: Option<&'a str>,
    way: Way,
}

enum Way {
    Http,
    Socket(Box<Socket>, usize),
    EventStream,
}

impl<'a> Asking<'a> {
    pub async fn over(transport: Transport, server: &'a Server, token: Option<&'a str>) -> Self {
        let way = match transport {
            Transport::Http => Way::Http,
            Transport::WebSocket => Way::Socket(Box::new(socket(server, token).await), 0),
            Transport::EventStream => Way::EventStream,
        };
        Self { server, token, way }
    }

    /// The answer to one operation that has one.
    pub async fn ask(&mut self, query: &str) -> Value {
        match &mut self.way {
            Way::Http => post(self.server, "graphql", self.token, query).await.json().await.unwrap(),
            Way::Socket(socket, asked) => {
                *asked += 1;
                let id = asked.to_string();
                socket.send(json!({ "id": id, "type": "subscribe", "payload": { "query": query } })).await;
                let answer = next(socket).await;
                // What was refused is over with its error.
                if answer.get("data").is_some() {
                    assert_eq!(socket.receive().await, json!({ "id": id, "type": "complete" }));
                }
                answer
            }
            Way::EventStream => {
                let mut stream =
                    Live::Events(post(self.server, "graphql/stream", self.token, query).await, String::new());
                stream.next().await
            }
        }
    }
}

/// A subscription that goes on.
pub enum Live {
    Socket(Box<Socket>),
    Events(Response, String),
}

impl Live {
    pub async fn open(transport: Transport, server: &Server, token: Option<&str>, query: &str) -> Self {
        match transport {
            Transport::WebSocket => {
                let mut socket = socket(server, token).await;
                socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": query } })).await;
                Self::Socket(Box::new(socket))
            }
            Transport::EventStream => Self::Events(post(server, "graphql/stream", token, query).await, String::new()),
            Transport::Http => panic!("HTTP answers once"),
        }
    }

    /// The next payload.
    pub async fn next(&mut self) -> Value {
        match self {
            Self::Socket(socket) => next(socket).await,
            Self::Events(response, read) => loop {
                if let Some((event, rest)) = read.split_once("\n\n") {
                    // Between the two there may be an id.
                    let next = event.starts_with("event: next\n").then(|| event.split_once("data: ").unwrap().1);
                    let payload = next.map(|json| serde_json::from_str(json).unwrap());
                    *read = rest.to_owned();
                    match payload {
                        Some(payload) => return payload,
                        None => continue,
                    }
                }
                let chunk = tokio::time::timeout(LIMIT, response.chunk()).await.expect("an event in time").unwrap();
                read.push_str(std::str::from_utf8(&chunk.expect("an event before the end")).unwrap());
            },
        }
    }
}

pub fn bearer(token: Option<&str>) -> Value {
    token.map_or(json!({}), |token| json!({ "Authorization": format!("Bearer {token}") }))
}

async fn socket(server: &Server, token: Option<&str>) -> Socket {
    Socket::connect(&server.url, bearer(token)).await
}

async fn next(socket: &mut Socket) -> Value {
    let message = socket.receive().await;
    match message["type"].as_str() {
        Some("next") => message["payload"].clone(),
        Some("error") => json!({ "errors": message["payload"] }),
        _ => panic!("{message}"),
    }
}

async fn post(server: &Server, path: &str, token: Option<&str>, query: &str) -> Response {
    let mut request = server.http.post(format!("{}/{path}", server.url)).json(&json!({ "query": query }));
    if path == "graphql/stream" {
        request = request.header("accept", "text/event-stream");
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap()
}

pub fn code(answer: &Value) -> Option<&str> {
    answer["errors"][0]["extensions"]["code"].as_str()
}
