//! What makes a board move while subscribers watch: views of its first products, in turn, each of a random count.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::{SeedableRng, seq::SliceRandom};
use serde_json::Value;

use super::board::{self, BATCH_LEN_MAX, Recorder};
use super::crowd::Crowd;
use super::probe::Probe;
use super::{Target, view};

/// Two batches between two published states at the usual pace, so that each state has all products' changes.
const BATCH_EVERY: Duration = Duration::from_millis(50);
/// Views in one event: apart enough that products overtake each other all the time.
const COUNT_MAX: u32 = 20;
/// Between two marks: never in step with the server's own pace.
const MARK_PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=400;
/// A mark that has not arrived everywhere by then is given up, and counted.
pub const MARK_TIMEOUT: Duration = Duration::from_secs(10);
/// After the mark went to another product, what was sent of it before has arrived by then.
const MARK_SETTLE: Duration = Duration::from_secs(1);

pub struct Driver {
    recorder: Recorder,
    products: Vec<String>,
    events_per_second: u32,
    pub recorded: AtomicU64,
    pub marks: AtomicU64,
    /// Marks that some subscriber did not show in time.
    pub marks_unseen: AtomicU64,
}

impl Driver {
    /// Puts the products that it will move onto the board.
    pub async fn new(target: &Target, top: usize, events_per_second: u32) -> anyhow::Result<Self> {
        // One bears the mark, and another moves.
        let products = board::products(target, 2, top).await?;
        let recorder = Recorder::new(&target.client);
        board::lift(target, &recorder, &products, top).await?;
        let zero = AtomicU64::default;
        Ok(Self { recorder, products, events_per_second, recorded: zero(), marks: zero(), marks_unseen: zero() })
    }

    /// The product that stands best and can bear the mark.
    pub fn best(&self, places: &[view::Place]) -> String {
        let ours = places.iter().map(|place| &place.product_id).find(|product| self.products.contains(product));
        ours.unwrap_or(&self.products[0]).clone()
    }

    /// Records events until it is dropped, or one is refused.
    pub async fn drive(&self, probe: &Probe) -> anyhow::Result<Infallible> {
        let mut rng = StdRng::from_os_rng();
        let mut turn: Vec<&String> = Vec::new();
        let mut ticks = tokio::time::interval(BATCH_EVERY);
        let began = Instant::now();
        let mut sent = 0;
        loop {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * f64::from(self.events_per_second)) as u64;
            let marked = probe.product();
            let mut rows: Vec<Value> = Vec::new();
            while sent < due && rows.len() < BATCH_LEN_MAX {
                let Some(product) = turn.pop() else {
                    turn = self.products.iter().filter(|product| **product != marked).collect();
                    turn.shuffle(&mut rng);
                    continue;
                };
                if *product != marked {
                    rows.push(self.recorder.view(product, rng.random_range(1..=COUNT_MAX)));
                    sent += 1;
                }
            }
            self.record(&rows).await?;
        }
    }

    /// Sends marks, one at a time, until it is dropped, or one is refused.
    pub async fn mark_now_and_then(&self, crowd: &Crowd, probe: &Probe) -> anyhow::Result<Infallible> {
        let mut rng = StdRng::from_os_rng();
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(rng.random_range(MARK_PAUSE_MS))).await;
            // As many views as every other product got meanwhile, so that its place stays about what it was.
            let others = (self.products.len() - 1) as f64;
            let fair = f64::from(self.events_per_second) / others * f64::from(COUNT_MAX) / 2.0;
            let fair = fair * last.elapsed().as_secs_f64();
            last = Instant::now();
            let product = probe.product();
            // Below the visible top nobody would see it.
            let lift = if crowd.stands_well(&product) { 1.0 } else { 4.0 };
            self.mark(crowd, probe, (fair * lift).ceil() as u32).await?;
            self.marks.fetch_add(1, Ordering::Relaxed);
            if !probe.all_show_it(MARK_TIMEOUT).await {
                self.marks_unseen.fetch_add(1, Ordering::Relaxed);
                probe.move_to(self.best(&crowd.places()));
                tokio::time::sleep(MARK_SETTLE).await;
            }
        }
    }

    /// Sends one mark.
    pub async fn mark(&self, crowd: &Crowd, probe: &Probe, count: u32) -> anyhow::Result<()> {
        let row = self.recorder.view(&probe.product(), count);
        probe.sent(crowd.watching());
        self.record(&[row]).await
    }

    async fn record(&self, rows: &[Value]) -> anyhow::Result<()> {
        self.recorder.record(rows).await?;
        self.recorded.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
