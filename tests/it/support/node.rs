//! A node inside the test's own process, for what needs the clock or the limits in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use acclaim::domain::{Board, BoardId, EventId, PageStart, ProductId, Signal, Timestamp};
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
        let stack = Stack::new(setup).await;
        let engine: Arc<dyn Engine> = match &stack.redis {
            Some(redis) => Arc::new(redis.engine("acc", limits).await),
            None => Arc::new(MemoryEngine::new(limits)),
        };
        let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
        ledger.migrate().await.unwrap();
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

    pub fn daily(&self) -> Arc<Board> {
        self.app.board(&BoardId::daily()).unwrap()
    }

    /// The board as (period, places).
    pub async fn shown(&self) -> (String, Vec<(String, f64)>) {
        let page = self.app.page(&self.daily(), &PageStart::Rank(1), 100).await.unwrap();
        let places = page.rows.places.iter().map(|place| (place.product.to_string(), place.points.as_f64()));
        (page.reading.period.key, places.collect())
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
