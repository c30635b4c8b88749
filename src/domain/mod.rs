//! The words of the system as types, and the rules between them. Pure: no clock, no input or output, nothing async.
//!
//! Everything that decides a score, a period, a rank or a change of rank is here, once.
//! In reading order: ids and time, signals and points, events and positions, boards, the formula, standings, feed.

mod board;
mod event;
mod feed;
mod ids;
mod points;
mod position;
mod product;
mod scoring;
mod signal;
mod standings;
mod time;

pub use board::{Board, Period, Window};
pub use event::{Entry, EntryBody, Event};
pub use feed::{ChangeKind, FeedPosition, FeedState, Place, RankChange, SnapshotReason, rank_changes};
pub use ids::{BoardId, EventId, IdempotencyKey, InvalidId, ProductId, UserId};
pub use points::Points;
pub use position::{Cursors, InvalidPosition, Position, partition_of};
pub use product::{Money, Product};
pub use scoring::{Scoring, Segment, WeightRule};
pub use signal::{InvalidWeight, Signal, Weight, Weights};
pub use standings::{PageStart, Rows, Standings};
pub use time::{Bucket, Timestamp};
