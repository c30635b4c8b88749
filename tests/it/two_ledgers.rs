//! Servers with ledgers of their own that are pointed to one Redis, under one prefix.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::live::Socket;
use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

/// Two ledgers, and the first one's Redis for both.
async fn stacks() -> (Stack, Stack) {
    let first = Stack::new(Setup::Servers).await;
    let mut second = Stack::new(Setup::Servers).await;
    second.redis_url = first.redis.as_ref().map(|redis| redis.url());
    (first, second)
}

/// What `acclaim` says on both ways, and whether it ends well.
fn run(stack: &Stack, arguments: &[&str]) -> (String, bool) {
    let output = stack.command().args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (said, output.status.success())
}

/// Lines that say that the Redis is another ledger's.
fn refusals(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains("another ledger's likes")).collect()
}

async fn assert_commits(server: &Server, user: &str) {
    let liked = server.toggle(user, "p0", None).await;
    assert_eq!((&liked["liked"], &liked["durability"]), (&json!(true), &json!("COMMITTED")));
}

async fn is_refused(server: &Server) -> bool {
    let answer = server.try_graphql(Some("cat"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
    answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_is_refused_in_one_line_and_the_first_goes_on() {
    let (first, mut second) = stacks().await;
    let server = first.serve().await;
    server.with_products(1).await;
    assert_commits(&server, "ann").await;

    let (said, is_well) = run(&second, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well);
    let lines = refusals(&said);
    assert_eq!(lines.len(), 1, "{said}");
    for words in ["--redis-prefix", "DATABASE_URL", "redis-cli", "'acc:*'"] {
        assert!(lines[0].contains(words), "{words} is not in {said}");
    }
    let (said, is_well) = run(&second, &["doctor"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
    assert!(refusals(&said)[0].starts_with("fail  Redis's ledger"), "{said}");
    let (said, is_well) = run(&second, &["doctor", "--database-url", "sqlite://yet-to-come.db"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
    let (said, is_well) = run(&first, &["doctor"]);
    assert!(is_well && said.contains("Redis's ledger"), "{said}");

    assert!(!server.log().contains("must be recovered"), "it was not disturbed:\n{}", server.log());
    assert_commits(&server, "bob").await;
    assert_eq!(
        (first.count("SELECT count(*) FROM events").await, second.count("SELECT count(*) FROM events").await),
        (2, 0)
    );
    server.assert_verified().await;

    // What the line proposes helps: a prefix of its own, or the keys deleted once their ledger is gone for good.
    second.arguments = ["--redis-prefix", "other"].map(str::to_owned).to_vec();
    let beside = second.serve().await;
    beside.with_products(1).await;
    assert_commits(&beside, "ann").await;
    assert_commits(&server, "cat").await;
    drop((server, beside));
    second.arguments.clear();
    let (said, is_well) = run(&second, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well, "a Redis that nobody works on is its ledger's still");
    let (_, command) = refusals(&said)[0].split_once("delete its keys with ").unwrap();
    let url = first.redis.as_ref().unwrap().url();
    assert!(Command::new("sh").args(["-c", command]).env("REDIS_URL", url).status().unwrap().success(), "{command}");
    let server = second.serve().await;
    assert_commits(&server, "bob").await;
    server.assert_verified().await;
    let (said, is_well) = run(&first, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_hears_that_its_redis_has_become_another_ledgers() {
    let (first, second) = stacks().await;
    let server = first.serve().await;
    server.with_products(1).await;
    assert_commits(&server, "ann").await;
    // The other one comes first after Redis was emptied.
    server.signal("STOP");
    first.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    let other = second.serve().await;
    other.with_products(1).await;
    server.signal("CONT");
    until("the first hears of it", Duration::from_secs(30), async || !refusals(&server.log()).is_empty()).await;
    assert!(is_refused(&server).await);
    for document in ["mutation { repair(input: {}) { likes } }", "{ admin { verify { differing } } }"] {
        let answer = server.try_graphql(Some("ada"), document, json!({})).await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    }
    assert_commits(&other, "bob").await;
    other.assert_verified().await;
    assert_eq!(
        (first.count("SELECT count(*) FROM events").await, second.count("SELECT count(*) FROM events").await),
        (1, 1)
    );

    other.kill();
    assert!(is_refused(&server).await, "it is the other one's still");
    first.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    until("the first works again", Duration::from_secs(30), async || !is_refused(&server).await).await;
    assert_commits(&server, "dan").await;
    server.assert_verified().await;
}

/// Orders of one product.
async fn record_orders(server: &Server, round: &str, count: usize) {
    let events: Vec<_> =
        (0..count).map(|n| json!({ "id": format!("{round}-{n}"), "signal": "ORDER", "productId": "theirs" })).collect();
    let answer = server.graphql("shop", RECORD, json!({ "events": events })).await;
    assert_eq!(answer["recordEvents"]["recorded"], count, "{answer}");
}

/// Channels are the whole server's, whichever database the keys are in. The other shop's journals and feeds are ahead of
/// ours, and ours commits nothing for a while: whatever was taken for ours would show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_of_one_redis_never_hear_each_other() {
    let (mut first, mut second) = stacks().await;
    let url = first.redis.as_ref().unwrap().url();
    (first.redis_url, second.redis_url) = (Some(format!("{url}1")), Some(format!("{url}2")));
    first.ack_timeout_ms = 500;
    let (ours, theirs) = (first.serve().await, second.serve().await);
    ours.with_products(2).await;
    let product =
        "mutation { upsertProducts(input: { products: [{ id: \"theirs\", name: \"Theirs\" }] }) { upserted } }";
    theirs.graphql("shop", product, json!({})).await;
    let mut socket = Socket::connect(&ours.url, json!({})).await;
    let mut view = socket.watch_board(10).await;
    for round in 0..3 {
        record_orders(&theirs, &format!("round-{round}"), 100).await;
    }
    until("they rank theirs", Duration::from_secs(30), async || {
        theirs.ranking(10).await == [("theirs".to_owned(), 180.0)]
    })
    .await;

    let users: Vec<_> = (0..12).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| ours.toggle(user, "p0", None))).await;
    until("all is committed", Duration::from_secs(30), async || {
        first.count("SELECT COUNT(*) FROM events").await == users.len() as u64
    })
    .await;
    let ledger = first.column("SELECT ledger_id AS value FROM meta").await.remove(0);
    let locked = first.sql("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(5); ROLLBACK");
    let meanwhile = async {
        const HELD: &str = "SELECT COUNT(*) FROM pg_locks WHERE relation = 'events'::regclass AND granted
            AND mode = 'AccessExclusiveLock'";
        until("events is locked", Duration::from_secs(5), async || first.count(HELD).await == 1).await;
        let likes = join_all(users.iter().map(|user| ours.toggle(user, "p1", None)));
        let others = async {
            record_orders(&theirs, "meanwhile", 100).await;
            // Nor by a message on our own channel, if it is another ledger's.
            let lines: Vec<_> = (0..4).map(|partition| format!("ledger {partition} 1-9999 1-0")).collect();
            let message = format!("another\n{}", lines.join("\n"));
            let channel = format!("acc:1:{ledger}:progress");
            assert_eq!(first.redis.as_ref().unwrap().command(&["PUBLISH", &channel, &message]), redis::Value::Int(2));
        };
        let (likes, ()) = tokio::join!(likes, others);
        let durable = |like: &Value| like["durability"] == "COMMITTED";
        assert!(!likes.iter().any(durable), "COMMITTED, and the ledger took nothing: {likes:?}");
    };
    tokio::join!(locked, meanwhile);

    let expected = [("p1", 2.4), ("p0", 2.4)].map(|(product, score)| (product.to_owned(), score));
    until("ours ranks ours", Duration::from_secs(30), async || ours.ranking(10).await == expected).await;
    view.follow_until(&mut socket, "subscribers see ours", async |shown| {
        assert!(shown.iter().all(|(product, _)| product != "theirs"), "the other shop's board: {shown:?}");
        *shown == expected
    })
    .await;
    let text = ours.http.get(format!("{}/metrics", ours.url)).send().await.unwrap().text().await.unwrap();
    assert!(text.lines().any(|line| line == "acclaim_foreign_messages_total 1"), "{text}");
    for server in [&ours, &theirs] {
        assert!(!server.log().contains("must be recovered"), "{}", server.log());
        until("all is equal", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
    }
}
