//! Recovery: how a node starts, and how it goes on when the engine's state was, or may have been, lost.
//!
//! There are no cases: an empty engine, an old copy of it, a promoted replica, a restarted process and the very first
//! start all take this path. Whatever the engine still has is taken over into the ledger, then a new epoch begins.
//!
//! Invariant: the old epoch is closed before it is drained, so nothing can enter a journal that nobody will read again.

use std::collections::HashSet;
use std::time::Duration;

use super::agreement::{disagreement, newest_epoch};
use super::alive;
use super::fault::{Fault, expect_ours};
use super::sync::Follower;
use crate::domain::{Position, Timestamp};
use crate::engine::{Engine, Survey};
use crate::ledger::{Commit, Epoch, Ledger, LedgerState};

/// Entries of a partition looked up in the ledger at once.
const STRANDED_CHUNK: usize = 1_000;

/// Brings engine and ledger to one epoch and returns it. Safe to call from any number of nodes at any time: a lock in
/// the ledger lets one of them work, and the others find that nothing is left to do. `node` is the caller's name.
///
/// Nobody is taken over from who is alive. An engine that has nothing of the ledger's epoch stays out while servers work in
/// that epoch with another engine: it is empty, or was left for another one (an old primary, after its replica was promoted),
/// or a copy's. An engine that servers work on for another copy of the ledger is left to them, and one of another ledger is
/// not touched. Servers of an earlier version that named keys otherwise work with another engine, as it were: what they have
/// left is taken over once none of them is alive.
pub async fn recover(engine: &dyn Engine, ledger: &Ledger, node: &str) -> Result<Epoch, Fault> {
    let partitions = engine.limits().partitions;
    let (mut unused, mut watched, mut is_told) = (false, None, false);
    loop {
        let lock = ledger.lock("recovery").await?;
        let before = ledger.state(partitions).await?.cursors;
        let former = engine.former().await?;
        // Where the state is: an earlier version's is moved here by the epoch that begins.
        let held = former.as_deref().unwrap_or(engine);
        let survey = held.survey().await?;
        let state = ledger.state(partitions).await?;
        expect_ours(engine, &survey, Some(&state.id))?;
        let present = state.present_epoch();
        let is_others = former.is_none() && alive::leads_elsewhere(engine, ledger, node, present.number).await?;
        let why = match &former {
            Some(_) => "an earlier version has left it".to_owned(),
            None => match (disagreement(&present, &before, &survey, Some(&state.cursors)), present.history) {
                (None, Some(_)) if is_others => "who leads on it counts its heartbeats elsewhere".to_owned(),
                (None, Some(history)) => {
                    engine.join(present.number, history).await?;
                    return Ok(present);
                }
                (None, None) => "its epoch has no history".to_owned(),
                (Some(why), _) => why,
            },
        };
        let here = newest_epoch(&survey);
        if state.epoch > 0 && !is_told {
            is_told = true;
            tell(engine, &state, here, &why);
        }
        if former.is_some() && state.epoch > 0 && watched != Some(state.epoch) {
            drop(lock);
            expect_ours(engine, &engine.survey().await?, Some(&state.id))?;
            if alive::others_work(engine, ledger, node, state.epoch, alive::PATIENCE).await? {
                return Err(Fault::EarlierVersion);
            }
            watched = Some(state.epoch);
            continue;
        }
        let is_known = survey.has_witness || former.is_some();
        let is_open = is_known && survey.partitions.iter().any(|partition| partition.epoch.is_some());
        if is_open && !unused {
            // Those who work there may need the lock to find that it is over.
            drop(lock);
            unused = alive::until_unused(held, node, &survey).await?;
            continue;
        }
        let is_left = here.is_some_and(|here| here < state.epoch);
        let is_other_history = here == Some(state.epoch) && is_of_other_history(&survey, &state);
        if is_left {
            held.close().await?;
            report_stranded(held, ledger, &survey).await?;
        }
        let is_of_epoch = here == Some(state.epoch) && !is_other_history;
        if state.epoch > 0 && !is_of_epoch && watched != Some(state.epoch) {
            drop(lock);
            // Whoever else works on an engine that was left has left it too.
            let patience = if is_left { Duration::ZERO } else { alive::PATIENCE };
            if alive::others_work(engine, ledger, node, state.epoch, patience).await? {
                return Err(match here.filter(|_| is_left) {
                    Some(here) => Fault::LeftBehind { here, there: state.epoch },
                    None => Fault::worked_elsewhere(engine),
                });
            }
            watched = Some(state.epoch);
            continue;
        }
        held.close().await?;
        engine.close().await?;
        // Of two ledgers on an empty engine the other may have been first.
        let closed = engine.survey().await?;
        expect_ours(engine, &closed, Some(&state.id))?;
        if former.is_some() {
            // There is something where the earlier version was started once more, after this one.
            report_stranded(engine, ledger, &closed).await?;
        }
        let drained = if is_other_history {
            // Its positions say nothing about these cursors.
            report_stranded(held, ledger, &survey).await?;
            0
        } else {
            drain(held, ledger, &state, &survey).await?
        };
        let keeps_remembered = !is_other_history && !has_gone_back(&survey, &state);
        if !keeps_remembered {
            engine.forget_remembered().await?;
        }
        let number = 1 + here.max(newest_epoch(&closed)).unwrap_or_default().max(state.epoch);
        let now = ledger.clock().await?.unwrap_or_else(Timestamp::now);
        let history = ledger.begin_epoch(number, now).await?;
        if former.is_some() {
            engine.take_over_former(keeps_remembered).await?;
        }
        engine.open(number, history, &state.id).await?;
        tracing::info!(epoch = number, drained, "an epoch begins; likes and events are taken");
        return Ok(Epoch { ledger: state.id, number, history: Some(history) });
    }
}

/// Says why a new epoch is to begin.
fn tell(engine: &dyn Engine, state: &LedgerState, here: Option<u64>, why: &str) {
    let epoch = state.epoch;
    // The server's own memory is empty at each start.
    if here.is_none() && engine.kind() != "memory" {
        tracing::warn!(
            epoch,
            "Redis has nothing of this ledger's: it was emptied, or REDIS_URL leads to another one than before"
        );
    } else {
        tracing::info!(epoch, "the engine is not where the ledger is ({why}); what it still has is taken over");
    }
}

/// Whether the ledger is behind what was announced as committed.
fn has_gone_back(survey: &Survey, state: &LedgerState) -> bool {
    let is_behind = |(partition, cursor): (&u16, &Position)| {
        survey.partitions.get(usize::from(*partition)).is_some_and(|here| here.committed > Some(*cursor))
    };
    state.cursors.iter().any(is_behind)
}

/// Whether the engine was opened for the ledger's epoch by a copy of the ledger. Earlier versions did not keep histories.
fn is_of_other_history(survey: &Survey, state: &LedgerState) -> bool {
    let histories: HashSet<_> = survey.partitions.iter().filter_map(|partition| partition.history).collect();
    state.history.is_some_and(|history| !histories.is_empty() && !histories.contains(&history))
}

/// Puts what a journal of an ended epoch holds and the ledger does not into the dead letters, and drops it from the journal.
/// Its epoch's cursors are gone, so each entry is looked up by its id.
async fn report_stranded(engine: &dyn Engine, ledger: &Ledger, survey: &Survey) -> Result<(), Fault> {
    let mut reader = engine.journal_reader().await?;
    let mut stranded = 0;
    for (partition, here) in (0..).zip(&survey.partitions) {
        let mut after = Position::default();
        loop {
            let read = reader.read(&[(partition, after)], STRANDED_CHUNK, Duration::ZERO).await?;
            let Some(entries) = read.into_iter().next().map(|(_, entries)| entries) else { break };
            stranded += ledger.strand(partition, &entries, Timestamp::now()).await?;
            after = entries.last().map_or(after, |entry| entry.position);
        }
        if let Some(last) = here.last {
            engine.trim(partition, last).await?;
        }
    }
    if stranded > 0 {
        tracing::error!(
            entries = stranded,
            "likes and events were accepted by a Redis that the other servers had left, or for a copy of the ledger; they \
             are not in the ledger, and are kept in its dead_letters"
        );
    }
    Ok(())
}

/// Takes what the journals still hold over into the ledger; returns how many entries.
async fn drain(engine: &dyn Engine, ledger: &Ledger, state: &LedgerState, survey: &Survey) -> Result<usize, Fault> {
    let mut follower = Follower::new(state.cursors.clone());
    let mut reader = engine.journal_reader().await?;
    let mut drained = 0;
    loop {
        let read = reader.read(&follower.positions(), follower.read_count(), Duration::ZERO).await?;
        let batches = follower.batches(&read);
        if batches.is_empty() {
            let lost = follower.lost(survey);
            if !lost.is_empty() {
                ledger.commit(&lost).await?;
            }
            return Ok(drained);
        }
        match ledger.commit(&batches).await? {
            Commit::Done { rejected, dead_lettered } => {
                let events: usize = batches.iter().map(|batch| batch.events.len()).sum();
                drained += events - rejected.len() - dead_lettered.len();
                follower.advance(&batches);
            }
            Commit::CursorMoved => {
                follower = Follower::new(ledger.state(engine.limits().partitions).await?.cursors);
            }
        }
    }
}
