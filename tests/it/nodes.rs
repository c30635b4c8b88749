//! Two servers on one Redis and one Postgres.

use std::time::Duration;

use serde_json::json;

use crate::support::live::Socket;
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
