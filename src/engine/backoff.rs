//! How long to wait before trying again what has failed for want of somebody else.

use std::time::Duration;

/// Growing waits: 50 ms, since a restart costs little, doubling up to 1 s, which bounds how long a part that has come back
/// stays unused; by chance between half and all of it, so that nodes do not come back in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        let ceiling_ms = (50_u64 << self.failures.min(5)).min(1_000);
        self.failures += 1;
        Duration::from_millis(rand::random_range(ceiling_ms / 2..=ceiling_ms))
    }

    /// Waits after one more failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.after_failure()).await;
    }
}
