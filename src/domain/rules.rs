//! What admins have decided about weights and products, kept for ever.
//!
//! Weight rules and product rules share one count of versions, so that a version names the rules of a moment.

use std::collections::{BTreeMap, HashSet};

use jiff::tz::TimeZone;

use super::{BoardId, Bucket, Factor, Period, ProductId, Signal, Timestamp, Weight};

/// A change of weights. Rules apply in the order of their versions; each sets only the signals it names.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightRule {
    /// No two rules share one; a later rule has a greater one.
    pub version: i32,
    /// `None` for the default that every board uses.
    pub board: Option<BoardId>,
    pub weights: Vec<(Signal, Weight)>,
    /// `None` for the start of every period that ended after the rule was made.
    pub from: Option<Timestamp>,
    /// `None` for ever.
    pub until: Option<Timestamp>,
    /// Hours of the board's local day; `None` for all.
    pub hours: Option<Hours>,
    /// The version of a rule that this one takes back; it has no weights of its own.
    pub cancels: Option<i32>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub note: String,
}

impl WeightRule {
    /// Whether the rule reaches a board at all.
    pub fn is_of(&self, board: &BoardId) -> bool {
        !board.is_hidden() && self.board.as_ref().is_none_or(|own| own == board)
    }

    /// Whether the rule can have a say in a board's period, in some of its buckets.
    pub fn applies_to(&self, board: &BoardId, period: &Period) -> bool {
        let is_meant = self.from.is_some() || period.ends_at.is_none_or(|end| end > self.created_at);
        is_meant && self.is_of(board)
    }

    /// Whether the rule has a say in a bucket of a period that it applies to, on a board with these clocks.
    pub fn counts_in(&self, bucket: Bucket, zone: &TimeZone) -> bool {
        let at = bucket.starts_at();
        self.from.is_none_or(|from| from <= at)
            && self.until.is_none_or(|until| at < until)
            && self.hours.is_none_or(|hours| hours.contains(at.in_zone(zone).hour()))
    }
}

/// Hours of the day, 0 to 23.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hours(u32);

/// Hours from outside that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHours {
    #[error("{0} is no hour; hours are 0 to 23")]
    OutOfRange(i32),
    #[error("give at least one hour, or none at all for the whole day")]
    Empty,
}

impl Hours {
    pub fn new(hours: &[i32]) -> Result<Self, InvalidHours> {
        let bit = |hour: &i32| match hour {
            0..24 => Ok(1 << hour),
            _ => Err(InvalidHours::OutOfRange(*hour)),
        };
        let bits = hours.iter().try_fold(0, |bits, hour| Ok(bits | bit(hour)?))?;
        if bits == 0 { Err(InvalidHours::Empty) } else { Ok(Self(bits)) }
    }

    pub const fn contains(self, hour: i8) -> bool {
        0 <= hour && hour < 24 && self.0 & (1 << hour) != 0
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = i32> {
        (0..24).filter(move |hour| self.0 & (1 << hour) != 0)
    }
}

/// What an admin has decided about a product. The newest one for a product and a board counts, and one for a board counts
/// before one for all.
#[derive(Clone, PartialEq, Debug)]
pub struct ProductRule {
    /// As [`WeightRule::version`].
    pub version: i32,
    pub product: ProductId,
    /// `None` for every board.
    pub board: Option<BoardId>,
    /// Whether the product holds no rank.
    pub excluded: bool,
    /// What the product's weights are multiplied by.
    pub boost: Option<Factor>,
    /// From then on it is as if the rule were not there.
    pub until: Option<Timestamp>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub note: String,
}

/// Every rule there ever was.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules {
    /// By version.
    pub weights: Vec<WeightRule>,
    /// By version.
    pub products: Vec<ProductRule>,
}

/// Which rules something is computed under.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Basis {
    /// The newest version that counts.
    pub rules_version: i32,
    /// When product rules were looked at, for those that end.
    pub at: Timestamp,
}

impl Basis {
    /// Under what a closed period is computed: rules of weights up to a version, product rules as they were when it ended.
    pub fn at_close(period: &Period, rules_version: i32) -> Self {
        Self { rules_version, at: period.ends_at.unwrap_or_default().minus_ms(1) }
    }
}

impl Rules {
    /// The newest version; 0 where there is no rule.
    pub fn version(&self) -> i32 {
        let weights = self.weights.last().map_or(0, |rule| rule.version);
        weights.max(self.products.last().map_or(0, |rule| rule.version))
    }

    /// All rules, at an instant: that of the latest, where the clock that made it runs ahead of the caller's.
    pub fn basis(&self, at: Timestamp) -> Basis {
        let at = self.products.iter().fold(at, |at, rule| at.max(rule.created_at));
        Basis { rules_version: self.version(), at }
    }

    /// Whether a weight rule was taken back by a rule up to `version`.
    pub fn is_cancelled(&self, rule: i32, version: i32) -> bool {
        self.weights.iter().any(|other| other.cancels == Some(rule) && other.version <= version)
    }

    /// The weight rules up to a version that were not taken back by then, in the order in which they apply to a board:
    /// the shared ones first, then its own, each by version.
    pub fn weights_of(&self, board: &BoardId, version: i32) -> Vec<&WeightRule> {
        let known = || self.weights.iter().filter(move |rule| rule.version <= version);
        let cancelled: HashSet<i32> = known().filter_map(|rule| rule.cancels).collect();
        let counts =
            |rule: &&WeightRule| rule.cancels.is_none() && rule.is_of(board) && !cancelled.contains(&rule.version);
        let mut rules: Vec<_> = known().filter(counts).collect();
        rules.sort_by_key(|rule| (rule.board.is_some(), rule.version));
        rules
    }

    /// The product rules in force for a board, one a product.
    pub fn products_of(&self, board: &BoardId, basis: Basis) -> Vec<&ProductRule> {
        if board.is_hidden() {
            return Vec::new();
        }
        let reaches = |rule: &&ProductRule| {
            rule.version <= basis.rules_version
                && rule.created_at <= basis.at
                && rule.board.as_ref().is_none_or(|own| own == board)
        };
        // The newest of each (product, own or shared) decides, even by having ended.
        let has_ended = |rule: &ProductRule| rule.until.is_some_and(|until| until <= basis.at);
        let mut newest = BTreeMap::new();
        for rule in self.products.iter().filter(reaches) {
            newest.insert((&rule.product, rule.board.is_some()), rule);
        }
        let mut of_product = BTreeMap::new();
        for ((product, _), rule) in newest.into_iter().filter(|(_, rule)| !has_ended(rule)) {
            of_product.insert(product, rule);
        }
        of_product.into_values().collect()
    }

    /// When the product rules of a board next change by themselves.
    pub fn next_end(&self, board: &BoardId, basis: Basis) -> Option<Timestamp> {
        self.products_of(board, basis).into_iter().filter_map(|rule| rule.until).min()
    }
}
