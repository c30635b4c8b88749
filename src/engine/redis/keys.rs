//! The names of all keys and channels, as the head of [`super`] explains them.

use crate::domain::{BoardId, EventId, UserId};

/// Makes the names that begin with one prefix.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn of_partition(&self, partition: u16, rest: &str) -> String {
        format!("{}:{{p{partition}}}:{rest}", self.prefix)
    }

    pub fn meta(&self, partition: u16) -> String {
        self.of_partition(partition, "meta")
    }

    pub fn journal(&self, partition: u16) -> String {
        self.of_partition(partition, "journal")
    }

    pub fn likes(&self, partition: u16, user: &UserId) -> String {
        self.of_partition(partition, &format!("likes:{user}"))
    }

    pub fn answers(&self, partition: u16, user: &UserId) -> String {
        self.of_partition(partition, &format!("ops:{user}"))
    }

    pub fn rate(&self, partition: u16, user: &UserId) -> String {
        self.of_partition(partition, &format!("rate:{user}"))
    }

    pub fn event(&self, partition: u16, id: &EventId) -> String {
        self.of_partition(partition, &format!("event:{id}"))
    }

    /// A key of a board: `meta`, `scores`, `cursor`, `next:scores`, `next:cursor`, `top` or `feed`.
    pub fn board(&self, board: &BoardId, rest: &str) -> String {
        format!("{}:{{{board}}}:{rest}", self.prefix)
    }

    pub fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.prefix)
    }

    /// What keys and channels begin with, as an ACL names them.
    pub fn pattern(&self) -> String {
        format!("{}:*", self.prefix)
    }

    /// Where a check-up tries things, as the beginning of keys and as a channel.
    pub fn scratch(&self) -> String {
        format!("{}:{{doctor}}", self.prefix)
    }

    /// Published states, as JSON.
    pub fn feed_channel(&self) -> String {
        format!("{}:feed", self.prefix)
    }

    pub fn progress_channel(&self) -> String {
        format!("{}:progress", self.prefix)
    }

    pub fn definitions_channel(&self) -> String {
        format!("{}:definitions", self.prefix)
    }
}
