//! Projection: journal entries a second, folded into three boards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acclaim::domain::Basis;
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::redis::RedisEngine;
use acclaim::engine::{Engine, EngineLimits};
use acclaim::ledger::Ledger;
use acclaim::pipeline::{App, Settings, project};
use tokio_util::sync::CancellationToken;

use crate::support::redis::RedisServer;
use crate::support::stack::{Setup, Stack};
use crate::sync::fill;
use crate::{number, row, table};

const ENTRIES: usize = 400_000;

pub async fn run() {
    let limits = EngineLimits { like_rate: 0, journal_len_max: 10_000_000, ..EngineLimits::default() };
    let server = RedisServer::start();
    let redis = RedisEngine::connect(&server.url(), "acc", limits).await.unwrap();
    let mut rows = vec![row!["", "journal entries/s"]];
    for (name, engine) in [
        ("memory engine", Arc::new(MemoryEngine::new(limits)) as Arc<dyn Engine>),
        ("Redis engine", Arc::new(redis) as Arc<dyn Engine>),
    ] {
        rows.push(row![name, number(rate(engine).await)]);
    }
    table(&format!("Projection of {} journal entries into 3 boards", number(ENTRIES as f64)), &rows);
}

async fn rate(engine: Arc<dyn Engine>) -> f64 {
    let stack = Stack::new(Setup::Embedded).await;
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    stack.sql("INSERT INTO boards (id, title, time_window, time_zone, revision) VALUES ('second', 'Second', 'DAY', 'UTC', 1)").await;
    let app = App::open(engine.clone(), ledger.clone(), Settings::default()).await.unwrap();
    let epoch = app.epoch().unwrap();
    // No sync runs here that could bring the ledger up to a period's end, so the day before counts as closed.
    for definition in &app.definitions().boards {
        let period = definition.board.period_at(app.now());
        if let Some(start) = period.starts_at {
            let before = definition.board.period_at(start.minus_ms(1));
            ledger.write_results(definition, &before, &[], Basis { rules_version: 0, at: app.now() }).await.unwrap();
        }
    }
    fill(engine.as_ref(), epoch, ENTRIES).await;
    let ends: Vec<_> = engine.survey().await.unwrap().partitions.iter().map(|here| here.last.unwrap()).collect();
    let finish = CancellationToken::new();
    let began = Instant::now();
    let projection = tokio::spawn({
        let (app, finish) = (app.clone(), finish.clone());
        async move { project(&app, epoch, &finish).await }
    });
    for definition in &app.definitions().boards {
        let board = &definition.board.id;
        loop {
            let survey = engine.board(board).await.unwrap();
            let done =
                survey.shown.and_then(|shown| survey.cursors.into_iter().find(|(number, _)| *number == shown.number));
            if done.is_some_and(|(_, cursors)| cursors.values().zip(&ends).all(|(here, end)| here >= end)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let rate = ENTRIES as f64 / began.elapsed().as_secs_f64();
    finish.cancel();
    projection.await.unwrap().unwrap();
    app.stop(Duration::from_secs(1)).await;
    rate
}
