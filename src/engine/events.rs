//! What producers' events are as the engine takes them, and what becomes of each. Likes are in [`super`].

use crate::domain::{EventId, Position, ProductId, Signal, Timestamp, UserId};

/// What an earlier event added, for the reversal that takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    pub signal: Signal,
    pub product: ProductId,
    pub count: i64,
    pub occurred_at: Timestamp,
    /// Whether a reversal has taken it back.
    pub reversed: bool,
}

/// An event to record. All of one call's requests go to one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRequest {
    pub id: EventId,
    pub signal: Signal,
    pub product: ProductId,
    pub user: Option<UserId>,
    /// Ignored for a reversal, which takes back what the original added.
    pub count: i64,
    /// Ignored for a reversal, which has the original's.
    pub occurred_at: Timestamp,
    /// The event to take back, and what the ledger knows of it where the engine was found not to remember it.
    pub reverses: Option<(EventId, Option<Original>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    Recorded(Position),
    /// The id was seen before, or the event to be reversed has been reversed. Nothing was written.
    Duplicate,
    /// The event to be reversed is not remembered, and the request does not say what it added. Nothing was written.
    UnknownOriginal,
    /// The original has another product or signal than the request names. Nothing was written.
    Mismatch,
    /// The journal is too long, or too old. Nothing was written.
    Busy,
}
