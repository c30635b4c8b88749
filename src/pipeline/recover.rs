//! Recovery: how a node starts, and how it goes on when the engine's state was, or may have been, lost.
//!
//! There are no cases: an empty engine, an old copy of it, a promoted replica, a restarted process and the very first
//! start all take this path. Whatever the engine still has is taken over into the ledger, then a new epoch begins.
//!
//! Invariant: the old epoch is closed before it is drained, so nothing can enter a journal that nobody will read again.

use std::time::Duration;

use super::fault::{Fault, expect_ours};
use super::notices::LOOK_EVERY;
use super::sync::Follower;
use crate::domain::{Position, Timestamp};
use crate::engine::{Engine, PartitionSurvey, Survey};
use crate::ledger::{Commit, Ledger, LedgerState};

/// How long it is watched whether others work in the ledger's epoch: each says so at its every look, and may be late.
const WATCH: Duration = LOOK_EVERY.saturating_mul(5).checked_div(2).expect("2 is not 0");
/// Entries of a partition looked up in the ledger at once.
const STRANDED_CHUNK: usize = 1_000;

/// Brings engine and ledger to one epoch and returns it. Safe to call from any number of nodes at any time: a lock in
/// the ledger lets one of them work, and the others find that nothing is left to do.
///
/// An engine whose journal ended in an older epoch than the ledger's is one that others have left for another engine: an old
/// primary, after its replica was promoted. It is closed, what the ledger does not have of it is reported, and as long as
/// anybody works in the ledger's epoch it stays out. An engine of another ledger is not touched.
pub async fn recover(engine: &dyn Engine, ledger: &Ledger) -> Result<u64, Fault> {
    let mut deserted = None;
    loop {
        let lock = ledger.lock("recovery").await?;
        let survey = engine.survey().await?;
        let state = ledger.state(engine.limits().partitions).await?;
        expect_ours(engine, &survey, Some(&state.id))?;
        if agree(&survey, &state) {
            return Ok(state.epoch);
        }
        if state.epoch > 0 && deserted.is_none() {
            let epoch = state.epoch;
            // The server's own memory is empty at each start.
            if newest_epoch(&survey).is_none() && engine.kind() != "memory" {
                tracing::warn!(
                    epoch,
                    "Redis has nothing of this ledger's: it was emptied, or REDIS_URL leads to another one than before; \
                     servers that still work with another are taken over from"
                );
            } else {
                tracing::info!(epoch, "the engine is not where the ledger is; what it still has is taken over");
            }
        }
        engine.close().await?;
        let newest = newest_epoch(&survey).unwrap_or(state.epoch);
        if newest < state.epoch && deserted != Some(state.epoch) {
            report_stranded(engine, ledger, &survey).await?;
            // Those who work there may need it.
            drop(lock);
            let before = ledger.beats().await?;
            tokio::time::sleep(WATCH).await;
            if ledger.beats().await? != before {
                return Err(Fault::LeftBehind { here: newest, there: state.epoch });
            }
            deserted = Some(state.epoch);
            continue;
        }
        // Of two ledgers on an empty engine the other may have been first.
        expect_ours(engine, &engine.survey().await?, Some(&state.id))?;
        let drained = drain(engine, ledger, &state, &survey).await?;
        let epoch = 1 + newest.max(state.epoch);
        let now = ledger.clock().await?.unwrap_or_else(Timestamp::now);
        ledger.begin_epoch(epoch, now).await?;
        engine.open(epoch, &state.id).await?;
        tracing::info!(epoch, drained, "an epoch begins; likes and events are taken");
        return Ok(epoch);
    }
}

/// The newest epoch of which the engine has anything; `None` for an empty one.
fn newest_epoch(survey: &Survey) -> Option<u64> {
    let epochs = |partition: &PartitionSurvey| partition.epoch.max(partition.last.map(|last| last.epoch));
    survey.partitions.iter().filter_map(epochs).max()
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
            "likes and events were accepted by a Redis that the other servers had left; they are not in the ledger, and \
             are kept in its dead_letters"
        );
    }
    Ok(())
}

fn agree(survey: &Survey, state: &LedgerState) -> bool {
    let current = |(partition, cursor): (&u16, &Position)| {
        survey
            .partitions
            .get(usize::from(*partition))
            .is_some_and(|here| here.epoch == Some(state.epoch) && here.last.is_some_and(|last| last >= *cursor))
    };
    state.epoch > 0 && survey.has_scripts && state.cursors.iter().all(current)
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
            Commit::Done { refused } => {
                drained += batches.iter().map(|batch| batch.events.len()).sum::<usize>() - refused.len();
                follower.advance(&batches);
            }
            Commit::CursorMoved => {
                follower = Follower::new(ledger.state(engine.limits().partitions).await?.cursors);
            }
        }
    }
}
