//! What nobody can do to scores: likes and events that the ledger refuses move no board, and cost no rebuild.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acclaim::domain::{BoardId, PageStart, Timestamp, UserId};
use acclaim::engine::{Desired, EngineLimits};
use acclaim::ledger::Author;
use acclaim::pipeline::LikeResult;
use serde_json::{Value, json};

use crate::support::node::{Node, order, product};
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(
    old_keys_move_no_board,
    a_refused_event_is_taken_back_once,
    refused_likes_are_charged,
    a_like_that_comes_again_is_not_fresh,
);

const TIME_MAX: Duration = Duration::from_secs(60);

const SET: &str = "mutation($product: ID!, $liked: Boolean!, $key: String!) {
    setLike(input: { productId: $product, liked: $liked, idempotencyKey: $key }) { liked durability userErrors { code } } }";
const SHOWN: &str =
    "{ products(ids: [\"p0\", \"p5\"]) { like { count } } ranking(first: 20) { nodes { productId score } } }";
const REASONS: [&str; 3] = ["RECOVERED", "REWEIGHTED", "ROLLED"];

async fn set(server: &Server, liked: bool, key: &str) -> Value {
    let variables = json!({ "product": "p0", "liked": liked, "key": key });
    server.try_graphql(Some("eve"), SET, variables).await.unwrap()
}

async fn rebuilds(server: &Server) -> f64 {
    let mut count = 0.0;
    for reason in REASONS {
        let name = format!("acclaim_rebuild_duration_seconds_count{{reason=\"{reason}\"}}");
        count += server.metric(&name).await.unwrap_or_default();
    }
    count
}

/// Eve has liked and unliked p0 with 150 keys. The engine has forgotten the first ones.
async fn with_used_keys(server: &Server) {
    for n in 0..75 {
        for (liked, name) in [(true, "on"), (false, "off")] {
            let answer = set(server, liked, &format!("{name}-{n}")).await;
            assert_eq!(answer["data"]["setLike"]["liked"], liked, "{answer}");
        }
    }
    until("all is in the ledger", TIME_MAX, async || {
        server.graphql("eve", SHOWN, json!({})).await["products"][0]["like"]["count"] == 0
    })
    .await;
}

async fn old_keys_move_no_board(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    stack.arguments = ["--like-rate", "0"].map(str::to_owned).to_vec();
    let server = Arc::new(stack.serve().await);
    server.with_products(10).await;
    for n in 1..10 {
        server.toggle("fan", &format!("p{n}"), None).await;
    }
    with_used_keys(&server).await;
    let rebuilt = rebuilds(&server).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (server, is_over) = (server.clone(), is_over.clone());
        async move {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let shown = server.graphql("ann", SHOWN, json!({})).await;
                assert_eq!(shown["products"][0]["like"]["count"], 0, "eve likes nothing: {shown}");
                let nodes = shown["ranking"]["nodes"].as_array().unwrap();
                assert!(nodes.iter().all(|node| node["productId"] != "p0"), "{shown}");
                let others = &shown["products"][1]["like"]["count"];
                assert!(*others == 1 || *others == 2, "a fan likes p5, and eve may: {shown}");
                looks += 1;
            }
            looks
        }
    });
    // What eve likes beside, without a key, counts at once, wherever it rests on nothing that is refused.
    let beside = tokio::spawn({
        let (server, is_over) = (server.clone(), is_over.clone());
        async move {
            while !is_over.load(Ordering::Relaxed) {
                server.try_graphql(Some("eve"), TOGGLE, json!({ "product": "p5" })).await.unwrap();
            }
        }
    });
    for n in 0..60 {
        let answer = set(&server, true, &format!("on-{n}")).await;
        // Its own answer, which says nothing of the present.
        let told = &answer["data"]["setLike"];
        let is_known = told["liked"] == true && told["durability"] == "COMMITTED";
        assert!(is_known || answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE", "{answer}");
    }
    // What is told of them is up to a second old.
    until("the ledger refused most, since the engine had forgotten the keys", TIME_MAX, async || {
        server.metric("acclaim_refused_entries_total").await.unwrap() >= 40.0
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    assert!(watch.await.unwrap() > 20, "somebody has looked meanwhile");
    beside.await.unwrap();
    assert_eq!(rebuilds(&server).await, rebuilt, "nothing is computed anew for it");
    server.assert_verified().await;

    // A new key counts.
    set(&server, true, "new").await;
    until("it counts", TIME_MAX, async || {
        let shown = server.graphql("ann", SHOWN, json!({})).await;
        let nodes = shown["ranking"]["nodes"].as_array().unwrap().clone();
        nodes.iter().any(|node| node["productId"] == "p0" && node["score"] == 0.2)
    })
    .await;
    assert_eq!(rebuilds(&server).await, rebuilt);
    server.assert_verified().await;
}

/// The engine has forgotten the order and takes it again; the ledger refuses it, and so boards take it back.
async fn a_refused_event_is_taken_back_once(setup: Setup) {
    let limits = EngineLimits { partitions: 1, event_memory_ms: 1, ..EngineLimits::default() };
    // After the epoch began, by the ledger's clock: what the engine does not remember is then taken for new.
    let begins = Timestamp::now();
    let node = Node::start(setup, limits, begins).await;
    node.with_products(&["p0", "p1"]).await;
    let generation = async || node.app.engine().board(&BoardId::daily()).await.unwrap().shown.map(|shown| shown.number);
    until("the board is there", TIME_MAX, async || generation().await.is_some()).await;
    let began = generation().await;
    let passed = async || node.stack.count("SELECT seq FROM cursors").await;
    node.app.record(&[order("o1", "p0", None), order("o2", "p1", None)]).await.unwrap();
    until("both are in the ledger", TIME_MAX, async || passed().await == 2).await;
    for round in 1..=3 {
        node.set_clock(begins.plus_ms(round * 1_000));
        node.app.record(&[order("o1", "p0", None)]).await.unwrap();
        let entries = 2 + 2 * round as u64;
        until("what takes it back is in the journal, and passed", TIME_MAX, async || passed().await == entries).await;
        let page = node.app.page(&node.board("daily"), &PageStart::Rank(1), 10).await.unwrap();
        assert_eq!(page.rows.total, 2);
        let both = ["p1", "p0"].map(|product| (product.to_owned(), 0.6));
        until("it counts once", TIME_MAX, async || node.shown().await.1 == both).await;
        assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    }
    assert_eq!(generation().await, began, "nothing was computed anew");
    assert_eq!(node.stack.count("SELECT COUNT(*) FROM events").await, 2);
    assert_eq!(node.stack.count("SELECT COUNT(*) FROM rejections").await, 0);
    // A board that is computed from what the ledger has by now has nothing to take back.
    let author = Author { name: "ada".to_owned(), at: begins, note: String::new() };
    node.app.rebuild_board(&BoardId::daily(), None, &author).await.unwrap();
    assert!(generation().await > began);
    assert_eq!(node.shown().await.1, ["p1", "p0"].map(|product| (product.to_owned(), 0.6)));
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

/// Old keys are likes like any other to the rate.
async fn refused_likes_are_charged(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    stack.arguments = ["--like-rate", "0"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    server.with_products(1).await;
    with_used_keys(&server).await;
    server.terminate().await;
    stack.arguments = ["--like-rate", "1", "--like-burst", "20"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    let began = std::time::Instant::now();
    let (mut done, mut limited) = (0.0, 0);
    for n in 0..50 {
        let answer = set(&server, true, &format!("on-{n}")).await;
        match answer["errors"][0]["extensions"]["code"].as_str() {
            Some("RATE_LIMITED") => limited += 1,
            Some("UNAVAILABLE") | None => done += 1.0,
            Some(_) => panic!("{answer}"),
        }
    }
    let allowed = (20.0 + began.elapsed().as_secs_f64() + 1.0) / 2.0;
    assert!(done <= allowed && limited > 0, "{done} of 50, where {allowed} are allowed");
}

/// On a board where points fade, a like that is taken back and given again is as old as it was; a day later it is new.
async fn a_like_that_comes_again_is_not_fresh(setup: Setup) {
    let begins = Timestamp::now();
    let node = Node::start(setup, EngineLimits { like_rate: 0, ..EngineLimits::default() }, begins).await;
    node.with_products(&["p0", "p1"]).await;
    let user = |name: &str| UserId::new(name).unwrap();
    let set = async |name: &str, what: &str, liked: bool| {
        let (user, product) = (user(name), product(what));
        until("the like is done", TIME_MAX, async || {
            let done = node.app.like(&user, &product, Desired::Exactly(liked), None).await;
            matches!(done, Ok(LikeResult::Done { liked: is_liked, .. }) if is_liked == liked)
        })
        .await;
    };
    let scores = async || {
        let (_, places) = node.shown_on("trending").await;
        let of = |what: &str| places.iter().find(|(product, _)| product == what).map_or(0.0, |(_, score)| *score);
        (of("p0"), of("p1"))
    };
    set("ann", "p0", true).await;
    set("eve", "p1", true).await;
    let occurred = "SELECT COUNT(DISTINCT occurred_at) FROM events WHERE product_id = 'p1'";
    let even = |(one, other): (f64, f64)| one > 0.0 && one == other;
    until("both are liked", TIME_MAX, async || even(scores().await)).await;
    for (round, (hours, is_forgotten)) in [(2, false), (9, true), (20, false)].into_iter().enumerate() {
        node.set_clock(begins.plus_ms(hours * 3_600_000));
        set("eve", "p1", false).await;
        if is_forgotten {
            node.app.engine().forget_likes(&[user("eve")], begins).await.unwrap();
        }
        set("eve", "p1", true).await;
        until("all is in the ledger", TIME_MAX, async || {
            node.stack.count("SELECT COUNT(*) FROM events WHERE product_id = 'p1'").await == 3 + 2 * round as u64
        })
        .await;
        until("both are liked still, and as old", TIME_MAX, async || even(scores().await)).await;
        assert_eq!(node.stack.count(occurred).await, 1, "after {hours} hours");
    }
    // After 25 half-lives hardly a millionth is left of a like, or nothing at all.
    for (hours, is_forgotten, times) in [(25, false, 2), (50, true, 3)] {
        node.set_clock(begins.plus_ms(hours * 3_600_000));
        let faded = |score: f64| score < 0.001;
        until("both likes have faded", TIME_MAX, async || faded(scores().await.0) && faded(scores().await.1)).await;
        set("eve", "p1", false).await;
        if is_forgotten {
            node.app.engine().forget_likes(&[user("eve")], begins).await.unwrap();
        }
        set("eve", "p1", true).await;
        until("the like of another day counts at its own time", TIME_MAX, async || {
            let (old, new) = scores().await;
            // A like has 0.2, and a quarter of an hour to fade until the next bucket.
            faded(old) && (0.16..0.21).contains(&new)
        })
        .await;
        assert_eq!(node.stack.count(occurred).await, times, "after {hours} hours");
    }
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}
