//! What a subscription begins with, where its client shows something already: a page, or what an earlier one has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::live::{Socket, View};
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::{told, until};

const TIME_MAX: Duration = Duration::from_secs(30);

/// As an ordinary client asks: it says nothing of how it is to be led on.
const PLAIN: &str = "subscription($resume: String, $maxRate: Float = 10) {
    boardChanges(top: 2, resume: $resume, maxRate: $maxRate) { __typename position seq
        ... on BoardSnapshot { reason totalCount entries { productId score } }
        ... on BoardDelta { fromSeq changes { productId toRank score entry { rank score productId product { name } } } } } }";

async fn subscribe(socket: &mut Socket, id: &str, variables: Value) {
    let payload = json!({ "query": PLAIN, "variables": variables });
    socket.send(json!({ "id": id, "type": "subscribe", "payload": payload })).await;
}

async fn record(server: &Server, events: Value) {
    let recorded = server.graphql("shop", RECORD, json!({ "events": events })).await;
    assert_eq!(recorded["recordEvents"]["rejected"], 0, "{recorded}");
}

/// The first two places, and the position, once the board is at rest.
async fn page(server: &Server) -> View {
    let query = "{ ranking(first: 2) { period { position } nodes { productId score } } }";
    let mut page = Value::Null;
    until("the board is at rest", TIME_MAX, async || {
        page = server.graphql("ann", query, json!({})).await["ranking"].clone();
        !page["period"]["position"].as_str().unwrap().ends_with('+')
    })
    .await;
    let position = page["period"]["position"].as_str().unwrap();
    let mut view = View::of_page(position, &page["nodes"]);
    position.clone_into(&mut view.position);
    view
}

crate::both_setups!(
    a_client_that_retries_with_its_first_position_shows_the_board,
    nobody_is_shown_an_older_board_than_was_read,
    followed_products_exist_and_are_counted_for_each_caller
);

/// Libraries subscribe again by themselves, with the variables that they began with, and keep what they show.
async fn a_client_that_retries_with_its_first_position_shows_the_board(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(5).await;
    let views =
        |n: usize| json!({ "id": format!("v{n}"), "signal": "VIEW", "productId": format!("p{n}"), "count": n + 1 });
    record(&server, (0..5).map(views).collect()).await;
    until("all is counted", TIME_MAX, async || server.ranking(5).await.len() == 5).await;
    let mut view = page(&server).await;
    let first = json!({ "resume": view.position });
    let before = view.shown.clone();
    assert_eq!(before[0].0, "p4");

    let mut socket = Socket::connect(&server.url, json!({})).await;
    subscribe(&mut socket, "live", first.clone()).await;
    let open = "{ admin { system { subscriptions } } }";
    until("it has begun", TIME_MAX, async || {
        server.graphql("boss", open, json!({})).await["admin"]["system"]["subscriptions"] == 1
    })
    .await;
    record(&server, json!([{ "id": "x", "signal": "ORDER", "productId": "p0", "count": 9 }])).await;
    view.follow_until(&mut socket, "p0 leads", async |shown| shown[0].0 == "p0").await;
    assert!(view.reasons.is_empty(), "nothing had been missed, so changes came: {:?}", view.reasons);
    drop(socket);
    record(&server, json!([{ "id": "y", "signal": "ORDER", "productId": "p0", "reverses": "x" }])).await;
    until("p0 has left", TIME_MAX, async || page(&server).await.shown == before).await;

    let mut socket = Socket::connect(&server.url, json!({})).await;
    subscribe(&mut socket, "live", first).await;
    view.take(&socket.receive().await);
    assert_eq!((&view.reasons[..], &view.shown), (&["RESUMED".to_owned()][..], &before));

    // The present position is answered by nothing, and what follows leads on from it.
    let mut again = Socket::connect(&server.url, json!({})).await;
    subscribe(&mut again, "live", json!({ "resume": view.position })).await;
    record(&server, json!([{ "id": "z", "signal": "ORDER", "productId": "p3", "count": 2 }])).await;
    let entry = loop {
        let message = again.receive().await;
        view.take(&message);
        let event = &message["payload"]["data"]["boardChanges"];
        if event["__typename"] == "BoardDelta" {
            break event["changes"][0]["entry"].clone();
        }
    };
    assert_eq!(view.reasons.len(), 1);
    assert_eq!(view.shown, server.ranking(2).await);
    let named = json!({ "rank": 1, "score": view.shown[0].1, "productId": "p3", "product": { "name": "Product 3" } });
    assert_eq!(entry, named);

    // What has happened to the board is said as ever.
    let held = json!({ "resume": view.position });
    let adjust =
        "mutation { adjustWeights(input: { weights: [{ signal: VIEW, weight: 5 }], note: \"n\" }) { version } }";
    server.graphql("boss", adjust, json!({})).await;
    until("the board is counted anew", TIME_MAX, async || page(&server).await.shown[0].1 == 25.0).await;
    subscribe(&mut again, "later", held).await;
    loop {
        let message = again.receive().await;
        if message["id"] == "later" {
            view.take(&message);
            break;
        }
    }
    assert_eq!(view.reasons[1..], ["REWEIGHTED"]);
}

/// Whoever reads a board and then follows it is never set back, though states are published some time after they can be read.
async fn nobody_is_shown_an_older_board_than_was_read(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = Arc::new(stack.serve().await);
    server.with_products(2).await;
    record(&server, json!([{ "id": "first", "signal": "VIEW", "productId": "p0" }])).await;
    until("it is counted", TIME_MAX, async || server.ranking(1).await.len() == 1).await;
    let calm = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (server, calm) = (server.clone(), calm.clone());
        async move {
            for n in 0.. {
                if calm.load(Ordering::Relaxed) {
                    break;
                }
                // Only ever more, so that an older state is known by its score.
                let event = json!({ "id": format!("v{n}"), "signal": "VIEW", "productId": "p0" });
                record(&server, json!([event])).await;
            }
        }
    });
    let mut socket = Socket::connect(&server.url, json!({})).await;
    let query = "{ ranking(first: 2) { period { position } nodes { productId score } } }";
    let place = |position: &str| -> (u64, u64) {
        let (epoch, seq) = position.trim_end_matches('+').split_once('-').unwrap();
        // A page of the ledger is of no feed.
        let (epoch, _) = epoch.split_once('.').unwrap_or((epoch, ""));
        (epoch.parse().unwrap(), seq.parse().unwrap())
    };
    for n in 0..200 {
        // One that is slow, and whose group has others in it; one that is alone; and one that goes on from the page.
        let page = server.graphql("ann", query, json!({})).await["ranking"].clone();
        let position = page["period"]["position"].as_str().unwrap();
        let variables = match n % 3 {
            0 => json!({ "maxRate": 1 }),
            1 => json!({ "maxRate": 10.0 + f64::from(n) / 10.0 }),
            _ => json!({ "maxRate": 2, "resume": position }),
        };
        let id = format!("s{n}");
        subscribe(&mut socket, &id, variables).await;
        let shown = loop {
            let message = socket.receive().await;
            if message["id"] == id.as_str() {
                break message["payload"]["data"]["boardChanges"].clone();
            }
        };
        let rows = if shown["__typename"] == "BoardDelta" { &shown["changes"] } else { &shown["entries"] };
        assert!(
            rows[0]["score"].as_f64() >= page["nodes"][0]["score"].as_f64()
                && place(shown["position"].as_str().unwrap()) >= place(position),
            "{n}: after {page} came {shown}"
        );
        if n >= 9 {
            socket.send(json!({ "id": format!("s{}", n - 9), "type": "complete" })).await;
        }
    }
    calm.store(true, Ordering::Relaxed);
    load.await.unwrap();
}

async fn followed_products_exist_and_are_counted_for_each_caller(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(2_100).await;
    let query = "subscription($ids: [ID!]!) { likes(productIds: $ids) { productId product { id name } } }";
    let ids = |kind: &str, from: usize| -> Value { (from..from + 100).map(|n| json!(format!("{kind}{n}"))).collect() };
    let follow = |id: usize, ids: Value| {
        let payload = json!({ "query": query, "variables": { "ids": ids } });
        json!({ "id": id.to_string(), "type": "subscribe", "payload": payload })
    };
    // Products that nobody has are refused by name.
    let mut strangers = Vec::new();
    for n in 0..10 {
        let mut stranger = Socket::connect(&server.url, json!({})).await;
        for subscription in 0..20 {
            // One by one: each looks its products up, and a loaded machine must not make that take too long.
            stranger.send(follow(subscription, ids("nothing", n * 2_000 + subscription * 100))).await;
            let refused = loop {
                let message = stranger.receive().await;
                if message["type"] != "complete" {
                    break message;
                }
            };
            let error = &refused["payload"]["errors"][0];
            assert_eq!(told(error), json!({ "code": "BAD_USER_INPUT", "argument": "productIds" }), "{refused}");
            assert!(error["message"].as_str().unwrap().contains("nothing"), "{refused}");
        }
        strangers.push(stranger);
    }
    // Of those that there are, a caller has so many and no more, over all its connections.
    let mut first = strangers.pop().unwrap();
    let mut fresh = Socket::connect(&server.url, json!({})).await;
    for subscription in 0..20 {
        fresh.send(follow(subscription, ids("p", subscription * 100))).await;
    }
    let mut begun = std::collections::HashSet::new();
    while begun.len() < 20 {
        let message = fresh.receive().await;
        assert_eq!(message["type"], "next", "{message}");
        begun.insert(message["id"].as_str().unwrap().to_owned());
    }
    first.send(follow(100, ids("p", 2_000))).await;
    let refused = loop {
        let message = first.receive().await;
        if message["id"] == "100" {
            break message;
        }
    };
    let limit = json!({ "code": "LIMIT_EXCEEDED", "limit": "followedProductsPerCaller", "value": 2_000 });
    assert_eq!(told(&refused["payload"][0]), limit, "{refused}");
    // Nobody else is held up by that, whether what they follow is followed already or not.
    let mut ann = Socket::connect(&server.url, json!({ "x-acclaim-user": "ann" })).await;
    for (id, from) in [(0, 0), (1, 2_000)] {
        ann.send(follow(id, ids("p", from))).await;
        let own = json!(id.to_string());
        let event = loop {
            let message = ann.receive().await;
            assert_eq!(message["type"], "next", "{message}");
            if message["id"] == own {
                break message["payload"]["data"]["likes"].clone();
            }
        };
        let product = event["productId"].as_str().unwrap();
        let named = json!({ "id": product, "name": product.replace('p', "Product ") });
        assert_eq!(event["product"], named);
    }
    // And what is left is given back.
    drop(fresh);
    until("the caller may follow more", TIME_MAX, async || {
        first.send(follow(100, ids("p", 2_000))).await;
        loop {
            let message = first.receive().await;
            if message["id"] == "100" {
                break message["type"] == "next";
            }
        }
    })
    .await;
}
