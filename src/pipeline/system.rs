//! How engine and ledger are, and how far what follows the journal is behind.
//!
//! Invariant: there is always an answer within a second, and nothing of it costs more with more in the ledger, but the exact
//! count of dead letters. What a part that is down can't say is taken for nothing in [`System`], and left out of [`Gauges`].

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::App;
use super::agreement::disagreement;
use super::clock::ClockOffsets;
use super::fault::{Fault, expect_ours};
use crate::domain::{Cursors, EntryBody, Finding, Position, Timestamp};
use crate::engine::{Engine, EngineMemory, Result, Survey};
use crate::ledger::{DeadLetterKinds, Ledger};

/// How long one part may take to say what it is asked; both are asked at once, the engine twice.
const ASK_LIMIT: Duration = Duration::from_millis(400);
/// Entries looked at for a time: those that are no events have none.
const LOOKED_AT: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineState {
    /// `memory` or `redis`.
    pub kind: &'static str,
    pub up: bool,
    /// The epoch this node works in, or the ledger's while it recovers; 0 where neither is known.
    pub epoch: u64,
    /// Memory that the engine's server uses; `None` where there is none, or it does not say.
    pub memory: Option<EngineMemory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerState {
    /// `sqlite` or `postgres`.
    pub kind: &'static str,
    /// Whether it answers, and takes what this node commits, where that is this node's work.
    pub up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System {
    pub engine: EngineState,
    pub ledger: LedgerState,
    /// Entries in the journal that the ledger has not committed.
    pub pending: u64,
    /// Age of the oldest of them; 0 where there is none.
    pub oldest_pending_ms: u64,
    /// Age of the oldest entry that some board does not show; 0 where there is none.
    pub projection_lag_ms: u64,
    pub dead_letters: u64,
}

/// How far what follows the journal is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lags {
    /// Entries that each partition's journal holds.
    pub held: Vec<u64>,
    pub uncommitted: u64,
    pub unshown: u64,
    /// Ages of the oldest entry that the ledger has not committed, and of the oldest that some board does not show; 0 where
    /// there is none. `None` where they could not be read in time.
    pub ages_ms: Option<[u64; 2]>,
}

/// What can be looked at, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauges {
    pub engine: EngineState,
    pub ledger: LedgerState,
    pub lags: Option<Lags>,
    pub dead_letters: Option<DeadLetterKinds>,
    pub clocks: ClockOffsets,
}

/// What the engine says.
struct Asked {
    survey: Survey,
    /// The lowest cursors of the boards that are shown.
    shown: Cursors,
    memory: Option<EngineMemory>,
}

impl App {
    pub async fn system(&self) -> System {
        let dead_letters = async { self.ledger.dead_letter_count().await.ok() };
        let (engine, ledger, lags, dead_letters) = self.look(dead_letters).await;
        let [oldest_pending_ms, projection_lag_ms] = lags.as_ref().and_then(|lags| lags.ages_ms).unwrap_or_default();
        System {
            engine,
            ledger,
            pending: lags.map_or(0, |lags| lags.uncommitted),
            oldest_pending_ms,
            projection_lag_ms,
            dead_letters: dead_letters.unwrap_or(0),
        }
    }

    pub async fn gauges(&self) -> Gauges {
        let dead_letters = async { self.ledger.dead_letter_kinds().await.ok() };
        let (engine, ledger, lags, dead_letters) = self.look(dead_letters).await;
        Gauges { engine, ledger, lags, dead_letters, clocks: self.time.offsets() }
    }

    async fn look<T>(
        &self,
        dead_letters: impl Future<Output = Option<T>>,
    ) -> (EngineState, LedgerState, Option<Lags>, Option<T>) {
        let partitions = self.engine.limits().partitions;
        let state = async { self.ledger.state(partitions).await.ok() };
        let (asked, state, dead_letters) = tokio::join!(
            timeout(ASK_LIMIT, self.ask_engine()),
            timeout(ASK_LIMIT, state),
            timeout(ASK_LIMIT, dead_letters)
        );
        let (asked, state) = (asked.ok().and_then(Result::ok), state.ok().flatten());
        let ledger = LedgerState { kind: self.ledger.kind().name(), up: state.is_some() && self.commits() };
        let known_epoch = self.epoch().ok();
        let engine = EngineState {
            kind: self.engine.kind(),
            up: asked.is_some() && known_epoch.is_some(),
            epoch: known_epoch.or(state.as_ref().map(|state| state.epoch)).unwrap_or(0),
            memory: asked.as_ref().and_then(|asked| asked.memory),
        };
        let in_ledger = match state {
            Some(state) => state.cursors,
            None => (0..partitions).map(|partition| (partition, self.waits.in_ledger(partition))).collect(),
        };
        let lags = match asked {
            None => None,
            Some(Asked { survey, shown, .. }) => {
                let ages = timeout(ASK_LIMIT, self.ages(&survey, [&in_ledger, &shown])).await;
                Some(Lags {
                    held: survey.partitions.iter().map(|partition| partition.len).collect(),
                    uncommitted: written_after(&survey, &in_ledger),
                    unshown: written_after(&survey, &shown),
                    ages_ms: ages.ok().and_then(Result::ok),
                })
            }
        };
        (engine, ledger, lags, dead_letters.ok().flatten())
    }

    /// All at once, or 64 boards in another region would take so long that the engine seemed to be away.
    async fn ask_engine(&self) -> Result<Asked> {
        let definitions = self.definitions();
        let boards = try_join_all(definitions.boards.iter().map(|known| self.engine.board(&known.board.id)));
        let (survey, memory, boards) = tokio::try_join!(self.engine.survey(), self.engine.memory(), boards)?;
        let mut shown = Cursors::new();
        for board in boards {
            let number = board.shown.map(|shown| shown.number);
            let cursors = board.cursors.into_iter().filter(|(generation, _)| Some(*generation) == number);
            for (partition, position) in cursors.flat_map(|(_, cursors)| cursors) {
                let low = shown.entry(partition).or_insert(position);
                *low = position.min(*low);
            }
        }
        Ok(Asked { survey, shown, memory })
    }

    /// For each set of cursors the age of the oldest entry behind them.
    async fn ages(&self, survey: &Survey, cursors: [&Cursors; 2]) -> Result<[u64; 2]> {
        let mut ages = [0; 2];
        for (age, cursors) in ages.iter_mut().zip(cursors) {
            *age = oldest_after(self.engine.as_ref(), survey, cursors, self.now()).await?;
        }
        Ok(ages)
    }
}

/// Age of the oldest entry behind some cursors, in milliseconds; 0 where there is none.
async fn oldest_after(engine: &dyn Engine, survey: &Survey, cursors: &Cursors, now: Timestamp) -> Result<u64> {
    // A reader has a connection of its own, which is made only where there is something to read.
    if written_after(survey, cursors) == 0 {
        return Ok(0);
    }
    let after: Vec<_> = cursors.iter().map(|(partition, position)| (*partition, *position)).collect();
    let read = engine.journal_reader().await?.read(&after, LOOKED_AT, Duration::ZERO).await?;
    let times = read.iter().filter_map(|(_, entries)| {
        entries.iter().find_map(|entry| match &entry.body {
            EntryBody::Event(event) => Some(event.recorded_at),
            EntryBody::Undo(undo) => Some(undo.recorded_at),
            EntryBody::Malformed { .. } => None,
        })
    });
    Ok(times.min().map_or(0, |oldest: Timestamp| now.since_ms(oldest).max(0) as u64))
}

/// Servers follow the journal within fractions of a second; older entries have nobody who follows.
const FOLLOWED_MS: u64 = 10_000;
/// Older entries than that are a twelfth of the way to where likes are refused.
const LATE_MS: u64 = 1_800_000;

/// Whose the engine is, for a check-up; `ledger_id` is that of the ledger, if it has one.
pub async fn examine_owner(engine: &dyn Engine, ledger_id: Option<&str>) -> Result<Finding, Fault> {
    let subject = "Redis's ledger";
    // A server's start finds what an earlier version has left, and takes it over.
    let former = engine.former().await?;
    let survey = former.as_deref().unwrap_or(engine).survey().await?;
    Ok(match expect_ours(engine, &survey, ledger_id) {
        Ok(()) if survey.ledgers.is_empty() => Finding::ok(subject, "it belongs to none yet"),
        Ok(()) => Finding::ok(subject, "it is the one at DATABASE_URL"),
        Err(foreign) => Finding::fail(subject, foreign.to_string()),
    })
}

/// How far the ledger is behind the engine, for a check-up beside the servers that work on both.
pub async fn examine_lag(engine: &dyn Engine, ledger: &Ledger) -> Result<Finding, Fault> {
    let subject = "lag";
    let (survey, state) = (engine.survey().await?, ledger.state(engine.limits().partitions).await?);
    let here = survey.partitions.iter().filter_map(|partition| partition.epoch).max();
    if state.epoch == 0 {
        return Ok(Finding::ok(subject, "nothing has been recorded yet"));
    }
    if here != Some(state.epoch) {
        let here = here.map_or("none".to_owned(), |epoch| epoch.to_string());
        let sentence = format!(
            "Redis is in epoch {here} and the ledger in {}: a server takes over what Redis still has, at its start or within \
             a second; start one, or see why it does not",
            state.epoch
        );
        return Ok(Finding::warn(subject, sentence));
    }
    if let Some(why) = disagreement(&state.present_epoch(), &Cursors::new(), &survey, Some(&state.cursors)) {
        let sentence = format!("a server begins a new epoch at its start or within a second, since {why}");
        return Ok(Finding::warn(subject, sentence));
    }
    let pending = written_after(&survey, &state.cursors);
    let oldest_ms = oldest_after(engine, &survey, &state.cursors, Timestamp::now()).await?;
    let sentence =
        format!("{pending} entries of the journal are not in the ledger, the oldest for {} s", oldest_ms / 1_000);
    Ok(match oldest_ms {
        0..FOLLOWED_MS => Finding::ok(subject, sentence),
        FOLLOWED_MS..LATE_MS => {
            Finding::warn(subject, format!("{sentence}; see that a server runs and reaches the ledger"))
        }
        _ => Finding::fail(
            subject,
            format!(
                "{sentence}; at 6 hours likes are refused: start a server, and see why it does not reach the ledger"
            ),
        ),
    })
}

/// Entries that the journals have written after some cursors.
fn written_after(survey: &Survey, cursors: &Cursors) -> u64 {
    let after = |(partition, from): (&u16, &Position)| {
        let last = survey.partitions.get(usize::from(*partition))?.last?;
        Some(if last.epoch == from.epoch { last.seq.saturating_sub(from.seq) } else { last.seq })
    };
    cursors.iter().filter_map(after).sum()
}
