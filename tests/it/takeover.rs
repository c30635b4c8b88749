//! Servers that have a ledger, and not the engine with which others work on it.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::faults::{PRODUCTS, Record, assert_nothing_lost, load};
use crate::support::redis::RedisServer;
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(a_server_says_in_the_ledger_that_it_works);

/// A server's whole life, with another Redis than the stack's, or none.
async fn serve(stack: &Stack, redis_url: Option<String>) -> Output {
    let mut command = stack.command();
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    match redis_url {
        Some(url) => command.env("REDIS_URL", url),
        None => command.env_remove("REDIS_URL"),
    };
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn takes_likes(server: &Server, user: &str) {
    until("likes are taken", Duration::from_secs(30), async || {
        let answer = server.try_graphql(Some(user), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        answer.get("errors").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_with_an_empty_engine_stops_and_the_two_go_on() {
    let stack = Stack::new(Setup::Servers).await;
    let two = [stack.serve().await, stack.serve().await];
    two[0].with_products(PRODUCTS).await;
    let (record, stop) = (Arc::new(Record::default()), Arc::new(AtomicBool::new(false)));
    let crowds = [0, 1].map(|n| load(&two[n], &record, usize::MAX, &stop, n));
    let answered = || record.answered.load(Ordering::Relaxed);
    until("likes are flowing", Duration::from_secs(60), async || answered() >= 300).await;
    let empty = RedisServer::start();
    for (url, here) in [(Some(empty.url()), "this Redis has nothing"), (None, "this server's memory has nothing")] {
        let output = serve(&stack, url).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let lines: Vec<_> = said.lines().filter(|line| line.contains("other servers work on this ledger")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains(here) && lines[0].contains("set REDIS_URL"), "{said}");
    }
    assert_eq!(redis::from_redis_value::<u64>(empty.command(&["DBSIZE"])).unwrap(), 0, "it left nothing behind");
    let before = answered();
    until("the two go on", Duration::from_secs(30), async || answered() >= before + 300).await;
    stop.store(true, Ordering::Relaxed);
    for crowd in crowds {
        crowd.join_all().await;
    }
    for server in &two {
        assert!(!server.log().contains("must be recovered"), "it was disturbed:\n{}", server.log());
    }
    assert_nothing_lost(&stack, &two[0], &record).await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
}

/// Each sees the other's heartbeat at first, and neither keeps the other out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_whose_redis_was_emptied_go_on_by_themselves() {
    let mut stack = Stack::new(Setup::Servers).await;
    let two = [stack.serve().await, stack.serve().await];
    two[0].with_products(1).await;
    takes_likes(&two[0], "ann").await;
    takes_likes(&two[1], "bob").await;
    stack.redis.as_mut().unwrap().restart_empty();
    takes_likes(&two[0], "cid").await;
    takes_likes(&two[1], "dan").await;
    let epochs: usize = two.iter().map(|server| server.log().matches("an epoch begins").count()).sum();
    assert_eq!(epochs, 2, "one at the start, and one for both");
    until("all likes count", Duration::from_secs(30), async || two[1].ranking(1).await == [("p0".to_owned(), 0.8)])
        .await;
    two[0].assert_verified().await;
}

/// A server that was killed leaves a heartbeat behind; nobody waits for that to move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alone_starts_at_once_on_an_emptied_redis() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    takes_likes(&server, "ann").await;
    server.kill();
    stack.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    let server = stack.serve().await;
    assert!(!server.log().contains("waiting"), "{}", server.log());
    takes_likes(&server, "bob").await;
    until("all likes count", Duration::from_secs(30), async || server.ranking(1).await == [("p0".to_owned(), 0.4)])
        .await;
}

async fn a_server_says_in_the_ledger_that_it_works(setup: Setup) {
    let stack = Stack::new(setup).await;
    let _server = stack.serve().await;
    let beats = async || stack.count("SELECT SUM(beats) FROM heartbeats").await;
    let before = beats().await;
    assert!(before > 0, "before it takes anything");
    until("it goes on saying so", Duration::from_secs(20), async || beats().await >= before + 2).await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM heartbeats").await, 1);
}

/// A copy of the ledger, as for staging, and the first one's Redis by mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_ledger_does_not_take_the_engine_from_the_first() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    takes_likes(&server, "ann").await;
    until("it is committed", Duration::from_secs(30), async || stack.count("SELECT COUNT(*) FROM events").await == 1)
        .await;
    let mut copy = Stack::new(Setup::Servers).await;
    let backup = crate::support::postgres::backup(stack.postgres.as_ref().unwrap());
    backup.restore(copy.postgres.as_ref().unwrap()).await;
    takes_likes(&server, "bob").await;
    until("it is committed", Duration::from_secs(30), async || stack.count("SELECT COUNT(*) FROM events").await == 2)
        .await;
    let url = stack.redis.as_ref().unwrap().url();
    copy.redis_url = Some(url.clone());
    let output = serve(&copy, Some(url)).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another copy of this ledger"), "{said}");
    assert!(!server.log().contains("must be recovered"), "it was disturbed:\n{}", server.log());
    takes_likes(&server, "cid").await;
    server.assert_verified().await;
}

/// How often servers have counted in a ledger by now.
async fn beats(stack: &Stack) -> u64 {
    stack.count("SELECT SUM(beats) FROM heartbeats").await
}

/// Nothing was committed since it was copied, so that the one is like the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_ledger_at_rest_is_told_from_it() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    takes_likes(&server, "ann").await;
    until("it is committed", Duration::from_secs(30), async || stack.count("SELECT COUNT(*) FROM events").await == 1)
        .await;
    let url = stack.redis.as_ref().unwrap().url();
    let mut copy = Stack::new(Setup::Servers).await;
    copy.redis_url = Some(url.clone());
    let backup = crate::support::postgres::backup(stack.postgres.as_ref().unwrap());
    backup.restore(copy.postgres.as_ref().unwrap()).await;
    let copied = beats(&copy).await;
    until("the server goes on", Duration::from_secs(30), async || beats(&stack).await >= copied + 3).await;
    let output = serve(&copy, Some(url.clone())).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = said.lines().filter(|line| line.contains("another copy of this ledger")).count();
    assert_eq!(told, 1, "{said}");
    assert_eq!(beats(&copy).await, copied, "it was never at work");
    assert!(!server.log().contains("must be recovered"), "it was disturbed:\n{}", server.log());
    // One of the first ledger is let in at once, and stays.
    let second = stack.serve().await;
    assert!(!second.log().contains("waiting"), "{}", second.log());
    takes_likes(&second, "bob").await;
    let before = beats(&stack).await;
    until("both look at each other some times", Duration::from_secs(30), async || beats(&stack).await >= before + 6)
        .await;
    for server in [&server, &second] {
        assert!(!server.log().contains("must be recovered"), "{}", server.log());
    }
    // Who takes over is followed by the other.
    drop(server);
    takes_likes(&second, "cid").await;
    until("all is committed", Duration::from_secs(30), async || stack.count("SELECT COUNT(*) FROM events").await == 3)
        .await;
    let third = stack.serve().await;
    takes_likes(&third, "dan").await;
    third.assert_verified().await;
}

/// The copy was made a moment ago, so that its server finds nothing at its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_a_fresh_copy_stops_working_by_itself() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    takes_likes(&server, "ann").await;
    until("it is committed", Duration::from_secs(30), async || stack.count("SELECT COUNT(*) FROM events").await == 1)
        .await;
    let mut copy = Stack::new(Setup::Servers).await;
    copy.redis_url = Some(stack.redis.as_ref().unwrap().url());
    crate::support::postgres::backup(stack.postgres.as_ref().unwrap()).restore(copy.postgres.as_ref().unwrap()).await;
    // As if it had been copied just now.
    let rows = "SELECT node || ' ' || CAST(beats + 2 AS TEXT) AS value FROM heartbeats";
    let row = stack.column(rows).await.remove(0);
    let (node, beats) = row.split_once(' ').unwrap();
    copy.sql(&format!("UPDATE heartbeats SET beats = {beats} WHERE node = '{node}'")).await;
    let other = copy.serve().await;
    let refuses = async || {
        let answer = other.try_graphql(Some("eve"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    };
    until("it takes nothing any more", Duration::from_secs(30), refuses).await;
    until("it says why", Duration::from_secs(30), async || other.log().contains("another copy of this ledger")).await;
    assert!(!server.log().contains("must be recovered"), "it was disturbed:\n{}", server.log());
    takes_likes(&server, "bob").await;
}
