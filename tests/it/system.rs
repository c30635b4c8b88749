//! What a node says of itself: how engine and ledger are, and how far what follows the journal is behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acclaim::domain::{BoardId, Timestamp};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Engine, EngineLimits};
use acclaim::ledger::{Ledger, NewProduct};
use acclaim::pipeline::{App, Settings, System, project, sync};
use tokio_util::sync::CancellationToken;

use crate::support::counted::Counted;
use crate::support::node::{Node, order, product};
use crate::support::postgres::{Server, Stop};
use crate::support::redis::RedisServer;
use crate::support::stack::{Setup, Stack};
use crate::support::until;

crate::both_setups!(an_idle_node_has_nothing_to_catch_up, what_is_behind_is_counted);

const LIMIT: Duration = Duration::from_secs(20);

fn at(ms: i64) -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap().plus_ms(ms)
}

/// What a node says within a second, whatever is down.
async fn system(app: &App) -> System {
    let asked = Instant::now();
    let system = app.system().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    system
}

/// A busy node is not taken for one that has lost its journal, because the ledger went on while the engine was surveyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_during_a_survey_is_no_loss() {
    let stack = Stack::new(Setup::Embedded).await;
    let memory = Arc::new(MemoryEngine::new(EngineLimits::default()));
    let engine = Arc::new(Counted::new(memory).with_slow_surveys(Duration::from_millis(300)));
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let app = App::start(engine.clone(), ledger, Settings::default()).await.unwrap();
    let (id, name) = (product("a"), "a".to_owned());
    let new = NewProduct { id, name, image_url: None, price: None, category: None, brand: None };
    app.upsert_products(&[new]).await.unwrap();
    let looked = engine.count("survey");
    let mut n = 0;
    until("it was surveyed some times", LIMIT, async || {
        app.record(&[order(&n.to_string(), "a", None)]).await.unwrap();
        n += 1;
        engine.count("survey") > looked + 2
    })
    .await;
    app.stop(LIMIT).await;
}

async fn an_idle_node_has_nothing_to_catch_up(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at(0)).await;
    node.with_products(&["a"]).await;
    node.app.record(&[order("1", "a", None)]).await.unwrap();
    node.set_clock(at(60_000));
    until("all is where it belongs", LIMIT, async || {
        let System { pending, oldest_pending_ms, projection_lag_ms, .. } = system(&node.app).await;
        (pending, oldest_pending_ms, projection_lag_ms) == (0, 0, 0)
    })
    .await;
    let System { engine, ledger, dead_letters, .. } = system(&node.app).await;
    let (engine_kind, ledger_kind) = if setup == Setup::Servers { ("redis", "postgres") } else { ("memory", "sqlite") };
    assert_eq!((engine.kind, engine.up, engine.epoch), (engine_kind, true, node.app.epoch().unwrap()));
    assert_eq!((ledger.kind, ledger.up, dead_letters), (ledger_kind, true, 0));
    match setup {
        Setup::Servers => assert!(engine.memory.unwrap().used_bytes > 100_000, "{engine:?}"),
        Setup::Embedded => assert_eq!(engine.memory, None),
    }
    let now = if setup == Setup::Servers { "now()" } else { "0" };
    node.stack
        .sql(&format!("INSERT INTO dead_letters (id, partition, epoch, seq, entry, error, at) VALUES ('0:0-1', 0, 0, 1, '', 'x', {now})"))
        .await;
    assert_eq!(system(&node.app).await.dead_letters, 1);
    node.stop().await;
}

/// With no background work but what the test does.
async fn what_is_behind_is_counted(setup: Setup) {
    let stack = Stack::new(setup).await;
    let limits = EngineLimits { like_rate: 0, ..EngineLimits::default() };
    let engine: Arc<dyn Engine> = match &stack.redis {
        Some(redis) => Arc::new(redis.engine("acc", limits).await),
        None => Arc::new(MemoryEngine::new(limits)),
    };
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let clock = Arc::new(std::sync::atomic::AtomicI64::new(at(0).as_ms()));
    let shown = clock.clone();
    let settings = Settings {
        ack_timeout: Duration::from_millis(1),
        clock: Arc::new(move || Timestamp::from_ms(shown.load(std::sync::atomic::Ordering::Relaxed))),
        ..Settings::default()
    };
    let app = App::open(engine, ledger, settings).await.unwrap();
    let row = acclaim::ledger::NewProduct {
        id: crate::support::node::product("a"),
        name: "a".to_owned(),
        image_url: None,
        price: None,
        category: None,
        brand: None,
    };
    app.upsert_products(&[row]).await.unwrap();
    let behind = async || {
        let System { pending, oldest_pending_ms, projection_lag_ms, .. } = system(&app).await;
        (pending, oldest_pending_ms, projection_lag_ms)
    };
    assert_eq!(behind().await, (0, 0, 0));
    let set_clock = |ms: i64| clock.store(at(ms).as_ms(), std::sync::atomic::Ordering::Relaxed);
    app.record(&[order("1", "a", None), order("2", "a", None)]).await.unwrap();
    set_clock(3_000);
    app.record(&[order("3", "a", None)]).await.unwrap();
    set_clock(5_000);
    // No board is shown, so none is behind.
    assert_eq!(behind().await, (3, 5_000, 0));

    let finish = CancellationToken::new();
    let partitions: Vec<_> = (0..app.engine().limits().partitions).collect();
    let syncing = tokio::spawn({
        let (app, finish) = (app.clone(), finish.clone());
        async move { sync(&app, &partitions, &finish).await }
    });
    let epoch = app.epoch().unwrap();
    let projecting = tokio::spawn({
        let (app, finish) = (app.clone(), finish.clone());
        async move { project(&app, epoch, &finish).await }
    });
    until("boards are shown", LIMIT, async || {
        app.is_current(&BoardId::daily()).await.unwrap() && app.is_current(&BoardId::likes()).await.unwrap()
    })
    .await;
    until("nothing is behind", LIMIT, async || behind().await == (0, 0, 0)).await;
    finish.cancel();
    syncing.await.unwrap().unwrap();
    projecting.await.unwrap().unwrap();

    // Nobody works any more: what comes now is in the journal alone.
    app.record(&[order("4", "a", None)]).await.unwrap();
    set_clock(12_000);
    assert_eq!(behind().await, (1, 7_000, 7_000));
    app.stop(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_an_answer_whatever_is_down() {
    let mut redis = RedisServer::start();
    let postgres = Server::start();
    let engine: Arc<dyn Engine> = Arc::new(redis.engine("acc", EngineLimits::default()).await);
    let ledger = Ledger::connect(&postgres.url("postgres")).await.unwrap();
    ledger.migrate().await.unwrap();
    let app = App::start(engine, ledger, Settings::default()).await.unwrap();
    let epoch = app.epoch().unwrap();
    until("both are up", LIMIT, async || {
        let system = system(&app).await;
        system.engine.up && system.ledger.up
    })
    .await;

    postgres.stop(Stop::Crash);
    let down = system(&app).await;
    assert_eq!((down.engine.up, down.engine.epoch, down.ledger.up), (true, epoch, false));
    assert!(down.engine.memory.is_some());
    // A hung Redis, which holds on to its connections, and then none at all.
    redis.freeze();
    let down = system(&app).await;
    assert_eq!((down.engine.up, down.ledger.up, down.pending, down.engine.memory), (false, false, 0, None));
    redis.thaw();
    until("the engine answers again", LIMIT, async || system(&app).await.engine.up).await;
    redis.kill();
    until("the engine is down", LIMIT, async || !system(&app).await.engine.up).await;
    postgres.start_again();
    until("the ledger is up", LIMIT, async || system(&app).await.ledger.up).await;
    let down = system(&app).await;
    assert_eq!((down.engine.kind, down.engine.up, down.engine.epoch), ("redis", false, epoch));
    redis.run();
    until("all is up again", LIMIT, async || {
        let system = system(&app).await;
        system.engine.up && system.ledger.up && system.engine.epoch > epoch
    })
    .await;
    app.stop(LIMIT).await;
}
