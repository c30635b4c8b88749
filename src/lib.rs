//! Acclaim turns likes, views and orders into live leaderboards behind one GraphQL API.
//!
//! The crate in reading order; a module imports only from those above it:
//!
//! 1. [`domain`]: the words of the system as types, and the formula. Pure.
//!

pub mod domain;
