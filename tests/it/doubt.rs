//! Answers of Redis that are lost on their way: the node asks again, and says so where that does not help.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gate::{Gate, Side};
use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

async fn start() -> (Stack, Gate, Server) {
    let mut stack = Stack::new(Setup::Servers).await;
    let gate = Gate::start(stack.redis.as_ref().unwrap().port()).await;
    stack.redis_url = Some(gate.url());
    let server = stack.serve().await;
    server.with_products(5).await;
    server.toggle("ann", "p0", None).await;
    (stack, gate, server)
}

fn one_event(id: &str) -> Value {
    json!({ "events": [{ "id": id, "signal": "VIEW", "productId": "p0" }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_like_whose_answer_is_lost_is_asked_again() {
    let (stack, gate, server) = start().await;
    for (n, side) in [(1, Side::Request), (2, Side::Answer), (3, Side::Request), (4, Side::Answer)] {
        // Without a key of the caller's, what is cut is told by the product.
        let (product, key) = (format!("p{n}"), (n <= 2).then(|| format!("own-key-{n}")));
        gate.cut(side, key.as_deref().unwrap_or(&product), 1);
        let liked = server.toggle("ann", &product, key.as_deref()).await;
        assert_eq!(gate.cuts_left(), 0, "the connection was cut");
        let told = (&liked["liked"], &liked["changed"], &liked["durability"], &liked["likeCount"]);
        assert_eq!(told, (&json!(true), &json!(true), &json!("COMMITTED"), &json!(1)), "{side:?}");
        if let Some(key) = key {
            // The same key again is a replay, of which nobody says that it changed something.
            let again = server.toggle("ann", &product, Some(&key)).await;
            assert_eq!((&again["liked"], &again["changed"]), (&json!(true), &json!(false)));
        }
        assert_eq!(stack.count(&format!("SELECT COUNT(*) FROM events WHERE product_id = '{product}'")).await, 1);
    }
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_whose_answer_is_lost_are_asked_again() {
    let (stack, gate, server) = start().await;
    for (id, side, status) in [("view-1", Side::Request, "RECORDED"), ("view-2", Side::Answer, "DUPLICATE")] {
        gate.cut(side, id, 1);
        let answer = server.graphql("shop", RECORD, one_event(id)).await;
        assert_eq!(gate.cuts_left(), 0);
        let told = &answer["recordEvents"];
        assert_eq!((&told["results"][0]["status"], &told["durability"]), (&json!(status), &json!("COMMITTED")));
        assert_eq!(stack.count(&format!("SELECT COUNT(*) FROM events WHERE id = '{id}'")).await, 1);
    }
    server.assert_verified().await;
}

/// Where every answer is lost, the caller is told what nobody knows, in time, and what to send again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_stays_unknown_is_told_with_the_key() {
    let (stack, gate, server) = start().await;
    for key in [Some("own-key"), None] {
        let (product, needle) = if key.is_some() { ("p1", "own-key") } else { ("p2", "p2") };
        gate.cut(Side::Answer, needle, usize::MAX);
        let began = Instant::now();
        let answer = server.try_graphql(Some("ann"), TOGGLE, json!({ "product": product, "key": key })).await.unwrap();
        let took = began.elapsed();
        gate.cut(Side::Answer, needle, 0);
        let told = &answer["errors"][0]["extensions"];
        assert_eq!((&told["code"], &told["outcome"]), (&json!("UNAVAILABLE"), &json!("UNKNOWN")), "{answer}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let retry = told["idempotencyKey"].as_str().unwrap().to_owned();
        assert!(key.is_none_or(|key| key == retry));
        let mut liked = Value::Null;
        until("the like is answered", Duration::from_secs(20), async || {
            let variables = json!({ "product": product, "key": retry });
            let answer = server.try_graphql(Some("ann"), TOGGLE, variables).await.unwrap();
            liked = answer["data"]["toggleLike"].clone();
            answer.get("errors").is_none()
        })
        .await;
        assert_eq!((&liked["liked"], &liked["durability"]), (&json!(true), &json!("COMMITTED")));
        assert_eq!(stack.count(&format!("SELECT COUNT(*) FROM events WHERE product_id = '{product}'")).await, 1);
    }

    gate.cut(Side::Answer, "view-1", usize::MAX);
    let answer = server.try_graphql(Some("shop"), RECORD, one_event("view-1")).await.unwrap();
    gate.cut(Side::Answer, "view-1", 0);
    let told = &answer["errors"][0]["extensions"];
    assert_eq!((&told["outcome"], &told["idempotencyKey"]), (&json!("UNKNOWN"), &Value::Null), "{answer}");
    until("the event is there once", Duration::from_secs(20), async || {
        server.try_graphql(Some("shop"), RECORD, one_event("view-1")).await.unwrap().get("errors").is_none()
    })
    .await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM events WHERE id = 'view-1'").await, 1);
    server.assert_verified().await;
}

/// Nothing is said of an outcome where Redis could not be asked at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_was_written_no_outcome_is_told() {
    let (mut stack, _gate, server) = start().await;
    stack.redis.as_mut().unwrap().kill();
    until("the server knows that Redis is away", Duration::from_secs(20), async || {
        let like = server.try_graphql(Some("ann"), TOGGLE, json!({ "product": "p1" })).await.unwrap();
        let event = server.try_graphql(Some("shop"), RECORD, one_event("view-1")).await.unwrap();
        [like, event].iter().all(|answer| {
            let told = &answer["errors"][0]["extensions"];
            assert_eq!(told["code"], "UNAVAILABLE", "{answer}");
            told["outcome"].is_null() && told["idempotencyKey"].is_null()
        })
    })
    .await;
}
