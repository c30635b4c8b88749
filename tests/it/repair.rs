//! `acclaim verify --repair` rebuilds what is derived from the events, and tells what it can't mend.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::Duration;

use acclaim::domain::BoardId;
use acclaim::engine::redis::keys::BoardKey;
use serde_json::json;

use crate::support::redis::{board_key, likes_key};
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

crate::both_setups!(what_differs_from_the_events_is_repaired, what_the_events_contradict_is_not_repaired);

fn repair(stack: &Stack, server: &Server) -> (Output, String) {
    let output = stack.command().args(["verify", "--repair", "--url", &server.url]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

async fn with_likes(setup: Setup) -> (Stack, Server) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(4).await;
    for user in ["ann", "bob", "cid"] {
        for product in ["p0", "p1", "p2"] {
            server.toggle(user, product, None).await;
        }
    }
    server.toggle("ann", "p2", None).await;
    until("all is ranked", Duration::from_secs(10), async || {
        server.ranking(10).await == [("p1".to_owned(), 0.6), ("p0".to_owned(), 0.6), ("p2".to_owned(), 0.4)]
    })
    .await;
    server.assert_verified().await;
    (stack, server)
}

async fn what_differs_from_the_events_is_repaired(setup: Setup) {
    let (stack, server) = with_likes(setup).await;
    let (sound, said) = repair(&stack, &server);
    assert!(sound.status.success() && !said.contains("repaired"), "nothing differs: {said}");

    stack.sql("UPDATE likes SET liked = NOT liked WHERE user_id = 'ann'").await;
    stack.sql("DELETE FROM likes WHERE user_id = 'bob' AND product_id = 'p1'").await;
    stack
        .sql(
            "INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
             SELECT 'nobody', 'p3', TRUE, liked_at, 1, 1 FROM likes WHERE user_id = 'cid' AND product_id = 'p0'",
        )
        .await;
    stack.sql("UPDATE activity SET count = count + 5 WHERE product_id = 'p1'").await;
    stack.sql("DELETE FROM activity WHERE product_id = 'p0'").await;
    if let Some(redis) = &stack.redis {
        redis.command(&["ZINCRBY", &board_key(&BoardId::daily(), BoardKey::Scores), "1000000", "p2"]);
        redis.command(&["ZINCRBY", &board_key(&BoardId::likes(), BoardKey::Scores), "1000000", "p2"]);
        redis.command(&["ZADD", &likes_key("cid"), "5", "p3"]);
    }
    let (mended, said) = repair(&stack, &server);
    assert!(mended.status.success(), "{said}");
    // Three of ann's, one of bob's that was gone, one of nobody's.
    assert!(said.contains("repaired: 5 likes,"), "{said}");
    // And what the engine had otherwise of cid's.
    let users = 3 + usize::from(stack.redis.is_some());
    assert!(said.contains(&format!("{users} users load anew")), "{said}");
    assert!(said.lines().last().unwrap().ends_with(", 0 differ"), "{said}");
    server.assert_verified().await;
    assert_eq!(server.ranking(10).await[2], ("p2".to_owned(), 0.4));
    // What the viewer is told, and what the next click does, follows the events.
    let viewed = "{ products(ids: [\"p0\", \"p2\"]) { like { viewerHasLiked count } } }";
    let viewed = server.graphql("ann", viewed, json!({})).await;
    let like = |liked: bool, count: u64| json!({ "like": { "viewerHasLiked": liked, "count": count } });
    assert_eq!(viewed["products"], json!([like(true, 3), like(false, 2)]));
    assert_eq!(server.toggle("ann", "p2", None).await["likeCount"], 3);
    until("the click counts", Duration::from_secs(10), async || server.verify().await["differing"] == 0).await;
    let log = "{ admin { auditLog(first: 1) { nodes { action } } } }";
    assert_eq!(server.graphql("admin", log, json!({})).await["admin"]["auditLog"]["nodes"][0]["action"], "repair");
}

/// It says at once what it waits for, and in the end that it was in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_a_check_waits_and_says_so() {
    let mut stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    server.toggle("ann", "p0", None).await;
    server.assert_verified().await;
    stack.redis.as_mut().unwrap().kill();
    let output = stack.command().args(["verify", "--url", &server.url, "--wait-max", "2"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((output.status.code(), lines.len(), output.stdout.len()), (Some(1), 2, 0), "{said}");
    assert!(lines[0].starts_with("waiting: the server answers UNAVAILABLE: "), "{said}");
    assert!(lines[1].starts_with("acclaim: given up after ") && lines[1].contains("UNAVAILABLE"), "{said}");
    let log = server.log();
    assert_eq!(log.matches("trim waits").count(), 1, "{log}");

    let mut check = stack.command();
    check.args(["verify", "--url", &server.url]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    let mut said = BufReader::new(check.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().starts_with("waiting: "));
    stack.redis.as_mut().unwrap().run();
    assert!(check.wait().unwrap().success(), "{said:?}");
}

async fn what_the_events_contradict_is_not_repaired(setup: Setup) {
    let (stack, server) = with_likes(setup).await;
    // A second like of what bob likes already: no state of his likes would fit both.
    stack
        .sql(
            "INSERT INTO events (id, partition, epoch, seq, signal, product_id, user_id, count, occurred_at, recorded_at)
             SELECT 'like:1:x:bob', partition, epoch, seq + 1000000, signal, product_id, user_id, count, occurred_at, recorded_at
             FROM events WHERE user_id = 'bob' AND product_id = 'p0'",
        )
        .await;
    let (output, said) = repair(&stack, &server);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().ends_with(", 1 differ") && said.contains("user bob"), "{said}");
}
