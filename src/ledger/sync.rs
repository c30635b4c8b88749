//! Taking the journal over: batches of entries into events, likes, activity and cursors, all or nothing.
//!
//! An event is committed, rejected (the ledger has it, or it changes nothing) or dead-lettered (it can't be stored: the database
//! refuses it, or drops it without an error).
//! Events that are not valid go to the dead letters before the database is asked, so that both refuse the same ones.
//! Should one refuse rows all the same, the batch is halved, with a cursor in between, until the bad entry stands alone.
//!
//! The engine has taken what was rejected or dead-lettered, and boards have counted it, but for likes. So the same step
//! leaves a row in `rejections` until the engine is corrected, even if the answer to the commit never arrives.

use super::db::Db;
use super::dead_letters::entry_of;
use super::error::{Failure, LedgerError, Result};
use super::{sync_postgres, sync_sqlite};
use crate::domain::{Event, Position};

/// A partition's entries, to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub partition: u16,
    /// The cursor that these entries follow.
    pub from: Position,
    /// Position of the last entry.
    pub to: Position,
    pub events: Vec<(Position, Event)>,
    /// Entries that can't be events, and gaps in the journal.
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub position: Position,
    pub entry: String,
    pub error: String,
}

/// An event that the ledger did not take, and where in the journal it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub partition: u16,
    pub position: Position,
    pub event: Event,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// The cursors have moved, and all events but these are committed.
    Done {
        /// The ledger had their ids (or a reversal of the same original) already, or they are likes that change nothing.
        rejected: Vec<Refused>,
        /// The database can't store them. They stand among the dead letters.
        dead_lettered: Vec<Refused>,
    },
    /// A cursor was not where the batch begins: somebody else has committed; nothing was changed.
    CursorMoved,
}

/// A run of one partition's entries, sorted into what they become.
#[derive(Clone, Default)]
pub(super) struct Run<'a> {
    pub(super) partition: u16,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) events: Vec<(Position, &'a Event)>,
    pub(super) letters: Vec<Letter<'a>>,
}

/// A row of the dead letters.
#[derive(Clone)]
pub(super) struct Letter<'a> {
    pub(super) id: String,
    pub(super) position: Position,
    pub(super) entry: String,
    pub(super) error: String,
    /// The event that the entry is, where it is one.
    pub(super) event: Option<&'a Event>,
}

/// An event with its partition and position.
pub(super) type Placed<'a> = (u16, Position, &'a Event);

/// What one attempt did.
pub(super) enum Attempt<'a> {
    Done { rejected: Vec<Placed<'a>> },
    CursorMoved,
}

/// A connection that takes runs over, in the transaction that it is in.
pub(super) trait TakesOver {
    async fn take_over<'a>(&mut self, runs: &[Run<'a>]) -> Result<Attempt<'a>, Failure>;
}

/// What is said, before its id, of an event that was not inserted, for which nothing in the ledger is a reason.
pub(super) const DROPPED: &str = "the database drops the event without an error: ";

pub(super) async fn commit(db: &Db, batches: &[Batch]) -> Result<Commit> {
    let (mut all_rejected, mut dead_lettered) = (Vec::new(), Vec::new());
    let refused = |(partition, position, event): Placed<'_>| Refused { partition, position, event: event.clone() };
    // The runs still to be committed, the next one last. Nearly always it is one item: all of them together.
    let mut waiting = vec![batches.iter().map(Run::of).collect::<Vec<_>>()];
    while let Some(runs) = waiting.pop() {
        let attempt = match db {
            Db::Postgres(postgres) => sync_postgres::commit(postgres, &runs).await,
            Db::Sqlite(sqlite) => sync_sqlite::commit(sqlite, &runs).await,
        };
        match attempt {
            Ok(Attempt::Done { rejected }) => {
                all_rejected.extend(rejected.into_iter().map(refused));
                dead_lettered.extend(runs.iter().flat_map(Run::dead_lettered).map(refused));
            }
            Ok(Attempt::CursorMoved) => return Ok(Commit::CursorMoved),
            Err(LedgerError::Rejected(reason)) => waiting.extend(halve(runs, &reason)?),
            Err(error) => return Err(error),
        }
    }
    Ok(Commit::Done { rejected: all_rejected, dead_lettered })
}

/// Two smaller attempts in place of one that was rejected, the second half first; or one in which the last entry left is
/// a dead letter.
fn halve<'a>(mut runs: Vec<Run<'a>>, reason: &str) -> Result<Vec<Vec<Run<'a>>>> {
    if runs.len() > 1 {
        let second = runs.split_off(runs.len() / 2);
        return Ok(vec![second, runs]);
    }
    let rejected = || LedgerError::Rejected(reason.to_owned());
    let mut run = runs.pop().ok_or_else(rejected)?;
    let mut positions: Vec<_> =
        run.events.iter().map(|(at, _)| *at).chain(run.letters.iter().map(|letter| letter.position)).collect();
    positions.sort_unstable();
    positions.dedup();
    if positions.len() > 1 {
        let middle = positions[positions.len() / 2 - 1];
        let mut second = Run { partition: run.partition, from: middle, to: run.to, ..Run::default() };
        (run.events, second.events) = run.events.into_iter().partition(|(at, _)| *at <= middle);
        (run.letters, second.letters) = run.letters.into_iter().partition(|letter| letter.position <= middle);
        run.to = middle;
        return Ok(vec![vec![second], vec![run]]);
    }
    // With no event left the dead letters themselves are refused, and there is nowhere to put them.
    if run.events.is_empty() {
        return Err(rejected());
    }
    for (position, event) in std::mem::take(&mut run.events) {
        run.dead_letter(position, entry_of(event), reason, Some(event));
    }
    Ok(vec![vec![run]])
}

impl<'a> Run<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        let mut run = Self { partition: batch.partition, from: batch.from, to: batch.to, ..Self::default() };
        for letter in &batch.dead_letters {
            run.dead_letter(letter.position, letter.entry.clone(), &letter.error, None);
        }
        for (position, event) in &batch.events {
            match event.validate() {
                Ok(()) => run.events.push((*position, event)),
                Err(invalid) => run.dead_letter(*position, entry_of(event), &invalid.reason, Some(event)),
            }
        }
        run
    }

    /// The events among the dead letters.
    pub(super) fn dead_lettered(&self) -> impl Iterator<Item = Placed<'a>> {
        self.letters.iter().filter_map(|letter| Some((self.partition, letter.position, letter.event?)))
    }

    fn dead_letter(&mut self, position: Position, entry: String, error: &str, event: Option<&'a Event>) {
        let others = self.letters.iter().filter(|letter| letter.position == position).count();
        let id = match others {
            0 => format!("{}:{position}", self.partition),
            n => format!("{}:{position}.{n}", self.partition),
        };
        self.letters.push(Letter { id, position, entry: storable(&entry), error: storable(error), event });
    }
}

/// Postgres stores no U+0000 in a text.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\\u0000")
}
