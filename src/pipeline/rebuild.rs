//! Rebuild: computes a board from the ledger, beside the one that is shown, which goes on meanwhile.
//!
//! Used for the first start, recovery, a new period, a weight rule, and whenever a board's revision grows. The new
//! generation is registered before the ledger is read, so the journal is kept from there on; the projector then folds
//! what came since and switches.

use std::collections::HashMap;

use super::App;
use super::fault::Fault;
use super::project::Folding;
use super::roll;
use crate::domain::{Board, BoardId, Cursors, Points, ProductId, Scoring};
use crate::engine::Build;
use crate::ledger::{Ledger, Snapshot};

/// Scores in one step of loading: some 200 KB, which holds up the engine for a few milliseconds.
const LOAD_COUNT: usize = 5_000;

/// The formula over a snapshot of the ledger: each product's points, zeros left out, and the cursors they stand at.
pub async fn compute(ledger: &Ledger, scoring: &Scoring) -> Result<(Cursors, HashMap<ProductId, Points>), Fault> {
    let segments: Vec<_> = scoring.segments().collect();
    let Snapshot { cursors, activity } = ledger.snapshot(&segments, &scoring.signals()).await?;
    let mut points: HashMap<ProductId, Points> = HashMap::new();
    for (segment, rows) in segments.iter().zip(activity) {
        for row in rows {
            let part = scoring.points(row.signal, segment.first, row.count);
            let sum = points.entry(row.product).or_default();
            *sum = sum.plus(part);
        }
    }
    points.retain(|_, points| *points != Points::ZERO);
    Ok((cursors, points))
}

/// Builds a generation up to a snapshot of the ledger. `None` where another projector has begun a newer one.
pub async fn rebuild(app: &App, board: &Board, scoring: Scoring, build: Build) -> Result<Option<Folding>, Fault> {
    roll::close_before(app, board, scoring.period()).await?;
    let began = std::time::Instant::now();
    let registered = app.ledger.state(app.engine.limits().partitions).await?.cursors;
    let number = app.engine.begin_generation(&board.id, &registered).await?;
    let (cursors, points) = compute(&app.ledger, &scoring).await?;
    let products = points.len();
    if !load(app, &board.id, number, points, &cursors).await? {
        return Ok(None);
    }
    tracing::info!(board = %board.id, period = %build.period, reason = build.reason.name(), products,
        ms = began.elapsed().as_millis() as u64, "board rebuilt");
    Ok(Some(Folding { number, build, scoring, cursors }))
}

async fn load(
    app: &App,
    board: &BoardId,
    number: u64,
    points: HashMap<ProductId, Points>,
    cursors: &Cursors,
) -> Result<bool, Fault> {
    let scores: Vec<_> = points.into_iter().collect();
    for chunk in scores.chunks(LOAD_COUNT) {
        if !app.engine.load_scores(board, number, chunk).await? {
            return Ok(false);
        }
    }
    Ok(app.engine.set_cursors(board, number, cursors).await?)
}
