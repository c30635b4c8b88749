//! The types of the API. Each says how it is made from the inside's types, and resolves its own fields.

pub mod adjust;
pub mod audit;
pub mod board;
pub mod desk;
pub mod explanation;
pub mod likes;
pub mod live;
pub mod period;
pub mod preview;
pub mod product;
pub mod ranking;
pub mod record;
pub mod scalars;
pub mod system;
pub mod upsert;
pub mod verify;
pub mod viewer;
pub mod weights;
