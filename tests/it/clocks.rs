//! Machines whose clocks are wrong: time is the ledger's, and who is off does not lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use acclaim::domain::{Timestamp, UserId};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Desired, Engine, EngineLimits};
use acclaim::ledger::{Ledger, NewProduct};
use acclaim::pipeline::{App, Durability, LikeResult, Settings};

use crate::support::node::product;
use crate::support::stack::{Setup, Stack};
use crate::support::{postgres, until};

const MINUTE_MS: i64 = 60_000;

/// A node whose own clock is wrong by what can be set.
async fn node(engine: Arc<dyn Engine>, url: &str, wrong_ms: i64) -> (Arc<App>, Arc<AtomicI64>) {
    let wrong = Arc::new(AtomicI64::new(wrong_ms));
    let shown = wrong.clone();
    let settings = Settings {
        clock: Arc::new(move || Timestamp::now().plus_ms(shown.load(Ordering::Relaxed))),
        follows_ledger_clock: true,
        ack_timeout: Duration::from_secs(10),
        ..Settings::default()
    };
    let ledger = Ledger::connect(url).await.unwrap();
    ledger.migrate().await.unwrap();
    (App::start(engine, ledger, settings).await.unwrap(), wrong)
}

/// How far a node's time is from this machine's, which Postgres has as well.
fn error_ms(app: &App) -> i64 {
    app.now().since_ms(Timestamp::now()).abs()
}

fn leads(app: &App) -> bool {
    app.metrics().text().lines().any(|line| line == "acclaim_leading 1")
}

async fn assert_commits(app: &App, user: &str) {
    let liked = app.like(&UserId::new(user).unwrap(), &product("mug"), Desired::Exactly(true), None).await.unwrap();
    let LikeResult::Done { durability, at, .. } = liked else { panic!("{liked:?}") };
    assert_eq!(durability, Durability::Committed);
    assert!(at.since_ms(Timestamp::now()).abs() < 15_000, "{at}");
}

async fn with_mug(app: &App) {
    let mug = NewProduct {
        id: product("mug"),
        name: "Mug".into(),
        image_url: None,
        price: None,
        category: None,
        brand: None,
    };
    app.upsert_products(&[mug]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_wrong_follows_the_ledgers_and_does_not_lead() {
    let stack = Stack::new(Setup::Servers).await;
    let redis = stack.redis.as_ref().unwrap();
    let engine = async || {
        let engine: Arc<dyn Engine> = Arc::new(redis.engine("acc", EngineLimits::default()).await);
        engine
    };
    let (ahead, wrong) = node(engine().await, &stack.ledger_url(), 49 * MINUTE_MS).await;
    with_mug(&ahead).await;
    assert!(error_ms(&ahead) < 1_000, "{}", error_ms(&ahead));
    let offsets = ahead.gauges().await.clocks;
    let is_behind = |ms: Option<i64>| (ms.unwrap() + 49 * MINUTE_MS).abs() < 1_000;
    until("clocks are compared", Duration::from_secs(10), async || ahead.gauges().await.clocks.redis_ms.is_some())
        .await;
    assert!(is_behind(offsets.ledger_ms) && is_behind(ahead.gauges().await.clocks.redis_ms), "{offsets:?}");
    // Alone as it is.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!leads(&ahead));
    let (right, of_right) = node(engine().await, &stack.ledger_url(), 0).await;
    until("the other one leads", Duration::from_secs(10), async || leads(&right)).await;
    assert_commits(&ahead, "ann").await;
    assert_commits(&right, "bob").await;
    // The other way round: one steps while it leads, and its time does not.
    wrong.store(0, Ordering::Relaxed);
    of_right.store(-49 * MINUTE_MS, Ordering::Relaxed);
    let stepped = async {
        for _ in 0..100 {
            assert!(error_ms(&right) < 1_000 && error_ms(&ahead) < 1_000, "time does not step");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let passed_on = until("the other one leads", Duration::from_secs(10), async || leads(&ahead) && !leads(&right));
    tokio::join!(stepped, passed_on);
    assert_commits(&right, "cat").await;
    right.stop(Duration::from_secs(10)).await;
    ahead.stop(Duration::from_secs(10)).await;
}

/// Nobody else could do its work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_follows_the_ledgers_clock_and_works() {
    let url = postgres::database().await;
    let (app, _) = node(Arc::new(MemoryEngine::new(EngineLimits::default())), &url, -49 * MINUTE_MS).await;
    with_mug(&app).await;
    assert!(error_ms(&app) < 1_000, "{}", error_ms(&app));
    assert_commits(&app, "ann").await;
    app.stop(Duration::from_secs(10)).await;
}

/// A file has no clock of its own: the node's is the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_in_a_file_has_the_nodes_own_clock() {
    let stack = Stack::new(Setup::Embedded).await;
    let engine = Arc::new(MemoryEngine::new(EngineLimits::default()));
    let (app, _) = node(engine, &stack.ledger_url(), 49 * MINUTE_MS).await;
    assert!((error_ms(&app) - 49 * MINUTE_MS).abs() < 1_000);
    assert_eq!(app.gauges().await.clocks.ledger_ms, None);
    app.stop(Duration::from_secs(10)).await;
}
