//! Documents through the HTTP entry point: connections that are kept, with several requests in flight on each.
//!
//! Requests that HTTP itself refuses stand at a connection's end, since nothing can follow them.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_graphql::Value as GqlValue;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::World;
use crate::findings::Findings;
use crate::grammar::{Operation, Root};
use crate::mutate;
use crate::values::Soundness;

/// Requests in flight on a connection.
const PIPELINED_MAX: usize = 16;
/// Batches on a connection before the next one is opened.
const BATCHES: usize = 60;
/// The server answers everything within 15 s, or says that it can't.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// With these a request is refused before its body is read, or all of it. Where the body is still on its way then, the connection is closed,
/// and what was sent behind it has to be sent again.
const UNREAD: [u16; 6] = [401, 404, 405, 406, 413, 415];
/// Statuses that the README names, and those that HTTP itself needs.
const STATUSES: [u16; 13] = [200, 400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 429, 503];

struct Sent {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    /// Answered without a body.
    Head,
    /// An event stream, which is left after its first bytes.
    Stream,
    /// No request by HTTP: an answer may come or not, but the connection ends.
    Broken,
}

/// Sends `count` documents.
pub async fn run(world: &World, count: usize, mut rng: StdRng) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        let mut connection = Connection::open(world).await?;
        for _ in 0..BATCHES {
            let wanted = rng.random_range(1..=PIPELINED_MAX).min(left);
            let mut batch: Vec<Sent> = Vec::with_capacity(wanted);
            while batch.len() < wanted && batch.last().is_none_or(|last| matches!(last.kind, Kind::Whole | Kind::Head))
            {
                batch.push(request(world, &mut rng));
            }
            let (taken, goes_on) = connection.exchange(world, &batch, &mut rng).await;
            left -= taken;
            Findings::add(&world.findings.documents, taken);
            if !goes_on || left == 0 || world.findings.has_failed() {
                break;
            }
        }
        if world.findings.has_failed() {
            return Ok(());
        }
    }
    Ok(())
}

struct Connection {
    socket: TcpStream,
    /// What was read and belongs to the next answer.
    read: Vec<u8>,
    /// Of the answer before, and when it came.
    status: u16,
    answered_at: Instant,
}

impl Connection {
    async fn open(world: &World) -> anyhow::Result<Self> {
        Findings::add(&world.findings.connections, 1);
        let socket = TcpStream::connect(world.address).await.context("the server takes no connection")?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, read: Vec::new(), status: 0, answered_at: Instant::now() })
    }

    /// Sends a batch at once and checks each answer; how many requests were taken, and whether the connection can go on.
    async fn exchange(&mut self, world: &World, batch: &[Sent], rng: &mut StdRng) -> (usize, bool) {
        let bytes: Vec<u8> = batch.iter().flat_map(|sent| sent.bytes.iter().copied()).collect();
        let Self { socket, read, status, answered_at } = self;
        let (mut reading, mut writing) = socket.split();
        let is_broken = batch.last().is_some_and(|last| last.kind == Kind::Broken);
        // Answers are read meanwhile: a server that can't write would not read either.
        let write = async {
            let written = writing.write_all(&bytes).await;
            if is_broken {
                writing.shutdown().await.ok();
            }
            written
        };
        let answers = async {
            for (taken, sent) in batch.iter().enumerate() {
                let answer = timeout(ANSWER_TIME_MAX, answer(&mut reading, read, sent.kind)).await;
                match answer {
                    Err(_) => {
                        world.findings.fault("no answer in time", &sent.bytes);
                        return (taken, false);
                    }
                    Ok(Err(error)) => {
                        let is_left_unread = UNREAD.contains(status);
                        if sent.kind != Kind::Broken && !is_left_unread {
                            let silent_ms = answered_at.elapsed().as_millis();
                            let what = format!("no answer, {silent_ms} ms after one with {status}: {error:#}");
                            world.findings.fault(what, &sent.bytes);
                        }
                        return (taken + usize::from(!is_left_unread), false);
                    }
                    Ok(Ok(answer)) => {
                        check(world, sent, &answer, rng);
                        if answer.closes || !matches!(sent.kind, Kind::Whole | Kind::Head) {
                            return (taken + 1, false);
                        }
                        (*status, *answered_at) = (answer.status, Instant::now());
                    }
                }
            }
            (batch.len(), true)
        };
        let (written, (taken, goes_on)) = tokio::join!(write, answers);
        (taken, goes_on && written.is_ok())
    }
}

struct Answer {
    status: u16,
    content_type: String,
    has_id: bool,
    closes: bool,
    body: Vec<u8>,
}

async fn more(reading: &mut (impl AsyncReadExt + Unpin), read: &mut Vec<u8>) -> anyhow::Result<()> {
    let count = reading.read_buf(read).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => anyhow::anyhow!("the connection was reset"),
        _ => error.into(),
    })?;
    ensure!(count > 0, "the connection was closed");
    Ok(())
}

async fn answer(reading: &mut (impl AsyncReadExt + Unpin), read: &mut Vec<u8>, kind: Kind) -> anyhow::Result<Answer> {
    let end = loop {
        match read.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at,
            None => more(reading, read).await?,
        }
    };
    let head = std::str::from_utf8(&read[..end]).context("the head is no text")?.to_owned();
    read.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status: u16 = status.with_context(|| format!("no answer of HTTP/1.1: {head:?}"))?;
    let field = |wanted: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let content_type = field("content-type").unwrap_or_default();
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (has_id, mut body) = (field("x-request-id").is_some(), Vec::new());
    match field("content-length") {
        _ if kind == Kind::Head => {}
        Some(length) => {
            let length: usize = length.parse().context("the length is no number")?;
            while read.len() < length {
                more(reading, read).await?;
            }
            body = read.drain(..length).collect();
        }
        None if kind == Kind::Stream && read.is_empty() => more(reading, read).await?,
        None if kind == Kind::Stream => {}
        None => bail!("an answer without a length: {head:?}"),
    }
    Ok(Answer { status, content_type, has_id, closes, body })
}

fn check(world: &World, sent: &Sent, answer: &Answer, rng: &mut StdRng) {
    let findings = &world.findings;
    findings.count("statuses", answer.status);
    match sent.kind {
        // Hyper's own refusals have no body.
        Kind::Broken => {
            if answer.status >= 500 && answer.status != 503 {
                findings.fault(format!("{} to a broken request", answer.status), &sent.bytes);
            }
            return;
        }
        Kind::Stream if answer.status == 200 => {
            if !answer.content_type.starts_with("text/event-stream") {
                findings.fault(format!("a stream of {:?}", answer.content_type), &sent.bytes);
            }
            return;
        }
        Kind::Head => return,
        Kind::Whole | Kind::Stream => {}
    }
    let body = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(body) if answer.content_type.contains("json") && answer.has_id => body,
        _ => {
            let body = String::from_utf8_lossy(&answer.body);
            let Answer { status, content_type, .. } = answer;
            return findings.fault(format!("{status} with {content_type:?}, which is no JSON: {body:?}"), &sent.bytes);
        }
    };
    let code = body["errors"][0]["extensions"]["code"].as_str();
    if !STATUSES.contains(&answer.status) || (answer.status >= 500 && code != Some("UNAVAILABLE")) {
        findings.fault(format!("{} with {body}", answer.status), &sent.bytes);
    }
    findings.response(&body, &sent.bytes);
    world.grammar.learn(&body, rng);
}

// ------------------------------------------------------------ what is sent

/// What a document may look like on either way: by the grammar, and in a third of cases changed afterwards.
pub fn operation(world: &World, root: Root, rng: &mut StdRng) -> Operation {
    let soundness = if rng.random_bool(0.6) { Soundness::Sound } else { Soundness::Wild };
    let mut operation = world.grammar.operation(root, soundness, rng);
    if rng.random_bool(0.3) {
        operation.document = mutate::text(&operation.document, rng);
    }
    operation
}

/// As a request's JSON.
pub fn parameters(operation: &Operation, rng: &mut StdRng) -> Value {
    let mut parameters = json!({ "query": operation.document });
    let variables = serde_json::to_value(&operation.variables).unwrap_or_default();
    if operation.variables != GqlValue::Object(Default::default()) || rng.random_bool(0.1) {
        parameters["variables"] = variables;
    }
    if let Some(name) = &operation.name {
        parameters["operationName"] = json!(name);
    }
    if rng.random_ratio(1, 40) {
        let hash = match rng.random_bool(0.7) {
            true => hex::encode(Sha256::digest(&operation.document)),
            false => format!("{:064x}", rng.random_range(0..20_u32)),
        };
        if rng.random_bool(0.3) {
            parameters.as_object_mut().map(|parameters| parameters.remove("query"));
        }
        let version = if rng.random_bool(0.9) { 1 } else { rng.random_range(0..3) };
        parameters["extensions"] = json!({ "persistedQuery": { "version": version, "sha256Hash": hash } });
    }
    if rng.random_ratio(1, 60) {
        let odd = [json!(null), json!(1), json!([]), json!("x"), json!({ "a": { "b": [1e300] } }), json!(u64::MAX)];
        let name =
            ["query", "variables", "operationName", "extensions", "extra"].choose(rng).copied().unwrap_or("extra");
        parameters[name] = odd.choose(rng).cloned().unwrap_or_default();
    }
    parameters
}

fn request(world: &World, rng: &mut StdRng) -> Sent {
    let root = if rng.random_bool(0.68) { Root::Query } else { Root::Mutation };
    let root = if rng.random_ratio(1, 50) { Root::Subscription } else { root };
    let operation = operation(world, root, rng);
    let authorization = authorization(world, rng);
    let accept = [
        "",
        "",
        "",
        "accept: application/json\r\n",
        "accept: application/graphql-response+json\r\n",
        "accept: */*\r\n",
        "accept: text/html;q=0.9, application/graphql-response+json;q=0.1\r\n",
    ];
    let odd = ["accept: image/png\r\n", "accept: ;;;\r\n", "accept: application/json;q=0\r\n"];
    let accept = if rng.random_ratio(1, 60) { odd.choose(rng) } else { accept.choose(rng) };
    let accept = accept.copied().unwrap_or_default();
    let host = world.address;
    let parameters = parameters(&operation, rng);
    if rng.random_bool(0.1) {
        let method = ["GET", "GET", "GET", "GET", "HEAD"].choose(rng).copied().unwrap_or("GET");
        let mut pairs = Vec::new();
        for (name, value) in parameters.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pairs.push(format!("{name}={}", encoded(&text)));
        }
        let mut address = pairs.join("&");
        // A head has to fit into 32 KB.
        address.truncate(24_000);
        let bytes = format!("{method} /graphql?{address} HTTP/1.1\r\nhost: {host}\r\n{authorization}{accept}\r\n");
        return Sent { bytes: bytes.into_bytes(), kind: if method == "HEAD" { Kind::Head } else { Kind::Whole } };
    }
    let mut body = serde_json::to_vec(&parameters).unwrap_or_default();
    if rng.random_bool(0.2) {
        body = mutate::bytes(&body, rng);
    }
    if rng.random_ratio(1, 3_000) {
        body.resize([900_000, (1 << 20) + 1, 2 << 20].choose(rng).copied().unwrap_or(0), b' ');
    }
    let (mut path, mut accept, mut kind) = ("/graphql", accept, Kind::Whole);
    if rng.random_ratio(1, 150) {
        (path, accept, kind) = ("/graphql/stream", "accept: text/event-stream\r\n", Kind::Stream);
    }
    let method = if rng.random_ratio(1, 200) { "PUT" } else { "POST" };
    let content_type = match rng.random_range(0..60) {
        0 => "content-type: text/plain\r\n",
        1 => "content-type: application/json; charset=latin1\r\n",
        2 => "content-type: application/x-www-form-urlencoded\r\n",
        3 => "",
        _ => "content-type: application/json\r\n",
    };
    let length = format!("content-length: {}\r\n", body.len());
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}{accept}{content_type}{length}\r\n")
            .into_bytes();
    if rng.random_ratio(1, 80) {
        // The head itself, with whatever that does to the body's place.
        let mut broken = mutate::bytes(&bytes, rng);
        broken.extend_from_slice(&body[..rng.random_range(0..=body.len())]);
        return Sent { bytes: broken, kind: Kind::Broken };
    }
    bytes.extend_from_slice(&body);
    Sent { bytes, kind }
}

fn authorization(world: &World, rng: &mut StdRng) -> String {
    match rng.random_range(0..100) {
        0..15 => String::new(),
        15..18 => {
            let token = world.tokens.choose(rng).cloned().unwrap_or_default();
            let broken = mutate::text(&token, rng).replace(|c: char| !c.is_ascii_graphic(), "?");
            format!("authorization: Bearer {broken}\r\n")
        }
        18 => "authorization: Basic eDp5\r\n".to_owned(),
        _ => format!("authorization: Bearer {}\r\n", world.tokens.choose(rng).cloned().unwrap_or_default()),
    }
}

/// As a value in an address.
fn encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
