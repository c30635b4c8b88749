//! What bounds an engine.
//!
//! Each bound says what it keeps from growing; both engines hold all of them, and answer the same at each.

/// Bounds that both engines keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Partitions of the journal.
    pub partitions: u16,
    /// Likes a second that a user may send for long; 0 for no limit.
    pub like_rate: u32,
    /// Likes that a user may send at once before `like_rate` counts; 0 is taken for 1.
    pub like_burst: u32,
    /// Entries that a partition's journal may hold (markers of epochs not counted) before it answers BUSY: bounds the
    /// engine's memory while the ledger is away.
    pub journal_len_max: u64,
    /// Age (`at` less the entry's `recorded_at`) of the oldest entry that the ledger does not have, in milliseconds, from
    /// which on a partition answers BUSY.
    pub journal_age_ms_max: i64,
    /// How long a user's likes stay without being touched. Must be well over `journal_age_ms_max`, so that nothing
    /// expires before it is in the ledger.
    pub likes_idle_ms: i64,
    /// How long the answers to a user's last idempotency keys are kept after the last one was saved.
    pub answers_idle_ms: i64,
    /// How long an event is remembered for dedupe and reversal.
    pub event_memory_ms: i64,
    /// Products that a user may like at a time.
    pub likes_max: u32,
    /// Within this time after a like, in milliseconds, another one of the same user and product counts at the time of the
    /// first, so that nobody refreshes a like by taking it back; 0 for never.
    pub like_again_ms: i64,
}

impl EngineLimits {
    /// Products that a user may like at a time: more than anybody has an opinion of, and 10 MB of the engine's memory.
    pub const LIKES_MAX: u32 = 100_000;
    /// A day: as long as a board that looks at what is new has a period.
    pub const LIKE_AGAIN_MS: i64 = 24 * 3_600_000;
    /// Idempotency keys remembered for a user: more than a browser has in flight, and bounded for a user who sends
    /// thousands.
    pub const ANSWERS_MAX: usize = 16;
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            partitions: 4,
            like_rate: 10,
            like_burst: 20,
            journal_len_max: 1_000_000,
            journal_age_ms_max: 6 * 3_600_000,
            likes_idle_ms: 24 * 3_600_000,
            answers_idle_ms: 600_000,
            event_memory_ms: 600_000,
            likes_max: Self::LIKES_MAX,
            like_again_ms: Self::LIKE_AGAIN_MS,
        }
    }
}
