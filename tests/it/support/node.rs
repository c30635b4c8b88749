//! A node inside the test's own process, for what needs the clock or the limits in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use acclaim::domain::{Board, BoardId, EventId, PageStart, Place, ProductId, Signal, Timestamp};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Engine, EngineLimits};
use acclaim::ledger::{Ledger, NewProduct};
use acclaim::pipeline::{App, NewEvent, Settings};

use super::stack::{Setup, Stack};

pub struct Node {
    pub app: Arc<App>,
    pub stack: Stack,
    clock: Arc<AtomicI64>,
}

impl Node {
    /// A node whose clock stands at `now` until it is set.
    pub async fn start(setup: Setup, limits: EngineLimits, now: Timestamp) -> Self {
        Self::start_with(setup, limits, now, &[]).await
    }

    /// The same on a ledger that statements have been run on.
    pub async fn start_with(setup: Setup, limits: EngineLimits, now: Timestamp, statements: &[String]) -> Self {
        let stack = Stack::new(setup).await;
        let engine: Arc<dyn Engine> = match &stack.redis {
            Some(redis) => Arc::new(redis.engine("acc", limits).await),
            None => Arc::new(MemoryEngine::new(limits)),
        };
        let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
        ledger.migrate().await.unwrap();
        for statement in statements {
            stack.sql(statement).await;
        }
        let clock = Arc::new(AtomicI64::new(now.as_ms()));
        let shown = clock.clone();
        let settings = Settings {
            clock: Arc::new(move || Timestamp::from_ms(shown.load(Ordering::Relaxed))),
            ..Settings::default()
        };
        let app = App::start(engine, ledger, settings).await.unwrap();
        Self { app, stack, clock }
    }

    pub fn set_clock(&self, now: Timestamp) {
        self.clock.store(now.as_ms(), Ordering::Relaxed);
    }

    pub async fn with_products(&self, ids: &[&str]) {
        let products: Vec<_> = ids
            .iter()
            .map(|id| NewProduct {
                id: product(id),
                name: (*id).to_owned(),
                image_url: None,
                price: None,
                category: None,
                brand: None,
            })
            .collect();
        self.app.upsert_products(&products).await.unwrap();
    }

    pub fn board(&self, id: &str) -> Arc<Board> {
        self.app.board(&BoardId::new(id).unwrap()).unwrap()
    }

    /// `daily` as (period, places).
    pub async fn shown(&self) -> (String, Vec<(String, f64)>) {
        self.shown_on("daily").await
    }

    /// A board as (period, places with their scores).
    pub async fn shown_on(&self, board: &str) -> (String, Vec<(String, f64)>) {
        let page = self.app.page(&self.board(board), &PageStart::Rank(1), 100).await.unwrap();
        let score = |place: &Place| page.reading.score(place.points).as_f64();
        let places = page.rows.places.iter().map(|place| (place.product.to_string(), score(place))).collect();
        (page.reading.period.key, places)
    }

    /// What is stored of a closed period, as (product, points).
    pub async fn results(&self, board: &str, period: &str) -> Vec<(String, f64)> {
        let results = self.app.ledger().results(&BoardId::new(board).unwrap(), period, 1_000).await.unwrap();
        results.iter().map(|place| (place.product.to_string(), place.points.as_f64())).collect()
    }

    /// Keys of the board's closed periods whose results are stored, oldest first.
    pub async fn closed(&self, board: &str) -> Vec<String> {
        let of_board = format!("SELECT period AS value FROM closed_periods WHERE board = '{board}' ORDER BY ends_at");
        self.stack.column(&of_board).await
    }

    pub async fn stop(self) {
        self.app.stop(Duration::from_secs(10)).await;
    }
}

pub fn product(id: &str) -> ProductId {
    ProductId::new(id).unwrap()
}

/// One order of a product.
pub fn order(id: &str, product_id: &str, occurred_at: Option<Timestamp>) -> NewEvent {
    NewEvent {
        id: EventId::from_producer(id).unwrap(),
        signal: Signal::Order,
        product: product(product_id),
        user: None,
        count: 1,
        occurred_at,
        reverses: None,
    }
}
