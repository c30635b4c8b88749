//! Background work: who does it, and how it starts and ends.
//!
//! A node recovers, then competes for one lease; whoever holds it runs sync, projection and trim. The lease only spares
//! work: two holders at once would do no harm. Every task is awaited here and stops on one token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::fault::Fault;
use super::project::project;
use super::recover::recover;
use super::sync::sync;
use crate::domain::{BoardId, Cursors, Position};
use crate::engine::Backoff;

pub const LEASE: &str = "pipeline";
/// A node that dies is followed by another within this and one renewal: 2.5 s, so that boards move again within 3 s.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// How often the lease is renewed by its holder, and tried for by the others.
const LEASE_RENEWAL: Duration = Duration::from_millis(500);
/// Sync tasks, each with its share of the partitions: one commits while the other reads.
const SYNC_TASKS: usize = 2;
/// How often the journal is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Runs the node's background work until it is told to stop. The first recovery is done already.
pub async fn run(app: Arc<App>) {
    let mut backoff = Backoff::default();
    while !app.stop.is_cancelled() {
        let Ok(epoch) = app.epoch() else {
            match recover(app.engine.as_ref(), &app.ledger, &app.node).await {
                Ok(epoch) => {
                    backoff.reset();
                    app.begin(epoch).await;
                }
                Err(fault) => {
                    let wait = backoff.after_failure();
                    tracing::warn!(wait_ms = wait.as_millis() as u64, "recovery waits: {fault}");
                    app.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
            continue;
        };
        compete(&app, epoch).await;
    }
}

/// Waits for the lease and leads with it, until the epoch is lost or the node stops.
async fn compete(app: &Arc<App>, epoch: u64) {
    let mut present = app.epoch.subscribe();
    while *present.borrow() == Some(epoch) && !app.stop.is_cancelled() {
        if app.may_lead() {
            match app.engine.lease(LEASE, &app.node, LEASE_TTL, app.now()).await {
                Ok(true) => lead(app, epoch).await,
                Ok(false) => {}
                Err(error) => {
                    app.engine_error(epoch, error);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LEASE_RENEWAL) => {}
            _ = present.wait_for(|present| *present != Some(epoch)) => {}
            () = app.stop.cancelled() => {}
        }
    }
}

async fn lead(app: &Arc<App>, epoch: u64) {
    tracing::debug!(epoch, "this node leads");
    let _leading = app.metrics.leads();
    let finish = app.stop.child_token();
    let mut tasks = JoinSet::new();
    let partitions: Vec<u16> = (0..app.engine.limits().partitions).collect();
    for share in partitions.chunks(partitions.len().div_ceil(SYNC_TASKS)) {
        let (app, share, finish) = (app.clone(), share.to_vec(), finish.clone());
        tasks.spawn(async move { sync(&app, &share, &finish).await });
    }
    {
        let (app, finish) = (app.clone(), finish.clone());
        tasks.spawn(async move { project(&app, epoch, &finish).await });
    }
    {
        let (app, finish) = (app.clone(), finish.clone());
        tasks.spawn(async move { trim(&app, &finish).await });
    }
    let renewal = renew(app, &finish);
    tokio::pin!(renewal);
    let mut is_renewing = true;
    let mut present = app.epoch.subscribe();
    let mut is_current = true;
    loop {
        tokio::select! {
            _ = present.wait_for(|present| *present != Some(epoch)), if is_current => {
                is_current = false;
                // What the tasks would still read and write belongs to an epoch that is over.
                tasks.abort_all();
            }
            () = &mut renewal, if is_renewing => {
                is_renewing = false;
                finish.cancel();
            }
            done = tasks.join_next() => match done {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(Fault::Engine(error)))) => {
                    app.engine_error(epoch, error);
                }
                Some(Ok(Err(fault))) => tracing::error!("a background task ended: {fault}"),
                Some(Err(stopped)) if stopped.is_cancelled() => {}
                Some(Err(panicked)) => {
                    tracing::error!("a background task panicked and is started anew: {panicked}");
                    finish.cancel();
                }
            },
        }
    }
    app.engine.release(LEASE, &app.node).await.ok();
}

/// Renews the lease; returns when it is somebody else's, could not be renewed in time, this node's clock is off, or the work
/// is to finish.
async fn renew(app: &App, finish: &CancellationToken) {
    let mut valid_until = Instant::now() + LEASE_TTL;
    while !finish.is_cancelled() && Instant::now() < valid_until {
        finish.run_until_cancelled(tokio::time::sleep(LEASE_RENEWAL)).await;
        if !app.may_lead() {
            return;
        }
        match app.engine.lease(LEASE, &app.node, LEASE_TTL, app.now()).await {
            Ok(true) => valid_until = Instant::now() + LEASE_TTL,
            Ok(false) => return,
            Err(error) => tracing::warn!("the lease could not be renewed: {error}"),
        }
    }
}

/// Drops what ledger and boards have passed. What they had passed one round ago, so that the entries stay for a moment
/// for those who compare (verification).
async fn trim(app: &App, finish: &CancellationToken) -> Result<(), Fault> {
    let mut passed = Cursors::new();
    let mut unshown = HashMap::new();
    let mut is_waiting = false;
    while !finish.is_cancelled() {
        match trim_once(app, &passed, &mut unshown).await {
            Ok(now) => (passed, is_waiting) = (now, false),
            Err(fault) => {
                // Once is enough: what is away is told by others, for as long as it is.
                if !is_waiting {
                    tracing::warn!("trim waits: {fault}");
                }
                is_waiting = true;
            }
        }
        finish.run_until_cancelled(tokio::time::sleep(TRIM_EVERY)).await;
    }
    Ok(())
}

/// Drops what had been passed, and returns what is by now.
async fn trim_once(
    app: &App,
    passed: &Cursors,
    unshown: &mut HashMap<(BoardId, u64), Instant>,
) -> Result<Cursors, Fault> {
    let trims = passed.iter().map(|(&partition, &position)| app.engine.trim(partition, position));
    let trimmed = join_all(trims).await.into_iter().collect::<Result<(), _>>();
    let passed = passed_by_all(app, unshown).await?;
    trimmed?;
    Ok(passed)
}

/// A generation that is still not shown after this was abandoned by a node that lost the lease. Its cursors hold the trim no
/// longer; should somebody be at it all the same, it finds the gap and begins again.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

async fn passed_by_all(app: &App, unshown: &mut HashMap<(BoardId, u64), Instant>) -> Result<Cursors, Fault> {
    #[cfg(feature = "planted-bugs")]
    if crate::domain::planted::Bug::TrimBeforeCommit.is_planted() {
        let written = app.engine.survey().await?.partitions;
        return Ok((0..).zip(written).filter_map(|(partition, here)| Some((partition, here.last?))).collect());
    }
    let partitions = 0..app.engine.limits().partitions;
    let mut passed: Cursors = partitions.map(|partition| (partition, app.waits.in_ledger(partition))).collect();
    let mut present = HashMap::new();
    for definition in &app.definitions().boards {
        let survey = app.engine.board(&definition.board.id).await?;
        let shown = survey.shown.map(|shown| shown.number);
        for (number, cursors) in survey.cursors {
            if shown != Some(number) {
                let build = (definition.board.id.clone(), number);
                let first_seen = unshown.get(&build).copied().unwrap_or_else(Instant::now);
                present.insert(build, first_seen);
                if first_seen.elapsed() > ABANDONED_AFTER {
                    continue;
                }
            }
            for (partition, position) in cursors {
                passed.entry(partition).and_modify(|low: &mut Position| *low = position.min(*low));
            }
        }
    }
    *unshown = present;
    Ok(passed)
}
