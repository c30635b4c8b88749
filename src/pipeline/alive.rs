//! Watching whether others are alive before anything is taken over.
//!
//! Servers of one fleet that have all lost their engine are no reason to wait for long: each stops as soon as it sees the
//! loss, within two looks. Others go on.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::lead::LEASE;
use super::notices::LOOK_EVERY;
use crate::domain::Timestamp;
use crate::engine::{Engine, Survey};
use crate::ledger::{Ledger, LedgerError};

/// Who has not been seen for so long is gone: each counts at its every look, and may be late.
const SILENCE: Duration = LOOK_EVERY.saturating_mul(5).checked_div(2).expect("2 is not 0");
/// How long others may go on who have yet to notice that the engine is lost: two looks at parts that hang, and time to spare.
pub const PATIENCE: Duration = LOOK_EVERY.saturating_mul(8);
/// How often is looked.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// An answer that took longer says nothing about who could count meanwhile: the ledger hung for all.
const LATE: Duration = Duration::from_millis(500);
/// A heartbeat older than this, by the ledger's own clock, is not waited for. Far more than `SILENCE`, so that the clock may
/// step by seconds; what matters is always whether the count is seen to grow.
const OLD_MS: i64 = 10_000;
/// A ledger that answers late for so long can't say who is alive.
const WATCH_MAX: Duration = Duration::from_secs(60);

/// Whether servers work in an epoch of the ledger's with another engine than this one. True as soon as one of them is seen to
/// count after `patience`.
pub async fn others_work(
    engine: &dyn Engine,
    ledger: &Ledger,
    node: &str,
    epoch: u64,
    patience: Duration,
) -> Result<bool, Fault> {
    let counts = async || {
        let beats = ledger.heartbeats(epoch).await?;
        let others = beats.into_iter().filter(|beat| is_elsewhere(engine, node, &beat.node, &beat.engine));
        Ok::<HashMap<_, _>, LedgerError>(others.map(|beat| (beat.node, (beat.beats, beat.age_ms))).collect())
    };
    let mut seen = counts().await?;
    if seen.values().all(|(_, age_ms)| *age_ms > OLD_MS) {
        return Ok(false);
    }
    tracing::info!(epoch, "waiting: it is watched whether other servers work with another engine");
    let began = Instant::now();
    let mut quiet_since = began;
    while quiet_since.elapsed() < SILENCE {
        if began.elapsed() >= WATCH_MAX {
            return Err(LedgerError::late(LATE).into());
        }
        sleep(ASK_EVERY).await;
        let asked = Instant::now();
        let now = counts().await?;
        let has_moved = now.iter().any(|(node, (beats, _))| seen.get(node).is_none_or(|(before, _)| before != beats));
        seen = now;
        if has_moved && began.elapsed() >= patience {
            return Ok(true);
        }
        if has_moved || asked.elapsed() > LATE {
            quiet_since = Instant::now();
        }
    }
    Ok(false)
}

/// Whether a heartbeat is of a server that may work where this one can't see it.
fn is_elsewhere(engine: &dyn Engine, node: &str, its_node: &str, its_engine: &str) -> bool {
    let instance = engine.instance();
    // Who works on this very engine finds it as it is found here. Of engines in memory there is one at a time, by a lock.
    let is_here = !instance.is_empty() && its_engine == instance;
    let is_before = engine.kind() == "memory" && its_engine.starts_with("memory:");
    its_node != node && !is_here && !is_before
}

/// Whether another server leads on this engine for another copy of the ledger, or for a later state of it: it has told the engine
/// of more heartbeats than this ledger has of it. In one ledger that can't be, since it tells what it has counted, so nothing has
/// to be watched; of two that have been at rest since the one was copied nothing else tells.
pub async fn leads_elsewhere(engine: &dyn Engine, ledger: &Ledger, node: &str, epoch: u64) -> Result<bool, Fault> {
    let Some(told) = engine.leader_heartbeat().await?.filter(|told| told.epoch == epoch && told.node != node) else {
        return Ok(false);
    };
    // Rows of servers that are gone are removed some time.
    if engine.lease_owner(LEASE, Timestamp::now()).await?.as_ref() != Some(&told.node) {
        return Ok(false);
    }
    let known = ledger.heartbeats(epoch).await?.into_iter().find(|known| known.node == told.node);
    if known.is_some_and(|known| known.beats >= told.beats) {
        return Ok(false);
    }
    // Who has begun a later epoch, with another Redis, counts its heartbeat there.
    Ok(ledger.state(engine.limits().partitions).await?.epoch == epoch)
}

/// Waits until nobody leads on this engine any more; false as soon as it is not as it was surveyed, since others of this ledger
/// have recovered it meanwhile. Servers that go on work for another copy of the ledger: those of this one see in the ledger that
/// they can't.
pub async fn until_unused(engine: &dyn Engine, node: &str, surveyed: &Survey) -> Result<bool, Fault> {
    let began = Instant::now();
    let mut is_told = false;
    let epochs =
        |survey: &Survey| -> Vec<_> { survey.partitions.iter().map(|here| (here.epoch, here.history)).collect() };
    loop {
        match engine.lease_owner(LEASE, Timestamp::now()).await? {
            Some(owner) if owner != node => {}
            _ => return Ok(true),
        }
        if epochs(&engine.survey().await?) != epochs(surveyed) {
            return Ok(false);
        }
        if began.elapsed() >= PATIENCE {
            return Err(Fault::OtherCopy);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!(
                "waiting: other servers work on this engine, and may have yet to see that the ledger is another"
            );
        }
        sleep(ASK_EVERY).await;
    }
}
