//! The main job, over HTTP and WebSocket, on both set-ups.

use std::collections::BTreeSet;
use std::time::Duration;

use acclaim::domain::BoardId;
use acclaim::engine::redis::keys::BoardKey;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::live::Socket;
use crate::support::redis::{board_key, likes_key};
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::until;

crate::both_setups!(
    a_like_is_counted_ranked_and_taken_back,
    a_double_click_from_fifty_clients_leaves_a_whole_number_of_likes,
    a_retry_with_the_same_key_changes_nothing,
    a_key_that_the_engine_forgot_gets_its_answer_from_the_ledger,
    a_key_of_another_product_is_a_conflict,
    events_are_counted_once_and_reversed_once,
    pages_of_a_moving_board_never_repeat_a_product,
    a_subscriber_sees_what_a_query_sees,
    weights_rescore_the_open_period,
    bad_input_is_refused_and_writes_nothing,
    planted_differences_are_found,
    a_stopped_server_has_synced_its_journal,
);

async fn a_like_is_counted_ranked_and_taken_back(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;

    let liked = server.toggle("ann", "p1", None).await;
    assert_eq!(liked["liked"], true);
    assert_eq!(liked["changed"], true);
    assert_eq!(liked["likeCount"], 1);
    assert_eq!(liked["durability"], "COMMITTED");
    assert_eq!(liked["userErrors"], json!([]));
    assert_eq!(server.toggle("bob", "p1", None).await["likeCount"], 2);

    until("the board shows both likes", Duration::from_secs(5), async || {
        server.ranking(10).await == [("p1".into(), 0.4)]
    })
    .await;
    let product = server
        .graphql("ann", "{ product(id: \"p1\") { name currentRank like { count viewerHasLiked viewerLikedAt } entry { rank score } } }", json!({}))
        .await["product"]
        .clone();
    assert_eq!(product["currentRank"], 1);
    assert_eq!(product["entry"], json!({ "rank": 1, "score": 0.4 }));
    assert_eq!(product["like"]["count"], 2);
    assert_eq!(product["like"]["viewerHasLiked"], true);
    assert_eq!(product["like"]["viewerLikedAt"], liked["at"]);
    let likes = server
        .graphql("ann", "{ viewer { id likes { totalCount nodes { id } edges { likedAt } } } }", json!({}))
        .await["viewer"]["likes"]
        .clone();
    assert_eq!(likes["totalCount"], 1);
    assert_eq!(likes["nodes"], json!([{ "id": "p1" }]));
    assert_eq!(likes["edges"][0]["likedAt"], liked["at"]);

    assert_eq!(server.toggle("ann", "p1", None).await["likeCount"], 1);
    let again = server
        .graphql(
            "ann",
            "mutation { setLike(input: { productId: \"p1\", liked: false }) { liked changed likeCount } }",
            json!({}),
        )
        .await;
    assert_eq!(again["setLike"], json!({ "liked": false, "changed": false, "likeCount": 1 }));
    assert_eq!(server.toggle("bob", "p1", None).await["likeCount"], 0);
    until("the board is empty again", Duration::from_secs(5), async || server.ranking(10).await.is_empty()).await;
    server.assert_verified().await;
}

async fn a_double_click_from_fifty_clients_leaves_a_whole_number_of_likes(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    // Fifty toggles of one pair: the rate limit lets the burst of 20 through (one or two less, where requests overtake each
    // other on their way), and an even number of them cancel out.
    let answers = join_all(
        (0..50).map(|_| server.try_graphql(Some("ann"), crate::support::stack::TOGGLE, json!({ "product": "p0" }))),
    )
    .await;
    let mut done = Vec::new();
    for answer in answers {
        let answer = answer.unwrap();
        match answer["data"]["toggleLike"].clone() {
            Value::Null => {
                let extensions = &answer["errors"][0]["extensions"];
                assert_eq!(extensions["code"], "RATE_LIMITED", "{answer}");
                assert!(extensions["retryAfterMs"].as_u64().unwrap() >= 1);
            }
            liked => done.push(liked),
        }
    }
    assert!((15..50).contains(&done.len()), "{} of 50 were let through", done.len());
    let likes = done.iter().filter(|answer| answer["liked"] == true).count();
    assert_eq!(likes, done.len().div_ceil(2), "likes and unlikes alternate");
    let count =
        server.graphql("ann", "{ product(id: \"p0\") { like { count viewerHasLiked } } }", json!({})).await["product"]
            ["like"]
            .clone();
    let odd = done.len() % 2;
    assert_eq!(count, json!({ "count": odd, "viewerHasLiked": odd == 1 }));
    server.assert_verified().await;
}

async fn a_retry_with_the_same_key_changes_nothing(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    let first = server.toggle("ann", "p0", Some("tap-1")).await;
    let retries = join_all((0..10).map(|_| server.toggle("ann", "p0", Some("tap-1")))).await;
    for retry in retries {
        assert_eq!(retry["changed"], false);
        for field in ["liked", "at", "likeCount", "durability"] {
            assert_eq!(retry[field], first[field]);
        }
    }
    assert_eq!(server.toggle("ann", "p0", Some("tap-2")).await["liked"], false);
    // Even a server that has forgotten everything knows the answer again.
    server.kill();
    let server = stack.serve().await;
    let late = server.toggle("ann", "p0", Some("tap-1")).await;
    assert_eq!((&late["liked"], &late["changed"], &late["at"]), (&json!(true), &json!(false), &first["at"]));
    assert_eq!(late["durability"], "COMMITTED");
    server.assert_verified().await;
}

async fn a_key_that_the_engine_forgot_gets_its_answer_from_the_ledger(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    let first = server.toggle("ann", "p0", Some("first")).await;
    // The engine remembers the last 16.
    for n in 0..16 {
        server.toggle("ann", "p0", Some(&format!("tap-{n}"))).await;
    }
    let late = server.toggle("ann", "p0", Some("first")).await;
    assert_eq!((&late["liked"], &late["changed"], &late["at"]), (&json!(true), &json!(false), &first["at"]));
    assert_eq!(late["durability"], "COMMITTED");
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 17);
    // What the engine thought for a moment is gone: after seventeen taps she likes it.
    let last = server.toggle("ann", "p0", Some("last")).await;
    assert_eq!(
        (&last["liked"], &last["changed"], &last["durability"]),
        (&json!(false), &json!(true), &json!("COMMITTED"))
    );
    until("the boards equal the ledger again", Duration::from_secs(30), async || {
        server.verify().await["differing"] == 0
    })
    .await;
}

async fn a_key_of_another_product_is_a_conflict(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    // What the ledger rejects is charged once more.
    stack.arguments = ["--like-rate", "0"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    server.with_products(4).await;
    let refused = async |server: &Server, key: &str| {
        let set = json!({ "product": "p1", "key": key });
        let text = "mutation($product: ID!, $key: String!) {
            toggleLike(input: { productId: $product, idempotencyKey: $key }) {
                product { id } liked changed at likeCount durability userErrors { code message path } }
            setLike(input: { productId: $product, liked: true, idempotencyKey: $key }) {
                product { id } liked changed at likeCount durability userErrors { code message path } }
        }";
        let payload = json!({
            "product": null, "liked": null, "changed": false, "at": null, "likeCount": null, "durability": null,
            "userErrors": [{
                "code": "CONFLICT",
                "message": "the key was used for a like of another product; give each like a key of its own",
                "path": ["idempotencyKey"],
            }],
        });
        assert_eq!(
            server.graphql("ann", text, set).await,
            json!({ "toggleLike": payload, "setLike": payload }),
            "{key}"
        );
    };
    let first = server.toggle("ann", "p0", Some("tap")).await;
    assert_eq!((&first["liked"], &first["durability"]), (&json!(true), &json!("COMMITTED")));
    refused(&server, "tap").await;
    assert_eq!(server.toggle("ann", "p0", Some("tap")).await["changed"], false, "its own product's it still is");
    assert_eq!(server.toggle("bob", "p1", Some("tap")).await["changed"], true, "a key is its user's own");
    // Many at once for two products: whichever comes first has the key.
    let at_once = join_all((0..10).map(|n| {
        let server = &server;
        async move { server.toggle("cat", &format!("p{}", 2 + n % 2), Some("tap")).await }
    }));
    let answers = at_once.await;
    let conflicts = answers.iter().filter(|answer| answer["userErrors"][0]["code"] == "CONFLICT").count();
    assert_eq!(conflicts, 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["changed"] == true).count(), 1, "{answers:?}");
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 3);
    // The engine remembers the last 16; older keys are the ledger's to know, and those of a server that has forgotten all.
    for n in 0..16 {
        server.toggle("ann", "p0", Some(&format!("tap-{n}"))).await;
    }
    refused(&server, "tap").await;
    refused(&server, "tap-15").await;
    server.kill();
    let server = stack.serve().await;
    refused(&server, "tap-15").await;
    refused(&server, "tap").await;
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 19);
    until("the boards equal the ledger again", Duration::from_secs(30), async || {
        server.verify().await["differing"] == 0
    })
    .await;
    let product = server.graphql("ann", "{ product(id: \"p1\") { like { count viewerHasLiked } } }", json!({})).await;
    assert_eq!(product["product"]["like"], json!({ "count": 1, "viewerHasLiked": false }));
}

async fn events_are_counted_once_and_reversed_once(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    let record =
        async |events: Value| server.graphql("shop", RECORD, json!({ "events": events })).await["recordEvents"].clone();
    let order = json!({ "id": "o-1", "signal": "ORDER", "productId": "p0", "userId": "ann", "count": 3 });
    let view = json!({ "id": "v-1", "signal": "VIEW", "productId": "p1", "count": 10 });
    let first = record(json!([order, view, order])).await;
    assert_eq!(
        (&first["recorded"], &first["duplicates"], &first["durability"]),
        (&json!(2), &json!(1), &json!("COMMITTED"))
    );
    let statuses: Vec<_> =
        first["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["RECORDED", "RECORDED", "DUPLICATE"]);
    assert_eq!(first["results"][1]["eventId"], view["id"]);
    until("both are ranked", Duration::from_secs(5), async || {
        server.ranking(10).await == [("p0".into(), 1.8), ("p1".into(), 1.0)]
    })
    .await;

    let reversal = json!({ "id": "r-1", "signal": "ORDER", "productId": "p0", "reverses": "o-1" });
    let again = json!({ "id": "r-2", "signal": "ORDER", "productId": "p0", "reverses": "o-1" });
    let unknown = json!({ "id": "r-3", "signal": "ORDER", "productId": "p0", "reverses": "o-9" });
    let mismatch = json!({ "id": "r-4", "signal": "VIEW", "productId": "p0", "reverses": "o-1" });
    let strange = json!({ "id": "v-2", "signal": "VIEW", "productId": "nowhere" });
    let second = record(json!([reversal, again, unknown, mismatch, strange])).await;
    let results: Vec<_> = second["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["status"].as_str().unwrap(), result["error"]["code"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        results,
        [
            ("RECORDED", ""),
            ("DUPLICATE", ""),
            ("REJECTED", "NOT_FOUND"),
            ("REJECTED", "INVALID"),
            ("REJECTED", "NOT_FOUND")
        ]
    );
    until("the order is taken back", Duration::from_secs(5), async || server.ranking(10).await == [("p1".into(), 1.0)])
        .await;

    // What is older than the engine's memory is looked up in the ledger, also by a server that remembers nothing.
    let old = json!({ "id": "o-2", "signal": "ORDER", "productId": "p2", "occurredAt": "2026-01-05T10:00:00Z" });
    assert_eq!(record(json!([old])).await["recorded"], 1);
    server.kill();
    let server = stack.serve().await;
    let record =
        async |events: Value| server.graphql("shop", RECORD, json!({ "events": events })).await["recordEvents"].clone();
    assert_eq!(record(json!([old])).await["duplicates"], 1);
    let undo = json!({ "id": "r-5", "signal": "ORDER", "productId": "p2", "reverses": "o-2" });
    assert_eq!(record(json!([undo])).await["recorded"], 1);
    assert_eq!(record(json!([undo])).await["duplicates"], 1);
    server.assert_verified().await;
}

async fn pages_of_a_moving_board_never_repeat_a_product(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(60).await;
    let view = |n: usize, round: usize, count: usize| json!({ "id": format!("v-{round}-{n}"), "signal": "VIEW", "productId": format!("p{n}"), "count": count });
    let events: Vec<_> = (0..60).map(|n| view(n, 0, 1_000 - 10 * n)).collect();
    server.graphql("shop", RECORD, json!({ "events": events })).await;
    until("all are ranked", Duration::from_secs(5), async || server.ranking(100).await.len() == 60).await;

    let query = "query($after: String) { ranking(first: 7, after: $after) { totalCount nodes { rank productId score } pageInfo { hasNextPage endCursor } } }";
    let (mut after, mut seen, mut scores) = (Value::Null, Vec::new(), Vec::new());
    for round in 1.. {
        let page = server.graphql("ann", query, json!({ "after": after })).await["ranking"].clone();
        assert_eq!(page["totalCount"], 60);
        for node in page["nodes"].as_array().unwrap() {
            seen.push(node["productId"].as_str().unwrap().to_owned());
            scores.push(node["score"].as_f64().unwrap());
        }
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
        // What was shown rises further, so nothing moves down into a page to come.
        let rising: Vec<_> = (0..7).map(|n| view(n, round, 50)).collect();
        server.graphql("shop", RECORD, json!({ "events": rising })).await;
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "a product was shown twice");
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(seen.len(), 60);
    let tail = server
        .graphql(
            "ann",
            "{ ranking(fromRank: 58, first: 10) { nodes { rank } pageInfo { hasNextPage hasPreviousPage } } }",
            json!({}),
        )
        .await;
    assert_eq!(tail["ranking"]["nodes"], json!([{ "rank": 58 }, { "rank": 59 }, { "rank": 60 }]));
    assert_eq!(tail["ranking"]["pageInfo"], json!({ "hasNextPage": false, "hasPreviousPage": true }));
    let around = server.graphql("ann", "{ board { current { around(productId: \"p59\", radius: 2) { productId rank } entry(productId: \"p59\") { rank } } } }", json!({})).await;
    assert_eq!(around["board"]["current"]["around"].as_array().unwrap().len(), 3);
    assert_eq!(around["board"]["current"]["entry"]["rank"], 60);
    server.assert_verified().await;
}

async fn a_subscriber_sees_what_a_query_sees(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(20).await;
    let mut socket = Socket::connect(&server.url, json!({})).await;
    let mut view = socket.watch_board(5).await;
    assert_eq!(view.reasons, ["INITIAL"]);
    for round in 0..30 {
        let events: Vec<_> = (0..20)
            .map(|n| json!({ "id": format!("e-{round}-{n}"), "signal": "ORDER", "productId": format!("p{n}"), "count": 1 + (n * 7 + round * 5) % 13 }))
            .collect();
        server.graphql("shop", RECORD, json!({ "events": events })).await;
    }
    let expected = server.ranking(5).await;
    assert_eq!(expected.len(), 5);
    view.follow_until(&mut socket, "the view equals the query", async |shown| *shown == server.ranking(5).await).await;
    assert!(view.deltas >= 1, "nothing but snapshots came");
    server.assert_verified().await;
}

async fn weights_rescore_the_open_period(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(2).await;
    let events = json!([
        { "id": "a", "signal": "VIEW", "productId": "p0", "count": 10 },
        { "id": "b", "signal": "ORDER", "productId": "p1", "count": 1 },
    ]);
    server.graphql("shop", RECORD, json!({ "events": events })).await;
    until("both are ranked", Duration::from_secs(5), async || {
        server.ranking(10).await == [("p0".into(), 1.0), ("p1".into(), 0.6)]
    })
    .await;
    let mut socket = Socket::connect(&server.url, json!({})).await;
    let mut view = socket.watch_board(10).await;

    let adjust = "mutation($board: ID, $weight: Float!, $version: Int) { adjustWeights(input: { board: $board, weights: [{ signal: ORDER, weight: $weight }], expectedVersion: $version, note: \"orders count more\" }) { version rule { version board createdBy note weights { signal weight } } userErrors { code message path } } }";
    let changed =
        server.graphql("admin", adjust, json!({ "board": null, "weight": 2.5, "version": 0 })).await["adjustWeights"]
            .clone();
    assert_eq!(changed["version"], 1, "{changed}");
    assert_eq!(changed["rule"]["createdBy"], "admin");
    assert_eq!(server.ranking(10).await, [("p1".into(), 2.5), ("p0".into(), 1.0)]);
    view.follow_until(&mut socket, "the view is re-scored", async |shown| {
        *shown == [("p1".to_owned(), 2.5), ("p0".to_owned(), 1.0)]
    })
    .await;
    assert_eq!(view.reasons, ["INITIAL", "REWEIGHTED"]);

    let stale =
        server.graphql("admin", adjust, json!({ "board": "daily", "weight": 9, "version": 0 })).await["adjustWeights"]
            .clone();
    assert_eq!(stale["userErrors"][0]["code"], "CONFLICT");
    assert!(stale["userErrors"][0]["message"].as_str().unwrap().contains('1'));
    let own = server.graphql("admin", adjust, json!({ "board": "daily", "weight": 0.000001, "version": 1 })).await["adjustWeights"].clone();
    assert_eq!(own["version"], 2);
    assert_eq!(server.ranking(10).await, [("p0".into(), 1.0), ("p1".into(), 0.000001)]);
    let weights = server.graphql("ann", "{ board { weights { version weights { signal weight } } } }", json!({})).await
        ["board"]["weights"]
        .clone();
    assert_eq!(weights[0]["version"], 2);
    assert!(weights[0]["weights"].as_array().unwrap().contains(&json!({ "signal": "ORDER", "weight": 0.000001 })));
    assert!(weights[0]["weights"].as_array().unwrap().contains(&json!({ "signal": "VIEW", "weight": 0.1 })));
    let rules = server
        .graphql(
            "admin",
            "{ admin { weightRules(first: 1) { nodes { version note } pageInfo { hasNextPage } } } }",
            json!({}),
        )
        .await;
    assert_eq!(
        rules["admin"]["weightRules"],
        json!({ "nodes": [{ "version": 2, "note": "orders count more" }], "pageInfo": { "hasNextPage": true } })
    );
    server.assert_verified().await;
}

async fn bad_input_is_refused_and_writes_nothing(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    let user_error = async |product: &str, key: Option<&str>| {
        let answer = server.toggle("ann", product, key).await;
        (answer["userErrors"][0]["code"].clone(), answer["userErrors"][0]["path"].clone())
    };
    assert_eq!(user_error("nowhere", None).await.0, "NOT_FOUND");
    assert_eq!(user_error("", None).await, (json!("INVALID"), json!(["productId"])));
    assert_eq!(user_error(&"x".repeat(65), None).await.0, "INVALID");
    assert_eq!(user_error("p0", Some(&"k".repeat(65))).await, (json!("INVALID"), json!(["idempotencyKey"])));

    let code = async |user: Option<&str>, query: &str| {
        server.try_graphql(user, query, json!({})).await.unwrap()["errors"][0]["extensions"]["code"].clone()
    };
    assert_eq!(code(None, "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }").await, "UNAUTHENTICATED");
    for bad in [
        "{ ranking(first: 0) { totalCount } }",
        "{ ranking(first: 101) { totalCount } }",
        "{ ranking(after: \"zzz\") { totalCount } }",
        "{ ranking(fromRank: 0) { totalCount } }",
    ] {
        assert_eq!(code(Some("ann"), bad).await, "BAD_USER_INPUT", "{bad}");
    }

    let now = jiff::Timestamp::now();
    let ahead = (now + jiff::SignedDuration::from_mins(6)).to_string();
    let events = json!([
        { "id": "e1", "signal": "VIEW", "productId": "p0", "count": 0 },
        { "id": "e2", "signal": "VIEW", "productId": "p0", "count": 1_000_001 },
        { "id": "e3", "signal": "VIEW", "productId": "p0", "occurredAt": ahead },
        { "id": "", "signal": "VIEW", "productId": "p0" },
        { "id": "e5", "signal": "LIKE", "productId": "p0" },
        { "id": "e6", "signal": "VIEW", "productId": "p0", "userId": "u".repeat(129) },
    ]);
    let recorded = server.graphql("shop", RECORD, json!({ "events": events })).await["recordEvents"].clone();
    assert_eq!((&recorded["recorded"], &recorded["rejected"]), (&json!(0), &json!(6)));
    let paths: Vec<_> = recorded["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["error"]["path"][2].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["count", "count", "occurredAt", "id", "signal", "userId"]);
    assert!(server.ranking(10).await.is_empty());
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 0);
}

async fn planted_differences_are_found(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    server.toggle("ann", "p0", None).await;
    server.toggle("bob", "p1", None).await;
    until("both are ranked", Duration::from_secs(5), async || server.ranking(10).await.len() == 2).await;
    server.assert_verified().await;

    stack.sql("UPDATE likes SET liked = NOT liked WHERE user_id = 'ann'").await;
    let report = server.verify().await;
    assert_eq!(report["differing"], 2, "{report:#}");
    // The events and the engine have it otherwise.
    for (row, target) in ["LIKES", "LOADED_LIKES"].into_iter().enumerate() {
        let row = &report["rows"][row];
        assert_eq!((&row["target"], &row["userId"]), (&json!(target), &json!("ann")), "{report:#}");
    }
    stack.sql("UPDATE likes SET liked = NOT liked WHERE user_id = 'ann'").await;
    server.assert_verified().await;

    // A count that is wrong in the ledger shows there, and as a difference of each board that was built before.
    stack.sql("UPDATE activity SET count = count + 5 WHERE product_id = 'p1'").await;
    let report = server.verify().await;
    let targets: BTreeSet<_> =
        report["rows"].as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap().to_owned()).collect();
    assert_eq!(targets, BTreeSet::from(["ACTIVITY".to_owned(), "BOARD".to_owned()]));
    stack.sql("UPDATE activity SET count = count - 5 WHERE product_id = 'p1'").await;
    server.assert_verified().await;

    if let Some(redis) = &stack.redis {
        redis.command(&["ZINCRBY", &board_key(&BoardId::daily(), BoardKey::Scores), "1000000", "p0"]);
        let report = server.verify().await;
        assert_eq!(report["differing"], 1, "{report:#}");
        assert_eq!((&report["rows"][0]["board"], &report["rows"][0]["productId"]), (&json!("daily"), &json!("p0")));
        redis.command(&["ZINCRBY", &board_key(&BoardId::daily(), BoardKey::Scores), "-1000000", "p0"]);
        server.assert_verified().await;

        // The hidden count of likes, and what users are told that they like.
        redis.command(&["ZINCRBY", &board_key(&BoardId::likes(), BoardKey::Scores), "1000000", "p1"]);
        let report = server.verify().await;
        assert_eq!(report["differing"], 1, "{report:#}");
        assert_eq!((&report["rows"][0]["board"], &report["rows"][0]["productId"]), (&json!("_likes"), &json!("p1")));
        redis.command(&["ZADD", &likes_key("ann"), "5", "p2"]);
        redis.command(&["ZREM", &likes_key("bob"), "p1"]);
        let report = server.verify().await;
        assert_eq!(report["differing"], 3, "{report:#}");
        let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["target"] == "LOADED_LIKES");
        let found: BTreeSet<_> = rows
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                (text("userId"), text("productId"), row["expected"].as_f64().unwrap() as i64)
            })
            .collect();
        let planted =
            [("ann", "p2", 0), ("bob", "p1", 1)].map(|(user, product, n)| (user.to_owned(), product.to_owned(), n));
        assert_eq!(found, BTreeSet::from(planted));
    }
    let status = stack.command().args(["verify", "--url", &server.url]).status().unwrap();
    assert_eq!(status.code(), Some(i32::from(stack.redis.is_some())), "the command tells by its exit code");
}

async fn a_stopped_server_has_synced_its_journal(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(5).await;
    let mut socket = Socket::connect(&server.url, json!({})).await;
    socket.watch_board(5).await;
    let likes = join_all((0..200).map(|n| {
        let server = &server;
        async move { server.toggle(&format!("user-{n}"), &format!("p{}", n % 5), None).await }
    }))
    .await;
    assert_eq!(likes.len(), 200);
    let (status, took) = server.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(socket.closed_with().await, Some(1001));
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 200);
}
