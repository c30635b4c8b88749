//! Where something stands in the journal.

use std::collections::BTreeMap;

/// Place of an entry in its partition's journal. Ordered by epoch, then sequence; there is no clock in it.
/// Within an epoch the sequence grows by exactly one; (epoch, 0) is the epoch's beginning, before its first entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub epoch: u64,
    pub seq: u64,
}

impl Position {
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Whether `next` can follow this position with nothing in between.
    pub fn is_followed_by(self, next: Self) -> bool {
        if next.epoch == self.epoch { next.seq == self.seq + 1 } else { next.epoch > self.epoch && next.seq == 1 }
    }
}

/// `<epoch>-<seq>`, the form of a Redis stream id.
impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The text is not `<epoch>-<seq>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position of the form <epoch>-<seq>")]
pub struct InvalidPosition(pub String);

impl std::str::FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, seq) = text.split_once('-')?;
            Some(Self::new(epoch.parse().ok()?, seq.parse().ok()?))
        };
        parse().ok_or_else(|| InvalidPosition(text.to_owned()))
    }
}

/// One position for each partition.
pub type Cursors = BTreeMap<u16, Position>;

/// The partition of an id: a user's likes always share one, and so do a producer's event and its reversal.
pub fn partition_of(id: &str, partitions: u16) -> u16 {
    (xxhash_rust::xxh3::xxh3_64(id.as_bytes()) % u64::from(partitions)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_and_read_back() {
        let a = Position::new(1, 900);
        let b = Position::new(2, 0);
        assert!(a < b);
        assert_eq!(a.to_string().parse(), Ok(a));
        assert!("1".parse::<Position>().is_err());
        assert!("1-x".parse::<Position>().is_err());
        assert!(a.is_followed_by(Position::new(1, 901)));
        assert!(a.is_followed_by(Position::new(2, 1)));
        assert!(!a.is_followed_by(Position::new(1, 902)));
        assert!(!a.is_followed_by(Position::new(2, 2)));
    }

    #[test]
    fn partitions_never_move() {
        assert_eq!([partition_of("ann", 4), partition_of("bob", 4), partition_of("c17850", 4)], [0, 1, 1]);
    }
}
