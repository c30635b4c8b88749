//! Taking the journal over: batches of entries into events, likes, activity and cursors, all or nothing.
//!
//! Entries that no database could hold go to the dead letters before it is asked, so that both refuse the same ones.
//! Should one refuse rows all the same, the batch is halved, with a cursor in between, until the bad entry stands alone.
//! What is refused as a duplicate raises the revision of every board in the same step, so that the boards, which have
//! counted it, are rebuilt even if the answer to the commit never arrives.

use super::db::Db;
use super::dead_letters::entry_of;
use super::error::{Failure, LedgerError, Result};
use super::instant::can_be_stored;
use super::{Batch, Commit, Refused, sync_postgres, sync_sqlite};
use crate::domain::{Event, EventId, Position, ProductId, Signal, UserId};

/// A run of one partition's entries, sorted into what they become.
#[derive(Clone, Default)]
pub(super) struct Run<'a> {
    pub(super) partition: u16,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) events: Vec<(Position, &'a Event)>,
    pub(super) letters: Vec<Letter>,
}

/// A row of the dead letters.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) position: Position,
    pub(super) entry: String,
    pub(super) error: String,
}

/// An event with its partition and position.
pub(super) type Placed<'a> = (u16, Position, &'a Event);

/// What one attempt did.
pub(super) enum Attempt<'a> {
    Done { refused: Vec<Placed<'a>> },
    CursorMoved,
}

/// A connection that takes runs over, in the transaction that it is in.
pub(super) trait TakesOver {
    async fn take_over<'a>(&mut self, runs: &[Run<'a>]) -> Result<Attempt<'a>, Failure>;
}

pub(super) async fn commit(db: &Db, batches: &[Batch]) -> Result<Commit> {
    let mut all_refused = Vec::new();
    // The runs still to be committed, the next one last. Nearly always it is one item: all of them together.
    let mut waiting = vec![batches.iter().map(Run::of).collect::<Vec<_>>()];
    while let Some(runs) = waiting.pop() {
        let attempt = match db {
            Db::Postgres(postgres) => sync_postgres::commit(postgres, &runs).await,
            Db::Sqlite(sqlite) => sync_sqlite::commit(sqlite, &runs).await,
        };
        match attempt {
            Ok(Attempt::Done { refused }) => {
                all_refused.extend(refused.into_iter().map(|(partition, position, event)| {
                    let event = event.clone();
                    Refused { partition, position, event }
                }));
            }
            Ok(Attempt::CursorMoved) => return Ok(Commit::CursorMoved),
            Err(LedgerError::Rejected(reason)) => waiting.extend(halve(runs, &reason)?),
            Err(error) => return Err(error),
        }
    }
    Ok(Commit::Done { refused: all_refused })
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
        run.bury(position, entry_of(event), reason);
    }
    Ok(vec![vec![run]])
}

impl<'a> Run<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        let mut run = Self { partition: batch.partition, from: batch.from, to: batch.to, ..Self::default() };
        for letter in &batch.dead_letters {
            run.bury(letter.position, letter.entry.clone(), &letter.error);
        }
        for (position, event) in &batch.events {
            match flaw(event) {
                None => run.events.push((*position, event)),
                Some(flaw) => run.bury(*position, entry_of(event), &flaw),
            }
        }
        run
    }

    fn bury(&mut self, position: Position, entry: String, error: &str) {
        let others = self.letters.iter().filter(|letter| letter.position == position).count();
        let id = match others {
            0 => format!("{}:{position}", self.partition),
            n => format!("{}:{position}.{n}", self.partition),
        };
        self.letters.push(Letter { id, position, entry: storable(&entry), error: storable(error) });
    }
}

/// Why an event can't be counted. The edge lets no such event in; the journal may hold what others wrote to it.
pub(super) fn flaw(event: &Event) -> Option<String> {
    let ids = [
        EventId::new(event.id.as_str()).err(),
        ProductId::new(event.product.as_str()).err(),
        event.user.as_ref().and_then(|user| UserId::new(user.as_str()).err()),
        event.reverses.as_ref().and_then(|id| EventId::new(id.as_str()).err()),
    ];
    if let Some(error) = ids.into_iter().flatten().next() {
        return Some(error.to_string());
    }
    if event.count == 0 || event.count.unsigned_abs() > Event::COUNT_MAX.unsigned_abs() {
        return Some(format!("the count {} is not 1 to {} or what takes that back", event.count, Event::COUNT_MAX));
    }
    if !can_be_stored(event.occurred_at) || !can_be_stored(event.recorded_at) {
        return Some("a time is not within the years 1 to 9999".to_owned());
    }
    let is_sound_like = || {
        let named = |user| event.id.like_key().is_some_and(|key| EventId::of_like(user, &key) == event.id);
        event.signal == Signal::Like && event.count.abs() == 1 && event.user.as_ref().is_some_and(named)
    };
    if event.id.as_str().starts_with("like:") && !is_sound_like() {
        return Some("the id is a like's, and the event is not one like or unlike of that user".to_owned());
    }
    None
}

/// Postgres stores no U+0000 in a text.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\\u0000")
}
