//! What one caller, and all of them together, can take of a server.

use std::time::Duration;

use diesel::Connection;
use diesel::connection::SimpleConnection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::ask::{bearer, code};
use crate::auth::{guarded_with, token};
use crate::support::live::Socket;
use crate::support::redis::RedisServer;
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
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
    let page = async || {
        let request = server.http.get(format!("{}/graphiql", server.url)).header("x-forwarded-for", "203.0.113.12");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(page().await, 200);
    until("pages are charged too", LIMIT, async || page().await == 429).await;
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
    assert!(!server.log().contains("--trusted-proxy"));
    for _ in 0..100 {
        assert_eq!(forwarded(&server, "203.0.113.7", None).await.0, 200);
    }
    assert_eq!(server.log().matches("--trusted-proxy").count(), 1, "{}", server.log());
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
    let held = metric(&server, "acclaim_bodies_bytes").await;
    assert!(held > 1e6 && held <= f64::from(16 << 20), "{held}");
    // What was freed goes back to the system a moment later.
    until("all else is given back", LIMIT, async || {
        metric(&server, "process_resident_memory_bytes").await - before < 100e6
    })
    .await;
    assert_eq!(forwarded(&server, "x", None).await.0, 200, "a click is a small body");
    drop(bodies);
    until("what they held is given back", LIMIT, async || metric(&server, "acclaim_bodies_bytes").await == 0.0).await;
}

/// What is the same for everybody is nobody's to pay for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_on_for_a_viewer_alone_is_paid_for() {
    let (stack, server) = guarded_with(&["--budget", "60", "--budget-burst", "400"]).await;
    let shop = token(&stack, "shop", &["ingest"]);
    let call = async |query: String| {
        let request = server.http.post(format!("{}/graphql", server.url)).bearer_auth(&shop);
        let answer = request.json(&json!({ "query": query })).send().await.unwrap().json::<Value>().await.unwrap();
        assert!(answer["errors"].is_null(), "{answer}");
    };
    call("mutation { upsertProducts(input: { products: [{ id: \"p\", name: \"P\" }] }) { upserted } }".to_owned())
        .await;
    let view = |n: u32| {
        call(format!(
            "mutation {{ recordEvents(input: {{ events: [{{ id: \"e{n}\", signal: VIEW, productId: \"p\" }}] }}) {{ recorded }} }}"
        ))
    };
    view(0).await;
    let mut socket = Socket::connect(&server.url, bearer(Some(&token(&stack, "ann", &["user"])))).await;
    for (id, of_product) in [("own", "product { like { viewerHasLiked } }"), ("all", "product { name }")] {
        let query = format!(
            "subscription {{ boardChanges(top: 100, maxRate: 100) {{ ... on BoardSnapshot {{ entries {{ score {of_product} }} }} \
             ... on BoardDelta {{ changes {{ score {of_product} }} }} }} }}"
        );
        socket.send(json!({ "id": id, "type": "subscribe", "payload": { "query": query } })).await;
    }
    let (mut own, mut all, mut last_own) = (0, 0, 0.0);
    let moving = async {
        for n in 1..=40 {
            view(n).await;
            // Longer than it takes to publish a state.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let hearing = async {
        // 41 views of 0.1 each: whoever is told less often is told the same in the end.
        while last_own < 4.05 {
            let message = socket.receive().await;
            let changed = &message["payload"]["data"]["boardChanges"];
            let score =
                [&changed["changes"][0]["score"], &changed["entries"][0]["score"]].into_iter().find_map(Value::as_f64);
            match message["id"].as_str() {
                Some("own") => (own, last_own) = (own + 1, score.unwrap_or(last_own)),
                Some("all") => all += 1,
                _ => {}
            }
        }
    };
    timeout(LIMIT, async { tokio::join!(moving, hearing) }).await.expect("all is told in the end");
    assert!(own < all * 2 / 3 && all > 10, "{own} of {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_a_subscription_is_not_kept() {
    let (_stack, server) = open(&["--metrics", "anyone"]).await;
    let junk = "x".repeat(900_000);
    let body = json!({ "query": "subscription { boardChanges { seq } }", "variables": { "junk": junk } }).to_string();
    let stream = async || {
        let request = server.http.post(format!("{}/graphql/stream", server.url)).header("accept", "text/event-stream");
        let mut response = request.header("content-type", "application/json").body(body.clone()).send().await.unwrap();
        assert!(response.chunk().await.unwrap().is_some(), "it has begun");
        response
    };
    let mut streams = vec![stream().await];
    let before = metric(&server, "process_resident_memory_bytes").await;
    for _ in 0..200 {
        streams.push(stream().await);
    }
    // 180 MB came with them.
    until("it is given back", LIMIT, async || {
        metric(&server, "acclaim_subscriptions").await == 201.0
            && metric(&server, "process_resident_memory_bytes").await - before < 120e6
    })
    .await;
}

async fn open(arguments: &[&str]) -> (Stack, Server) {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = arguments.iter().map(ToString::to_string).collect();
    let server = stack.serve().await;
    (stack, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_have_their_number() {
    let (stack, server) = open(&["--in-flight-max", "3"]).await;
    server.with_products(1).await;
    let mut ledger = diesel::SqliteConnection::establish(stack.sqlite_file().to_str().unwrap()).unwrap();
    ledger.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    // Whoever only sends takes no place.
    let _senders = [slow(&server, 100).await, slow(&server, 100).await, slow(&server, 100).await];
    let query = async || {
        let response = server.http.post(format!("{}/graphql", server.url)).json(&json!({ "query": QUERY })).send();
        let response = response.await.unwrap();
        let after = response.headers().get("retry-after").cloned();
        (response.status().as_u16(), after.is_some(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(query().await.0, 200);
    let likes = async {
        let like = |user: &'static str| server.try_graphql(Some(user), TOGGLE, json!({ "product": "p0" }));
        tokio::join!(like("ann"), like("bob"), like("eve"))
    };
    let refused = async {
        let mut refused = Value::Null;
        until("three likes wait for the ledger", LIMIT, async || {
            let (status, after, body) = query().await;
            refused = body;
            (status, after) == (503, true)
        })
        .await;
        assert_eq!(code(&refused), Some("UNAVAILABLE"), "{refused}");
        assert_eq!(refused["errors"][0]["extensions"]["limit"], "requestsInFlight", "{refused}");
        let mut socket = Socket::connect(&server.url, json!({})).await;
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": QUERY } })).await;
        assert_eq!(socket.receive().await["payload"][0]["extensions"]["code"], "UNAVAILABLE");
        let live = "subscription { boardChanges { seq } }";
        socket.send(json!({ "id": "2", "type": "subscribe", "payload": { "query": live } })).await;
        assert_eq!(socket.receive().await["type"], "next", "what is bounded otherwise is not counted");
        ledger.batch_execute("ROLLBACK").unwrap();
    };
    let ((ann, bob, eve), ()) = tokio::join!(likes, refused);
    for answer in [ann, bob, eve].map(Result::unwrap) {
        assert_eq!(answer["data"]["toggleLike"]["liked"], true, "{answer}");
    }
    assert_eq!(query().await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_their_number() {
    let (_stack, server) = open(&["--connections-max", "12"]).await;
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

/// How often Redis was asked for its memory.
fn asked(redis: &RedisServer) -> u64 {
    let stats = redis.ask(&["INFO", "commandstats"]).unwrap();
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_info:calls=")?.split(',').next()?.parse().ok());
    calls.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_whether_a_server_is_ready_shares_one_look() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    let redis = stack.redis.as_ref().unwrap();
    let (before, began) = (asked(redis), Instant::now());
    let ready = async || server.http.get(format!("{}/readyz", server.url)).send().await.unwrap().status();
    for _ in 0..10 {
        let answers = futures_util::future::join_all((0..50).map(|_| ready())).await;
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    }
    // The server looks at Redis's memory for itself as well.
    let most = 10 + 5 * began.elapsed().as_secs();
    assert!(asked(redis) - before <= most, "{} looks for 500 questions", asked(redis) - before);
}
