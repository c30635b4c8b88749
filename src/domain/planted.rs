//! Bugs to choose from, for the proof that the torture finds them. Only in a build with the feature `planted-bugs`, and
//! there only where one is asked for.

use std::sync::OnceLock;

/// A rule that a node breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A like is COMMITTED before it is in the journal.
    AckBeforeAppend,
    /// The journal is trimmed up to its end, whatever the ledger has.
    TrimBeforeCommit,
    /// Every like is a new one, whatever key it has.
    NoIdempotencyCheck,
    /// A Redis that has lost its scripts is given them again, and nobody asks what else it has lost.
    ReloadOnNoscript,
    /// Whoever has missed changes is sent the next ones all the same.
    DeltasWithoutGapCheck,
}

static PLANTED: OnceLock<Bug> = OnceLock::new();

impl Bug {
    pub const ALL: [(&str, Self); 5] = [
        ("ack-before-append", Self::AckBeforeAppend),
        ("trim-before-commit", Self::TrimBeforeCommit),
        ("no-idempotency-check", Self::NoIdempotencyCheck),
        ("reload-on-noscript", Self::ReloadOnNoscript),
        ("deltas-without-gap-check", Self::DeltasWithoutGapCheck),
    ];

    pub fn from_name(name: &str) -> Result<Self, String> {
        let named = Self::ALL.iter().find(|(its_name, _)| *its_name == name);
        named.map(|(_, bug)| *bug).ok_or_else(|| format!("the bugs are {:?}", Self::ALL.map(|(name, _)| name)))
    }

    /// From now on this process has it; the first one stays.
    pub fn plant(self) {
        PLANTED.get_or_init(|| self);
    }

    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(&self)
    }
}
