//! The figures of boards with 100,000 products: rebuild, roll, re-score and preview. Asked and measured, as tables.
//!
//! `cargo bench --bench boards`. Needs redis-server and postgresql, as the tests do.

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "benches use a part of what the tests stand on")]
mod support;
#[path = "../table.rs"]
mod table;

mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acclaim::domain::{Signal, Weight};
use acclaim::pipeline::Trial;
use hdrhistogram::Histogram;

use shop::{PRODUCTS, Shop};
use support::stack::Setup;
use table::{number, row, table};

/// How often each thing is done; the middle one counts.
const ROUNDS: usize = 5;
/// Readers of rankings, each asking again some milliseconds after its answer.
const READERS: usize = 4;
const READER_PAUSE: Duration = Duration::from_millis(4);

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for (name, setup) in [("Redis, Postgres", Setup::Servers), ("memory, SQLite", Setup::Embedded)] {
            let shop = Arc::new(Shop::open(setup).await);
            let mut rows = vec![row![name, "asked", "measured"]];
            rebuild(&shop, &mut rows).await;
            preview(&shop, &mut rows).await;
            rescore(&shop, &mut rows).await;
            roll(&shop, &mut rows).await;
            table(&format!("A board of {} products", number(PRODUCTS as f64)), &rows);
        }
    });
}

type Rows = Vec<Vec<String>>;

fn ms(took: Duration) -> String {
    format!("{} ms", number(took.as_secs_f64() * 1e3))
}

/// From the wish to the switch: read, computed, loaded, caught up.
async fn rebuild(shop: &Shop, rows: &mut Rows) {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        shop.revise_daily().await;
        took.push(began.elapsed());
    }
    took.sort();
    let rate = PRODUCTS as f64 / took[ROUNDS / 2].as_secs_f64();
    rows.push(row!["rebuild, products a second", "100,000", number(rate)]);
}

async fn preview(shop: &Shop, rows: &mut Rows) {
    let weights = vec![(Signal::View, Weight::from_millionths(700_000))];
    let trial = Trial { board: Some(shop.daily().id.clone()), weights, from: None, until: None, hours: None };
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        shop.app.weight_preview(&shop.daily(), &trial, 20).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    rows.push(row!["preview", "500 ms", ms(took[ROUNDS / 2])]);
}

/// One rule after the other, while rankings are read.
async fn rescore(shop: &Arc<Shop>, rows: &mut Rows) {
    let before = Reading::start(shop);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = before.finish().await;
    let meanwhile = Reading::start(shop);
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        shop.weigh(0.5 + round as f64).await;
        took.push(began.elapsed());
    }
    let meanwhile = meanwhile.finish().await;
    took.sort();
    rows.push(row!["re-score, live after", "2,000 ms", ms(took[ROUNDS / 2])]);
    let p99 = |read: &Histogram<u64>| read.value_at_quantile(0.99) as f64 / 1e3;
    let (before, meanwhile) = (p99(&before), p99(&meanwhile));
    let told = format!("{:.1} ({before:.1} ms, then {meanwhile:.1} ms)", meanwhile / before);
    rows.push(row!["rankings' p99 meanwhile, to before", "2", told]);
}

/// Midnight: closes the day and begins the next with what carries over. The day that ends is shown whole until then.
async fn roll(shop: &Arc<Shop>, rows: &mut Rows) {
    let began = Instant::now();
    let day = shop.shown().await.0;
    shop.let_midnight_pass();
    loop {
        let (key, total) = shop.shown().await;
        assert_eq!(total, PRODUCTS as u64, "a board is never shown in part: {key}");
        if key != day {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rows.push(row!["roll", "2,000 ms", ms(began.elapsed())]);
}

/// Rankings being read, and how many microseconds each took.
struct Reading {
    stop: Arc<AtomicBool>,
    readers: Vec<tokio::task::JoinHandle<Histogram<u64>>>,
}

impl Reading {
    fn start(shop: &Arc<Shop>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = |_| {
            let (shop, stop) = (shop.clone(), stop.clone());
            tokio::spawn(async move {
                let mut took = Histogram::new(3).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    shop.read_ranking().await;
                    took.record(began.elapsed().as_micros() as u64).unwrap();
                    tokio::time::sleep(READER_PAUSE).await;
                }
                took
            })
        };
        Self { readers: (0..READERS).map(reader).collect(), stop }
    }

    async fn finish(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Histogram::new(3).unwrap();
        for reader in self.readers {
            all.add(reader.await.unwrap()).unwrap();
        }
        all
    }
}
