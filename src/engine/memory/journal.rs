//! A partition's journal, and the reader that waits for its entries.
//!
//! Invariants: the entries of a journal have one epoch and follow each other without a gap, from 1 after `open`;
//! `last` is the position last written, whatever was trimmed since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use crate::domain::{Entry, EntryBody, Position, Timestamp, Undo};
use crate::engine::{EngineError, EngineLimits, JournalReader, PartitionSurvey, Result};

#[derive(Default)]
pub struct Journal {
    /// `None` while closed.
    epoch: Option<u64>,
    entries: VecDeque<Entry>,
    last: Option<Position>,
    history: Option<u64>,
    /// How far the ledger has announced that it has come. `None` before the first epoch.
    committed: Option<Position>,
    /// The last refused entry that was undone.
    undone: Option<Position>,
}

impl Journal {
    pub fn survey(&self) -> PartitionSurvey {
        PartitionSurvey {
            epoch: self.epoch,
            history: self.history,
            last: self.last,
            len: self.entries.len() as u64,
            committed: self.committed,
        }
    }

    pub fn close(&mut self) {
        self.epoch = None;
    }

    pub fn open(&mut self, epoch: u64, history: u64) {
        let beginning = Some(Position::new(epoch, 0));
        *self = Self {
            epoch: Some(epoch),
            history: Some(history),
            entries: VecDeque::new(),
            last: beginning,
            committed: beginning,
            undone: None,
        };
    }

    pub fn expect_epoch(&self, epoch: u64) -> Result<()> {
        match self.epoch {
            Some(present) if present == epoch => Ok(()),
            Some(present) => Err(EngineError::Lost(format!("its epoch is {present}, not {epoch}"))),
            None => Err(EngineError::Lost(format!("it is closed, not in epoch {epoch}"))),
        }
    }

    /// The position last written. Only for an open journal.
    pub fn last(&self) -> Position {
        self.last.expect("an open journal begins at (epoch, 0)")
    }

    /// Whether it is too long, or what the ledger does not have is too old.
    pub fn is_busy(&self, limits: &EngineLimits, at: Timestamp) -> bool {
        let is_old = |entry: &Entry| match &entry.body {
            EntryBody::Event(event) => at.since_ms(event.recorded_at) >= limits.journal_age_ms_max,
            EntryBody::Undo(undo) => at.since_ms(undo.recorded_at) >= limits.journal_age_ms_max,
            EntryBody::Malformed { .. } => false,
        };
        self.entries.len() as u64 >= limits.journal_len_max
            || self.after(self.committed.unwrap_or_default()).next().is_some_and(is_old)
    }

    /// As [`crate::engine::Engine::undo`]: what stands before the last entry undone is passed over.
    pub fn undo(&mut self, undos: &[Undo], at: Timestamp) {
        for undo in undos {
            if self.undone.is_none_or(|undone| undone < undo.refused) {
                self.undone = Some(undo.refused);
                self.append(EntryBody::Undo(Undo { recorded_at: at, ..undo.clone() }));
            }
        }
    }

    pub fn append(&mut self, body: EntryBody) -> Position {
        let Position { epoch, seq } = self.last();
        let position = Position::new(epoch, seq + 1);
        self.entries.push_back(Entry { position, body });
        self.last = Some(position);
        position
    }

    pub fn after(&self, position: Position) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.entries.partition_point(|entry| entry.position <= position)..)
    }

    pub fn trim(&mut self, upto: Position) {
        self.entries.drain(..self.entries.partition_point(|entry| entry.position <= upto));
    }

    /// Whether the ledger was announced to have passed a position of this epoch.
    pub fn is_committed(&self, position: Position) -> bool {
        self.committed >= Some(position)
    }

    pub fn commit(&mut self, position: Position) {
        if self.epoch == Some(position.epoch) {
            self.committed = self.committed.max(Some(position));
        }
    }
}

pub struct MemoryJournalReader(Arc<Shared>);

impl MemoryJournalReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn present(&self, after: &[(u16, Position)], count: usize) -> Result<Vec<(u16, Vec<Entry>)>> {
        let mut state = self.0.state();
        let mut found = Vec::new();
        for (partition, position) in after {
            let entries: Vec<_> = state.partition(*partition)?.journal.after(*position).take(count).cloned().collect();
            if !entries.is_empty() {
                found.push((*partition, entries));
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl JournalReader for MemoryJournalReader {
    async fn read(
        &mut self,
        after: &[(u16, Position)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<(u16, Vec<Entry>)>> {
        let deadline = Instant::now() + wait;
        loop {
            // Made before looking: from then on it counts what is appended, waited for or not.
            let appended = self.0.appended.notified();
            let found = self.present(after, count)?;
            if !found.is_empty() || timeout_at(deadline, appended).await.is_err() {
                return Ok(found);
            }
        }
    }
}
