//! Messages of graphql-transport-ws as a subscriber gets them, read in full or only at their head.
//!
//! A crowd of subscribers receives far more than it can parse beside the server it measures. GraphQL answers fields in
//! the order in which they are selected, and the subscription selects first what a chain needs; [`head`] reads no more
//! than that. Whatever it does not know is read in full.

use serde::Deserialize;
use serde_json::json;

use super::view::{Event, Head, Step};
use crate::client::TopLevelError;
use crate::domain::BoardId;

/// The name of the one operation on a socket.
const ID: &str = "b";

/// What the server sends.
#[derive(Deserialize, Debug)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    ConnectionAck,
    Ping,
    Pong,
    Next { payload: Payload },
    Error { payload: Vec<TopLevelError> },
    Complete,
}

#[derive(Deserialize, Debug)]
pub struct Payload {
    pub data: Option<Changes>,
    #[serde(default)]
    pub errors: Vec<TopLevelError>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    pub board_changes: Event,
}

/// The message that subscribes: the same for every subscriber, as on a page that many people look at.
pub fn subscribe(board: &BoardId, top: usize, max_rate: Option<f64>) -> String {
    let (declared, passed) = match max_rate {
        Some(_) => (", $maxRate: Float", ", maxRate: $maxRate"),
        None => ("", ""),
    };
    let query = format!(
        "subscription Fanout($board: ID!, $top: Int!{declared}) {{ \
         boardChanges(board: $board, top: $top{passed}) {{ __typename seq \
         ... on BoardSnapshot {{ reason entries {{ rank productId score product {{ name }} }} }} \
         ... on BoardDelta {{ fromSeq changes {{ kind productId fromRank toRank score product {{ name }} }} }} }} }}"
    );
    let mut variables = json!({ "board": board.as_str(), "top": top });
    if let Some(rate) = max_rate {
        variables["maxRate"] = json!(rate);
    }
    json!({ "id": ID, "type": "subscribe", "payload": { "query": query, "variables": variables } }).to_string()
}

/// The head of a board's event, where the text is as dense as servers write it.
pub fn head(text: &str) -> Option<Head<'_>> {
    // The message, its payload, the payload's data, and the event.
    const DEPTH: usize = 4;
    let mut rest = text;
    for _ in 0..DEPTH {
        rest = rest.split_once('{')?.1;
    }
    let rest = rest.strip_prefix(r#""__typename":"Board"#)?;
    if let Some(rest) = rest.strip_prefix(r#"Delta","seq":"#) {
        let (seq, rest) = whole(rest)?;
        let (from_seq, _) = whole(rest.strip_prefix(r#","fromSeq":"#)?)?;
        return Some(Head { seq, step: Step::Delta { from_seq } });
    }
    if let Some(rest) = rest.strip_prefix(r#"Snapshot","seq":"#) {
        let (seq, rest) = whole(rest)?;
        let (reason, _) = rest.strip_prefix(r#","reason":""#)?.split_once('"')?;
        return Some(Head { seq, step: Step::Snapshot { reason } });
    }
    let (seq, _) = whole(rest.strip_prefix(r#"Heartbeat","seq":"#)?)?;
    Some(Head { seq, step: Step::Heartbeat })
}

/// The whole number that the text begins with, and what follows it.
fn whole(text: &str) -> Option<(u64, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..len].parse().ok()?, &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: &str = r#"{"type":"next","id":"b","payload":{"data":{"boardChanges":{"__typename":"BoardDelta","seq":12,"fromSeq":10,"changes":[{"kind":"MOVED","productId":"p","fromRank":2,"toRank":1,"score":0.5,"product":null}]}}}}"#;
    const SNAPSHOT: &str = r#"{"id":"b","type":"next","payload":{"data":{"boardChanges":{"__typename":"BoardSnapshot","seq":10,"reason":"LAGGED","entries":[{"rank":1,"productId":"q","score":3,"product":{"name":"Q"}}]}}}}"#;
    const HEARTBEAT: &str =
        r#"{"id":"b","type":"next","payload":{"data":{"boardChanges":{"__typename":"BoardHeartbeat","seq":12}}}}"#;

    fn event(text: &str) -> Event {
        match serde_json::from_str(text).unwrap() {
            Frame::Next { payload: Payload { data: Some(data), .. } } => data.board_changes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_head_says_what_the_whole_says() {
        for text in [DELTA, SNAPSHOT, HEARTBEAT] {
            assert_eq!(head(text).unwrap(), event(text).head());
        }
        assert_eq!(head(DELTA).unwrap(), Head { seq: 12, step: Step::Delta { from_seq: 10 } });
        assert_eq!(head(SNAPSHOT).unwrap().step, Step::Snapshot { reason: "LAGGED" });
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_the_parser() {
        for text in [
            &DELTA.replace(':', ": "),
            &DELTA.replace("fromSeq", "from"),
            &DELTA.replace("BoardDelta", "BoardOther"),
            &DELTA.replace("12,", "1e3,"),
            r#"{"type":"ping"}"#,
            "",
        ] {
            assert_eq!(head(text), None, "{text}");
        }
        let other = event(&DELTA.replace(':', ": "));
        assert_eq!(other.head(), head(DELTA).unwrap());
    }

    #[test]
    fn the_protocol_s_other_messages_are_known() {
        let parse = |text: &str| serde_json::from_str::<Frame>(text).unwrap();
        assert!(matches!(parse(r#"{"type":"ping","payload":{"a":1}}"#), Frame::Ping));
        assert!(matches!(parse(r#"{"type":"complete","id":"b"}"#), Frame::Complete));
        let refused = r#"{"type":"error","id":"b","payload":[{"message":"no","extensions":{"code":"FORBIDDEN"}}]}"#;
        let Frame::Error { payload } = parse(refused) else { panic!("not an error") };
        assert_eq!(payload[0].message, "no");
    }

    #[test]
    fn a_rate_is_sent_only_when_it_is_wished() {
        let daily = BoardId::daily();
        assert!(!subscribe(&daily, 10, None).contains("maxRate"));
        let with = subscribe(&daily, 10, Some(2.5));
        assert!(with.contains("maxRate: $maxRate") && with.contains(r#""maxRate":2.5"#), "{with}");
    }
}
