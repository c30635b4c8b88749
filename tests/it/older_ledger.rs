//! A ledger that went back beside a Redis that did not: an older dump is restored, or a standby that was behind takes over.

use std::collections::BTreeSet;
use std::time::Duration;

use acclaim::domain::BoardId;
use acclaim::engine::redis::keys::{BoardKey, Key};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::postgres::{Backup, backup};
use crate::support::redis::{RedisServer, board_key, named};
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::until;

const USERS: usize = 24;

fn user(n: usize) -> String {
    format!("user-{n}")
}

/// Each user of a range toggles a product; all of it is in the ledger then.
async fn toggle_all(stack: &Stack, server: &Server, users: std::ops::Range<usize>, product: &str) {
    let before = stack.count("SELECT COUNT(*) FROM events").await;
    let expected = before + users.len() as u64;
    let likes = join_all(users.map(async |n| server.toggle(&user(n), product, None).await)).await;
    assert!(likes.iter().all(|like| like["durability"] == "COMMITTED"), "{likes:?}");
    assert_eq!(stack.count("SELECT COUNT(*) FROM events").await, expected);
}

/// A server with likes, and a backup of its ledger.
async fn with_backup(stack: &Stack) -> (Server, Backup) {
    let server = stack.serve().await;
    server.with_products(4).await;
    toggle_all(stack, &server, 0..USERS, "p0").await;
    server.assert_verified().await;
    let backup = backup(stack.postgres.as_ref().unwrap());
    (server, backup)
}

/// Likes that the backup does not have: half of the users take theirs back, the other half like something else.
async fn go_on(stack: &Stack, server: &Server) {
    toggle_all(stack, server, 0..USERS / 2, "p0").await;
    toggle_all(stack, server, USERS / 2..USERS, "p1").await;
}

fn len_of_journals(redis: &RedisServer) -> u64 {
    let len = |partition| redis.command(&["XLEN", &named(Key::Journal(partition))]);
    (0..4).map(|partition| redis::from_redis_value::<u64>(len(partition)).unwrap()).sum()
}

/// What every user is told about his likes is what the ledger has, and so is every board.
async fn assert_all_agree(stack: &Stack, server: &Server) {
    until("all is equal", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
    let liked = stack.column("SELECT user_id || ' ' || product_id AS value FROM likes WHERE liked").await;
    let liked: BTreeSet<String> = liked.into_iter().collect();
    let told = join_all((0..USERS).map(async |n| {
        let query = "{ products(ids: [\"p0\", \"p1\", \"p2\"]) { id like { viewerHasLiked } } }";
        let products = server.graphql(&user(n), query, json!({})).await["products"].take();
        let liked = products.as_array().unwrap().iter().filter(|product| product["like"]["viewerHasLiked"] == true);
        liked.map(|product| format!("{} {}", user(n), product["id"].as_str().unwrap())).collect::<Vec<_>>()
    }));
    assert_eq!(told.await.into_iter().flatten().collect::<BTreeSet<_>>(), liked);
    let mut expected: Vec<_> = ["p0", "p1", "p2"]
        .map(|product| (product.to_owned(), liked.iter().filter(|like| like.ends_with(product)).count() as f64 / 5.0))
        .into_iter()
        .filter(|(_, score)| *score > 0.0)
        .collect();
    expected.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(&one.0)));
    until("the board shows the likes", Duration::from_secs(30), async || {
        let mut shown = server.ranking(10).await;
        shown.retain(|(product, _)| product != "p3");
        shown == expected
    })
    .await;
    // And so does the next click of each.
    let liked_before = |n| liked.contains(&format!("{} p0", user(n)));
    for n in 0..USERS {
        let answer = server.toggle(&user(n), "p0", None).await;
        assert_eq!((&answer["changed"], &answer["liked"]), (&json!(true), &json!(!liked_before(n))), "{n}");
    }
    until("all is equal", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
}

/// An event of a product that nobody likes.
async fn record(server: &Server) -> String {
    let event = json!({ "id": "e1", "signal": "VIEW", "productId": "p3", "count": 1 });
    let answer = server.graphql("shop", RECORD, json!({ "events": [event] })).await;
    assert_eq!(answer["recordEvents"]["durability"], "COMMITTED");
    answer["recordEvents"]["results"][0]["status"].as_str().unwrap().to_owned()
}

async fn reported_as_lost(stack: &Stack) -> u64 {
    stack.count("SELECT COUNT(*) FROM dead_letters WHERE error LIKE 'lost:%'").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_dump_restored_while_the_server_is_down() {
    let stack = Stack::new(Setup::Servers).await;
    let (server, backup) = with_backup(&stack).await;
    go_on(&stack, &server).await;
    assert_eq!(record(&server).await, "RECORDED");
    server.toggle("zoe", "p2", Some("zoe's")).await;
    let redis = stack.redis.as_ref().unwrap();
    until("the journal is trimmed", Duration::from_secs(30), async || len_of_journals(redis) == 0).await;
    server.terminate().await;
    backup.restore(stack.postgres.as_ref().unwrap()).await;
    let server = stack.serve().await;
    assert!(server.log().contains("the ledger has gone back"), "{}", server.log());
    assert!(reported_as_lost(&stack).await > 0, "what nobody has any more is reported");
    // What is gone counts when it is sent again.
    assert_eq!(record(&server).await, "RECORDED");
    assert_eq!(stack.count("SELECT COUNT(*) FROM events WHERE user_id IS NULL").await, 1);
    assert_eq!(record(&server).await, "DUPLICATE");
    let liked = server.toggle("zoe", "p2", Some("zoe's")).await;
    assert_eq!(
        (&liked["liked"], &liked["changed"], &liked["durability"]),
        (&json!(true), &json!(true), &json!("COMMITTED"))
    );
    assert_eq!(server.toggle("zoe", "p2", None).await["liked"], false);
    assert_all_agree(&stack, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_dump_restored_under_a_running_server() {
    let stack = Stack::new(Setup::Servers).await;
    let (server, backup) = with_backup(&stack).await;
    go_on(&stack, &server).await;
    let redis = stack.redis.as_ref().unwrap();
    until("the journal is trimmed", Duration::from_secs(30), async || len_of_journals(redis) == 0).await;
    backup.restore(stack.postgres.as_ref().unwrap()).await;
    until("a new epoch begins", Duration::from_secs(30), async || server.log().matches("an epoch begins").count() == 2)
        .await;
    assert!(server.log().contains("the ledger has gone back"), "{}", server.log());
    until("likes are committed again", Duration::from_secs(30), async || {
        let answer = server.try_graphql(Some("zoe"), crate::support::stack::TOGGLE, json!({ "product": "p2" })).await;
        answer.unwrap()["data"]["toggleLike"]["durability"] == "COMMITTED"
    })
    .await;
    assert!(reported_as_lost(&stack).await > 0, "what nobody has any more is reported");
    // Zoe's may have been toggled more than once.
    if server.graphql("zoe", "{ products(ids: [\"p2\"]) { like { viewerHasLiked } } }", json!({})).await["products"][0]
        ["like"]["viewerHasLiked"]
        == true
    {
        server.toggle("zoe", "p2", None).await;
    }
    assert_all_agree(&stack, &server).await;
}

/// The standby lacks the last commits, and the journal still has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_journal_still_holds_beyond_the_ledger_is_taken_over() {
    let stack = Stack::new(Setup::Servers).await;
    let (server, backup) = with_backup(&stack).await;
    let redis = stack.redis.as_ref().unwrap();
    // A generation that is being built holds the trim.
    redis.command(&["HSET", &board_key(&BoardId::daily(), BoardKey::Meta), "building", "999"]);
    let cursor = board_key(&BoardId::daily(), BoardKey::NextCursor);
    redis.command(&["HSET", &cursor, "0", "1-0", "1", "1-0", "2", "1-0", "3", "1-0"]);
    go_on(&stack, &server).await;
    let events = stack.column("SELECT id AS value FROM events ORDER BY id").await;
    server.kill();
    backup.restore(stack.postgres.as_ref().unwrap()).await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM events").await, USERS as u64, "it went back");
    let server = stack.serve().await;
    assert_eq!(stack.column("SELECT id AS value FROM events ORDER BY id").await, events);
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    assert_all_agree(&stack, &server).await;
}

/// Two copies of a ledger have each begun the same epoch, each with a Redis of its own; then one comes to the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_of_the_same_epoch_is_no_basis() {
    let mut stack = Stack::new(Setup::Servers).await;
    let (server, backup) = with_backup(&stack).await;
    server.terminate().await;
    stack.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    let server = stack.serve().await;
    go_on(&stack, &server).await;
    server.terminate().await;

    backup.restore(stack.postgres.as_ref().unwrap()).await;
    let other = RedisServer::start();
    stack.redis_url = Some(other.url());
    let server = stack.serve().await;
    // Further than the first history, so that no cursor tells the one from the other.
    for product in ["p2", "p1", "p1", "p2"] {
        toggle_all(&stack, &server, 0..USERS, product).await;
    }
    server.terminate().await;
    assert_eq!(stack.count("SELECT epoch FROM meta").await, 2);

    stack.redis_url = None;
    let events = stack.count("SELECT COUNT(*) FROM events").await;
    let server = stack.serve().await;
    assert!(server.log().contains("another history of epoch 2"), "{}", server.log());
    assert_eq!(stack.count("SELECT epoch FROM meta").await, 3);
    assert_eq!(stack.count("SELECT COUNT(*) FROM events").await, events, "the copies are not mixed");
    assert_all_agree(&stack, &server).await;
}
