//! Published states of a board's visible places, and what changes between two of them.

use std::collections::HashMap;

use super::{Basis, BoardId, Cursors, InvalidPosition, Points, ProductId, Timestamp};

/// A product with its points; its rank is its index in the list that holds it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub product: ProductId,
    pub points: Points,
}

/// Why a subscriber is given a whole board.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SnapshotReason {
    Initial,
    /// The subscriber has come back, and something has happened since the state that it named.
    Resumed,
    /// What the subscriber holds is not known any more, or may be none of the published states.
    Gap,
    /// The subscriber was too slow for what changed.
    Lagged,
    Rolled,
    Reweighted,
    Recovered,
}

impl SnapshotReason {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initial => "INITIAL",
            Self::Resumed => "RESUMED",
            Self::Gap => "GAP",
            Self::Lagged => "LAGGED",
            Self::Rolled => "ROLLED",
            Self::Reweighted => "REWEIGHTED",
            Self::Recovered => "RECOVERED",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Initial, Self::Resumed, Self::Gap, Self::Lagged, Self::Rolled, Self::Reweighted, Self::Recovered]
            .into_iter()
            .find(|reason| reason.name() == name)
    }
}

/// One published state: the whole visible top, so that losing a message never leaves a gap in what the next one says.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FeedState {
    pub board: BoardId,
    pub epoch: u64,
    /// Drawn when the epoch began; not there in what an older version has published.
    #[serde(default)]
    pub history: Option<u64>,
    /// The board's count of published states; it never goes back within an epoch.
    pub seq: u64,
    /// States of different generations are never joined by changes, only by a snapshot.
    pub generation: u64,
    /// Why this generation was built.
    pub reason: SnapshotReason,
    /// Key of the period.
    pub period: String,
    pub at: Timestamp,
    /// The rules that the board was built under, and what it had folded: what explanations need. Not there in what an older
    /// version has published.
    #[serde(default)]
    pub basis: Basis,
    #[serde(default)]
    pub cursors: Cursors,
    /// Places on the whole board.
    pub total: u64,
    /// The first [`FeedState::PLACES_MAX`] places.
    pub places: Vec<Place>,
}

impl FeedState {
    /// 100 places are the most a client may ask to see live; a state of them is some 4 KB.
    pub const PLACES_MAX: u64 = 100;

    /// Whether a subscriber of one would see no difference in the other.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        (self.epoch, self.generation, self.total, &self.places)
            == (other.epoch, other.generation, other.total, &other.places)
    }

    /// The first `top` places.
    pub fn top(&self, top: usize) -> &[Place] {
        &self.places[..top.min(self.places.len())]
    }
}

/// Where a client's view of a board stands among the published states.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FeedPosition {
    pub epoch: u64,
    pub seq: u64,
    /// Tells feeds apart whose epochs have the same number: of other boards, and of a ledger that went back.
    pub feed: u32,
    /// Whether the view is that state. A page may also have been read after it and before the next, and show what no
    /// published state shows, so that no changes lead on from it.
    pub is_exact: bool,
}

impl FeedState {
    pub fn position(&self) -> FeedPosition {
        FeedPosition { is_exact: true, ..FeedPosition::near(&self.board, self.epoch, self.history, self.seq) }
    }
}

impl FeedPosition {
    /// Of a board before anything was published: nothing leads on from it.
    pub const NOWHERE: Self = Self { epoch: 0, seq: 0, feed: 0, is_exact: false };

    /// At a published state or shortly after it.
    pub fn near(board: &BoardId, epoch: u64, history: Option<u64>, seq: u64) -> Self {
        let name = format!("{board} {}", history.unwrap_or_default());
        let feed = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u32;
        Self { epoch, seq, feed, is_exact: false }
    }
}

/// `<epoch>.<feed>-<seq>`, with a `+` behind it where it is not exact; without the feed where there is none.
impl std::fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.is_exact { "" } else { "+" };
        match self.feed {
            0 => write!(f, "{}-{}{more}", self.epoch, self.seq),
            feed => write!(f, "{}.{feed:x}-{}{more}", self.epoch, self.seq),
        }
    }
}

impl std::str::FromStr for FeedPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (position, is_exact) = text.strip_suffix('+').map_or((text, true), |position| (position, false));
            let (epoch, seq) = position.split_once('-')?;
            // Versions before this one did not name the feed.
            let (epoch, feed) = epoch.split_once('.').unwrap_or((epoch, "0"));
            let feed = u32::from_str_radix(feed, 16).ok()?;
            Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()?, feed, is_exact })
        };
        parse().ok_or_else(|| InvalidPosition(text.to_owned()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    Entered,
    Left,
    Moved,
    Rescored,
}

/// How one product's place differs. Ranks count from 1: `from_rank` in the list before, `to_rank` in the list after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RankChange {
    pub kind: ChangeKind,
    pub product: ProductId,
    pub from_rank: Option<u64>,
    pub to_rank: Option<u64>,
    /// `None` for a product that left.
    pub points: Option<Points>,
}

/// What turns `before` into `after`: those that left, then every place that is new or different, best first.
/// Taking the products of the changes out of `before` and putting each that has a `to_rank` there, in order, gives `after`.
pub fn rank_changes(before: &[Place], after: &[Place]) -> Vec<RankChange> {
    let ranks = |places: &[Place]| -> HashMap<ProductId, u64> {
        places.iter().zip(1..).map(|(place, rank)| (place.product.clone(), rank)).collect()
    };
    let (ranks_before, ranks_after) = (ranks(before), ranks(after));
    let left =
        before.iter().zip(1..).filter(|(place, _)| !ranks_after.contains_key(&place.product)).map(|(place, rank)| {
            RankChange {
                kind: ChangeKind::Left,
                product: place.product.clone(),
                from_rank: Some(rank),
                to_rank: None,
                points: None,
            }
        });
    let here = after.iter().zip(1..).filter_map(|(place, rank)| {
        let from_rank = ranks_before.get(&place.product).copied();
        let kind = match from_rank {
            None => ChangeKind::Entered,
            Some(from) if from != rank => ChangeKind::Moved,
            Some(from) if before[from as usize - 1].points != place.points => ChangeKind::Rescored,
            Some(_) => return None,
        };
        Some(RankChange {
            kind,
            product: place.product.clone(),
            from_rank,
            to_rank: Some(rank),
            points: Some(place.points),
        })
    });
    left.chain(here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Position;

    fn places(rows: &[(&str, i128)]) -> Vec<Place> {
        rows.iter()
            .map(|(product, points)| Place {
                product: ProductId::new(product).unwrap(),
                points: Points::from_millionths(*points),
            })
            .collect()
    }

    /// What a client does with changes, as the schema tells it to.
    fn apply(before: &[Place], changes: &[RankChange]) -> Vec<Place> {
        let mut shown: Vec<_> =
            before.iter().filter(|place| changes.iter().all(|c| c.product != place.product)).cloned().collect();
        for change in changes {
            if let (Some(rank), Some(points)) = (change.to_rank, change.points) {
                shown.insert(rank as usize - 1, Place { product: change.product.clone(), points });
            }
        }
        shown
    }

    #[test]
    fn changes_lead_from_one_state_to_the_next() {
        let states = [
            places(&[]),
            places(&[("a", 3), ("b", 2), ("c", 1)]),
            places(&[("b", 5), ("a", 4), ("c", 1)]),
            places(&[("d", 9), ("b", 5), ("a", 4)]),
            places(&[("b", 6), ("c", 5)]),
        ];
        for before in &states {
            for after in &states {
                let changes = rank_changes(before, after);
                assert_eq!(&apply(before, &changes), after);
                assert_eq!(changes.is_empty(), before == after);
            }
        }
    }

    #[test]
    fn what_an_older_version_has_published_reads_back() {
        let state = FeedState {
            board: BoardId::daily(),
            epoch: 1,
            history: Some(9),
            seq: 2,
            generation: 3,
            reason: SnapshotReason::Rolled,
            period: "2026-11-22".to_owned(),
            at: Timestamp::from_ms(4),
            basis: Basis { rules_version: 5, at: Timestamp::from_ms(6) },
            cursors: [(0, Position::new(1, 7))].into(),
            total: 1,
            places: places(&[("a", 8)]),
        };
        let mut json = serde_json::to_value(&state).unwrap();
        assert_eq!(serde_json::from_value::<FeedState>(json.clone()).unwrap(), state);
        json.as_object_mut().unwrap().retain(|name, _| !["basis", "cursors", "history"].contains(&name.as_str()));
        let older = FeedState { history: None, basis: Basis::default(), cursors: Cursors::new(), ..state };
        assert_eq!(serde_json::from_value::<FeedState>(json).unwrap(), older);
    }

    #[test]
    fn positions_read_back() {
        for position in [
            FeedPosition { epoch: 7, seq: 120, feed: 0xabc, is_exact: true },
            FeedPosition { epoch: 0, seq: u64::MAX, feed: u32::MAX, is_exact: false },
            FeedPosition::NOWHERE,
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        let near = |board: &str, history| FeedPosition::near(&BoardId::new(board).unwrap(), 1, history, 2);
        assert_ne!(near("daily", None), near("weekly", None));
        assert_ne!(near("daily", Some(1)), near("daily", Some(2)));
        for bad in ["", "7", "7-", "7-x", "7-1++", "-1-1", "7-1-2", "7.-1", "7.a", "7.x-1", "7.1-2-3", "7-1.2", "+"] {
            assert!(bad.parse::<FeedPosition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_say_what_happened() {
        let changes = rank_changes(&places(&[("a", 3), ("b", 2), ("c", 1)]), &places(&[("b", 4), ("d", 3), ("a", 3)]));
        let kinds: Vec<_> = changes.iter().map(|c| (c.product.as_str(), c.kind)).collect();
        use ChangeKind::*;
        assert_eq!(kinds, [("c", Left), ("b", Moved), ("d", Entered), ("a", Moved)]);
        let rescored = rank_changes(&places(&[("a", 3)]), &places(&[("a", 4)]));
        assert_eq!(rescored[0].kind, Rescored);
        assert_eq!((rescored[0].from_rank, rescored[0].to_rank), (Some(1), Some(1)));
    }
}
