//! Roll: what is written when a period ends.
//!
//! Invariant: idempotent for each board and period. The first to write a period's results wins, so being killed half-way
//! or running twice gives the same.

use super::App;
use super::fault::Fault;
use super::progress::End;
use super::rebuild::compute;
use crate::domain::{Board, Period, Scoring, Standings};
use crate::engine::EngineError;

/// Writes the results of the period before `period`, where they are not written yet. Until then nobody builds `period`.
pub async fn close_before(app: &App, board: &Board, period: &Period) -> Result<(), Fault> {
    let Some(boundary) = period.starts_at else { return Ok(()) };
    let closed = board.period_at(boundary.minus_ms(1));
    if app.ledger.has_results(&board.id, &closed.key).await? {
        return Ok(());
    }
    until_ledger_has_the_present(app).await?;
    // Another node may have stored a rule just before the boundary.
    app.refresh_definitions().await?;
    let definitions = app.definitions();
    let scoring = Scoring::new(board, closed.clone(), &definitions.rules);
    let (_, points) = compute(&app.ledger, &scoring).await?;
    let places: Vec<_> = points.into_iter().collect::<Standings>().iter().collect();
    if app.ledger.write_results(&board.id, &closed, &places, app.now()).await? {
        tracing::info!(board = %board.id, period = %closed.key, products = places.len(), "period closed");
    }
    Ok(())
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
