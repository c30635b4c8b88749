//! What stops a background step, and how long it waits before it tries again.

use std::time::Duration;

use rand::Rng;

use crate::engine::EngineError;
use crate::ledger::LedgerError;

/// A step failed for want of the engine or of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Fault {
    /// Whether the node must recover before anything works again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Lost(_)))
    }
}

/// Growing waits: 50 ms, doubling up to 2 s, with jitter so that nodes don't come back in step. Two seconds bound how long
/// a part that has come back stays unused.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub fn next(&mut self) -> Duration {
        let ceiling_ms = (50_u64 << self.failures.min(6)).min(2_000);
        self.failures += 1;
        Duration::from_millis(rand::rng().random_range(ceiling_ms / 2..=ceiling_ms))
    }
}
