//! What one partition keeps: its journal, and what is remembered of the users and events that belong to it.

use super::expiring::Expiring;
use super::journal::Journal;
use super::likes::{Answers, Likes};
use crate::domain::{EventId, Position, UserId};
use crate::engine::{EngineLimits, Original};

pub struct Partition {
    pub(super) limits: EngineLimits,
    pub(super) journal: Journal,
    /// When each user liked each product; a user who is not here is not loaded.
    pub(super) likes: Expiring<UserId, Likes>,
    /// The last like that only the ledger can judge.
    pub(super) uncertain: Option<Position>,
    /// Users who were forgotten, with what the journal held then.
    pub(super) forgotten: Expiring<UserId, Position>,
    pub(super) answers: Expiring<UserId, Answers>,
    /// The theoretical arrival time of each user's next like, in microseconds.
    pub(super) rates: Expiring<UserId, i64>,
    pub(super) events: Expiring<EventId, Original>,
}

impl Partition {
    pub fn new(limits: EngineLimits) -> Self {
        Self {
            limits,
            journal: Journal::default(),
            likes: Expiring::default(),
            uncertain: None,
            forgotten: Expiring::default(),
            answers: Expiring::default(),
            rates: Expiring::default(),
            events: Expiring::default(),
        }
    }

    pub fn open(&mut self, epoch: u64, history: u64) {
        self.journal.open(epoch, history);
        self.likes = Expiring::default();
        self.forgotten = Expiring::default();
        self.uncertain = None;
    }
}
