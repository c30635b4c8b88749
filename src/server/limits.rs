//! How much one client may take of a server. Every limit is a setting; the settings say why each is what it is.

use std::time::Duration;

use crate::graphql::DocumentLimits;

/// The defaults suit a shop whose pages and dashboards call directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub documents: DocumentLimits,
    /// Bytes of an HTTP request's body.
    pub body_len: usize,
    /// Bytes of a WebSocket message.
    pub message_len: usize,
    /// Subscriptions of one WebSocket.
    pub subscriptions: usize,
    /// Live connections (WebSockets and event streams) of one user; 0 for no limit.
    pub connections_per_user: usize,
    /// Live connections from one address; 0 for no limit.
    pub connections_per_address: usize,
    /// Units of 10 µs that one caller may take in a second; 0 for no limit.
    pub budget_rate: u64,
    /// Units that one caller may take at once.
    pub budget_burst: u64,
    /// Queries and mutations of all callers that are under way.
    pub in_flight: usize,
    /// Bytes of all large bodies that are being read or worked on.
    pub bodies_len: usize,
    /// Connections of all callers.
    pub connections: usize,
    /// How long a connection may take until it has sent a request's headers.
    pub header_timeout: Duration,
    /// How long a request may take, from its headers to its answer, or to its first event.
    pub request_timeout: Duration,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        documents: DocumentLimits::DEFAULT,
        body_len: 1 << 20,
        message_len: 64 << 10,
        subscriptions: 20,
        connections_per_user: 10,
        connections_per_address: 100,
        budget_rate: 10_000,
        budget_burst: 50_000,
        in_flight: 4_096,
        bodies_len: 64 << 20,
        connections: 20_000,
        header_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(15),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
