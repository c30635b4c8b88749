//! The names of all keys and channels, as the head of [`super`] explains them.

use crate::domain::{BoardId, EventId, UserId};

/// Makes the names that begin with one prefix.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
    /// Number of the database. Keys live within it; channels are the whole server's, so their names say it.
    database: i64,
}

/// Where one ledger's messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Published states, as JSON.
    pub feed: String,
    pub progress: String,
    pub definitions: String,
}

impl Keys {
    pub fn new(prefix: &str, database: i64) -> Self {
        Self { prefix: prefix.to_owned(), database }
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

    /// What every key of a partition matches whose name goes on with `rest`, and perhaps others.
    pub fn partitions_pattern(&self, rest: &str) -> String {
        let mut prefix = String::new();
        for c in self.prefix.chars() {
            if "*?[]^\\".contains(c) {
                prefix.push('\\');
            }
            prefix.push(c);
        }
        format!("{prefix}:{{p*}}:{rest}*")
    }

    /// The partition that a key belongs to, and the rest of its name.
    pub fn rest_of<'a>(&self, key: &'a str) -> Option<(u16, &'a str)> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix(":{p")?;
        let (partition, rest) = rest.split_once("}:")?;
        Some((partition.parse().ok()?, rest))
    }

    /// Where likes stand that are being loaded, by one call.
    pub fn staged(&self, partition: u16, user: &UserId, call: u64) -> String {
        self.of_partition(partition, &format!("staged:{call:016x}:{user}"))
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

    /// Names these keys on a server, by its run id.
    pub fn instance(&self, server: &str) -> String {
        format!("redis:{server}:{}:{}", self.database, self.prefix)
    }

    /// What keys and channels begin with, as an ACL names them.
    pub fn pattern(&self) -> String {
        format!("{}:*", self.prefix)
    }

    /// Where a check-up tries things, as the beginning of keys and as a channel.
    pub fn scratch(&self) -> String {
        format!("{}:{{doctor}}", self.prefix)
    }

    /// Of a ledger, by its id, in this database.
    pub fn channels(&self, ledger: &str) -> Channels {
        let channel = |kind: &str| format!("{}:{}:{ledger}:{kind}", self.prefix, self.database);
        Channels { feed: channel("feed"), progress: channel("progress"), definitions: channel("definitions") }
    }
}
