//! Rebuild: computes a board from the ledger, beside the one that is shown, which goes on meanwhile.
//!
//! Used for the first start, recovery, a new period, a new board, a rule, and whenever a board's revision grows. The new
//! generation is registered before the ledger is read, so the journal is kept from there on; the projector then folds
//! what came since and switches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;

use super::App;
use super::fault::Fault;
use super::project::Folding;
use super::roll;
use crate::domain::{BoardId, Cursors, Points, ProductId, Scoring, Segment, Signal};
use crate::engine::Build;
use crate::ledger::{ActivityRow, BoardDefinition, Ledger, Pace, Snapshot, Wanted};

/// Scores in one step of loading: it holds up the engine, and whoever reads from it, for well under a millisecond.
const LOAD_COUNT: usize = 500;

/// Products computed before a thread lets others have their turn at its processor.
const PIECE_LEN: usize = 1_000;

/// The formula over a snapshot of the ledger.
pub struct Computed {
    /// Where the snapshot stands.
    pub cursors: Cursors,
    /// The formula, with what the snapshot says about the board's scope.
    pub scoring: Scoring,
    /// Each product's points; zeros are left out.
    pub points: Vec<(ProductId, Points)>,
}

/// Computes a period of a board. `carry_from` is the key of the period whose stored results carry over.
pub async fn compute(
    ledger: &Ledger,
    scoring: Scoring,
    carry_from: Option<&str>,
    pace: Pace,
) -> Result<Computed, Fault> {
    compute_after(ledger, scoring, carry_from, Vec::new(), pace).await
}

/// As [`compute`], with points at a close that is not stored: `unstored` stands beside to what `carry_from` names.
pub async fn compute_after(
    ledger: &Ledger,
    scoring: Scoring,
    carry_from: Option<&str>,
    unstored: Vec<(ProductId, Points)>,
    pace: Pace,
) -> Result<Computed, Fault> {
    let [computed] = compute_each(ledger, [scoring], carry_from, unstored, pace).await?;
    Ok(computed)
}

/// As [`compute_after`], one period of one board under several rules, all from one snapshot.
pub async fn compute_each<const N: usize>(
    ledger: &Ledger,
    scorings: [Scoring; N],
    carry_from: Option<&str>,
    unstored: Vec<(ProductId, Points)>,
    pace: Pace,
) -> Result<[Computed; N], Fault> {
    let board = scorings[0].board().clone();
    let segments = scorings.iter().map(Scoring::segments).reduce(|one, other| Segment::refine(&one, &other));
    let segments = segments.unwrap_or_default();
    let counts = |signal: &Signal| scorings.iter().any(|scoring| scoring.signals().contains(signal));
    let signals: Vec<_> = Signal::ALL.into_iter().filter(counts).collect();
    let wanted = Wanted { segments: &segments, signals: &signals, carry_from, pace, ..Wanted::of(&board) };
    let Snapshot { cursors, activity, members, at_close } = ledger.snapshot(wanted).await?;
    let at_close: HashMap<_, _> = at_close.into_iter().chain(unstored).collect();
    let shared = Arc::new((activity, at_close));
    // Of a board of 100,000 products some hundredths of a second, during which this thread would serve nobody.
    let computing = scorings.map(|scoring| {
        let (scoring, cursors, shared) = (scoring.with_members(members.clone()), cursors.clone(), shared.clone());
        tokio::task::spawn_blocking(move || {
            let points = points(&scoring, &shared.0, &shared.1);
            Computed { cursors, scoring, points }
        })
    });
    drop(shared);
    let done = try_join_all(computing).await.expect("it neither panics nor is it aborted");
    let Ok(done) = <[Computed; N]>::try_from(done) else { unreachable!("one for each") };
    Ok(done)
}

/// What the products of a snapshot come to; zeros are left out.
fn points(
    scoring: &Scoring,
    activity: &[ActivityRow],
    at_close: &HashMap<ProductId, Points>,
) -> Vec<(ProductId, Points)> {
    let mut points = Vec::with_capacity(at_close.len() + activity.len() / Signal::ALL.len());
    let mut waiting: HashMap<_, _> = at_close.iter().collect();
    for (index, rows) in activity.chunk_by(|one, other| one.product == other.product).enumerate() {
        if index % PIECE_LEN == 0 {
            std::thread::yield_now();
        }
        let product = &rows[0].product;
        let carried = waiting.remove(product).map_or(Points::ZERO, |at_close| scoring.carry(product, *at_close));
        let part =
            |ActivityRow { count, .. }: &ActivityRow| scoring.points(product, count.signal, count.bucket, count.count);
        points.push((product.clone(), rows.iter().map(part).fold(carried, Points::plus)));
    }
    // Nothing happened to these.
    let carried = |(product, at_close): (&ProductId, &Points)| (product.clone(), scoring.carry(product, *at_close));
    points.extend(waiting.into_iter().map(carried));
    points.retain(|(_, points)| *points != Points::ZERO);
    points
}

/// Builds a generation up to a snapshot of the ledger. `None` where another projector has begun a newer one.
pub async fn rebuild(
    app: &App,
    definition: &BoardDefinition,
    scoring: Scoring,
    build: Build,
) -> Result<Option<Folding>, Fault> {
    let board = &definition.board;
    let carry_from = roll::close_before(app, definition, scoring.period()).await?;
    let began = Instant::now();
    let registered = app.ledger.state(app.engine.limits().partitions).await?.cursors;
    let number = app.engine.begin_generation(&board.id, &registered).await?;
    let Computed { cursors, scoring, points } =
        compute(&app.ledger, scoring, carry_from.as_deref(), Pace::Pieces).await?;
    let products = points.len();
    if !load(app, &board.id, number, points, &cursors).await? {
        return Ok(None);
    }
    app.metrics.rebuilt(build.reason.name(), began.elapsed());
    tracing::info!(board = %board.id, period = %build.period, reason = build.reason.name(), products,
        ms = began.elapsed().as_millis() as u64, "board rebuilt");
    Ok(Some(Folding::new(number, build, scoring, (cursors.clone(), cursors), &app.definitions())))
}

async fn load(
    app: &App,
    board: &BoardId,
    number: u64,
    points: Vec<(ProductId, Points)>,
    cursors: &Cursors,
) -> Result<bool, Fault> {
    for step in points.chunks(LOAD_COUNT) {
        if !app.engine.load_scores(board, number, step).await? {
            return Ok(false);
        }
    }
    Ok(app.engine.set_cursors(board, number, cursors).await?)
}
