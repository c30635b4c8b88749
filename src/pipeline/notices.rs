//! What a node notices by itself: what the others tell, and what nobody may have told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::App;
use super::agreement::disagreement;
use super::alive::leads_elsewhere;
use super::fault::{Fault, expect_ours};
use crate::domain::{BoardId, Cursors};
use crate::engine::{Backoff, EngineError, Notice, Progress};
use crate::ledger::{Epoch, LedgerError};

/// How often a node looks whether the engine is still the one it works with, and whether definitions have changed: what
/// it is not told, because a message was lost, it finds within this.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hears what other nodes (and this one) tell.
pub async fn listen(app: Arc<App>) {
    let mut backoff = Backoff::default();
    while !app.stop.is_cancelled() {
        match app.engine.listen().await {
            Ok(mut notices) => {
                while let Some(Some(notice)) = app.stop.run_until_cancelled(notices.next()).await {
                    match notice {
                        Notice::Progress(progress) => {
                            if let Progress::Ledger { from, position, .. } = progress
                                && from < position
                            {
                                // Whichever node did it, commits work again.
                                app.sync_failing.store(false, Ordering::Relaxed);
                                app.ledger_silent.store(false, Ordering::Relaxed);
                            }
                            app.waits.reach(progress);
                        }
                        Notice::Definitions => {
                            // The next look finds what this one could not read.
                            app.refresh_definitions().await.ok();
                        }
                        Notice::Missed => {
                            if let Err(fault) = catch_up(&app).await {
                                tracing::debug!("progress could not be read: {fault}");
                            }
                        }
                        Notice::Foreign { messages } => app.metrics.foreign_messages(messages),
                        Notice::Feed(_) => {}
                    }
                }
            }
            Err(error) => tracing::warn!("the engine can't be listened to: {error}"),
        }
        app.stop.run_until_cancelled(tokio::time::sleep(backoff.after_failure())).await;
    }
}

/// Reads how far ledger and count of likes have come: nobody tells it again while nothing happens.
async fn catch_up(app: &App) -> Result<(), Fault> {
    for (partition, position) in app.ledger.state(app.engine.limits().partitions).await?.cursors {
        app.waits.catch_up(partition, position);
    }
    let survey = app.engine.board(&BoardId::likes()).await?;
    let Some(shown) = survey.shown else { return Ok(()) };
    let cursors = survey.cursors.into_iter().filter(|(number, _)| *number == shown.number);
    for (partition, position) in cursors.flat_map(|(_, cursors)| cursors) {
        app.waits.reach(Progress::Likes { partition, position });
    }
    Ok(())
}

/// Looks at regular times at what nobody may have told: a lost engine, a ledger that is away or in a later epoch, changed
/// definitions.
pub async fn look(app: Arc<App>) {
    while app.stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let begun = app.epoch().ok().and(Some(app.begun()));
        // A ledger that hangs must not keep this from looking at the engine.
        let looked = timeout(LOOK_EVERY, look_at_ledger(&app, begun.as_ref()));
        let (looked, ()) = tokio::join!(looked, app.time.compare(app.engine.as_ref(), &app.ledger));
        let is_silent = matches!(looked, Err(_) | Ok(Err(LedgerError::Unavailable(_) | LedgerError::Unanswered(_))));
        let was_silent = app.ledger_silent.swap(is_silent, Ordering::Relaxed);
        match &looked {
            Ok(Err(error)) if !is_silent || !was_silent => tracing::warn!("the ledger could not be looked at: {error}"),
            Err(_) if !was_silent => tracing::warn!("the ledger does not answer within {LOOK_EVERY:?}"),
            Ok(Ok(_)) if was_silent => tracing::info!("the ledger answers again"),
            _ => {}
        }
        let Some(begun) = begun else { continue };
        let epoch = begun.number;
        if let Ok(Ok(false)) = looked {
            app.engine_error(epoch, EngineError::Lost("the ledger is in another epoch, or is another one".into()));
            continue;
        }
        // Before the survey: what is committed while that is under way may not be in it.
        let committed = app.known_in_ledger();
        let Ok(survey) = app.engine.survey().await else { continue };
        // Recovery says why, and waits until it is ours again.
        if let Err(foreign) = expect_ours(app.engine.as_ref(), &survey, Some(&app.ledger_id)) {
            app.engine_error(epoch, EngineError::Lost(foreign.to_string()));
            continue;
        }
        let state = match is_silent {
            true => None,
            false => {
                timeout(LOOK_EVERY, app.ledger.state(app.engine.limits().partitions)).await.ok().and_then(Result::ok)
            }
        };
        // Where another epoch has begun meanwhile, the next look says so.
        let cursors = state.filter(|state| state.present_epoch() == begun).map(|state| state.cursors);
        if let Some(why) = disagreement(&begun, &committed, &survey, cursors.as_ref()) {
            app.engine_error(epoch, EngineError::Lost(why));
            continue;
        }
        if is_silent || app.metrics.is_leading() {
            continue;
        }
        let elsewhere = leads_elsewhere(app.engine.as_ref(), &app.ledger, &app.node, epoch);
        if let Ok(Ok(true)) = timeout(LOOK_EVERY, elsewhere).await {
            let why = "who leads on it counts its heartbeats in another copy of the ledger";
            app.engine_error(epoch, EngineError::Lost(why.to_owned()));
        }
    }
}

/// Tells the ledger that this node works in its epoch, and reads definitions; false where the ledger is in another epoch.
async fn look_at_ledger(app: &App, epoch: Option<&Epoch>) -> Result<bool, LedgerError> {
    // First: others take over from whoever is not heard.
    let is_here = match epoch {
        Some(epoch) => app.beat(epoch).await?,
        None => true,
    };
    app.refresh_definitions().await?;
    Ok(is_here)
}

impl App {
    /// How far this node knows the ledger to have come.
    pub(super) fn known_in_ledger(&self) -> Cursors {
        (0..self.engine.limits().partitions).map(|partition| (partition, self.waits.in_ledger(partition))).collect()
    }
}
