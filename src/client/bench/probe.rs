//! From an event sent to the frame that shows it: one marked event at a time.
//!
//! The marked events go to one product that nothing else moves, so that a change of its score at a subscriber can come
//! from the mark alone.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::table::Latencies;

pub struct Probe {
    mark: Mutex<Mark>,
    all_have_seen: Notify,
    /// Of every watching subscriber, for every mark.
    pub latencies: Latencies,
}

struct Mark {
    product: String,
    sent: Instant,
    /// The subscribers that have not shown it yet.
    awaited: HashSet<usize>,
}

impl Probe {
    pub fn new(product: String) -> Self {
        let mark = Mark { product, sent: Instant::now(), awaited: HashSet::new() };
        Self { mark: Mutex::new(mark), all_have_seen: Notify::new(), latencies: Latencies::new() }
    }

    fn mark(&self) -> MutexGuard<'_, Mark> {
        self.mark.lock().expect("nothing panics while it holds the mark")
    }

    pub fn product(&self) -> String {
        self.mark().product.clone()
    }

    /// Marks another product from now on; whoever shows the last mark later is not measured.
    pub fn move_to(&self, product: String) {
        let mut mark = self.mark();
        mark.product = product;
        mark.awaited.clear();
    }

    /// The mark's event is sent now, and these subscribers should show it.
    pub fn sent(&self, awaited: impl Iterator<Item = usize>) {
        let mut mark = self.mark();
        mark.sent = Instant::now();
        mark.awaited = awaited.collect();
    }

    /// A subscriber was sent another score of `product` at `received`.
    pub fn shown(&self, subscriber: usize, product: &str, received: Instant) {
        let mut mark = self.mark();
        if mark.product == product && mark.awaited.remove(&subscriber) {
            self.latencies.record(received.saturating_duration_since(mark.sent));
            if mark.awaited.is_empty() {
                self.all_have_seen.notify_one();
            }
        }
    }

    /// Waits until all subscribers show the mark; false when some don't in time.
    pub async fn all_show_it(&self, limit: Duration) -> bool {
        let wait = async {
            while !self.mark().awaited.is_empty() {
                self.all_have_seen.notified().await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_is_seen_once_by_each_and_only_on_its_product() {
        let probe = Probe::new("p".to_owned());
        probe.shown(1, "p", Instant::now());
        assert_eq!(probe.latencies.to_string(), "none measured");
        probe.sent([1, 2].into_iter());
        let later = Instant::now() + Duration::from_millis(50);
        probe.shown(1, "q", later);
        probe.shown(1, "p", later);
        probe.shown(1, "p", later + Duration::from_secs(9));
        assert!(!probe.all_show_it(Duration::ZERO).await);
        probe.shown(2, "p", later);
        assert!(probe.all_show_it(Duration::ZERO).await);
        assert!(probe.latencies.to_string().starts_with("p50 50."), "{}", probe.latencies);
        probe.sent([1].into_iter());
        probe.move_to("q".to_owned());
        assert!(probe.all_show_it(Duration::ZERO).await);
    }
}
