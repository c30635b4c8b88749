//! Live: a node's single upstream of feeds, and the sequences of updates that subscribers share.
//!
//! [`Hub`] keeps the newest published state of every board that somebody follows, and [`places`] the places of single
//! products. A [`Sequence`] follows one of these at a certain rate: its steps are what subscribers are told, one after the
//! other. Nobody has a queue: a sequence compares the newest with what it said last, so what falls in between is merged.
//! What pub/sub loses is found by looking at the stored state when a board has been silent for a while.
//!
//! Invariant: a subscriber's view after each update equals some published state, and states of different generations are
//! joined only by a snapshot that says why.

mod places;
mod sequence;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::domain::{
    BoardId, FeedPosition, FeedState, PageStart, Points, ProductId, RankChange, SnapshotReason, Timestamp, WeightRule,
};
use crate::engine::{EngineError, Notice, Page, Progress};
use crate::pipeline::{App, Freshness, Source};
use places::Places;
pub use places::{FOLLOWED_MAX, FOLLOWED_PER_CALLER_MAX, TooManyFollowed};
pub use sequence::{Sequence, ShownBuild};

/// How long a lost message can go unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long, besides a tick, a subscription waits at its beginning until what the board shows is published. A projector that has
/// much to fold publishes late; and while none is at work, what was published last must do.
const REACH_MARGIN: Duration = Duration::from_secs(1);

/// What a subscription follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Topic {
    /// The first `top` places of a board.
    Board { board: BoardId, top: usize },
    /// One product's own place, on or off the visible top.
    Rank { board: BoardId, product: ProductId },
    /// How many people like each product.
    Likes { products: Vec<ProductId> },
    /// Changes of weights: all, or those of rules that have begun.
    Rules { begun_only: bool },
}

/// How a subscriber is led on from the state that it resumes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ResumeWith {
    /// By a snapshot: right whatever the subscriber has applied since it held that state.
    #[default]
    Snapshot,
    /// By what has changed since: right only for one that holds just that state.
    Delta,
}

/// What a subscriber is told.
#[derive(Debug, Clone)]
pub enum Update {
    Board(BoardUpdate),
    /// `place` is rank and score now; `previous_rank` what was told before, if anything was.
    Rank {
        at: Timestamp,
        product: ProductId,
        place: Option<(u64, Points)>,
        previous_rank: Option<u64>,
    },
    Likes {
        at: Timestamp,
        product: ProductId,
        count: u64,
    },
    /// A new weight rule, or one that was cancelled.
    Rule {
        rule: Box<WeightRule>,
        cancelled: bool,
    },
}

impl Update {
    /// The published state that a board's subscriber holds after this.
    pub fn position(&self) -> Option<FeedPosition> {
        let Self::Board(update) = self else { return None };
        match update {
            BoardUpdate::Snapshot { state, .. } | BoardUpdate::Delta { state, .. } => Some(state.position()),
            BoardUpdate::Heartbeat { state, .. } => state.as_ref().map(|state| state.position()),
        }
    }
}

#[derive(Debug, Clone)]
pub enum BoardUpdate {
    /// Replace what you show with the first `top` places of `state`.
    Snapshot { state: Arc<FeedState>, reason: SnapshotReason },
    /// Apply to what you show. `from_seq` is the seq of the update before.
    Delta { state: Arc<FeedState>, from_seq: u64, changes: Vec<RankChange> },
    /// Nothing has changed since `state`; `None` where nothing was ever published.
    Heartbeat { state: Option<Arc<FeedState>>, freshness: Freshness },
}

struct Slot {
    newest: watch::Sender<Option<Arc<FeedState>>>,
    /// When the last look began that found, or waited until, `newest` had reached the board.
    reached_at: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

/// The newest state of every board that somebody has asked for.
pub struct Hub {
    app: Arc<App>,
    slots: Mutex<HashMap<BoardId, Slot>>,
    places: Places,
    /// When the engine was last heard of, in ms since 1970.
    heard_at_ms: AtomicI64,
}

impl Hub {
    /// Follows the app's feeds until the app stops, which awaits it.
    pub fn start(app: &Arc<App>) -> Arc<Self> {
        let heard_at_ms = AtomicI64::new(app.now().as_ms());
        let hub = Arc::new(Self { app: app.clone(), slots: Mutex::default(), places: Places::default(), heard_at_ms });
        let following = hub.clone();
        hub.spawn(async move { following.app.stopping().run_until_cancelled(following.follow()).await });
        let reading = hub.clone();
        hub.spawn(
            async move { reading.app.stopping().run_until_cancelled(reading.places.keep_read(&reading.app)).await },
        );
        let forgetting = hub.clone();
        hub.spawn(async move { forgetting.app.stopping().run_until_cancelled(forgetting.forget_deleted()).await });
        hub
    }

    /// Runs a task that ends by itself when the node stops, which awaits it.
    pub fn spawn<T>(&self, task: impl Future<Output = T> + Send + 'static) {
        self.app.spawn(async move {
            task.await;
        });
    }

    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Follows a topic: at most `rate` steps a second.
    pub fn sequence(self: &Arc<Self>, topic: Topic, rate: f64) -> Result<Sequence, TooManyFollowed> {
        Sequence::new(self, topic, rate)
    }

    /// The states of a board, which end when it is deleted.
    fn slot(self: &Arc<Self>, board: &BoardId) -> watch::Receiver<Option<Arc<FeedState>>> {
        let mut slots = self.slots.lock().expect("nothing panics while it holds the slots");
        if let Some(slot) = slots.get(board) {
            return slot.newest.subscribe();
        }
        let slot = Slot { newest: watch::Sender::new(None), reached_at: Arc::default() };
        let newest = slot.newest.subscribe();
        if self.is_deleted(board) {
            return newest;
        }
        slots.insert(board.clone(), slot);
        // The first subscriber does not wait for the board to change.
        let (hub, board) = (self.clone(), board.clone());
        self.spawn(async move { hub.app.stopping().run_until_cancelled(hub.look(&board)).await });
        newest
    }

    /// Waits until the newest published state of a board has reached what the board showed when this was called, so that nobody
    /// who has read the board is given an older state. All who ask while one look is under way share the next one.
    /// Fails where the engine can't say what the board shows.
    pub async fn reach(&self, board: &BoardId) -> Result<(), EngineError> {
        let asked_at = Instant::now();
        let (mut newest, reached_at) = {
            let slots = self.slots.lock().expect("as above");
            let Some(slot) = slots.get(board) else { return Ok(()) };
            (slot.newest.subscribe(), slot.reached_at.clone())
        };
        let mut reached_at = reached_at.lock().await;
        if reached_at.is_some_and(|began_at| began_at >= asked_at) {
            return Ok(());
        }
        let began_at = Instant::now();
        let most = self.app.tick() + REACH_MARGIN;
        match timeout(most, self.until_reached(board, &mut newest)).await {
            Ok(reached) => reached?,
            Err(_) => tracing::debug!(%board, "what the board shows was not published within {most:?}"),
        }
        *reached_at = Some(began_at);
        Ok(())
    }

    async fn until_reached(
        &self,
        board: &BoardId,
        newest: &mut watch::Receiver<Option<Arc<FeedState>>>,
    ) -> Result<(), EngineError> {
        let read = async || self.app.engine().page(board, &PageStart::Rank(1), FeedState::PLACES_MAX).await;
        let Some(first) = read().await? else { return Ok(()) };
        let mut present = None;
        loop {
            let shown = newest.borrow_and_update().clone();
            if shown.is_some_and(|shown| has_reached(&shown, &first, present.as_ref().unwrap_or(&first))) {
                return Ok(());
            }
            match timeout(self.app.tick(), newest.changed()).await {
                Ok(Ok(())) => {}
                // The board was deleted.
                Ok(Err(_)) => return Ok(()),
                // Its message was lost; or the board shows again what was published before, and nothing more will be.
                Err(_) => {
                    self.read(board).await?;
                    present = read().await?;
                }
            }
        }
    }

    fn is_deleted(&self, board: &BoardId) -> bool {
        self.app.definitions().board(board).is_none()
    }

    /// Ends what follows boards that are deleted. Who begins to follow one later finds that by itself, under the same locks.
    async fn forget_deleted(&self) {
        let mut definitions = self.app.follow_definitions();
        while definitions.changed().await.is_ok() {
            let known = definitions.borrow_and_update().clone();
            self.slots.lock().expect("as above").retain(|board, _| known.board(board).is_some());
            self.places.retain(|board| known.board(board).is_some());
        }
    }

    async fn follow(&self) {
        loop {
            if let Ok(mut notices) = self.app.engine().listen().await {
                self.hear(&mut notices).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn hear(&self, notices: &mut BoxStream<'static, Notice>) {
        // The first of a stream only says that it begins.
        let mut has_begun = false;
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            match timeout_at(next_look, notices.next()).await {
                Ok(None) => return,
                Ok(Some(Notice::Feed(state))) => {
                    self.heard();
                    self.take(state);
                }
                // Whatever moves the count of likes on moves every board.
                Ok(Some(Notice::Progress(Progress::Likes { .. }))) => self.places.suspect(),
                Ok(Some(Notice::Progress(_) | Notice::Definitions | Notice::Foreign { .. })) => {}
                looks @ (Ok(Some(Notice::Missed)) | Err(_)) => {
                    if looks.is_ok() && std::mem::replace(&mut has_begun, true) {
                        self.app.metrics().feed_interrupted();
                    }
                    next_look = Instant::now() + LOOK_EVERY;
                    self.places.suspect();
                    let boards: Vec<_> = self.slots.lock().expect("as above").keys().cloned().collect();
                    for board in boards {
                        self.look(&board).await;
                    }
                }
            }
        }
    }

    /// Reads the state that is stored.
    async fn read(&self, board: &BoardId) -> Result<(), EngineError> {
        let state = self.app.engine().published(board).await?;
        self.heard();
        state.into_iter().for_each(|state| self.take(state));
        Ok(())
    }

    async fn look(&self, board: &BoardId) {
        // The next look, or the next notice, makes up for it.
        if let Err(error) = self.read(board).await {
            tracing::debug!(%board, "the published state can't be read: {error}");
        }
    }

    /// Puts a state into its board's slot, if it is newer.
    fn take(&self, state: FeedState) {
        let slots = self.slots.lock().expect("as above");
        let Some(slot) = slots.get(&state.board) else { return };
        slot.newest.send_if_modified(|newest| {
            let is_newer = newest.as_ref().is_none_or(|old| (old.epoch, old.seq) < (state.epoch, state.seq));
            if is_newer {
                // A state stands for all before it, so nobody has to know what these were.
                if newest.as_ref().is_some_and(|old| old.epoch == state.epoch && old.seq + 1 < state.seq) {
                    self.app.metrics().feed_gap();
                }
                *newest = Some(Arc::new(state));
            }
            is_newer
        });
    }

    fn heard(&self) {
        self.heard_at_ms.store(self.app.now().as_ms(), Ordering::Relaxed);
    }

    /// How fresh the slots are: degraded while the engine is being recovered or has not been heard of for two looks.
    fn freshness(&self) -> Freshness {
        let as_of = Timestamp::from_ms(self.heard_at_ms.load(Ordering::Relaxed));
        let is_silent = as_of < self.app.now().minus_ms(2 * LOOK_EVERY.as_millis() as i64);
        let degraded = is_silent || self.app.epoch().is_err();
        Freshness { source: Source::Engine, as_of, degraded }
    }
}

/// Whether a published state has all that was counted when a page was `first` read, or shows what the board shows at `present`.
fn has_reached(published: &FeedState, first: &Page, present: &Page) -> bool {
    let build = |page: &Page| (page.generation.build.epoch, page.generation.number);
    let published_build = (published.epoch, published.generation);
    // A generation is switched to once it has all that the one before had.
    published_build > build(first)
        || published_build == build(first)
            && first
                .cursors
                .iter()
                .all(|(partition, read)| published.cursors.get(partition).is_some_and(|at| at >= read))
        || published_build == build(present)
            && (published.total, &published.places) == (present.rows.total, &present.rows.places)
}
