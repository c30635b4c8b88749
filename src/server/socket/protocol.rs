//! The messages of graphql-transport-ws, and its close codes.

use std::sync::Arc;

use async_graphql as gql;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::straight::Straight;
use crate::graphql::{self, Payload};
use crate::server::wire::Wire;

/// What a client sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    ConnectionInit {
        #[serde(default)]
        payload: Value,
    },
    Subscribe {
        id: String,
        #[serde(deserialize_with = "of_object")]
        payload: Box<graphql::Request>,
    },
    Complete {
        id: String,
    },
    Ping {
        payload: Option<Value>,
    },
    Pong {},
}

/// Why a connection is closed: RFC 6455 for the first, graphql-transport-ws for the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    GoingAway,
    BadMessage(String),
    Unauthorized,
    Forbidden(String),
    InitTimeout,
    DuplicateId(String),
    TooMany(String),
    /// A message of more bytes than this.
    TooLong(usize),
    /// Frames that are none by RFC 6455, or texts that are not UTF-8.
    BadFrame(u16),
}

impl Close {
    pub fn frame(self) -> CloseFrame {
        let (code, mut reason) = match self {
            Self::GoingAway => (1001, "the server is stopping".to_owned()),
            Self::BadMessage(why) => (4400, why),
            Self::Unauthorized => (4401, "Unauthorized".to_owned()),
            Self::Forbidden(why) => (4403, why),
            Self::InitTimeout => (4408, "Connection initialisation timeout".to_owned()),
            Self::DuplicateId(id) => (4409, format!("Subscriber for {id} already exists")),
            Self::TooMany(why) => (4429, why),
            Self::BadFrame(code) => (code, "the connection's frames can't be read".to_owned()),
            Self::TooLong(most) => (1009, format!("LIMIT_EXCEEDED: messageLength is at most {most} bytes")),
        };
        // A close frame holds 123 bytes of reason.
        reason.truncate(reason.floor_char_boundary(123));
        CloseFrame { code, reason: reason.into() }
    }
}

/// What a close code of ours means, as it is counted.
pub fn reason(code: u16) -> &'static str {
    match code {
        1001 => "going_away",
        1002 | 1007 => "bad_frame",
        1009 => "too_long",
        4400 => "bad_message",
        4401 => "unauthorized",
        4403 => "forbidden",
        4408 => "init_timeout",
        4409 => "duplicate_id",
        4429 => "too_many",
        _ => "other",
    }
}

/// A request's fields by their names: a list would be read by their order.
fn of_object<'de, D: Deserializer<'de>>(payload: D) -> Result<Box<graphql::Request>, D::Error> {
    let mut fields = Map::<String, Value>::deserialize(payload)?;
    if let Some(extensions) = fields.remove("extensions").filter(|it| !it.is_object() && !it.is_null()) {
        return Err(D::Error::custom(format!("extensions are an object, and not {extensions}")));
    }
    graphql::Request::deserialize(Value::Object(fields)).map(Box::new).map_err(D::Error::custom)
}

pub fn read(text: &str) -> Result<ClientMessage, Close> {
    let bad = |why: String| Close::BadMessage(format!("Invalid message received: {why}"));
    let message = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    match &message {
        ClientMessage::ConnectionInit { payload } if !payload.is_object() && !payload.is_null() => {
            Err(bad("the payload of connection_init is an object".to_owned()))
        }
        ClientMessage::Subscribe { id, .. } | ClientMessage::Complete { id } if id.is_empty() => {
            Err(bad("an id has at least one character".to_owned()))
        }
        _ => Ok(message),
    }
}

pub fn acknowledged() -> Message {
    Message::Text(Utf8Bytes::from_static(r#"{"type":"connection_ack"}"#))
}

pub fn pong(payload: Option<Value>) -> Message {
    text(match payload {
        None => r#"{"type":"pong"}"#.to_owned(),
        Some(payload) => format!(r#"{{"type":"pong","payload":{payload}}}"#),
    })
}

/// The messages of one operation: its id is written once, and put before each payload as it is.
pub struct Operation {
    next: Arc<str>,
    error: String,
    complete: String,
}

impl Operation {
    pub fn new(id: &str) -> Self {
        let id = Value::from(id);
        Self {
            next: format!(r#"{{"id":{id},"type":"next","payload":"#).into(),
            error: format!(r#"{{"id":{id},"type":"error","payload":"#),
            complete: format!(r#"{{"id":{id},"type":"complete"}}"#),
        }
    }

    /// The way of `next` messages past the connection's task.
    pub fn straight(&self, wire: Arc<Wire>) -> Straight {
        Straight { wire, start: self.next.clone() }
    }

    pub fn next(&self, payload: &Payload) -> Message {
        around(&self.next, payload)
    }

    /// The operation was not run, and is over with that.
    pub fn error(&self, errors: &[gql::ServerError]) -> Message {
        let errors = serde_json::to_vec(errors).expect("errors are made of strings, numbers and lists");
        around(&self.error, &errors.into())
    }

    pub fn complete(&self) -> Message {
        text(self.complete.clone())
    }
}

fn around(start: &str, payload: &Payload) -> Message {
    let mut message = String::with_capacity(start.len() + payload.len() + 1);
    message.push_str(start);
    message.push_str(std::str::from_utf8(payload).expect("JSON is UTF-8"));
    message.push('}');
    text(message)
}

fn text(text: String) -> Message {
    Message::Text(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(message: Message) -> Value {
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[test]
    fn messages_are_what_the_protocol_says() {
        let operation = Operation::new("a\"b");
        let payload = Payload::from_static(br#"{"data":{"x":"y"}}"#);
        let next = json!({ "id": "a\"b", "type": "next", "payload": { "data": { "x": "y" } } });
        assert_eq!(parsed(operation.next(&payload)), next);
        assert_eq!(parsed(operation.complete()), json!({ "id": "a\"b", "type": "complete" }));
        let errors = [gql::ServerError::new("no", None)];
        assert_eq!(parsed(operation.error(&errors))["payload"][0]["message"], "no");
        assert_eq!(parsed(pong(Some(json!({ "a": 1 })))), json!({ "type": "pong", "payload": { "a": 1 } }));
    }

    #[test]
    fn what_is_no_message_closes_the_connection() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"start"}"#,
            r#"{"type":"subscribe","payload":{}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{ viewer { id } }"}}"#,
            r#"{"type":"subscribe","id":"1","payload":["{ viewer { id } }"]}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{ viewer { id } }","extensions":[]}}"#,
            r#"{"type":"connection_init","payload":[]}"#,
            r#"{"type":"complete"}"#,
        ] {
            let refused = read(bad).err().map(|close| close.frame().code);
            assert_eq!(refused, Some(4400), "{bad}");
        }
        let long = Close::DuplicateId("é".repeat(200)).frame();
        assert!(long.reason.len() <= 123);
    }
}
