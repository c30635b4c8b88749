//! WebSocket frames: operations, what else the protocol has, and what it does not have, in frames whole, in pieces and
//! broken.
//!
//! After each burst comes a ping of the protocol. Its pong says that the server has read every frame before it; where a
//! frame has ended the connection instead, that is its answer. What was sent behind such a frame is not counted.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::World;
use crate::findings::Findings;
use crate::grammar::Root;
use crate::http::{operation, parameters};
use crate::mutate;

const BURST_MAX: usize = 24;
const BURSTS: usize = 40;
/// Within this the server has answered a ping or ended the connection; a client that stops sending is dropped after 24 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);
/// Bytes of a message that the server takes.
const MESSAGE_LEN_MAX: usize = 64 << 10;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;

/// Sends `count` frames.
pub async fn run(world: &World, count: usize, mut rng: StdRng) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 && !world.findings.has_failed() {
        let Some(mut connection) = Connection::open(world, &mut rng).await? else { continue };
        for _ in 0..BURSTS {
            let burst = connection.burst(world, left, &mut rng);
            left -= burst.frames.min(left);
            Findings::add(&world.findings.frames, burst.frames);
            if !connection.exchange(world, &burst).await? || left == 0 {
                break;
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Burst {
    bytes: Vec<u8>,
    /// The same to read, for whoever looks into a fault.
    payloads: Vec<u8>,
    frames: usize,
    /// Whether a frame in it may end the connection.
    may_end: bool,
    /// Whether a close of ours is in it, which is answered with its own code.
    is_closing: bool,
    /// Whether nothing follows it, not even an answer.
    leaves: bool,
}

struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
    /// Ids given so far.
    ids: u32,
    pings: u32,
    /// Whether its token is about to expire, which ends it however busy it is.
    expires: bool,
}

impl Connection {
    /// `None` where the upgrade was one that is refused.
    async fn open(world: &World, rng: &mut StdRng) -> anyhow::Result<Option<Self>> {
        Findings::add(&world.findings.connections, 1);
        let mut socket = TcpStream::connect(world.address).await.context("the server takes no connection")?;
        socket.set_nodelay(true)?;
        let head = format!(
            "GET /graphql/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: \
             13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n",
            world.address
        );
        let is_broken = rng.random_ratio(1, 30);
        let head = if is_broken { mutate::bytes(head.as_bytes(), rng) } else { head.into_bytes() };
        socket.write_all(&head).await?;
        if is_broken {
            socket.shutdown().await.ok();
        }
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let more = timeout(ANSWER_TIME_MAX, socket.read_buf(&mut read)).await;
            match more {
                Ok(Ok(count)) if count > 0 => {}
                _ if is_broken => return Ok(None),
                _ => anyhow::bail!("no answer to an upgrade"),
            }
        };
        let status = String::from_utf8_lossy(&read[..end]).get(9..12).unwrap_or("none").to_owned();
        world.findings.count("upgrades", &status);
        if status.starts_with('5') {
            world.findings.fault(format!("{status} to an upgrade"), &head);
        }
        ensure!(is_broken || status == "101", "an upgrade is answered {status}");
        if is_broken {
            return Ok(None);
        }
        read.drain(..end);
        let mut connection = Self { socket, read, ids: 0, pings: 0, expires: rng.random_ratio(1, 20) };
        let mut burst = Burst::default();
        let token = match connection.expires {
            true => crate::short_token()?,
            false => world.tokens.choose(rng).cloned().unwrap_or_default(),
        };
        burst.may_end = connection.expires;
        match rng.random_range(0..20) {
            // An anonymous one, one with a token that is none, and one that says nothing before it asks.
            0 => burst.text(json!({ "type": "connection_init" }).to_string().as_bytes(), rng),
            1 => {
                let token = format!("Bearer {}", mutate::text(&token, rng));
                burst.text(
                    json!({ "type": "connection_init", "payload": { "authorization": token } }).to_string().as_bytes(),
                    rng,
                );
                burst.may_end = true;
            }
            2 => {
                let subscribe = json!({ "id": "0", "type": "subscribe", "payload": { "query": "{ boards { id } }" } });
                burst.text(subscribe.to_string().as_bytes(), rng);
                burst.may_end = true;
            }
            _ => {
                let init =
                    json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {token}") } });
                burst.text(init.to_string().as_bytes(), rng);
            }
        }
        Findings::add(&world.findings.frames, burst.frames);
        Ok(connection.exchange(world, &burst).await?.then_some(connection))
    }

    fn burst(&mut self, world: &World, most: usize, rng: &mut StdRng) -> Burst {
        let mut burst = Burst::default();
        let wanted = rng.random_range(1..=BURST_MAX).min(most);
        if self.expires && rng.random_ratio(1, 10) {
            burst.may_end = true;
            // More than the server reads at once.
            while burst.frames < most.min(500) {
                burst.text(br#"{"type":"ping"}"#, rng);
            }
            return burst;
        }
        while burst.frames < wanted {
            match rng.random_range(0..1_000) {
                0..620 => {
                    let root = match rng.random_range(0..10) {
                        0..5 => Root::Query,
                        5..7 => Root::Mutation,
                        _ => Root::Subscription,
                    };
                    let operation = operation(world, root, rng);
                    self.ids += 1;
                    let payload = parameters(&operation, rng);
                    let subscribe = json!({ "id": self.ids.to_string(), "type": "subscribe", "payload": payload });
                    let bytes = subscribe.to_string().into_bytes();
                    // Of another shape than the protocol's, where a part of the payload was made so.
                    burst.may_end |= bytes.len() > MESSAGE_LEN_MAX || !payload["query"].is_string() || is_odd(&payload);
                    burst.text(&bytes, rng);
                }
                620..850 => {
                    let id = rng.random_range(0..=self.ids);
                    burst.text(json!({ "id": id.to_string(), "type": "complete" }).to_string().as_bytes(), rng);
                }
                850..900 => burst.text(br#"{"type":"ping","payload":{"a":[1,null,"x"]}}"#, rng),
                900..930 => burst.text(br#"{"type":"pong"}"#, rng),
                930..950 => burst.frame(LAST | PING, &vec![b'p'; rng.random_range(0..=125)], rng),
                950..960 => burst.frame(LAST | PONG, b"", rng),
                960..988 => {
                    let messages = [
                        json!({ "id": "m", "type": "subscribe", "payload": { "query": "{ boards { id } }" } }),
                        json!({ "type": "connection_init", "payload": {} }),
                        json!({ "id": "m", "type": "complete" }),
                    ];
                    let text = messages.choose(rng).map(Value::to_string).unwrap_or_default();
                    burst.text(&mutate::bytes(text.as_bytes(), rng), rng);
                    burst.may_end = true;
                }
                _ => {
                    self.broken(&mut burst, rng);
                    burst.may_end = true;
                }
            }
            // What follows such a frame would not be read.
            if burst.may_end {
                break;
            }
        }
        burst.may_end |= self.expires;
        burst
    }

    /// What RFC 6455 or the protocol forbids.
    fn broken(&mut self, burst: &mut Burst, rng: &mut StdRng) {
        let reserved = [3, 4, 5, 6, 7, 11, 15].choose(rng).copied().unwrap_or(3);
        let code = [0, 999, 1000, 1005, 1006, 1015, 4400, 5000, u16::MAX].choose(rng).copied().unwrap_or(0);
        match rng.random_range(0..15) {
            0 => burst.frame(LAST | BINARY, b"{\"type\":\"ping\"}", rng),
            1 => burst.frame(LAST | TEXT, b"\xff\xfe\xc0\x80", rng),
            2 => burst.frame(LAST | 0x40 | TEXT, b"{}", rng),
            3 => burst.frame(LAST | reserved, b"", rng),
            4 => burst.frame(LAST | PING, &[b'p'; 126], rng),
            5 => burst.frame(PING, b"in pieces", rng),
            6 => burst.frame(LAST, b"the end of nothing", rng),
            7 => burst.frame(LAST | TEXT, &vec![b' '; MESSAGE_LEN_MAX + 1], rng),
            8 => {
                // Whole messages between the pieces of another.
                burst.frame(TEXT, b"{", rng);
                burst.frame(LAST | TEXT, b"{\"type\":\"ping\"}", rng);
            }
            9 => {
                burst.frame(LAST | CLOSE, &[&code.to_be_bytes()[..], b"why"].concat(), rng);
                burst.is_closing = true;
            }
            10 => burst.frame(LAST | CLOSE, b"x", rng),
            11 => {
                // Not masked, as only a server's frames are.
                burst.bytes.extend_from_slice(&[LAST | TEXT, 2, b'{', b'}']);
                burst.frames += 1;
            }
            12 => {
                // It says that it has 2^63 - 1 bytes.
                burst.bytes.extend_from_slice(&[
                    LAST | TEXT,
                    LAST | 127,
                    0x7f,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                    0xff,
                ]);
                burst.bytes.extend_from_slice(&[0; 40]);
                burst.frames += 1;
            }
            13 => {
                let board = json!({ "query": "subscription { weightsChanged { id } }" });
                let twice = json!({ "id": "twice", "type": "subscribe", "payload": board }).to_string();
                burst.text(twice.as_bytes(), rng);
                burst.text(twice.as_bytes(), rng);
            }
            _ => {
                // Left in the middle of a frame.
                burst.bytes.extend_from_slice(&[LAST | TEXT, LAST | 100, 1, 2, 3, 4, b'{']);
                burst.frames += 1;
                burst.leaves = true;
            }
        }
    }

    /// Sends a burst and reads on until the server has read it; whether the connection can go on.
    async fn exchange(&mut self, world: &World, burst: &Burst) -> anyhow::Result<bool> {
        let mut bytes = burst.bytes.clone();
        if burst.leaves {
            self.socket.write_all(&bytes).await.ok();
            return Ok(false);
        }
        self.pings += 1;
        let ping = json!({ "type": "ping", "payload": { "fuzz": self.pings } }).to_string();
        put(&mut bytes, LAST | TEXT, ping.as_bytes(), [7, 7, 7, 7]);
        let (mut reading, mut writing) = self.socket.split();
        // A server that has closed may have left the rest unread.
        let write = async { writing.write_all(&bytes).await.is_ok() };
        let (pings, read) = (self.pings, &mut self.read);
        let pong = async {
            loop {
                let frame = match next_frame(&mut reading, read).await {
                    Ok(frame) => frame,
                    Err(error) if burst.may_end => {
                        world.findings.count("ends", "without a close");
                        let _ = error;
                        return false;
                    }
                    Err(error) => {
                        world.findings.fault(format!("a connection has ended: {error:#}"), &burst.payloads);
                        return false;
                    }
                };
                match check(world, burst, &frame, pings) {
                    Told::Pong => return true,
                    Told::Closed => return false,
                    Told::Other => {}
                }
            }
        };
        let read = async {
            timeout(ANSWER_TIME_MAX, pong).await.unwrap_or_else(|_| {
                world.findings.fault("neither pong nor end in time", &burst.payloads);
                false
            })
        };
        let (written, goes_on) = tokio::join!(write, read);
        Ok(written && goes_on)
    }
}

/// Variables, names and extensions of another type than the protocol's end a connection.
fn is_odd(payload: &Value) -> bool {
    let is = |name: &str, fits: fn(&Value) -> bool| payload.get(name).is_none_or(fits);
    let is_map = |value: &Value| value.is_object() || value.is_null();
    payload.get("extra").is_some()
        || !is("variables", is_map)
        || !is("extensions", is_map)
        || !is("operationName", |name| name.is_string() || name.is_null())
}

enum Told {
    Pong,
    Closed,
    Other,
}

fn check(world: &World, burst: &Burst, (opcode, payload): &(u8, Vec<u8>), pings: u32) -> Told {
    let findings = &world.findings;
    match opcode & 0x0f {
        TEXT => {}
        CLOSE => {
            let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
            let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
            if burst.is_closing {
                findings.count("closes answered with", code);
            } else {
                findings.closed(code, &reason, &burst.payloads);
            }
            if !burst.may_end {
                findings.fault(format!("closed with {code} {reason:?} for nothing"), &burst.payloads);
            }
            return Told::Closed;
        }
        PING | PONG => return Told::Other,
        other => {
            findings.fault(format!("a frame of kind {other}"), &burst.payloads);
            return Told::Closed;
        }
    }
    let Ok(message) = serde_json::from_slice::<Value>(payload) else {
        findings.fault(format!("no JSON: {:?}", String::from_utf8_lossy(payload)), &burst.payloads);
        return Told::Other;
    };
    let kind = message["type"].as_str().unwrap_or("none");
    findings.count("messages", kind);
    match kind {
        "next" => findings.response(&message["payload"], &burst.payloads),
        "error" => match message["payload"].as_array() {
            Some(errors) if !errors.is_empty() => findings.errors(errors, &burst.payloads),
            _ => findings.fault(format!("no errors: {message}"), &burst.payloads),
        },
        "pong" if message["payload"]["fuzz"] == pings => return Told::Pong,
        "pong" | "ping" | "complete" | "connection_ack" => {}
        _ => findings.fault(format!("no message of the protocol: {message}"), &burst.payloads),
    }
    Told::Other
}

impl Burst {
    /// One message, now and then in pieces.
    fn text(&mut self, text: &[u8], rng: &mut StdRng) {
        if !rng.random_ratio(1, 20) {
            return self.frame(LAST | TEXT, text, rng);
        }
        let pieces: Vec<_> = text.chunks(text.len().div_ceil(rng.random_range(1..5)).max(1)).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let kind = if index == 0 { TEXT } else { 0 };
            let last = if index + 1 == pieces.len() { LAST } else { 0 };
            self.frame(last | kind, piece, rng);
            if last == 0 && rng.random_ratio(1, 4) {
                self.frame(LAST | PING, b"between", rng);
            }
        }
    }

    fn frame(&mut self, first: u8, payload: &[u8], rng: &mut StdRng) {
        put(&mut self.bytes, first, payload, rng.random());
        self.payloads.extend_from_slice(payload);
        self.payloads.push(b'\n');
        self.frames += 1;
    }
}

/// A client's frame (RFC 6455, section 5.2).
fn put(bytes: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    bytes.push(first);
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A server's frame: its first byte and its payload.
async fn next_frame(reading: &mut (impl AsyncReadExt + Unpin), read: &mut Vec<u8>) -> anyhow::Result<(u8, Vec<u8>)> {
    loop {
        if let [first, len, ..] = read[..] {
            ensure!(len & 0x80 == 0, "a server's frame is masked");
            let (start, len) = match len {
                126 => (4, read.get(2..4).map(|len| usize::from(u16::from_be_bytes([len[0], len[1]])))),
                127 => (10, read.get(2..10).and_then(|len| Some(u64::from_be_bytes(len.try_into().ok()?) as usize))),
                len => (2, Some(usize::from(len))),
            };
            if let Some(len) = len.filter(|len| read.len() >= start + len) {
                let payload = read[start..start + len].to_vec();
                read.drain(..start + len);
                return Ok((first, payload));
            }
        }
        ensure!(reading.read_buf(read).await? > 0, "the connection was closed");
    }
}
