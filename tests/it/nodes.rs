//! Two servers on one Redis and one Postgres.

use std::time::Duration;

use acclaim::domain::{UserId, partition_of};
use acclaim::engine::redis::keys::Key;
use acclaim::engine::{Engine, EngineLimits, Progress};
use acclaim::ledger::Ledger;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::support::live::Socket;
use crate::support::redis::named;
use crate::support::stack::{Setup, Stack};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_anything_and_work_goes_on_when_one_is_killed() {
    let stack = Stack::new(Setup::Servers).await;
    let (first, second) = (stack.serve().await, stack.serve().await);
    first.with_products(3).await;
    let mut socket = Socket::connect(&second.url, json!({})).await;
    let mut view = socket.watch_board(10).await;

    assert_eq!(first.toggle("ann", "p0", Some("k1")).await["durability"], "COMMITTED");
    let replay = second.toggle("ann", "p0", Some("k1")).await;
    assert_eq!((&replay["liked"], &replay["changed"]), (&json!(true), &json!(false)));
    assert_eq!(second.toggle("bob", "p0", None).await["likeCount"], 2);
    view.follow_until(&mut socket, "both likes are seen", async |shown| *shown == [("p0".to_owned(), 0.4)]).await;

    // The first one leads.
    first.kill();
    until("the second one leads", Duration::from_secs(10), async || {
        let user = format!("user-{}", rand::random::<u32>());
        second.toggle(&user, "p1", None).await["durability"] == "COMMITTED"
    })
    .await;
    let expected = second.ranking(10).await;
    assert_eq!(expected.len(), 2);
    view.follow_until(&mut socket, "the feed goes on", async |shown| *shown == second.ranking(10).await).await;
    // A node took over, and nothing else: the same generation goes on without a snapshot.
    assert_eq!(view.reasons, ["INITIAL"]);
    second.assert_verified().await;
}

/// A node that finds the ledger's cursor moved tells the others where it stands, which may be before they hear from the one
/// who committed what it refused on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_like_never_passes_for_committed_where_others_say_first_how_far_the_ledger_is() {
    const TRIES: usize = 40;
    let stack = Stack::new(Setup::Servers).await;
    let leader = stack.serve().await;
    leader.with_products(1).await;
    // Whoever was first leads.
    let other = stack.serve().await;

    let redis = stack.redis.as_ref().unwrap();
    let engine = redis.engine("acc", EngineLimits::default()).await;
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    let partitions = engine.limits().partitions;
    engine.speak_for(&ledger.state(partitions).await.unwrap().id);
    let hasty = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let cursors = ledger.state(partitions).await.unwrap().cursors.into_iter();
            let stands = cursors.map(|(partition, position)| Progress::Ledger { partition, from: position, position });
            engine.announce(&stands.collect::<Vec<_>>()).await.unwrap();
        }
    }));

    let mut committed = 0;
    for n in 0..TRIES {
        let user = format!("user-{n}");
        let first = other.toggle(&user, "p0", Some("key")).await;
        let answers = named(Key::Answers(partition_of(&user, partitions), UserId::new(&user).unwrap()));
        redis.command(&["DEL", &answers]);
        let again = other.toggle(&user, "p0", Some("key")).await;
        // Where the ledger was too slow to be waited for, it may say otherwise.
        if again["durability"] == "COMMITTED" {
            committed += 1;
            assert_eq!((&again["liked"], &again["changed"]), (&first["liked"], &json!(false)), "{n}: {first} {again}");
        }
    }
    assert!(committed > 0 && !hasty.is_finished(), "{committed} COMMITTED");
}

/// A server that has just started has not heard what the ledger refused before, so it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_changed_nothing_stands_whatever_came_later() {
    const SET: &str = "mutation($liked: Boolean!, $key: String!) {
        setLike(input: { productId: \"p0\", liked: $liked, idempotencyKey: $key }) { liked changed durability } }";
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    server.graphql("ann", SET, json!({ "liked": true, "key": "first" })).await;
    drop(server);
    let server = stack.serve().await;
    for (liked, key, changed) in [(true, "again", false), (false, "undone", true), (true, "again", false)] {
        let told = server.graphql("ann", SET, json!({ "liked": liked, "key": key })).await;
        assert_eq!(told["setLike"], json!({ "liked": liked, "changed": changed, "durability": "COMMITTED" }), "{key}");
    }
    server.assert_verified().await;
}
