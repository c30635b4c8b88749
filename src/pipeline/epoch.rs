//! The epoch that this node works in: taken up after recovery, told in the ledger, and lost when the engine is.

use std::sync::atomic::Ordering;

use super::error::RETRY_AFTER_MS;
use super::intake::FULL_RETRY_MS;
use super::{App, AppError};
use crate::domain::Timestamp;
use crate::engine::{EngineError, LeaderHeartbeat};
use crate::ledger::{Epoch, LedgerError};

impl App {
    /// The epoch that this node took up last.
    pub(super) fn begun(&self) -> Epoch {
        self.begun.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// Says in the ledger that this node works; false where the ledger is in another epoch, or is another one.
    pub(super) async fn beat(&self, epoch: &Epoch) -> Result<bool, LedgerError> {
        let Some(beats) = self.ledger.beat(&self.node, &self.engine.instance(), epoch).await? else { return Ok(false) };
        if self.metrics.is_leading() {
            let told = LeaderHeartbeat { epoch: epoch.number, node: self.node.clone(), beats };
            // An engine that is away, or full, is told the next one.
            self.engine.tell_heartbeat(&told).await.ok();
        }
        Ok(true)
    }

    /// Takes up an epoch.
    pub(super) async fn begin(&self, epoch: Epoch) {
        // Before anything is taken, so that nobody takes over meanwhile. Where it fails, the next look says it.
        self.beat(&epoch).await.ok();
        let began_at = self.ledger.state(self.engine.limits().partitions).await.map(|state| state.epoch_began_at);
        // Where the ledger can't say, every event that names its time is looked up there.
        self.epoch_began_at_ms.store(began_at.map_or(i64::MAX, Timestamp::as_ms), Ordering::Relaxed);
        // All of them: a ledger that was restored may have other rules under versions that are known.
        if let Ok(definitions) = self.ledger.definitions().await {
            self.take_definitions(definitions);
        }
        let number = epoch.number;
        *self.begun.lock().expect("as above") = epoch;
        self.epoch.send_replace(Some(number));
    }

    /// What an engine's error means for the caller. A lost engine sends this node into recovery.
    pub(super) fn engine_error(&self, epoch: u64, error: EngineError) -> AppError {
        if let EngineError::Lost(reason) = &error {
            let lost = self.epoch.send_if_modified(|present| present.take_if(|it| *it == epoch).is_some());
            if lost {
                self.metrics.engine_lost();
                tracing::warn!(epoch, "the engine must be recovered: {reason}");
            }
        }
        match error {
            EngineError::Full(_) => AppError::Full { reason: error.to_string(), retry_after_ms: FULL_RETRY_MS },
            _ => AppError::Unavailable { reason: error.to_string(), retry_after_ms: RETRY_AFTER_MS },
        }
    }
}
