//! How a node and what it stands on are doing.

use async_graphql::SimpleObject;

use super::scalars::{Long, int};
use crate::pipeline;

#[derive(SimpleObject)]
pub struct SystemStatus {
    engine: EngineStatus,
    ledger: LedgerStatus,
    /// Entries in the journal that the ledger has not committed.
    pending: Long,
    oldest_pending_ms: Long,
    /// How far the boards are behind the journal.
    projection_lag_ms: Long,
    dead_letters: Long,
    /// Open ones of this node.
    subscriptions: i32,
}

#[derive(SimpleObject)]
pub struct EngineStatus {
    kind: String,
    up: bool,
    epoch: Long,
    /// Of memory, where the engine can say.
    used_bytes: Option<Long>,
    /// What it may use of memory; null for no limit of its own.
    max_bytes: Option<Long>,
    /// Whether it refuses likes and events for want of memory.
    full: bool,
}

#[derive(SimpleObject)]
pub struct LedgerStatus {
    kind: String,
    up: bool,
}

impl SystemStatus {
    pub fn new(system: pipeline::System, subscriptions: usize) -> Self {
        let pipeline::System { engine, ledger, .. } = system;
        Self {
            engine: EngineStatus {
                kind: engine.kind.to_string(),
                up: engine.up,
                epoch: engine.epoch.into(),
                used_bytes: engine.memory.map(|memory| memory.used_bytes.into()),
                max_bytes: engine.memory.and_then(|memory| memory.max_bytes).map(Long::from),
                full: engine.memory.is_some_and(|memory| memory.is_full),
            },
            ledger: LedgerStatus { kind: ledger.kind.to_string(), up: ledger.up },
            pending: system.pending.into(),
            oldest_pending_ms: system.oldest_pending_ms.into(),
            projection_lag_ms: system.projection_lag_ms.into(),
            dead_letters: system.dead_letters.into(),
            subscriptions: int(subscriptions as u64),
        }
    }
}
