//! Recovery: how a node starts, and how it goes on when the engine's state was, or may have been, lost.
//!
//! There are no cases: an empty engine, an old copy of it, a promoted replica, a restarted process and the very first
//! start all take this path. Whatever the engine still has is taken over into the ledger, then a new epoch begins.
//!
//! Invariant: the old epoch is closed before it is drained, so nothing can enter a journal that nobody will read again.

use std::time::Duration;

use super::fault::Fault;
use super::sync::Follower;
use crate::domain::{Position, Timestamp};
use crate::engine::{Engine, Survey};
use crate::ledger::{Commit, Ledger, LedgerState};

/// Brings engine and ledger to one epoch and returns it. Safe to call from any number of nodes at any time: a lock in
/// the ledger lets one of them work, and the others find that nothing is left to do.
pub async fn recover(engine: &dyn Engine, ledger: &Ledger) -> Result<u64, Fault> {
    let _lock = ledger.lock("recovery").await?;
    let survey = engine.survey().await?;
    let state = ledger.state(engine.limits().partitions).await?;
    if agree(&survey, &state) {
        return Ok(state.epoch);
    }
    if state.epoch > 0 {
        tracing::info!(epoch = state.epoch, "the engine is not where the ledger is; what it still has is taken over");
    }
    engine.close().await?;
    let drained = drain(engine, ledger, &state, &survey).await?;
    let epoch = 1 + survey.partitions.iter().fold(state.epoch, |newest, partition| {
        newest.max(partition.epoch.unwrap_or(0)).max(partition.last.map_or(0, |last| last.epoch))
    });
    ledger.begin_epoch(epoch, Timestamp::now()).await?;
    engine.open(epoch).await?;
    tracing::info!(epoch, drained, "an epoch begins; likes and events are taken");
    Ok(epoch)
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
