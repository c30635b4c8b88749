//! What a live board tells its subscribers.

use std::sync::Arc;

use async_graphql::{Enum, ID, Interface, Object, Result, SimpleObject};

use super::board::Period;
use super::product::Product;
use super::ranking::RankingEntry;
use super::scalars::{DateTime, Long, int};
use crate::domain::{self, Board, FeedState, UserId};
use crate::graphql::siblings::Siblings;
use crate::live::BoardUpdate;
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
pub enum BoardEvent {
    Snapshot(BoardSnapshot),
    Delta(BoardDelta),
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::SnapshotReason")]
pub enum SnapshotReason {
    Initial,
    Rolled,
    Reweighted,
    Recovered,
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

/// One subscription's view of a board.
pub struct View {
    pub app: Arc<App>,
    pub board: Arc<Board>,
    pub viewer: Option<UserId>,
    pub top: usize,
}

impl View {
    pub fn event(&self, update: BoardUpdate) -> BoardEvent {
        match update {
            BoardUpdate::Snapshot { state, reason } => BoardEvent::Snapshot(self.snapshot(&state, reason)),
            BoardUpdate::Delta { state, from_seq, changes } => BoardEvent::Delta(self.delta(&state, from_seq, changes)),
        }
    }

    fn snapshot(&self, state: &FeedState, reason: domain::SnapshotReason) -> BoardSnapshot {
        let period = self.board.period_of_key(&state.period).unwrap_or_else(|| self.board.period_at(state.at));
        let freshness = Freshness { source: Source::Engine, as_of: state.at, degraded: false };
        let reading = Arc::new(Reading { board: self.board.clone(), period, freshness });
        BoardSnapshot {
            position: position(state),
            seq: state.seq.into(),
            at: DateTime(state.at),
            reason: reason.into(),
            period: Period::known(reading.clone()),
            total_count: int(state.total),
            entries: RankingEntry::top(&self.app, self.viewer.as_ref(), &reading, state, self.top),
        }
    }

    fn delta(&self, state: &FeedState, from_seq: u64, changes: Vec<domain::RankChange>) -> BoardDelta {
        let ids = changes.iter().map(|change| change.product.clone()).collect();
        let siblings = Siblings::new(&self.app, self.viewer.as_ref(), ids);
        let change = |(index, change)| RankChange { change, index, siblings: siblings.clone() };
        BoardDelta {
            position: position(state),
            seq: state.seq.into(),
            at: DateTime(state.at),
            from_seq: from_seq.into(),
            total_count: int(state.total),
            changes: changes.into_iter().enumerate().map(change).collect(),
        }
    }
}

fn position(state: &FeedState) -> String {
    format!("{}-{}", state.epoch, state.seq)
}

pub struct RankChange {
    change: domain::RankChange,
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
        self.change.points.map(|points| points.as_f64())
    }

    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, self.index).await?)
    }
}
