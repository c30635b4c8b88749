//! What one caller, and all of them together, can take of a server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ask::{bearer, code};
use crate::auth::{guarded_with, token};
use crate::support::live::Socket;
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

const LIMIT: Duration = Duration::from_secs(20);
const QUERY: &str = "{ viewer { id } }";
/// 20 requests at once, and 10 a second.
const SMALL: [&str; 4] = ["--budget", "100", "--budget-burst", "200"];

/// Status, the header Retry-After, and the body, of a request that a proxy has passed on.
async fn forwarded(server: &Server, from: &str, token: Option<&str>) -> (u16, Option<u64>, Value) {
    let request = server.http.post(format!("{}/graphql", server.url)).header("x-forwarded-for", from);
    let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
    let response = request.json(&json!({ "query": QUERY })).send().await.unwrap();
    let after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
    (response.status().as_u16(), after, response.json().await.unwrap())
}

/// Asks until it is refused, and says after how many answers.
async fn exhausted(server: &Server, from: &str, token: Option<&str>) -> (usize, Value) {
    for answers in 0..200 {
        let (status, after, body) = forwarded(server, from, token).await;
        if status != 200 {
            assert_eq!((status, code(&body)), (429, Some("RATE_LIMITED")), "{body}");
            let after_ms = body["errors"][0]["extensions"]["retryAfterMs"].as_u64().unwrap();
            assert_eq!(after, Some(after_ms.div_ceil(1_000)), "{body}");
            return (answers, body);
        }
    }
    panic!("{from} is never refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_has_a_budget_of_its_own() {
    let (stack, server) = guarded_with(&[&SMALL[..], &["--trusted-proxy", "127.0.0.1"]].concat()).await;
    let (ann, shop) = (token(&stack, "ann", &["user"]), token(&stack, "shop", &["ingest"]));
    let (answers, refused) = exhausted(&server, "203.0.113.7", None).await;
    assert!((20..100).contains(&answers), "{answers}");
    // What stands left of it is what the client made up.
    assert_eq!(forwarded(&server, "1.1.1.1, 203.0.113.7", None).await.0, 429);
    for (from, token) in [("203.0.113.8", None), ("2001:db8::1", None), ("203.0.113.7", Some(&*ann))] {
        assert_eq!(forwarded(&server, from, token).await.0, 200, "{from}");
    }
    exhausted(&server, "2001:db8::1", None).await;
    assert_eq!(forwarded(&server, "2001:db8::2", None).await.0, 429, "it is of the same network");
    exhausted(&server, "203.0.113.9", Some(&ann)).await;
    assert_eq!(forwarded(&server, "203.0.113.10", Some(&ann)).await.0, 429, "a user is the same everywhere");
    for _ in 0..100 {
        assert_eq!(forwarded(&server, "203.0.113.7", Some(&shop)).await.0, 200, "a shop has ten times as much");
    }
    // To find out that a token is none has its price too.
    let bad = async || forwarded(&server, "203.0.113.11", Some("nonsense")).await.0;
    assert_eq!(bad().await, 401);
    until("bad tokens are not looked at for ever", LIMIT, async || bad().await == 429).await;

    let mut socket = Socket::connect(&server.url, bearer(Some(&ann))).await;
    let mut refusal = None;
    for id in 0..100 {
        socket.send(json!({ "id": id.to_string(), "type": "subscribe", "payload": { "query": QUERY } })).await;
        let answer = socket.receive().await;
        match answer["type"].as_str() {
            Some("next") => assert_eq!(socket.receive().await["type"], "complete"),
            _ => refusal = Some(answer),
        }
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.expect("a socket's operations are charged too");
    let told = &refusal["payload"][0]["extensions"];
    assert!(told["code"] == "RATE_LIMITED" && told["retryAfterMs"].as_u64() > Some(0), "{refusal}");

    let wait_ms = refused["errors"][0]["extensions"]["retryAfterMs"].as_u64().unwrap();
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    assert_eq!(forwarded(&server, "203.0.113.7", None).await.0, 200, "it fills again");
    let metrics = server.http.get(format!("{}/metrics", server.url)).bearer_auth(token(&stack, "p", &["metrics"]));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(crate::support::metric(&metrics, "acclaim_limited_total{limit=\"budget\"}") > Some(4.0), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_peer_stands_for_nobody() {
    let (_stack, server) = guarded_with(&SMALL).await;
    for _ in 0..100 {
        assert_eq!(forwarded(&server, "203.0.113.7", None).await.0, 200);
    }
}

/// A POST whose body has come but for its last byte.
async fn slow(server: &Server, len: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n"
    );
    // Who is refused early finds the connection gone.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&vec![b' '; len - 1]).await;
    stream
}

async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut head = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut head)).await.expect("an answer in time").ok()?;
    std::str::from_utf8(&head[9..]).unwrap().parse().ok()
}

async fn metric(server: &Server, name: &str) -> f64 {
    server.metric(name).await.unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_hold_a_part_of_the_memory() {
    let (_stack, server) = guarded_with(&["--metrics", "anyone"]).await;
    let before = metric(&server, "process_resident_memory_bytes").await;
    let bodies = futures_util::future::join_all((0..400).map(|_| slow(&server, 1 << 20))).await;
    until("all were read or refused", LIMIT, async || {
        metric(&server, "acclaim_limited_total{limit=\"bodies\"}").await >= 380.0
    })
    .await;
    let (held, after) =
        (metric(&server, "acclaim_bodies_bytes").await, metric(&server, "process_resident_memory_bytes").await);
    assert!(held > 1e6 && held <= f64::from(16 << 20), "{held}");
    assert!(after - before < 100e6, "{before} to {after}");
    assert_eq!(forwarded(&server, "x", None).await.0, 200, "a click is a small body");
    drop(bodies);
    until("what they held is given back", LIMIT, async || metric(&server, "acclaim_bodies_bytes").await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_connections_have_their_number() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = ["--in-flight-max", "3", "--connections-max", "12"].map(ToString::to_string).to_vec();
    let server = stack.serve().await;
    let busy = [slow(&server, 100).await, slow(&server, 100).await, slow(&server, 100).await];
    let ask =
        async || server.http.post(format!("{}/graphql", server.url)).json(&json!({ "query": QUERY })).send().await;
    let mut refused = Value::Null;
    until("three are under way", LIMIT, async || {
        let response = ask().await.unwrap();
        let (status, after) = (response.status(), response.headers().get("retry-after").cloned());
        refused = response.json().await.unwrap();
        status == 503 && after.is_some()
    })
    .await;
    assert_eq!(code(&refused), Some("UNAVAILABLE"), "{refused}");
    assert_eq!(refused["errors"][0]["extensions"]["limit"], "requestsInFlight", "{refused}");
    let mut socket = Socket::connect(&server.url, json!({})).await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": QUERY } })).await;
    assert_eq!(socket.receive().await["payload"][0]["extensions"]["code"], "UNAVAILABLE");
    socket
        .send(
            json!({ "id": "2", "type": "subscribe", "payload": { "query": "subscription { boardChanges { seq } }" } }),
        )
        .await;
    assert_eq!(socket.receive().await["type"], "next", "what is bounded otherwise is not counted");
    drop(busy);
    until("there is room again", LIMIT, async || ask().await.is_ok_and(|answer| answer.status() == 200)).await;

    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap());
    }
    let mut last = slow(&server, 10).await;
    assert_eq!(status(&mut last).await, None, "it is closed at once");
    held.clear();
    until("others are let in", LIMIT, async || {
        let mut stream = slow(&server, 1 << 10).await;
        stream.write_all(b"x").await.is_ok() && status(&mut stream).await == Some(400)
    })
    .await;
    assert!(metric(&server, "acclaim_limited_total{limit=\"connections\"}").await > 0.0);
}
