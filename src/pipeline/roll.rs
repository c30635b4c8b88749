//! Roll: what is written when a period ends.
//!
//! Closed periods are a chain: what a period starts with comes from the results of the one before. Whatever is missing
//! between the last results and the period to be built is computed in order, so a node that was away over several
//! periods, a history that was imported, and results that were taken back are one path.
//!
//! Invariant: idempotent for each board and period. The first to write a period's results wins, so being killed half-way
//! or running twice gives the same. A period without results that the chain has passed had no points.

use super::App;
use super::fault::Fault;
use super::progress::End;
use super::rebuild::{Computed, compute};
use crate::domain::{Basis, Board, Period, Scoring, best_first};
use crate::engine::EngineError;
use crate::ledger::{BoardDefinition, Ledger, LedgerError};

/// Writes what is missing of the results before `period`. Until then nobody builds `period`. Returns the key of the
/// period whose results carry over, if the board carries.
pub async fn close_before(app: &App, definition: &BoardDefinition, period: &Period) -> Result<Option<String>, Fault> {
    let board = &definition.board;
    let Some(last) = board.period_before(period) else { return Ok(None) };
    if !app.ledger.has_results(&board.id, &last.key).await? {
        until_ledger_has_the_present(app).await?;
        // Another node may have stored a rule just before the boundary.
        app.refresh_definitions().await?;
        let mut closing = first_missing(app, definition, &last).await?;
        while let Some(period) = closing {
            closing = close(app, definition, period, &last).await?;
        }
    }
    Ok(board.carries_from(period).map(|from| from.key))
}

/// Where the chain goes on: behind the last results; or where it is to begin; or, where nobody has said so, with `last`.
async fn first_missing(app: &App, definition: &BoardDefinition, last: &Period) -> Result<Option<Period>, Fault> {
    let board = &definition.board;
    let Some(last_starts_at) = last.starts_at else { return Ok(Some(last.clone())) };
    let closed = app.ledger.latest_close(&board.id, last_starts_at).await?;
    let begins_at = closed.or(definition.closed_from).unwrap_or(last_starts_at);
    Ok(Some(board.period_at(begins_at.min(last_starts_at))))
}

/// Closes a period, and says which is the next one to close on the way to `last`.
async fn close(
    app: &App,
    definition: &BoardDefinition,
    period: Period,
    last: &Period,
) -> Result<Option<Period>, Fault> {
    let board = &definition.board;
    let before = board.carries_from(&period);
    let definitions = app.definitions();
    let basis = Basis::at_close(&period, definitions.rules.version());
    let scoring = Scoring::new(board, period.clone(), &definitions.rules, basis);
    let Computed { points, .. } = compute(&app.ledger, scoring, before.as_ref().map(|it| it.key.as_str())).await?;
    let places = best_first(points);
    let closed_at = Basis { at: app.now(), ..basis };
    let is_last = period.key == last.key;
    if (is_last || !places.is_empty()) && app.ledger.write_results(definition, &period, &places, closed_at).await? {
        tracing::info!(board = %board.id, period = %period.key, products = places.len(), "period closed");
    }
    if is_last {
        return Ok(None);
    }
    Ok(Some(next_of(&app.ledger, board, &period, places.is_empty(), last).await?))
}

/// The next link of a chain that leads to `last`: the period that follows; or, where a period without points carries
/// nothing over, the one in which something was counted again.
pub async fn next_of(
    ledger: &Ledger,
    board: &Board,
    period: &Period,
    is_empty: bool,
    last: &Period,
) -> Result<Period, LedgerError> {
    let Some(ended_at) = period.ends_at else { return Ok(last.clone()) };
    let next = board.period_at(ended_at);
    if !is_empty {
        return Ok(next);
    }
    // What a half-life still reaches may lie before the end of this one.
    let active = ledger.next_active(next.first).await?.map(|bucket| bucket.starts_at().max(ended_at));
    let active = active.map(|at| board.period_at(at));
    Ok(active.filter(|active| active.starts_at < last.starts_at).unwrap_or_else(|| last.clone()))
}

/// Waits until the ledger has passed what the journals hold now, which is at least what they held at the boundary.
async fn until_ledger_has_the_present(app: &App) -> Result<(), Fault> {
    let survey = app.engine.survey().await?;
    for (partition, last) in (0..).zip(survey.partitions).filter_map(|(p, here)| Some((p, here.last?))) {
        if app.waits.ledger(partition, last).await == End::Unknown {
            return Err(EngineError::Lost("the epoch ended before a period was closed".into()).into());
        }
    }
    Ok(())
}
