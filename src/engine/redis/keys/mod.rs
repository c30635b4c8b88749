//! The names of all keys and channels, as the head of [`super`] explains them.
//!
//! Invariant: a key's name reads back as that key, so no two keys have one name: [`Keys::name`] and [`Keys::read`] are the only
//! places that know what a name looks like.

mod slots;
#[cfg(test)]
mod tests;

pub use self::slots::{SLOTS, slot_of};
use self::slots::{board_tag, partition_tag};
use crate::domain::{BoardId, EventId, UserId};

/// Every kind of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Whose the keys are; where it lies depends on nothing.
    Owner,
    /// Of a partition, as the next six.
    Meta(u16),
    Journal(u16),
    Likes(u16, UserId),
    /// Likes that one call is loading, by the call's number.
    Staged(u16, u64, UserId),
    Answers(u16, UserId),
    Rate(u16, UserId),
    Event(u16, EventId),
    Board(BoardId, BoardKey),
    /// A background task, by its name.
    Lease(String),
    /// What a check-up tries things with.
    Scratch(String),
}

/// Every kind of key that a board has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardKey {
    Meta,
    Scores,
    Cursor,
    Beyond,
    NextScores,
    NextCursor,
    NextBeyond,
    Top,
    Feed,
}

impl BoardKey {
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Scores,
        Self::Cursor,
        Self::Beyond,
        Self::NextScores,
        Self::NextCursor,
        Self::NextBeyond,
        Self::Top,
        Self::Feed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Scores => "scores",
            Self::Cursor => "cursor",
            Self::Beyond => "beyond",
            Self::NextScores => "next:scores",
            Self::NextCursor => "next:cursor",
            Self::NextBeyond => "next:beyond",
            Self::Top => "top",
            Self::Feed => "feed",
        }
    }
}

/// Makes the names that begin with one prefix.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
    /// Number of the database. Keys live within it; channels are the whole server's, so their names say it.
    database: i64,
    /// Their number decides where each of them lies.
    partitions: u16,
    layout: Layout,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Partitions have tags that begin with `p:`, boards with `b:`, and so on.
    Present,
    /// Of earlier versions: a tag was the bare name of a partition or board, which could meet. Only read, and removed.
    Former,
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
    pub fn new(prefix: &str, database: i64, partitions: u16) -> Self {
        Self { prefix: prefix.to_owned(), database, partitions, layout: Layout::Present }
    }

    /// The names that an earlier version gave to the same keys.
    pub fn former(&self) -> Self {
        Self { layout: Layout::Former, ..self.clone() }
    }

    pub fn name(&self, key: &Key) -> String {
        let prefix = &self.prefix;
        match key {
            Key::Owner => format!("{prefix}:{{owner:}}"),
            Key::Meta(partition) => format!("{}meta", self.of_partition(*partition)),
            Key::Journal(partition) => format!("{}journal", self.of_partition(*partition)),
            Key::Likes(partition, user) => format!("{}likes:{user}", self.of_partition(*partition)),
            Key::Staged(partition, call, user) => format!("{}staged:{call:016x}:{user}", self.of_partition(*partition)),
            Key::Answers(partition, user) => format!("{}ops:{user}", self.of_partition(*partition)),
            Key::Rate(partition, user) => format!("{}rate:{user}", self.of_partition(*partition)),
            Key::Event(partition, id) => format!("{}event:{id}", self.of_partition(*partition)),
            Key::Board(board, key) => match self.layout {
                Layout::Present => format!("{prefix}:{{{}}}:{board}:{}", board_tag(board), key.name()),
                Layout::Former => format!("{prefix}:{{{board}}}:{}", key.name()),
            },
            Key::Lease(task) => match self.layout {
                Layout::Present => format!("{prefix}:{{lease:{task}}}"),
                Layout::Former => format!("{prefix}:lease:{task}"),
            },
            Key::Scratch(name) => format!("{}:{name}", self.scratch()),
        }
    }

    /// What the names of all keys of a partition begin with.
    fn of_partition(&self, partition: u16) -> String {
        match self.layout {
            Layout::Present => {
                format!("{}:{{{}}}:{partition}:", self.prefix, partition_tag(partition, self.partitions))
            }
            Layout::Former => format!("{}:{{p{partition}}}:", self.prefix),
        }
    }

    /// The key that has this name; `None` for a name that is none of ours.
    pub fn read(&self, name: &str) -> Option<Key> {
        let rest = name.strip_prefix(self.prefix.as_str())?.strip_prefix(':')?;
        let found = match self.layout {
            Layout::Present => read_present(rest),
            Layout::Former => read_former(rest),
        }?;
        // Nothing but what `name` gives: neither another partition's tag, nor a number with zeros in front.
        (self.name(&found) == name).then_some(found)
    }

    /// What the names of all partitions' keys match that go on with `rest`, and perhaps others.
    pub fn partitions_pattern(&self, rest: &str) -> String {
        format!("{}:{{p:*}}:*:{rest}*", self.escaped_prefix())
    }

    /// What the names of all keys match, and others.
    pub fn all_pattern(&self) -> String {
        format!("{}:*", self.escaped_prefix())
    }

    fn escaped_prefix(&self) -> String {
        let mut prefix = String::new();
        for c in self.prefix.chars() {
            if "*?[]^\\".contains(c) {
                prefix.push('\\');
            }
            prefix.push(c);
        }
        prefix
    }

    /// Names these keys on a server, by its run id. Versions that name them otherwise work elsewhere, as it were.
    pub fn instance(&self, server: &str) -> String {
        format!("redis:{server}:{}:{}:layout-2", self.database, self.prefix)
    }

    /// What keys and channels begin with, as an ACL names them.
    pub fn pattern(&self) -> String {
        format!("{}:*", self.prefix)
    }

    /// Where a check-up tries things, as the beginning of keys and as a channel.
    pub fn scratch(&self) -> String {
        format!("{}:{{doctor:}}", self.prefix)
    }

    /// Of a ledger, by its id, in this database.
    pub fn channels(&self, ledger: &str) -> Channels {
        let channel = |kind: &str| format!("{}:{}:{ledger}:{kind}", self.prefix, self.database);
        Channels { feed: channel("feed"), progress: channel("progress"), definitions: channel("definitions") }
    }
}

/// The key whose name goes on like that behind the prefix.
fn read_present(rest: &str) -> Option<Key> {
    let (tag, rest) = rest.strip_prefix('{')?.split_once('}')?;
    let (space, name) = tag.split_once(':')?;
    match (space, rest.strip_prefix(':')) {
        ("owner", None) => Some(Key::Owner),
        ("lease", None) => Some(Key::Lease(name.to_owned())),
        ("doctor", Some(name)) => Some(Key::Scratch(name.to_owned())),
        ("p", Some(rest)) => {
            let (partition, rest) = rest.split_once(':')?;
            read_partition(partition.parse().ok()?, rest)
        }
        ("b", Some(rest)) => {
            let (board, rest) = rest.split_once(':')?;
            read_board(board, rest)
        }
        _ => None,
    }
}

fn read_former(rest: &str) -> Option<Key> {
    if let Some(task) = rest.strip_prefix("lease:") {
        // Another prefix may go on like that.
        return (task == "pipeline").then(|| Key::Lease(task.to_owned()));
    }
    let (tag, rest) = rest.strip_prefix('{')?.split_once("}:")?;
    // A board could be named like a partition; what its key is called says which it is, or it makes no difference.
    let partition = tag.strip_prefix('p').and_then(|number| number.parse().ok());
    partition.and_then(|partition| read_partition(partition, rest)).or_else(|| read_board(tag, rest))
}

fn read_partition(partition: u16, rest: &str) -> Option<Key> {
    let user = |text: &str| UserId::new(text).ok();
    Some(match rest.split_once(':') {
        None if rest == "meta" => Key::Meta(partition),
        None if rest == "journal" => Key::Journal(partition),
        Some(("likes", of)) => Key::Likes(partition, user(of)?),
        Some(("ops", of)) => Key::Answers(partition, user(of)?),
        Some(("rate", of)) => Key::Rate(partition, user(of)?),
        Some(("event", id)) => Key::Event(partition, EventId::new(id).ok()?),
        Some(("staged", rest)) => {
            let (call, of) = rest.split_once(':')?;
            Key::Staged(partition, u64::from_str_radix(call, 16).ok()?, user(of)?)
        }
        _ => return None,
    })
}

fn read_board(board: &str, rest: &str) -> Option<Key> {
    let key = BoardKey::ALL.into_iter().find(|key| key.name() == rest)?;
    let board = if board == BoardId::likes().as_str() { BoardId::likes() } else { BoardId::new(board).ok()? };
    Some(Key::Board(board, key))
}
