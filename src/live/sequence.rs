//! A sequence: what those who follow the same topic at the same rate are told, step by step.
//!
//! Invariant: steps follow each other without a gap: what a step says leads from what the sequence has `shown` to the
//! newest, and becomes what it has shown. Waiting for a step can be cut off at any time; nothing is lost by that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::places::{Place, TooManyFollowed};
use super::{BoardUpdate, Hub, ResumeWith, Topic, Update};
use crate::domain::{BoardId, FeedPosition, FeedState, ProductId, SnapshotReason, WeightRule, rank_changes};
use crate::ledger::Definitions;
use crate::pipeline::like_count;

/// After so much silence on a board its subscribers are told that the stream is alive.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// Epoch and generation of a board; of rules, 0 and the version.
pub type ShownBuild = (u64, u64);

pub struct Sequence {
    hub: Arc<Hub>,
    source: Source,
    /// Least time between two steps.
    pause: Duration,
    /// From when on the next step may be told: at once for the first, however slow the rate.
    step_at: Instant,
    /// When anything was told last.
    spoke_at: Instant,
    /// Whether something may have come since the last step.
    is_due: bool,
}

enum Source {
    Board(Board),
    Places(Places),
    Rules(Rules),
}

struct Board {
    board: BoardId,
    top: usize,
    newest: watch::Receiver<Option<Arc<FeedState>>>,
    /// What was told last. `None` until something is published.
    shown: Option<Arc<FeedState>>,
}

/// One product's rank, or the counts of likes of several.
struct Places {
    hub: Arc<Hub>,
    board: BoardId,
    products: Vec<ProductId>,
    is_count: bool,
    read: watch::Receiver<()>,
    shown: Vec<Option<Place>>,
}

struct Rules {
    hub: Arc<Hub>,
    begun_only: bool,
    newest: watch::Receiver<Arc<Definitions>>,
    /// All of these were told.
    shown: Arc<Definitions>,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.hub.places.leave(&self.board, &self.products, &self.read);
    }
}

impl Sequence {
    pub(super) fn new(hub: &Arc<Hub>, topic: Topic, rate: f64) -> Result<Self, TooManyFollowed> {
        let places = |board: BoardId, products: Vec<ProductId>, is_count| {
            let read = hub.places.follow(&hub.app, &board, &products)?;
            let shown = hub.places.of(&board, &products);
            Ok(Source::Places(Places { hub: hub.clone(), board, products, is_count, read, shown }))
        };
        let source = match topic {
            Topic::Board { board, top } => {
                let mut newest = hub.slot(&board);
                let shown = newest.borrow_and_update().clone();
                Source::Board(Board { board, top, newest, shown })
            }
            Topic::Rank { board, product } => places(board, vec![product], false)?,
            Topic::Likes { products } => places(BoardId::likes(), products, true)?,
            Topic::Rules { begun_only } => {
                let mut newest = hub.app.follow_definitions();
                let shown = newest.borrow_and_update().clone();
                Source::Rules(Rules { hub: hub.clone(), begun_only, newest, shown })
            }
        };
        let pause = Duration::from_secs_f64(1.0 / rate);
        let now = Instant::now();
        Ok(Self { hub: hub.clone(), source, pause, step_at: now, spoke_at: now, is_due: false })
    }

    /// Waits for the next step: at least one update. `None` when the node stops, or the board is deleted. Can be cut off.
    pub async fn next(&mut self) -> Option<Vec<Update>> {
        loop {
            let silent = sleep_until(self.spoke_at + HEARTBEAT_EVERY);
            tokio::select! {
                changed = self.source.changed(), if !self.is_due => {
                    changed?;
                    self.is_due = true;
                }
                () = sleep_until(self.step_at), if self.is_due => {
                    self.is_due = false;
                    let updates = self.source.step();
                    if !updates.is_empty() {
                        self.stepped();
                        return Some(updates);
                    }
                }
                () = silent, if matches!(self.source, Source::Board(_)) => {
                    self.spoke_at = Instant::now();
                    return Some(self.heartbeat());
                }
            }
        }
    }

    fn stepped(&mut self) {
        self.spoke_at = Instant::now();
        self.step_at = self.spoke_at + self.pause;
    }

    fn heartbeat(&self) -> Vec<Update> {
        let Source::Board(board) = &self.source else { return Vec::new() };
        vec![Update::Board(BoardUpdate::Heartbeat { state: board.shown.clone(), freshness: self.hub.freshness() })]
    }

    /// What is shown: states of different builds are joined only by a snapshot that says why.
    pub fn build(&self) -> Option<ShownBuild> {
        match &self.source {
            Source::Board(board) => board.shown.as_ref().map(|shown| (shown.epoch, shown.generation)),
            Source::Places(_) => None,
            Source::Rules(rules) => Some((0, rules.shown.rules.version() as u64)),
        }
    }

    /// The board whose deletion has ended the sequence, where that is why [`Self::next`] has said that it is over.
    pub fn deleted(&self) -> Option<&BoardId> {
        let board = match &self.source {
            Source::Board(board) => &board.board,
            Source::Places(places) => &places.board,
            Source::Rules(_) => return None,
        };
        (!self.hub.app.stopping().is_cancelled()).then_some(board)
    }

    /// All there is to show at this step, for those who missed steps since they were shown `build`.
    pub fn whole_after(&self, build: Option<ShownBuild>) -> Vec<Update> {
        match &self.source {
            Source::Board(Board { shown: Some(shown), .. }) if build.is_some() && build != self.build() => {
                self.whole(shown.reason)
            }
            Source::Rules(rules) => build.map_or(Vec::new(), |(_, version)| rules.since(version as i32)),
            _ => self.whole(SnapshotReason::Lagged),
        }
    }

    /// All there is to show at this step, for those who begin, or have fallen behind. Nothing where nothing is known yet.
    pub fn whole(&self, reason: SnapshotReason) -> Vec<Update> {
        match &self.source {
            Source::Board(board) => {
                let snapshot = |state: &Arc<FeedState>| BoardUpdate::Snapshot { state: state.clone(), reason };
                board.shown.iter().map(|state| Update::Board(snapshot(state))).collect()
            }
            Source::Places(places) => {
                let told = places.products.iter().zip(&places.shown);
                told.filter_map(|(product, place)| Some(places.update(product, (*place)?, None))).collect()
            }
            // They are told once, as they come.
            Source::Rules(_) => Vec::new(),
        }
    }

    /// What leads a client that held a published state to this step: nothing, one merged delta where it asks for that, or a
    /// snapshot that says why.
    pub async fn since(&self, held: FeedPosition, with: ResumeWith) -> Vec<Update> {
        let Source::Board(Board { board, top, shown: Some(shown), .. }) = &self.source else {
            return self.whole(SnapshotReason::Initial);
        };
        let is_of_feed = held.feed == shown.position().feed;
        let is_kept = is_of_feed && held.is_exact && held.epoch == shown.epoch && held.seq <= shown.seq;
        if is_kept && held.seq == shown.seq {
            return Vec::new();
        }
        let read = async || match is_kept {
            true => self.hub.app.engine().published_at(board, held.seq).await.ok().flatten(),
            false => None,
        };
        match read().await.filter(|old| old.epoch == held.epoch) {
            Some(old) if old.generation != shown.generation => self.whole(shown.reason),
            Some(_) if with == ResumeWith::Snapshot => self.whole(SnapshotReason::Resumed),
            Some(old) => {
                let changes = rank_changes(old.top(*top), shown.top(*top));
                let delta = BoardUpdate::Delta { state: shown.clone(), from_seq: old.seq, changes };
                vec![Update::Board(delta)]
            }
            None if held.epoch < shown.epoch => self.whole(SnapshotReason::Recovered),
            None => self.whole(SnapshotReason::Gap),
        }
    }

    /// How many single products are read for it.
    pub fn followed(&self) -> usize {
        match &self.source {
            Source::Places(places) => places.products.len(),
            Source::Board(_) | Source::Rules(_) => 0,
        }
    }

    /// The board whose published states these are.
    pub fn board(&self) -> Option<&BoardId> {
        match &self.source {
            Source::Board(board) => Some(&board.board),
            Source::Places(_) | Source::Rules(_) => None,
        }
    }

    /// Whether a client has seen a later state than the one shown here.
    pub fn is_behind(&self, held: FeedPosition) -> bool {
        match &self.source {
            Source::Board(board) => {
                let is_before = |shown: &FeedState| {
                    let shown = shown.position();
                    held.feed == shown.feed && (held.epoch, held.seq) > (shown.epoch, shown.seq)
                };
                board.shown.as_ref().is_none_or(|shown| is_before(shown))
            }
            Source::Places(_) | Source::Rules(_) => false,
        }
    }

    /// Steps up to the newest published state for one who joins, so that all go on from there: the rate is kept only where
    /// that would look no different, and the newcomer has not seen it yet. The step may say nothing but a later seq.
    pub fn catch_up(&mut self, held: Option<FeedPosition>) -> Vec<Update> {
        let may_wait = Instant::now() < self.step_at && !held.is_some_and(|held| self.is_behind(held));
        let Source::Board(board) = &mut self.source else { return Vec::new() };
        let newest = board.newest.borrow_and_update().clone();
        let newest = newest.filter(|newest| !(may_wait && board.shows(newest)));
        let updates: Vec<_> = newest.and_then(|newest| board.lead_to(newest)).map(Update::Board).into_iter().collect();
        if !updates.is_empty() {
            self.stepped();
        }
        updates
    }
}

impl Source {
    /// Waits until something may have changed; `None` when the node stops, or the board is deleted.
    async fn changed(&mut self) -> Option<()> {
        let changed = match self {
            Self::Board(board) => board.newest.changed().await,
            Self::Places(places) => places.read.changed().await,
            Self::Rules(rules) => rules.newest.changed().await,
        };
        changed.ok()
    }

    fn step(&mut self) -> Vec<Update> {
        match self {
            Self::Board(board) => board.step().into_iter().map(Update::Board).collect(),
            Self::Places(places) => places.step(),
            Self::Rules(rules) => rules.step(),
        }
    }
}

impl Board {
    /// Leads to the newest state; `None` where its first places look the same.
    fn step(&mut self) -> Option<BoardUpdate> {
        let newest = self.newest.borrow_and_update().clone()?;
        if self.shows(&newest) { None } else { self.lead_to(newest) }
    }

    /// Whether a state looks as the one that is shown.
    fn shows(&self, state: &FeedState) -> bool {
        self.shown.as_ref().is_some_and(|shown| {
            (shown.epoch, shown.generation, shown.total, shown.top(self.top))
                == (state.epoch, state.generation, state.total, state.top(self.top))
        })
    }

    /// `None` where that state is shown already.
    fn lead_to(&mut self, state: Arc<FeedState>) -> Option<BoardUpdate> {
        let update = match &self.shown {
            None => BoardUpdate::Snapshot { state: state.clone(), reason: SnapshotReason::Initial },
            Some(shown) if (shown.epoch, shown.seq) == (state.epoch, state.seq) => return None,
            Some(shown) if (shown.epoch, shown.generation) != (state.epoch, state.generation) => {
                BoardUpdate::Snapshot { reason: state.reason, state: state.clone() }
            }
            Some(shown) => {
                let changes = rank_changes(shown.top(self.top), state.top(self.top));
                BoardUpdate::Delta { state: state.clone(), from_seq: shown.seq, changes }
            }
        };
        self.shown = Some(state);
        Some(update)
    }
}

impl Rules {
    fn step(&mut self) -> Vec<Update> {
        let newest = self.newest.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.shown, newest);
        self.since(before.rules.version())
    }

    /// The rules after a version. One that is cancelled is told again.
    fn since(&self, version: i32) -> Vec<Update> {
        let (rules, now) = (&self.shown.rules.weights, self.hub.app.now());
        let is_told = |rule: &WeightRule| !self.begun_only || rule.from.is_none_or(|from| from <= now);
        let new = rules.iter().filter(|rule| rule.version > version);
        let told = new.filter_map(|new| {
            let rule = match new.cancels {
                Some(cancelled) => rules.iter().find(|rule| rule.version == cancelled)?,
                None => new,
            };
            let cancelled = new.cancels.is_some();
            is_told(rule).then(|| Update::Rule { rule: Box::new(rule.clone()), cancelled })
        });
        told.collect()
    }
}

impl Places {
    fn step(&mut self) -> Vec<Update> {
        let newest = self.hub.places.of(&self.board, &self.products);
        let before = std::mem::replace(&mut self.shown, newest);
        let pairs = self.products.iter().zip(before.into_iter().zip(&self.shown));
        let changed = pairs.filter_map(|(product, (before, now))| match (before, now) {
            (before, Some(now)) if before != Some(*now) => Some(self.update(product, *now, before.flatten())),
            _ => None,
        });
        changed.collect()
    }

    fn update(&self, product: &ProductId, place: Place, before: Place) -> Update {
        let (at, product) = (self.hub.app.now(), product.clone());
        match self.is_count {
            true => Update::Likes { at, product, count: like_count(place) },
            false => Update::Rank { at, product, place, previous_rank: before.map(|(rank, _)| rank) },
        }
    }
}
