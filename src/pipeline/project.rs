//! Project: folds the journal into boards, and publishes what has changed.
//!
//! One projector at a time, by lease; a second one would do no harm, since each step compares cursors, generations or
//! sequences first. What a board should show follows from the definitions, the epoch and the clock alone: where it
//! differs from what is shown, the board is rebuilt beside it and switched. So a roll, a weight rule, a recovery and a
//! first start are one path.
//!
//! Invariant: a generation is folded with the rules it was built under, never with newer ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::fault::{Fault, in_time};
use super::rebuild::rebuild;
use super::tail::{Settled, Tail};
use crate::domain::{
    BoardId, Cursors, EntryBody, FeedState, PageStart, Period, Points, ProductId, Scoring, SnapshotReason, Timestamp,
};
use crate::engine::{Apply, Backoff, Build, Move, Progress};
use crate::ledger::{BoardDefinition, Definitions};

/// How soon a board may be corrected again after products that moved: whoever sends the catalogue again and again must not
/// keep boards rebuilding. Until then the board is off by that. What an admin asks for does not wait.
const CORRECTION_PAUSE: Duration = Duration::from_secs(10);
/// How long likes that the ledger has not committed are waited for at the end; the next projector goes on with them.
const FINISH_WAIT: Duration = Duration::from_secs(2);
/// How long a rebuild that failed waits before it is tried again.
const REBUILD_RETRY: Duration = Duration::from_millis(500);

/// Projects until `finish`, then until nothing is left in the journal. Returns an error only for a lost engine.
pub async fn project(app: &Arc<App>, epoch: u64, finish: &CancellationToken) -> Result<(), Fault> {
    let mut backoff = Backoff::default();
    loop {
        match Projector::load(app, epoch).await {
            Ok(mut projector) => match projector.run(finish, &mut backoff).await {
                Ok(Ended::Finished) => return Ok(()),
                Ok(Ended::Overtaken) => tracing::info!("another projector was at work; reading the boards anew"),
                Err(fault) if fault.is_lost() => return Err(fault),
                Err(fault) => tracing::warn!("projection waits: {fault}"),
            },
            Err(fault) if fault.is_lost() => return Err(fault),
            Err(fault) => tracing::warn!("projection waits: {fault}"),
        }
        if finish.is_cancelled() {
            return Ok(());
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

enum Ended {
    Finished,
    /// A compare-and-set failed.
    Overtaken,
}

/// A generation that follows the journal.
#[derive(Debug, Clone)]
pub struct Folding {
    pub number: u64,
    pub build: Build,
    pub scoring: Scoring,
    pub cursors: Cursors,
    /// The cursors that it was computed at: what the ledger had refused by then it has never counted.
    computed_at: Cursors,
    /// When a product rule that counts here ends.
    pub expires_at: Option<Timestamp>,
}

/// One board, as the projector keeps it.
struct Tracked {
    definition: BoardDefinition,
    shown: Option<Folding>,
    /// Loaded, and catching up with the one shown.
    building: Option<Folding>,
    is_rebuilding: bool,
    /// When the last rebuild began, and how often the board had been reopened by then.
    last_rebuild: Option<(Instant, i64)>,
    /// Whether the shown generation has changed since it was last compared with what is published.
    is_dirty: bool,
    published: Option<FeedState>,
}

struct Projector<'a> {
    app: &'a Arc<App>,
    epoch: u64,
    definitions: Arc<Definitions>,
    boards: BTreeMap<BoardId, Tracked>,
    rebuilds: JoinSet<(BoardId, Result<Option<Folding>, Fault>)>,
}

impl<'a> Projector<'a> {
    async fn load(app: &'a Arc<App>, epoch: u64) -> Result<Self, Fault> {
        drop_deleted(app).await?;
        let definitions = app.definitions();
        let mut boards = BTreeMap::new();
        for definition in &definitions.boards {
            boards.insert(definition.board.id.clone(), track(app, epoch, definition, &definitions).await?);
        }
        Ok(Self { app, epoch, definitions, boards, rebuilds: JoinSet::new() })
    }

    async fn run(&mut self, finish: &CancellationToken, backoff: &mut Backoff) -> Result<Ended, Fault> {
        let mut tail = Tail::open(self.app).await?;
        let mut next_tick = Instant::now();
        let mut finish_by = None;
        self.announce_likes().await?;
        loop {
            let finishing = finish.is_cancelled();
            self.follow_definitions().await?;
            self.start_rebuilds(finishing);
            let has_read = tail.advance(self.app, &self.lowest_cursors(), next_tick, finishing).await?;
            if !self.fold(tail.settled().collect()).await? {
                return Ok(Ended::Overtaken);
            }
            backoff.reset();
            let switched = self.take_rebuilds().await?;
            if switched || finishing || Instant::now() >= next_tick {
                next_tick = Instant::now() + self.app.settings.tick;
                if !self.publish().await? {
                    return Ok(Ended::Overtaken);
                }
            }
            if finishing && !has_read {
                let finish_by = *finish_by.get_or_insert_with(|| Instant::now() + FINISH_WAIT);
                if tail.is_settled() || self.app.is_ledger_away() || Instant::now() >= finish_by {
                    return Ok(Ended::Finished);
                }
            }
        }
    }

    /// Takes up boards that are new, and lets go of those that are deleted.
    async fn follow_definitions(&mut self) -> Result<(), Fault> {
        let definitions = self.app.definitions();
        if Arc::ptr_eq(&definitions, &self.definitions) {
            return Ok(());
        }
        for definition in &definitions.boards {
            let id = &definition.board.id;
            match self.boards.get_mut(id) {
                Some(tracked) => tracked.definition = definition.clone(),
                None => {
                    let tracked = track(self.app, self.epoch, definition, &definitions).await?;
                    self.boards.insert(id.clone(), tracked);
                }
            }
        }
        let deleted: Vec<_> = self.boards.keys().filter(|id| definitions.board(id).is_none()).cloned().collect();
        for id in deleted {
            self.app.engine.drop_board(&id).await?;
            self.boards.remove(&id);
        }
        self.definitions = definitions;
        Ok(())
    }

    /// Starts a rebuild of every board that shows something else than it should.
    fn start_rebuilds(&mut self, finishing: bool) {
        let definitions = self.definitions.clone();
        for tracked in self.boards.values_mut() {
            if finishing || tracked.is_rebuilding || tracked.building.is_some() {
                continue;
            }
            let Some((period, build)) = tracked.wanted(self.app, self.epoch, &definitions) else { continue };
            let is_correction = build.reason == SnapshotReason::Recovered && tracked.shown.is_some();
            let reopened = tracked.definition.reopened;
            let is_soon = |(began, known): (Instant, i64)| known == reopened && began.elapsed() < CORRECTION_PAUSE;
            if is_correction && tracked.last_rebuild.is_some_and(is_soon) {
                continue;
            }
            tracked.is_rebuilding = true;
            tracked.last_rebuild = Some((Instant::now(), reopened));
            let (app, definition) = (self.app.clone(), tracked.definition.clone());
            let scoring = Scoring::new(&definition.board, period, &definitions.rules, build.basis);
            self.rebuilds.spawn(async move {
                let outcome = rebuild(&app, &definition, scoring, build).await;
                if outcome.is_err() {
                    tokio::time::sleep(REBUILD_RETRY).await;
                }
                (definition.board.id, outcome)
            });
        }
    }

    /// Takes over what was rebuilt, and shows what has caught up. True where something was switched.
    async fn take_rebuilds(&mut self) -> Result<bool, Fault> {
        while let Some(done) = self.rebuilds.try_join_next() {
            let (board, outcome) = done.expect("a rebuild is neither aborted nor does it panic");
            // A board that was deleted meanwhile is followed no more.
            let Some(tracked) = self.boards.get_mut(&board) else { continue };
            tracked.is_rebuilding = false;
            match outcome {
                Ok(building) => tracked.building = building,
                Err(fault) if fault.is_lost() => return Err(fault),
                Err(fault) => tracing::warn!(%board, "a rebuild failed and is tried again: {fault}"),
            }
        }
        let mut switched = false;
        for (board, tracked) in &mut self.boards {
            // Where nothing is shown, readers have the ledger's board, and must not be set back behind it.
            let met = |new: &mut Folding| new.has_met(tracked.shown.as_ref()) && new.is_not_behind_ledger(self.app);
            let Some(building) = tracked.building.take_if(met) else { continue };
            if self.app.engine.switch(board, building.number, &building.build).await? {
                tracked.shown = Some(building);
                tracked.is_dirty = true;
                switched = true;
            }
        }
        if switched {
            self.announce_likes().await?;
        }
        Ok(switched)
    }

    fn lowest_cursors(&self) -> Cursors {
        let mut lowest = Cursors::new();
        for folding in self.boards.values().flat_map(Tracked::foldings) {
            for (&partition, &position) in &folding.cursors {
                let low = lowest.entry(partition).or_insert(position);
                *low = position.min(*low);
            }
        }
        lowest
    }

    /// Folds what is settled into every generation. False where a cursor had been moved by somebody else.
    async fn fold(&mut self, settled: Vec<Settled<'_>>) -> Result<bool, Fault> {
        let mut applies = Vec::new();
        for (board, tracked) in &mut self.boards {
            let folded: Result<Vec<_>, Gap> = tracked.foldings().map(|folding| folding.fold(board, &settled)).collect();
            match folded {
                Ok(steps) => applies.extend(steps.into_iter().flatten()),
                Err(Gap) => {
                    tracing::error!(%board, "the journal has lost what this board has not folded; it is rebuilt");
                    tracked.forget();
                }
            }
        }
        let applied = try_join_all(applies.iter().map(|step| self.app.engine.apply(step))).await?;
        if applied.contains(&false) {
            return Ok(false);
        }
        let mut likes_moved = false;
        for step in applies {
            likes_moved |= step.board == BoardId::likes();
            let tracked = self.boards.get_mut(&step.board).expect("steps are of tracked boards");
            tracked.is_dirty |= !step.deltas.is_empty();
            for folding in tracked.foldings_mut().filter(|folding| folding.number == step.generation) {
                folding.cursors.extend(step.moves.iter().map(|step| (step.partition, step.to)));
            }
        }
        if likes_moved {
            self.announce_likes().await?;
        }
        Ok(true)
    }

    async fn announce_likes(&self) -> Result<(), Fault> {
        let shown = self.boards.get(&BoardId::likes()).and_then(|tracked| tracked.shown.as_ref());
        let cursors = shown.map(|shown| &shown.cursors).into_iter().flatten();
        let progress: Vec<_> = cursors.map(|(&partition, &position)| Progress::Likes { partition, position }).collect();
        progress.iter().for_each(|progress| self.app.waits.reach(*progress));
        Ok(self.app.engine.announce(&progress).await?)
    }

    /// Publishes the top of every board whose top has changed. False where somebody else has published or switched.
    async fn publish(&mut self) -> Result<bool, Fault> {
        let history = Some(self.app.begun()).filter(|begun| begun.number == self.epoch).and_then(|begun| begun.history);
        for (board, tracked) in self.boards.iter_mut().filter(|(id, tracked)| tracked.is_dirty && !id.is_hidden()) {
            let page = self.app.engine.page(board, &PageStart::Rank(1), FeedState::PLACES_MAX).await?;
            let (Some(page), Some(shown)) = (page, &tracked.shown) else { return Ok(false) };
            if page.generation.number != shown.number {
                return Ok(false);
            }
            tracked.is_dirty = false;
            let state = FeedState {
                board: board.clone(),
                epoch: self.epoch,
                history,
                seq: page.seq + 1,
                generation: shown.number,
                reason: shown.build.reason,
                period: shown.build.period.clone(),
                at: self.app.now(),
                basis: shown.build.basis,
                cursors: page.cursors,
                total: page.rows.total,
                places: page.rows.places,
            };
            if tracked.published.as_ref().is_some_and(|last| last.shows_the_same(&state)) {
                continue;
            }
            if !self.app.engine.publish(&state).await? {
                return Ok(false);
            }
            self.app.metrics.published();
            tracked.published = Some(state);
        }
        Ok(true)
    }
}

/// Lets go of boards that were deleted while nobody projected, or by whom it failed. Boards go on without a ledger.
async fn drop_deleted(app: &App) -> Result<(), Fault> {
    if app.is_ledger_away() {
        return Ok(());
    }
    for board in in_time(app.ledger.deleted_boards()).await.unwrap_or_default() {
        app.engine.drop_board(&board).await?;
    }
    Ok(())
}

async fn track(
    app: &App,
    epoch: u64,
    definition: &BoardDefinition,
    definitions: &Definitions,
) -> Result<Tracked, Fault> {
    let board = &definition.board;
    let survey = app.engine.board(&board.id).await?;
    // What was built under another definition or another catalogue can't be folded on; it is shown until it is replaced.
    let is_current = |build: &Build| build.epoch == epoch && build.revision == definition.revision;
    let computed_at = survey.computed_at;
    // Where an older version has built it, nobody knows what it has counted of what was refused.
    let is_known = !computed_at.is_empty();
    let followed = survey.shown.filter(|shown| is_current(&shown.build) && is_known).and_then(|shown| {
        let (_, cursors) = survey.cursors.into_iter().find(|(number, _)| *number == shown.number)?;
        let period = board.period_of_key(&shown.build.period)?;
        Some((shown, cursors, period))
    });
    let shown = match followed {
        None => None,
        Some((shown, cursors, period)) => {
            let scoring = Scoring::new(board, period, &definitions.rules, shown.build.basis);
            let scoring = scoring.with_members(app.ledger.members(board).await?);
            Some(Folding::new(shown.number, shown.build, scoring, (computed_at, cursors), definitions))
        }
    };
    Ok(Tracked {
        definition: definition.clone(),
        is_dirty: shown.is_some(),
        shown,
        building: None,
        is_rebuilding: false,
        last_rebuild: None,
        published: app.engine.published(&board.id).await?.filter(|state| state.epoch == epoch),
    })
}

impl Tracked {
    fn foldings(&self) -> impl Iterator<Item = &Folding> {
        self.shown.iter().chain(&self.building)
    }

    fn foldings_mut(&mut self) -> impl Iterator<Item = &mut Folding> {
        self.shown.iter_mut().chain(&mut self.building)
    }

    /// Follows nothing any more; what is shown goes on being shown until a rebuild has taken its place.
    fn forget(&mut self) {
        self.shown = None;
        self.building = None;
        self.is_dirty = false;
    }

    /// What should be shown now; `None` where it is.
    fn wanted(&self, app: &App, epoch: u64, definitions: &Definitions) -> Option<(Period, Build)> {
        let BoardDefinition { board, revision, .. } = &self.definition;
        let now = app.now();
        // Clocks were just found to disagree, and this node is about to stop leading: it closes no period by such a time.
        if !app.may_lead() {
            return None;
        }
        let period = board.period_at(now);
        let reason = match &self.shown {
            None => SnapshotReason::Recovered,
            Some(shown) if shown.build.period != period.key => SnapshotReason::Rolled,
            Some(shown) if shown.expires_at.is_some_and(|at| at <= now) => SnapshotReason::Reweighted,
            Some(shown) if shown.build.revision == *revision => return None,
            Some(shown) if shown.build.basis.rules_version != definitions.rules.version() => SnapshotReason::Reweighted,
            Some(shown) if **shown.scoring.board() != *board => SnapshotReason::Reweighted,
            Some(_) => SnapshotReason::Recovered,
        };
        let basis = definitions.rules.basis(now);
        let build = Build { epoch, period: period.key.clone(), revision: *revision, basis, reason };
        Some((period, build))
    }
}

/// Entries between a generation's cursor and what was read are missing.
struct Gap;

impl Folding {
    /// With the cursors that it was computed at, and those that it has come to.
    pub fn new(
        number: u64,
        build: Build,
        scoring: Scoring,
        (computed_at, cursors): (Cursors, Cursors),
        definitions: &Definitions,
    ) -> Self {
        let expires_at = definitions.rules.next_end(&scoring.board().id, build.basis);
        Self { number, build, scoring, cursors, computed_at, expires_at }
    }

    /// Whether this generation has folded all that the shown one has.
    fn has_met(&self, shown: Option<&Self>) -> bool {
        shown.is_none_or(|shown| shown.cursors.iter().all(|(partition, position)| self.cursors[partition] >= *position))
    }

    /// Whether this generation has folded all that the ledger is known to have.
    fn is_not_behind_ledger(&self, app: &App) -> bool {
        self.cursors.iter().all(|(partition, position)| *position >= app.waits.in_ledger(*partition))
    }

    /// One step from this generation's cursors to the last of the settled entries; `None` where it has them all.
    fn fold(&self, board: &BoardId, settled: &[Settled<'_>]) -> Result<Option<Apply>, Gap> {
        let mut moves = Vec::with_capacity(settled.len());
        let mut deltas: HashMap<&ProductId, Points> = HashMap::new();
        for settled in settled {
            let Settled { partition, entries, .. } = settled;
            let from = self.cursors[partition];
            let fresh = &entries[entries.partition_point(|entry| entry.position <= from)..];
            let (Some(first), Some(last)) = (fresh.first(), fresh.last()) else { continue };
            if !from.is_followed_by(first.position) {
                return Err(Gap);
            }
            moves.push(Move { partition: *partition, from, to: last.position });
            for entry in fresh {
                let scoring = &self.scoring;
                let (product, points) = match settled.counted(entry) {
                    Some(EntryBody::Event(event)) => {
                        let points = scoring.points(&event.product, event.signal, event.bucket(), event.count);
                        (&event.product, points)
                    }
                    // What was refused before this was computed is not in it.
                    Some(EntryBody::Undo(undo)) if undo.refused > self.computed_at[partition] => {
                        let points = scoring.points(&undo.product, undo.signal, undo.bucket(), -undo.count);
                        (&undo.product, points)
                    }
                    _ => continue,
                };
                if points != Points::ZERO {
                    let sum = deltas.entry(product).or_default();
                    *sum = sum.plus(points);
                }
            }
        }
        let deltas = deltas.into_iter().map(|(product, points)| (product.clone(), points)).collect();
        let step = Apply { board: board.clone(), generation: self.number, moves, deltas };
        Ok((!step.moves.is_empty()).then_some(step))
    }
}
