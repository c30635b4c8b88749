//! What an engine holds, as recovery needs to know it: whose it is, and how far its journals and the ledger have come.

use std::collections::BTreeSet;

use crate::domain::Position;

/// What a partition holds, as recovery needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionSurvey {
    /// `None` while closed, and where nothing was ever opened.
    pub epoch: Option<u64>,
    /// As [`super::Engine::open`] was told, closed or not; `None` where an earlier version opened it.
    pub history: Option<u64>,
    /// The position last written, whether or not it was trimmed since. `None` where there is no journal.
    pub last: Option<Position>,
    /// Entries that are held.
    pub len: u64,
    /// How far the ledger was announced to have come; `None` where nothing was ever opened.
    pub committed: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Whether the server has seen the epoch begin in which its partitions are. False for one that was restarted, promoted or never
    /// opened: whatever it holds, it may lack what the ledger has. False while closed.
    pub has_witness: bool,
    /// Ids of the ledgers that the partitions were opened for, closed or not. Empty where nothing was ever opened, and where
    /// an earlier version did that; never more than one, unless somebody else than `open` writes there.
    pub ledgers: BTreeSet<String>,
    /// By partition.
    pub partitions: Vec<PartitionSurvey>,
}

/// How far the node that leads, or has led, had counted in its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHeartbeat {
    pub epoch: u64,
    pub node: String,
    pub beats: i64,
}
