//! A client that never pauses: neither the end of its token nor the server's stop waits for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use tokio::io::{AsyncWriteExt, join, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_util::task::AbortOnDropHandle;

use super::tokens::{claims, initialised_socket, signed_by_secret};
use crate::auth::guarded_with;
use crate::support::stack::Server;

/// Far beyond what is asserted, so that a failure is an assertion's and not this one's.
const LIMIT: Duration = Duration::from_secs(30);
/// How late a flooded connection may be ended.
const LATE_MAX: Duration = Duration::from_secs(2);
/// A token holds for so many seconds longer than it says.
const LEEWAY_S: u64 = 30;

/// Frames with a mask of zeros, to be written again and again.
fn frames(messages: impl IntoIterator<Item = (OpCode, String)>) -> Vec<u8> {
    let mut frames = Vec::new();
    for (opcode, payload) in messages {
        let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut frames).unwrap();
        frames.extend_from_slice(payload.as_bytes());
    }
    frames
}

/// Many of each kind of message that costs a server something.
fn floods() -> [(&'static str, Vec<u8>); 3] {
    let text = OpCode::Data(Data::Text);
    let query =
        |n: u32| json!({ "id": n.to_string(), "type": "subscribe", "payload": { "query": "{ viewer { id } }" } });
    let pings = (0..1_000).map(|_| (text, json!({ "type": "ping" }).to_string()));
    [
        ("pings", frames(pings)),
        ("operations", frames((0..1_000).map(|n| (text, query(n).to_string())))),
        ("frames", frames((0..1_000).map(|_| (OpCode::Control(Control::Ping), "x".repeat(100))))),
    ]
}

/// A socket that is written to without a pause.
struct Flooded {
    reader: WebSocketStream<tokio::io::Join<tokio::net::tcp::OwnedReadHalf, tokio::io::Sink>>,
    _writing: AbortOnDropHandle<()>,
}

impl Flooded {
    async fn by(server: &Server, token: &str, block: Vec<u8>) -> Self {
        let socket: WebSocketStream<TcpStream> = initialised_socket(server, token).await.unwrap();
        let (read, mut write) = socket.into_inner().into_split();
        let reader = WebSocketStream::from_raw_socket(join(read, sink()), Role::Client, None).await;
        let writing = tokio::spawn(async move { while write.write_all(&block).await.is_ok() {} });
        Self { reader, _writing: AbortOnDropHandle::new(writing) }
    }

    /// The code it is closed with, how many answers came before, and when.
    async fn closed(&mut self) -> (Option<u16>, usize, Instant) {
        let mut answers = 0;
        let code = async {
            loop {
                match self.reader.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => answers += 1,
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let code = timeout(LIMIT, code).await.expect("it is closed at all");
        (code, answers, Instant::now())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_socket_ends_with_its_token() {
    let (_stack, server) = guarded_with(&[]).await;
    for (what, block) in floods() {
        let mut soon = claims("ann");
        let exp = get_current_timestamp() + 3 - LEEWAY_S;
        soon["exp"] = json!(exp);
        let mut flooded = Flooded::by(&server, &signed_by_secret(&soon), block).await;
        let (code, answers, _) = flooded.closed().await;
        let late =
            SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(exp + LEEWAY_S)).unwrap_or_default();
        assert_eq!(code, Some(4403), "{what}, after {answers} answers");
        assert!(answers > 100, "{what}: {answers} answers are no flood");
        assert!(late < LATE_MAX, "{what}: {late:?} late, after {answers} answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_under_a_flood() {
    for (what, block) in floods() {
        let (_stack, server) = guarded_with(&[]).await;
        let mut flooded = Flooded::by(&server, &signed_by_secret(&claims("ann")), block).await;
        // It is under way.
        for _ in 0..1_000 {
            timeout(LIMIT, flooded.reader.next()).await.unwrap().unwrap().unwrap();
        }
        server.ask_to_stop();
        let asked = Instant::now();
        let (code, answers, at) = flooded.closed().await;
        assert_eq!(code, Some(1001), "{what}, after {answers} answers");
        assert!(at - asked < LATE_MAX, "{what}: {:?} late, after {answers} answers", at - asked);
        let (status, took) = server.ended().await;
        assert!(status.success() && took < Duration::from_secs(10), "{what}: {status}, {took:?}");
    }
}
