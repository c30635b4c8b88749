//! The words of the system as types, and the rules between them. Pure: no clock, no input or output, nothing async.
//!
//! Everything that decides a score, a period, a rank or a change of rank is here, once.
//! In reading order: ids, time and zones, signals and points, events and positions, periods, boards, rules, the formula,
//! what it explains and previews, standings, feed.

mod board;
mod carried;
mod event;
mod explain;
mod feed;
mod finding;
mod ids;
mod period;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod points;
mod position;
mod preview;
mod product;
mod rules;
mod scoring;
mod signal;
mod standings;
mod time;
mod zone;

pub use board::{Board, Scope};
pub use carried::Carried;
pub use event::{Entry, EntryBody, Event, InvalidEvent, Undo};
pub use explain::{Explanation, ScoreLine, ScoreSource};
pub use feed::{ChangeKind, FeedPosition, FeedState, Place, RankChange, SnapshotReason, rank_changes};
pub use finding::{Finding, Verdict};
pub use ids::{BoardId, EventId, IdempotencyKey, InvalidId, Producer, ProductId, UserId};
pub use period::{HalfLife, InvalidHalfLife, Period, Window};
pub use points::Points;
pub use position::{Cursors, InvalidPosition, Position, partition_of};
pub use preview::{Preview, RankMove};
pub use product::{Money, Product};
pub use rules::{Basis, Hours, InvalidHours, ProductRule, Rules, WeightRule};
pub use scoring::{Count, Scoring, Segment};
pub use signal::{Factor, InvalidFactor, InvalidWeight, Signal, Weight, Weights};
pub use standings::{PageStart, Rows, Standings, best_first};
pub use time::{Bucket, Timestamp};
pub use zone::{InvalidTimeZone, time_zone};
