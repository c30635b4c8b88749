//! Sync: journal entries a second into the ledger, end to end (events, likes, activity, cursors), beside COPY of the
//! same rows into `events` alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acclaim::domain::{EventId, IdempotencyKey, ProductId, Signal, Timestamp, UserId, partition_of};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Desired, Engine, EngineLimits, LikeOutcome, LikeRequest, RecordRequest, UserLikes};
use acclaim::ledger::Ledger;
use acclaim::pipeline::{App, Settings, sync};
use tokio_util::sync::CancellationToken;

use crate::support::stack::{Setup, Stack};
use crate::{number, row, table};

pub const PRODUCTS: usize = 2_000;
const EVENTS: usize = 200_000;
/// One event in five is a like, as in a shop where few of those who look also click.
const LIKE_EVERY: usize = 5;

pub async fn run() {
    let mut rows = vec![row!["events/s", "sync, end to end", "COPY into events", "ratio"]];
    for setup in [Setup::Servers, Setup::Embedded] {
        let stack = Stack::new(setup).await;
        let (app, took) = synced(&stack).await;
        app.stop(Duration::from_secs(1)).await;
        assert_eq!(stack.count("SELECT count(*) FROM events").await, EVENTS as u64);
        let ours = EVENTS as f64 / took.as_secs_f64();
        let copied = match &stack.postgres {
            Some(url) => Some(EVENTS as f64 / copy(url).await.as_secs_f64()),
            None => None,
        };
        let name = if setup == Setup::Servers { "Postgres" } else { "SQLite" };
        rows.push(row![
            name,
            number(ours),
            copied.map_or("-".into(), number),
            copied.map_or("-".into(), |copied| format!("{:.0} %", 100.0 * ours / copied)),
        ]);
    }
    table(&format!("Sync of {} journal entries, one in {LIKE_EVERY} a like", number(EVENTS as f64)), &rows);
}

/// How long COPY takes to put the same rows into a table like `events`.
async fn copy(url: &str) -> Duration {
    let psql = |command: &str| {
        let output =
            std::process::Command::new("psql").args(["-v", "ON_ERROR_STOP=1", "-c", command, url]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.copy");
    psql(&format!("\\copy events TO '{}'", file.display()));
    psql("CREATE TABLE copied (LIKE events INCLUDING ALL)");
    let began = Instant::now();
    psql(&format!("\\copy copied FROM '{}'", file.display()));
    began.elapsed()
}

/// Fills a journal, then times how long the two sync tasks of a node take to commit it.
async fn synced(stack: &Stack) -> (Arc<App>, Duration) {
    let limits = EngineLimits { like_rate: 0, ..EngineLimits::default() };
    let engine = Arc::new(MemoryEngine::new(limits));
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let app = App::open(engine.clone(), ledger.clone(), Settings::default()).await.unwrap();
    fill(engine.as_ref(), app.epoch().unwrap(), EVENTS).await;
    let finish = CancellationToken::new();
    finish.cancel();
    let began = Instant::now();
    let (first, second) = tokio::join!(
        tokio::spawn({
            let (app, finish) = (app.clone(), finish.clone());
            async move { sync(&app, &[0, 1], &finish).await }
        }),
        tokio::spawn({
            let (app, finish) = (app.clone(), finish.clone());
            async move { sync(&app, &[2, 3], &finish).await }
        }),
    );
    first.unwrap().unwrap();
    second.unwrap().unwrap();
    (app, began.elapsed())
}

/// Puts `count` entries into an engine's journal: views and orders of the last hour, and likes.
pub async fn fill(engine: &dyn Engine, epoch: u64, count: usize) {
    let now = Timestamp::now();
    let product = |n: usize| ProductId::new(&format!("product-{}", n * 7_919 % PRODUCTS)).unwrap();
    let mut requests: Vec<Vec<RecordRequest>> = vec![Vec::new(); usize::from(engine.limits().partitions)];
    for n in 0..count {
        if n % LIKE_EVERY == 0 {
            let user = UserId::new(&format!("user-{}", n / LIKE_EVERY / 10)).unwrap();
            if (n / LIKE_EVERY).is_multiple_of(10) {
                let loaded = UserLikes {
                    as_of: acclaim::domain::Position::default(),
                    user: user.clone(),
                    likes: Vec::new(),
                    unliked: Vec::new(),
                    answers: Vec::new(),
                };
                engine.load_likes(epoch, &[loaded], now).await.unwrap();
            }
            let key = IdempotencyKey::new(&format!("key-{n}")).unwrap();
            let request =
                LikeRequest { is_key_new: false, user, product: product(n), key, desired: Desired::Toggled, at: now };
            let outcome = engine.like(epoch, &request).await.unwrap();
            assert!(matches!(outcome, LikeOutcome::Done(_)), "{outcome:?}");
            continue;
        }
        let id = EventId::from_producer(&format!("event-{n}")).unwrap();
        let partition = usize::from(partition_of(id.as_str(), engine.limits().partitions));
        requests[partition].push(RecordRequest {
            id,
            signal: if n % LIKE_EVERY == 1 { Signal::Order } else { Signal::View },
            product: product(n),
            user: None,
            count: 1,
            occurred_at: now.minus_ms((n % 3_600_000) as i64),
            reverses: None,
        });
        if requests[partition].len() == 500 {
            let batch = std::mem::take(&mut requests[partition]);
            engine.record(epoch, partition as u16, &batch, now).await.unwrap();
        }
    }
    for (partition, batch) in (0..).zip(requests) {
        engine.record(epoch, partition, &batch, now).await.unwrap();
    }
}
