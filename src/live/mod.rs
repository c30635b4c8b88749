//! Live boards: a node's single upstream of feeds, fanned out to its subscribers.
//!
//! A subscriber has one slot, never a queue: it compares the newest state with the one it showed last, so a slow one
//! skips states and takes no memory. What pub/sub loses is found by looking at the stored state when a board has been
//! silent for a while.
//!
//! Invariant: a subscriber's view after each update equals some published state, and states of different generations are
//! joined only by a snapshot that says why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::domain::{BoardId, FeedState, RankChange, SnapshotReason, rank_changes};
use crate::engine::Notice;
use crate::pipeline::App;

/// How long a lost message can go unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a subscriber is told.
#[derive(Debug, Clone)]
pub enum BoardUpdate {
    /// Replace what you show with the first `top` places of `state`.
    Snapshot { state: Arc<FeedState>, reason: SnapshotReason },
    /// Apply to what you show. `from_seq` is the seq of the update before.
    Delta { state: Arc<FeedState>, from_seq: u64, changes: Vec<RankChange> },
}

type Slot = watch::Sender<Option<Arc<FeedState>>>;

/// The newest state of every board that somebody has asked for.
pub struct Hub {
    app: Arc<App>,
    slots: Mutex<HashMap<BoardId, Slot>>,
}

impl Hub {
    /// Follows the app's feeds until the app stops.
    pub fn start(app: &Arc<App>) -> Arc<Self> {
        let hub = Arc::new(Self { app: app.clone(), slots: Mutex::default() });
        let following = hub.clone();
        tokio::spawn(async move { following.app.stopping().run_until_cancelled(following.follow()).await });
        hub
    }

    /// The board's updates for one subscriber: a snapshot, then what changes among its first `top` places. Ends when the
    /// node stops. A board that shows nothing yet begins with its first published state.
    pub fn subscribe(self: &Arc<Self>, board: &BoardId, top: usize) -> BoxStream<'static, BoardUpdate> {
        let subscriber = Subscriber { newest: self.slot(board), shown: None, top };
        let stopping = self.app.stopping();
        unfold(subscriber, async |mut subscriber| Some((subscriber.next().await?, subscriber)))
            .take_until(stopping.cancelled_owned())
            .boxed()
    }

    fn slot(self: &Arc<Self>, board: &BoardId) -> watch::Receiver<Option<Arc<FeedState>>> {
        let mut slots = self.slots.lock().expect("nothing panics while it holds the slots");
        if let Some(slot) = slots.get(board) {
            return slot.subscribe();
        }
        let slot = Slot::new(None);
        let newest = slot.subscribe();
        slots.insert(board.clone(), slot);
        // The first subscriber does not wait for the board to change.
        let (hub, board) = (self.clone(), board.clone());
        tokio::spawn(async move { hub.read(&board).await });
        newest
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
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            match timeout_at(next_look, notices.next()).await {
                Ok(None) => return,
                Ok(Some(Notice::Feed(state))) => self.take(state),
                Ok(Some(Notice::Progress(_) | Notice::Definitions)) => {}
                Ok(Some(Notice::Missed)) | Err(_) => {
                    next_look = Instant::now() + LOOK_EVERY;
                    let boards: Vec<_> = self.slots.lock().expect("as above").keys().cloned().collect();
                    for board in boards {
                        self.read(&board).await;
                    }
                }
            }
        }
    }

    async fn read(&self, board: &BoardId) {
        match self.app.engine().published(board).await {
            Ok(Some(state)) => self.take(state),
            Ok(None) => {}
            Err(error) => tracing::debug!(%board, "the published state can't be read: {error}"),
        }
    }

    /// Puts a state into its board's slot, if it is newer.
    fn take(&self, state: FeedState) {
        let slots = self.slots.lock().expect("as above");
        let Some(slot) = slots.get(&state.board) else { return };
        slot.send_if_modified(|newest| {
            let is_newer = newest.as_ref().is_none_or(|old| (old.epoch, old.seq) < (state.epoch, state.seq));
            if is_newer {
                *newest = Some(Arc::new(state));
            }
            is_newer
        });
    }
}

struct Subscriber {
    newest: watch::Receiver<Option<Arc<FeedState>>>,
    /// What was sent last.
    shown: Option<Arc<FeedState>>,
    top: usize,
}

impl Subscriber {
    async fn next(&mut self) -> Option<BoardUpdate> {
        loop {
            let newest = self.newest.borrow_and_update().clone();
            if let Some(update) = newest.and_then(|state| self.update(state)) {
                return Some(update);
            }
            self.newest.changed().await.ok()?;
        }
    }

    fn update(&mut self, state: Arc<FeedState>) -> Option<BoardUpdate> {
        let update = match &self.shown {
            None => BoardUpdate::Snapshot { state: state.clone(), reason: SnapshotReason::Initial },
            Some(shown) if (shown.epoch, shown.generation) != (state.epoch, state.generation) => {
                BoardUpdate::Snapshot { reason: state.reason, state: state.clone() }
            }
            Some(shown) => {
                let changes = rank_changes(shown.top(self.top), state.top(self.top));
                if changes.is_empty() && shown.total == state.total {
                    return None;
                }
                BoardUpdate::Delta { state: state.clone(), from_seq: shown.seq, changes }
            }
        };
        self.shown = Some(state);
        Some(update)
    }
}
