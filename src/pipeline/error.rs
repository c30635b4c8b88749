//! What keeps the API from answering.

use super::fault::Fault;
use crate::domain::IdempotencyKey;
use crate::ledger::LedgerError;

/// When a caller may try again: recovery and reconnecting take about this long.
pub(super) const RETRY_AFTER_MS: u64 = 500;

/// Why the API can't answer. Each is told to the client in one place, `graphql::errors`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppError {
    /// Engine or ledger are away, recovering or full; the same call may work after this long. Of likes and events nothing
    /// was written.
    #[error("{reason}")]
    Unavailable { reason: String, retry_after_ms: u64 },
    /// There is no room for it: the engine's memory, or the journal, is full. Nothing was written; the reason is for the
    /// client too.
    #[error("{reason}")]
    Full { reason: String, retry_after_ms: u64 },
    /// The same, but it may have been written. Sent again with this key, or the same ids, likes and events count once.
    #[error("{reason}")]
    Unknown { reason: String, retry_after_ms: u64, key: Option<IdempotencyKey> },
    #[error("too many likes; try again in {retry_after_ms} ms")]
    RateLimited { retry_after_ms: u64 },
    /// More is asked for than one answer may take; `limit` is the bound's name, and `value` what it is.
    #[error("{message}")]
    TooMuch { limit: &'static str, value: usize, message: String },
    /// Not the caller's fault, and no use in trying again; the text is for the log, not for the client.
    #[error("{0}")]
    Internal(String),
}

impl AppError {
    /// As it is counted.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Full { .. } => "full",
            Self::Unknown { .. } => "unknown",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooMuch { .. } => "too_much",
            Self::Internal(_) => "internal",
        }
    }
}

pub type Result<T, E = AppError> = std::result::Result<T, E>;

impl From<LedgerError> for AppError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(_) => {
                Self::Unavailable { reason: error.to_string(), retry_after_ms: RETRY_AFTER_MS }
            }
            LedgerError::Unanswered(_) => {
                Self::Unknown { reason: error.to_string(), retry_after_ms: RETRY_AFTER_MS, key: None }
            }
            LedgerError::TooMany { limit, value, message } => {
                Self::TooMuch { limit, value, message: message.to_owned() }
            }
            LedgerError::Rejected(_) | LedgerError::Internal(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<Fault> for AppError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Ledger(error) => error.into(),
            Fault::Engine(_)
            | Fault::LeftBehind { .. }
            | Fault::WorkedElsewhere { .. }
            | Fault::EarlierVersion
            | Fault::OtherCopy
            | Fault::OtherLedger { .. } => {
                Self::Unavailable { reason: fault.to_string(), retry_after_ms: RETRY_AFTER_MS }
            }
        }
    }
}
