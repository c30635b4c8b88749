//! Roll: what is written when a period ends.
//!
//! Closed periods are a chain: what a period starts with comes from the results of the one before. Whatever is missing
//! between the last results and the period to be built is computed in order, so a node that was away over several
//! periods, a history that was imported, and results that were taken back are one path.
//!
//! Of a long run of periods in which nothing happened only the last is stored: the others follow from the results before
//! the run, which are kept whole for that, and are computed when they are read. So a board whose points never fade does
//! not fill the ledger with days of silence.
//!
//! Invariant: idempotent for each board and period. The first to write a period's results wins, so being killed half-way
//! or running twice gives the same. A period without results that the chain has passed had no points.

use std::sync::Arc;

use super::App;
use super::fault::Fault;
use super::progress::End;
use super::rebuild::{Computed, compute};
use crate::domain::{Basis, Board, Period, Place, Points, Scoring, best_first};
use crate::engine::EngineError;
use crate::ledger::{BoardDefinition, KEPT_PLACES, Pace};

/// Periods in a row in which nothing happened whose results are stored one by one: in as many, whatever a board that carries
/// three tenths over shows has come to nothing. Of a longer run only the last is stored, unless so many products have
/// points that keeping the results before it whole would take more rows.
const IDLE_STORED: usize = 24;

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
    let carry_from = before.as_ref().map(|it| it.key.as_str());
    let Computed { points, .. } = compute(&app.ledger, scoring, carry_from, Pace::Whole).await?;
    let places = best_first(points);
    let is_last = period.key == last.key;
    if is_last || !places.is_empty() {
        write(app, definition, &period, &places, basis).await?;
    }
    let Some(ended_at) = period.ends_at.filter(|_| !is_last) else { return Ok(None) };
    let next = board.period_at(ended_at);
    // What a half-life still reaches may lie before the end of this one.
    let active = app.ledger.next_active(next.first).await?.map(|bucket| bucket.starts_at().max(ended_at));
    let active = active.map(|at| board.period_at(at));
    let active = active.filter(|active| active.starts_at < last.starts_at).unwrap_or_else(|| last.clone());
    if places.is_empty() || !board.carries() {
        return Ok(Some(active));
    }
    let Idle { periods, last: rest } = through_idle(app, board, places.clone(), next.clone(), active.clone()).await?;
    if periods <= IDLE_STORED.max(places.len() / KEPT_PLACES) {
        return Ok(Some(next));
    }
    if let Some((period, places)) = rest {
        let basis = Basis::at_close(&period, definitions.rules.version());
        write(app, definition, &period, &places, basis).await?;
    }
    Ok(Some(active))
}

async fn write(
    app: &App,
    definition: &BoardDefinition,
    period: &Period,
    places: &[Place],
    basis: Basis,
) -> Result<(), Fault> {
    let closed_at = Basis { at: app.now(), ..basis };
    if app.ledger.write_results(definition, period, places, closed_at).await? {
        tracing::info!(board = %definition.board.id, period = %period.key, products = places.len(), "period closed");
    }
    Ok(())
}

/// Periods in a row in which nothing happened, but for those with which nothing is left any more.
struct Idle {
    periods: usize,
    /// The one before the next in which something happens, with what is left then.
    last: Option<(Period, Vec<Place>)>,
}

/// What becomes of the places at a close in the periods from `next` on, up to and without `active`.
async fn through_idle(
    app: &App,
    board: &Board,
    mut places: Vec<Place>,
    next: Period,
    active: Period,
) -> Result<Idle, Fault> {
    let mut idle = Idle { periods: 0, last: None };
    if next.starts_at >= active.starts_at {
        return Ok(idle);
    }
    let (listed, members) = (app.ledger.product_ids().await?, Arc::new(app.ledger.members(board).await?));
    let (board, definitions) = (board.clone(), app.definitions());
    let follow = move || {
        places.retain(|place| listed.contains(&place.product));
        let mut period = next;
        while period.starts_at < active.starts_at {
            let basis = Basis::at_close(&period, definitions.rules.version());
            let scoring = Scoring::new(&board, period.clone(), &definitions.rules, basis);
            let scoring = scoring.with_members(members.clone());
            places.retain_mut(|place| {
                place.points = scoring.carry(&place.product, place.points);
                place.points != Points::ZERO
            });
            let (false, Some(ended_at)) = (places.is_empty(), period.ends_at) else { return idle };
            idle.periods += 1;
            let after = board.period_at(ended_at);
            if after.starts_at >= active.starts_at {
                let places = places.into_iter().map(|place| (place.product, place.points));
                idle.last = Some((period, best_first(places)));
                return idle;
            }
            period = after;
        }
        idle
    };
    Ok(tokio::task::spawn_blocking(follow).await.expect("it neither panics nor is it aborted"))
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
