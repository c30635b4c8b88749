//! Acclaim turns likes, views and orders into live leaderboards behind one GraphQL API.
//!
//! The crate in reading order; a module imports only from those above it:
//!
//! 1. [`domain`]: the words of the system as types, and the formula. Pure.
//! 2. [`engine`]: hot state and the journal, in process memory or in Redis.
//! 3. [`ledger`]: the SQL truth.
//! 4. [`pipeline`]: what follows the journal, and the ways in and out of it.
//! 5. [`live`]: feeds, fanned out to a node's subscribers.
//! 6. [`graphql`]: the schema: parses arguments, makes one call, maps the answer.
//! 7. [`server`]: routes, transports, auth, health and pages.
//!
//! Beside them stands [`client`], which talks to a running server from outside and imports only [`domain`].

pub mod client;
pub mod domain;
pub mod engine;
pub mod graphql;
pub mod ledger;
pub mod live;
pub mod pipeline;
pub mod server;
