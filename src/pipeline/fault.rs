//! What stops a background step.

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
