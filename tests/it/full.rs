//! A Redis that has come to its `maxmemory`: it says so, refuses likes and events, and comes back by itself once there is
//! room, which the server makes where the journal has filled it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::postgres::{self, Stop};
use crate::support::redis::RedisServer;
use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

const TIME_MAX: Duration = Duration::from_secs(60);
/// What is left to be filled.
const ROOM: u64 = 3 << 20;

fn used(redis: &RedisServer) -> u64 {
    let info = redis.ask(&["INFO", "memory"]).unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

fn leave_room(redis: &RedisServer) {
    redis.command(&["CONFIG", "SET", "maxmemory", &(used(redis) + ROOM).to_string()]);
}

/// The code and reason of a failure; null where there is none.
fn failure(answer: &Value) -> (Value, Value) {
    let told = &answer["errors"][0]["extensions"];
    (told["code"].clone(), told["reason"].clone())
}

fn full() -> (Value, Value) {
    (json!("UNAVAILABLE"), json!("FULL"))
}

async fn events(server: &Server, from: usize, count: usize) -> Value {
    let event =
        |n: usize| json!({ "id": format!("event-{n:020}"), "signal": "VIEW", "productId": format!("p{}", n % 5) });
    let events: Vec<_> = (from..from + count).map(event).collect();
    server.try_graphql(Some("shop"), RECORD, json!({ "events": events })).await.unwrap()
}

async fn readiness(server: &Server) -> (u16, Value) {
    let answer = server.http.get(format!("{}/readyz", server.url)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn status(server: &Server) -> Value {
    let query = "{ admin { system { engine { up full usedBytes maxBytes } pending deadLetters } } }";
    server.graphql("admin", query, json!({})).await["admin"]["system"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_others_have_filled_is_told_as_full_and_comes_back() {
    let stack = Stack::new(Setup::Servers).await;
    let redis = stack.redis.as_ref().unwrap();
    let server = stack.serve().await;
    until("it leads", TIME_MAX, async || server.metric("acclaim_leading").await == Some(1.0)).await;
    let other = stack.serve().await;
    server.with_products(5).await;
    until("a like is taken", TIME_MAX, async || {
        let variables = json!({ "product": "p0", "key": "key-1" });
        let liked = server.try_graphql(Some("ann"), TOGGLE, variables).await.unwrap();
        liked["data"]["toggleLike"]["durability"] == "COMMITTED"
    })
    .await;
    assert_eq!(status(&server).await["engine"]["full"], false);
    leave_room(redis);
    let value = "x".repeat(64 << 10);
    let mut foreign = 0;
    while redis.ask(&["SET", &format!("foreign:{foreign}"), &value]).is_ok() {
        foreign += 1;
    }
    // What a client's buffer gives back must be no room for a few.
    redis.command(&["CONFIG", "SET", "maxmemory", &(used(redis) - (256 << 10)).to_string()]);

    until("likes are refused as full", TIME_MAX, async || {
        let like = server.try_graphql(Some("ann"), TOGGLE, json!({ "product": "p1" })).await.unwrap();
        failure(&like) == full()
    })
    .await;
    until("and so are events", TIME_MAX, async || failure(&events(&server, 0, 10).await) == full()).await;
    until("what was answered is told again", TIME_MAX, async || {
        let variables = json!({ "product": "p0", "key": "key-1" });
        let replayed = server.try_graphql(Some("ann"), TOGGLE, variables).await.unwrap()["data"]["toggleLike"].clone();
        (&replayed["liked"], &replayed["changed"]) == (&json!(true), &json!(false))
    })
    .await;
    let engine = status(&server).await["engine"].clone();
    assert_eq!((&engine["up"], &engine["full"]), (&json!(true), &json!(true)), "{engine}");
    assert!(engine["usedBytes"].as_u64() >= engine["maxBytes"].as_u64(), "{engine}");
    until("it is not ready, and says why", TIME_MAX, async || {
        let (code, body) = readiness(&server).await;
        (code, &body["engine"]) == (503, &json!({ "kind": "redis", "up": true, "full": true }))
    })
    .await;
    until("metrics say so", TIME_MAX, async || server.metric("acclaim_engine_full").await == Some(1.0)).await;
    assert!(server.metric("acclaim_engine_max_bytes").await > Some(0.0));
    let doctor = stack.command().arg("doctor").output().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("fail  Redis memory") && doctor.contains("full"), "{doctor}");
    // Well over the time for which a lease is taken: it is renewed, so that what frees memory goes on.
    tokio::time::sleep(Duration::from_secs(4)).await;
    until("a server leads", TIME_MAX, async || server.metric("acclaim_leading").await == Some(1.0)).await;
    assert!(!server.log().contains("could not be renewed"), "{}", server.log());

    // Another one takes the lead while it is full.
    server.kill();
    until("the other one leads", TIME_MAX, async || other.metric("acclaim_leading").await == Some(1.0)).await;
    assert_eq!(status(&other).await["engine"]["full"], true);
    let server = other;

    redis.command(&["EVAL", "return redis.call('UNLINK', unpack(redis.call('KEYS', 'foreign:*')))", "0"]);
    until("likes are taken", TIME_MAX, async || {
        let like = server.try_graphql(Some("ann"), TOGGLE, json!({ "product": "p2", "key": "key-2" })).await.unwrap();
        like["data"]["toggleLike"]["durability"] == "COMMITTED"
    })
    .await;
    until("it is ready", TIME_MAX, async || readiness(&server).await.0 == 200).await;
    server.assert_verified().await;
}

/// Nothing of what leads to free memory may need any: leases, announcements, boards' cursors, the trim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_its_own_journal_has_filled_drains_and_frees_itself() {
    let postgres = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let mut stack = Stack::new(Setup::Servers).await;
    stack.postgres = Some(postgres.url("postgres"));
    stack.ack_timeout_ms = 250;
    let redis = stack.redis.as_ref().unwrap();
    let server = stack.serve().await;
    server.with_products(5).await;
    let mut recorded = 0;
    let mut record = async |server: &Server| {
        loop {
            let answer = events(server, recorded, 100).await;
            let told = &answer["data"]["recordEvents"];
            if told.is_object() {
                // What was sent before may have been written, on a machine where answers come late.
                assert_eq!(told["rejected"], 0, "{answer}");
                recorded += 100;
                return None;
            }
            if failure(&answer) == full() {
                return Some(full());
            }
            assert_eq!(failure(&answer).0, "UNAVAILABLE", "{answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(record(&server).await, None);
    until("a like is taken", TIME_MAX, async || {
        let variables = json!({ "product": "p0", "key": "key-1" });
        server.try_graphql(Some("ann"), TOGGLE, variables).await.unwrap().get("errors").is_none()
    })
    .await;
    leave_room(redis);
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.stop(Stop::Fast);
        postgres
    })
    .await
    .unwrap();
    until("it is full", TIME_MAX, async || record(&server).await == Some(full())).await;
    // The boards follow all the same.
    until("boards have folded what is there", TIME_MAX, async || {
        server.metric("acclaim_projection_lag_entries").await == Some(0.0)
    })
    .await;
    assert!(server.metric("acclaim_journal_entries{partition=\"0\"}").await > Some(0.0));
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.start_again();
        postgres
    })
    .await
    .unwrap();
    until("everything is in the ledger", TIME_MAX, async || status(&server).await["pending"] == 0).await;
    until("there is room again", TIME_MAX, async || !status(&server).await["engine"]["full"].as_bool().unwrap()).await;
    until("events are taken", TIME_MAX, async || record(&server).await.is_none()).await;
    until("all of them are there", TIME_MAX, async || {
        stack.count("SELECT COUNT(*) FROM events").await == recorded as u64 + 1
    })
    .await;
    assert_eq!(status(&server).await["deadLetters"], 0);
    server.assert_verified().await;
    drop(server);
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}
