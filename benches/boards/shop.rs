//! A shop in the evening of a day in which every one of its products was looked at, and many were bought.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use acclaim::domain::{Board, BoardId, EventId, PageStart, ProductId, Signal, Timestamp, UserId, partition_of};
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Engine, EngineLimits, RecordRequest};
use acclaim::graphql::guards::{Caller, Role};
use acclaim::graphql::{Api, DocumentLimits};
use acclaim::ledger::{Author, Ledger, NewProduct};
use acclaim::live::Hub;
use acclaim::pipeline::{App, Settings, Source, sync};
use tokio_util::sync::CancellationToken;

use crate::support::stack::{Setup, Stack};
use crate::support::until;

pub const PRODUCTS: usize = 100_000;
/// Of each product, at different hours: views, and sometimes more.
const EVENTS_EACH: usize = 5;
const SIGNALS: [Signal; EVENTS_EACH] = [Signal::View, Signal::View, Signal::View, Signal::Cart, Signal::Order];
const EVENING: &str = "2026-11-24T23:50:00Z";
const MIDNIGHT: &str = "2026-11-25T00:00:00Z";
const LIMIT: Duration = Duration::from_secs(120);

pub struct Shop {
    pub app: Arc<App>,
    _stack: Stack,
    api: Api,
    clock: Arc<AtomicI64>,
}

impl Shop {
    /// Returns when every board shows what the ledger has.
    pub async fn open(setup: Setup) -> Self {
        let stack = Stack::new(setup).await;
        let limits = EngineLimits::default();
        let engine: Arc<dyn Engine> = match &stack.redis {
            Some(redis) => Arc::new(redis.engine("acc", limits).await),
            None => Arc::new(MemoryEngine::new(limits)),
        };
        let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
        ledger.migrate().await.unwrap();
        let now = Timestamp::parse(EVENING).unwrap();
        let clock = Arc::new(AtomicI64::new(now.as_ms()));
        let told = clock.clone();
        let clocked: acclaim::pipeline::Clock = Arc::new(move || Timestamp::from_ms(told.load(Ordering::Relaxed)));
        let settings = Settings { clock: clocked, ..Settings::default() };
        fill(engine.clone(), ledger.clone(), settings.clone(), now).await;
        let app = App::start(engine, ledger, settings).await.unwrap();
        let api = Api::new(Hub::start(&app), DocumentLimits::default());
        let shop = Self { app, _stack: stack, api, clock };
        until("every board is shown", LIMIT, async || {
            for definition in &shop.app.definitions().boards {
                let survey = shop.app.engine().board(&definition.board.id).await;
                if !survey.is_ok_and(|survey| survey.shown.is_some()) {
                    return false;
                }
            }
            shop.shown().await.1 == PRODUCTS as u64
        })
        .await;
        shop
    }

    pub fn daily(&self) -> Arc<Board> {
        self.app.board(&BoardId::daily()).unwrap()
    }

    /// Which day the board shows, from the engine, and how many products.
    pub async fn shown(&self) -> (String, u64) {
        let page = self.app.page(&self.daily(), &PageStart::Rank(1), 20).await.unwrap();
        assert_eq!(page.reading.freshness.source, Source::Engine);
        (page.reading.period.key, page.rows.total)
    }

    /// Has the daily board computed anew, and waits until that is shown.
    pub async fn revise_daily(&self) {
        let before = self.revision().await;
        let author = Author { name: "bench".to_owned(), at: self.app.now(), note: "bench".to_owned() };
        self.app.rebuild_board(&BoardId::daily(), None, &author).await.unwrap();
        while self.revision().await == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn revision(&self) -> i64 {
        let survey = self.app.engine().board(&BoardId::daily()).await.unwrap();
        survey.shown.unwrap().build.revision
    }

    /// Changes what a view is worth on the daily board; answered when the board shows it.
    pub async fn weigh(&self, view: f64) {
        let rule = format!("{{ board: \"daily\", weights: [{{ signal: VIEW, weight: {view} }}], note: \"bench\" }}");
        self.ask(&format!("mutation {{ adjustWeights(input: {rule}) {{ version userErrors {{ message }} }} }}")).await;
        let shown = self.app.engine().board(&BoardId::daily()).await.unwrap().shown.unwrap();
        assert_eq!(shown.build.basis.rules_version, self.app.definitions().rules.version(), "not live within 2 s");
    }

    pub async fn read_ranking(&self) {
        self.ask("{ ranking(first: 20) { totalCount nodes { rank score product { name } } } }").await;
    }

    async fn ask(&self, document: &str) {
        let caller = Caller { user: Some(UserId::new("ann").unwrap()), roles: Role::ALL.to_vec(), producer: None };
        let answer = self.api.run(self.api.prepare(acclaim::graphql::Request::new(document)), caller, "bench").await;
        assert_eq!(answer.code, "OK", "{:?}", answer.payload);
    }

    pub fn let_midnight_pass(&self) {
        self.clock.store(Timestamp::parse(MIDNIGHT).unwrap().as_ms(), Ordering::Relaxed);
    }
}

/// Puts the day's events into the ledger, the way they always go.
async fn fill(engine: Arc<dyn Engine>, ledger: Ledger, settings: Settings, now: Timestamp) {
    let product = |n: usize| ProductId::new(&format!("product-{n}")).unwrap();
    let new = |n: usize| NewProduct {
        id: product(n),
        name: format!("Product {n}"),
        image_url: None,
        price: None,
        category: None,
        brand: None,
    };
    for chunk in (0..PRODUCTS).collect::<Vec<_>>().chunks(2_000) {
        let products: Vec<_> = chunk.iter().map(|n| new(*n)).collect();
        ledger.upsert_products(&products, now).await.unwrap();
    }
    let app = App::open(engine.clone(), ledger, settings).await.unwrap();
    let partitions = engine.limits().partitions;
    let mut requests: Vec<Vec<RecordRequest>> = vec![Vec::new(); usize::from(partitions)];
    for n in 0..PRODUCTS * EVENTS_EACH {
        let id = EventId::from_producer(&format!("event-{n}")).unwrap();
        let partition = partition_of(id.as_str(), partitions);
        let batch = &mut requests[usize::from(partition)];
        batch.push(RecordRequest {
            id,
            signal: SIGNALS[n % EVENTS_EACH],
            product: product(n / EVENTS_EACH),
            user: None,
            count: 1 + (n % 7) as i64,
            // Over the whole day, each event of a product at another time.
            occurred_at: now.minus_ms((n as i64 * 7_919 * 1_009) % (23 * 3_600_000)),
            reverses: None,
        });
        if batch.len() == 500 {
            let batch = std::mem::take(batch);
            engine.record(app.epoch().unwrap(), partition, &batch, now).await.unwrap();
        }
    }
    for (partition, batch) in (0..).zip(requests) {
        engine.record(app.epoch().unwrap(), partition, &batch, now).await.unwrap();
    }
    let finish = CancellationToken::new();
    finish.cancel();
    let partitions: Vec<u16> = (0..partitions).collect();
    sync(&app, &partitions, &finish).await.unwrap();
    app.stop(LIMIT).await;
}
