//! A replica of Redis is promoted by hand, while one server still talks to the old primary.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::{PRODUCTS, Record, load};
use crate::support::gate::Gate;
use crate::support::redis::RedisServer;
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

fn replica_of(primary: &RedisServer) -> RedisServer {
    let port = primary.port().to_string();
    RedisServer::start_with(&["--save", "", "--appendonly", "no", "--replicaof", "127.0.0.1", &port])
}

/// A replica that has every script, because it was itself a primary before.
async fn replica_that_was_primary(primary: &RedisServer) -> RedisServer {
    let replica = RedisServer::start_with(&["--save", "", "--appendonly", "no"]);
    let mut stack = Stack::new(Setup::Servers).await;
    stack.redis_url = Some(format!("redis://127.0.0.1:{}/", replica.port()));
    drop(stack.serve().await);
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    replica
}

fn said(redis: &RedisServer, words: &[&str]) -> String {
    redis::from_redis_value(redis.command(words)).unwrap()
}

/// The ids with an answer of this kind.
fn answered(record: &Record, durability: &str) -> Vec<String> {
    let sent = record.sent.lock().unwrap();
    sent.iter().filter(|(_, answer)| answer.as_deref() == Some(durability)).map(|(id, _)| id.clone()).collect()
}

async fn takes_likes(server: &Server, user: &str) {
    until("likes are taken", Duration::from_secs(30), async || {
        let answer = server.try_graphql(Some(user), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        answer.get("errors").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_primary_accepted_is_reported_and_never_counted_in_silence() {
    let mut stack = Stack::new(Setup::Servers).await;
    stack.ack_timeout_ms = 250;
    let primary = stack.redis.as_ref().unwrap();
    let replica = replica_that_was_primary(primary).await;
    until("the replica follows", Duration::from_secs(30), async || {
        said(&replica, &["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let (moving, staying) = (Gate::start(primary.port()).await, Gate::start(primary.port()).await);
    // The first one leads, so that nobody commits for the other one at first.
    stack.redis_url = Some(moving.url());
    let moved = stack.serve().await;
    stack.redis_url = Some(staying.url());
    let left = stack.serve().await;
    moved.with_products(PRODUCTS).await;

    let stop = Arc::new(AtomicBool::new(false));
    let records = [Arc::new(Record::default()), Arc::new(Record::default())];
    let [at_moved, at_left] = &records;
    let crowds = [load(&moved, at_moved, usize::MAX, &stop, 0), load(&left, at_left, usize::MAX, &stop, 1)];
    until("likes are flowing", Duration::from_secs(60), async || {
        records.iter().all(|record| record.answered.load(Ordering::Relaxed) >= 300)
    })
    .await;

    replica.command(&["REPLICAOF", "NO", "ONE"]);
    moving.lead_to(replica.port());
    let before = at_moved.committed().len();
    until("the new primary's side commits", Duration::from_secs(30), async || {
        at_moved.committed().len() >= before + 300
    })
    .await;
    until("the old side says that it was left behind", Duration::from_secs(30), async || {
        left.log().contains("point REDIS_URL to theirs")
    })
    .await;
    // It stays out, and the new side goes on undisturbed.
    let (out, epochs) = (at_left.answered.load(Ordering::Relaxed), moved.log().matches("an epoch begins").count());
    let before = at_moved.committed().len();
    until("the new side goes on", Duration::from_secs(30), async || at_moved.committed().len() >= before + 300).await;
    stop.store(true, Ordering::Relaxed);
    for crowd in crowds {
        crowd.join_all().await;
    }
    assert_eq!(at_left.answered.load(Ordering::Relaxed), out, "the old side took likes after it was fenced");
    assert_eq!(moved.log().matches("an epoch begins").count(), epochs, "the sides took the epoch from each other");

    until("the journal is synced", Duration::from_secs(30), async || moved.verify().await["differing"] == 0).await;
    let mut events = HashSet::new();
    for id in stack.column("SELECT id AS value FROM events").await {
        assert!(events.insert(id.clone()), "{id} is there twice");
    }
    let letters = stack.column("SELECT entry AS value FROM dead_letters WHERE error LIKE 'stranded:%'").await;
    let letters: HashSet<String> = letters
        .iter()
        .map(|entry| serde_json::from_str::<Value>(entry).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    for record in &records {
        let lost: Vec<_> = record.committed().into_iter().filter(|id| !events.contains(id)).collect();
        assert!(lost.is_empty(), "COMMITTED and not there: {:?}", &lost[..lost.len().min(5)]);
    }
    let accepted = answered(at_left, "ACCEPTED");
    let unreported: Vec<_> = accepted.iter().filter(|id| !events.contains(*id) && !letters.contains(*id)).collect();
    assert!(
        unreported.is_empty(),
        "ACCEPTED and neither there nor reported: {:?}",
        &unreported[..unreported.len().min(5)]
    );
    println!("{} ACCEPTED by the old side, {} of its entries reported", accepted.len(), letters.len());
    assert!(
        accepted.iter().any(|id| letters.contains(id)),
        "the old side has accepted nothing: the test shows nothing"
    );
    assert!(letters.is_disjoint(&events), "an event that counts was reported as lost");
    let told = format!("entries={}", letters.len());
    assert!(left.log().contains(&told), "the log says how many: {told}");
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, letters.len() as u64);

    // Once it is led to the new primary as well, it works with the others again.
    staying.lead_to(replica.port());
    takes_likes(&left, "zoe").await;
    assert_eq!(moved.log().matches("an epoch begins").count(), epochs);
    assert_eq!(left.toggle("yve", "p1", None).await["liked"], true);
    moved.assert_verified().await;
}

/// All go back to the old primary, which still stands in the older epoch: nobody is left in the later one, so it is taken up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_is_taken_up_again_when_nobody_works_elsewhere() {
    let mut stack = Stack::new(Setup::Servers).await;
    let primary = stack.redis.as_ref().unwrap();
    let replica = replica_of(primary);
    until("the replica follows", Duration::from_secs(30), async || {
        said(&replica, &["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let gate = Gate::start(primary.port()).await;
    stack.redis_url = Some(gate.url());
    let server = stack.serve().await;
    server.with_products(2).await;
    takes_likes(&server, "ann").await;
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    gate.lead_to(replica.port());
    takes_likes(&server, "bob").await;
    gate.lead_to(stack.redis.as_ref().unwrap().port());
    takes_likes(&server, "cid").await;
    until("all likes count", Duration::from_secs(30), async || server.ranking(1).await == [("p0".to_owned(), 0.6)])
        .await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    server.assert_verified().await;
}
