//! What a live board tells its subscribers.

use std::sync::Arc;

use async_graphql::{Enum, ID, Interface, Object, Result, SimpleObject};

use super::period::{self, Period};
use super::product::Product;
use super::ranking::RankingEntry;
use super::scalars::{DateTime, Long, int};
use crate::domain::{self, Board, FeedPosition, FeedState, Timestamp};
use crate::graphql::guards::Viewing;
use crate::graphql::siblings::Siblings;
use crate::live::{self, BoardUpdate, Update};
use crate::pipeline::{App, Freshness, Reading, Source};

#[derive(Interface)]
#[graphql(
    field(name = "position", ty = "&String", desc = "Opaque."),
    field(
        name = "seq",
        ty = "&Long",
        desc = "The board's own count of published states; it never goes back within an epoch."
    ),
    field(name = "at", ty = "&DateTime")
)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and the macro takes no boxes")]
pub enum BoardEvent {
    Snapshot(BoardSnapshot),
    Delta(BoardDelta),
    Heartbeat(BoardHeartbeat),
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::SnapshotReason")]
pub enum SnapshotReason {
    /// The first event of a subscription.
    Initial,
    /// Something has changed since what you resume from.
    Resumed,
    /// What you resume from is not kept any more.
    Gap,
    /// You took events too slowly; this is the present state.
    Lagged,
    /// A new period has begun.
    Rolled,
    /// The board counts by other rules: one for weights or for a product was made, taken back or has ended; or the board itself
    /// was changed by saveBoard.
    Reweighted,
    /// The board was computed anew from the ledger by the same rules: after the engine was lost, for products that came into its
    /// category or brand or left it, for events that were refused or replayed, or by rebuildBoard.
    Recovered,
}

/// How you are led on from the state that you resume from.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "live::ResumeWith")]
pub enum ResumeWith {
    /// By a snapshot. Right for clients that subscribe again by themselves with the variables they began with, as most do.
    Snapshot,
    /// By one merged delta, while the state is kept. Only for who names the position of the last event that was applied: it says
    /// what changed between two states, and leaves rows that came after the first and are gone again.
    Delta,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::ChangeKind")]
pub enum ChangeKind {
    Entered,
    Left,
    Moved,
    Rescored,
}

/// Replace what you show.
#[derive(SimpleObject)]
pub struct BoardSnapshot {
    position: String,
    seq: Long,
    at: DateTime,
    reason: SnapshotReason,
    period: Period,
    total_count: i32,
    entries: Vec<RankingEntry>,
}

/// Apply in order to what you show.
#[derive(SimpleObject)]
pub struct BoardDelta {
    position: String,
    seq: Long,
    at: DateTime,
    /// The seq of the event before this one on this subscription: if it is not the seq you hold, you missed something.
    from_seq: Long,
    total_count: i32,
    changes: Vec<RankChange>,
}

/// The stream is alive and nothing changed.
#[derive(SimpleObject)]
pub struct BoardHeartbeat {
    position: String,
    seq: Long,
    at: DateTime,
    freshness: period::Freshness,
}

/// One subscription's view of a board.
pub struct View {
    pub app: Arc<App>,
    pub board: Arc<Board>,
    pub viewer: Viewing,
    pub top: usize,
}

impl View {
    pub fn event(&self, update: BoardUpdate) -> BoardEvent {
        match update {
            BoardUpdate::Snapshot { state, reason } => BoardEvent::Snapshot(self.snapshot(&state, reason)),
            BoardUpdate::Delta { state, from_seq, changes } => BoardEvent::Delta(self.delta(&state, from_seq, changes)),
            BoardUpdate::Heartbeat { state, freshness } => {
                BoardEvent::Heartbeat(self.heartbeat(state.as_deref(), freshness))
            }
        }
    }

    fn snapshot(&self, state: &FeedState, reason: domain::SnapshotReason) -> BoardSnapshot {
        let reading = self.reading(state);
        BoardSnapshot {
            position: state.position().to_string(),
            seq: state.seq.into(),
            at: DateTime(state.at),
            reason: reason.into(),
            period: Period::known(reading.clone(), Some(state.position())),
            total_count: int(state.total),
            entries: RankingEntry::top(&self.app, &self.viewer, &reading, state, self.top),
        }
    }

    /// What a published state was read from. The board is the one of now: it may have been given another title or half-life since
    /// this view began.
    fn reading(&self, state: &FeedState) -> Arc<Reading> {
        let board = self.app.board(&self.board.id).unwrap_or_else(|| self.board.clone());
        let period = board.period_of_key(&state.period).unwrap_or_else(|| board.period_at(state.at));
        let freshness = Freshness { source: Source::Engine, as_of: state.at, degraded: false };
        let (basis, cursors) = (state.basis, state.cursors.clone());
        Arc::new(Reading { board, period, freshness, basis, cursors })
    }

    fn delta(&self, state: &FeedState, from_seq: u64, changes: Vec<domain::RankChange>) -> BoardDelta {
        let ids = changes.iter().map(|change| change.product.clone()).collect();
        let siblings = Siblings::new(&self.app, &self.viewer, ids);
        let reading = self.reading(state);
        let change = |(index, change): (usize, domain::RankChange)| RankChange {
            change,
            reading: reading.clone(),
            index,
            siblings: siblings.clone(),
        };
        BoardDelta {
            position: state.position().to_string(),
            seq: state.seq.into(),
            at: DateTime(state.at),
            from_seq: from_seq.into(),
            total_count: int(state.total),
            changes: changes.into_iter().enumerate().map(change).collect(),
        }
    }

    fn heartbeat(&self, state: Option<&FeedState>, freshness: Freshness) -> BoardHeartbeat {
        // Before anything was published there is no state to hold; resuming from this one is a gap.
        let position = state.map_or(FeedPosition::NOWHERE, FeedState::position);
        BoardHeartbeat {
            position: position.to_string(),
            seq: position.seq.into(),
            at: DateTime(self.app.now()),
            freshness: freshness.into(),
        }
    }
}

/// A product's own place.
#[derive(SimpleObject)]
pub struct ProductRankEvent {
    pub at: DateTime,
    pub product_id: ID,
    pub rank: Option<i32>,
    pub previous_rank: Option<i32>,
    pub score: Option<f64>,
}

impl ProductRankEvent {
    /// `None` for what is none.
    pub fn of(update: Update) -> Option<Self> {
        let Update::Rank { at, product, place, previous_rank } = update else { return None };
        Some(Self {
            at: DateTime(at),
            product_id: ID(product.to_string()),
            rank: place.map(|(rank, _)| int(rank)),
            previous_rank: previous_rank.map(int),
            score: place.map(|(_, score)| score.as_f64()),
        })
    }
}

/// How many people like a product.
pub struct LikeEvent {
    siblings: Arc<Siblings>,
    count: u64,
    at: Timestamp,
}

impl LikeEvent {
    /// `None` for what is none.
    pub fn of(app: &Arc<App>, viewer: &Viewing, update: Update) -> Option<Self> {
        let Update::Likes { at, product, count } = update else { return None };
        Some(Self { siblings: Siblings::new(app, viewer, vec![product]), count, at })
    }
}

#[Object]
impl LikeEvent {
    async fn product_id(&self) -> ID {
        ID(self.siblings.ids()[0].to_string())
    }

    /// Null only when the catalogue row is gone.
    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, 0).await?)
    }

    async fn count(&self) -> Long {
        self.count.into()
    }

    async fn at(&self) -> DateTime {
        DateTime(self.at)
    }
}

pub struct RankChange {
    change: domain::RankChange,
    /// What the state after it was read from.
    reading: Arc<Reading>,
    index: usize,
    siblings: Arc<Siblings>,
}

#[Object]
impl RankChange {
    async fn kind(&self) -> ChangeKind {
        self.change.kind.into()
    }

    async fn product_id(&self) -> ID {
        ID(self.change.product.to_string())
    }

    /// Null for ENTERED.
    async fn from_rank(&self) -> Option<i32> {
        self.change.from_rank.map(int)
    }

    /// Null for LEFT.
    async fn to_rank(&self) -> Option<i32> {
        self.change.to_rank.map(int)
    }

    /// Null for LEFT.
    async fn score(&self) -> Option<f64> {
        self.change.points.map(|points| self.reading.score(points).as_f64())
    }

    /// Its place now. Null for LEFT.
    async fn entry(&self) -> Option<RankingEntry> {
        let (rank, points) = (self.change.to_rank?, self.change.points?);
        Some(RankingEntry::read(&self.reading, rank, points, &self.siblings, self.index))
    }

    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, self.index).await?)
    }
}
