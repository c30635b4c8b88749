//! Users who like very much: they have a bound, and hold up nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acclaim::domain::{Event, EventId, IdempotencyKey, Position, ProductId, Signal, Timestamp, UserId, partition_of};
use acclaim::engine::EngineLimits;
use acclaim::engine::memory::MemoryEngine;
use acclaim::ledger::{Batch, Commit, Ledger};
use acclaim::pipeline::{App, AppError, Settings};
use serde_json::{Value, json};

use crate::support::counted::Counted;
use crate::support::stack::{Setup, Stack, TOGGLE};
use crate::support::{told, until};

crate::both_setups!(nobody_likes_more_than_may_be_liked);

const TIME_MAX: Duration = Duration::from_secs(60);

async fn nobody_likes_more_than_may_be_liked(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    // 100,000 products, one of which is p1.
    stack
        .sql(match setup {
            Setup::Servers => {
                "INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
                 SELECT 'eve', CASE n WHEN 1 THEN 'p1' ELSE 'x' || n END, TRUE, now(), 0, 0 FROM generate_series(1, 100000) AS n"
            }
            Setup::Embedded => {
                "WITH RECURSIVE some (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < 100000)
                 INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
                 SELECT 'eve', CASE n WHEN 1 THEN 'p1' ELSE 'x' || n END, TRUE, 1700000000000000, 0, 0 FROM some"
            }
        })
        .await;
    let mut refused = Value::Null;
    until("her likes are loaded", TIME_MAX, async || {
        refused = server.try_graphql(Some("eve"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        refused["errors"][0]["extensions"]["code"] != "UNAVAILABLE"
    })
    .await;
    let expected = json!({ "code": "LIMIT_EXCEEDED", "limit": "likes", "value": 100_000 });
    assert_eq!(told(&refused["errors"][0]), expected, "{refused}");
    let query = "{ products(ids: [\"p0\", \"p1\"]) { like { viewerHasLiked } } }";
    let liked = server.graphql("eve", query, json!({})).await;
    let liked: Vec<_> = liked["products"].as_array().unwrap().iter().map(|of| &of["like"]["viewerHasLiked"]).collect();
    assert_eq!(liked, [&json!(false), &json!(true)]);
    for (product, is_liked) in [("p1", false), ("p0", true)] {
        let answer = server.toggle("eve", product, None).await;
        assert_eq!((&answer["liked"], &answer["durability"]), (&json!(is_liked), &json!("COMMITTED")), "{answer}");
    }
    let refused = server.try_graphql(Some("eve"), TOGGLE, json!({ "product": "p2" })).await.unwrap();
    assert_eq!(told(&refused["errors"][0]), expected, "{refused}");
}

/// What the user likes of these, asked for until a loaded machine has answered in time.
async fn patiently(app: &App, user: &str, products: &[ProductId]) -> Vec<Option<Timestamp>> {
    let user = UserId::new(user).unwrap();
    let deadline = Instant::now() + TIME_MAX;
    loop {
        match app.viewer_likes(&user, products).await {
            Ok(liked) => return liked,
            Err(AppError::Unavailable { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// While one user's many likes are on their way, others are loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_loaded_while_a_heavy_user_is() {
    let user = |id: &str| UserId::new(id).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::connect(&format!("sqlite://{}", folder.path().join("acclaim.db").display())).await.unwrap();
    ledger.migrate().await.unwrap();
    let limits = EngineLimits::default();
    let from = ledger.state(limits.partitions).await.unwrap().cursors[&0];
    let like = |n: u64| {
        let key = IdempotencyKey::new(&format!("k{n}")).unwrap();
        let event = Event {
            id: EventId::of_like(&user("eve"), &key),
            signal: Signal::Like,
            product: ProductId::new(&format!("p{n}")).unwrap(),
            user: Some(user("eve")),
            count: 1,
            occurred_at: Timestamp::from_ms(1_700_000_000_000),
            recorded_at: Timestamp::from_ms(1_700_000_000_000),
            reverses: None,
            is_new: false,
        };
        (Position::new(0, n), event)
    };
    let events: Vec<_> = (1..=2_000).map(like).collect();
    let partition = partition_of("eve", limits.partitions);
    let batch = Batch { partition, from, to: Position::new(0, 2_000), events, dead_letters: vec![] };
    assert_eq!(ledger.commit(&[batch]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });

    let engine = Arc::new(Counted::new(Arc::new(MemoryEngine::new(limits))).with_held_loads(user("eve")));
    let app = App::open(engine.clone(), ledger, Settings::default()).await.unwrap();
    let product = [ProductId::new("p7").unwrap()];
    let eve = tokio::spawn({
        let (app, product) = (app.clone(), product.clone());
        async move { patiently(&app, "eve", &product).await }
    });
    until("hers are on their way", TIME_MAX, async || engine.count("held") == 1).await;
    for n in 0..20 {
        assert_eq!(patiently(&app, &format!("user-{n}"), &product).await, [None]);
    }
    assert!(!eve.is_finished());
    engine.release_loads();
    assert!(eve.await.unwrap()[0].is_some());
    app.stop(TIME_MAX).await;
}
