//! The formula: what a board's points are made of. The only place where a score is decided.
//!
//! ```text
//! points(board, period, product) =
//!     sum over buckets of the period, over signals of  activity(product, bucket, signal) * weight(board, signal, bucket)
//! ```
//!
//! Invariant: live increments, rebuild, degraded reads and verification all call [`Scoring::points`], so they agree as
//! whole numbers whatever order the events come in.

use super::{Board, BoardId, Bucket, Period, Points, Signal, Timestamp, Weight, Weights};

/// An admin's change of weights, kept for ever. Rules apply in the order of their versions; each sets only the signals it names.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightRule {
    /// 1 for the first rule ever; no two rules share one.
    pub version: i32,
    /// `None` for the default that every board uses.
    pub board: Option<BoardId>,
    pub weights: Vec<(Signal, Weight)>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub note: String,
}

impl WeightRule {
    /// Whether the rule has a say in a board's period. A rule counts, from the period's start, in every period that
    /// ended after the rule was made.
    pub fn applies_to(&self, board: &BoardId, period: &Period) -> bool {
        !board.is_hidden()
            && self.board.as_ref().is_none_or(|own| own == board)
            && period.ends_at.is_none_or(|end| end > self.created_at)
    }
}

/// A run of buckets in which every weight stays the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub first: Bucket,
    pub end: Bucket,
}

/// The formula for one period of one board, with the rules that have a say in it.
#[derive(Clone, Debug)]
pub struct Scoring {
    period: Period,
    /// Segments in order, with their weights; together they are the period.
    spans: Vec<(Segment, Weights)>,
}

impl Scoring {
    /// `rules` may hold any board's rules, in any order.
    pub fn new(board: &Board, period: Period, rules: &[WeightRule]) -> Self {
        let mut applying: Vec<_> = rules.iter().filter(|rule| rule.applies_to(&board.id, &period)).collect();
        // The shared rules first, then the board's own; each by version.
        applying.sort_by_key(|rule| (rule.board.is_some(), rule.version));
        let mut weights = board.base_weights();
        for (signal, weight) in applying.into_iter().flat_map(|rule| &rule.weights) {
            weights.set(*signal, *weight);
        }
        let whole = Segment { first: period.first, end: period.end };
        Self { spans: vec![(whole, weights)], period }
    }

    pub fn period(&self) -> &Period {
        &self.period
    }

    /// The runs of buckets whose activity may be added up before it is weighed.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.spans.iter().map(|(segment, _)| *segment)
    }

    /// The signals that are worth anything in any bucket.
    pub fn signals(&self) -> Vec<Signal> {
        let counts = |signal: &Signal| self.spans.iter().any(|(_, weights)| weights.of(*signal) != Weight::default());
        Signal::ALL.into_iter().filter(counts).collect()
    }

    /// The weights in a bucket; `None` outside the period.
    pub fn weights(&self, bucket: Bucket) -> Option<&Weights> {
        let next = self.spans.partition_point(|(segment, _)| segment.first <= bucket);
        let (segment, weights) = self.spans.get(next.checked_sub(1)?)?;
        (bucket < segment.end).then_some(weights)
    }

    /// What `count` signals in a bucket are worth. Zero outside the period.
    pub fn points(&self, signal: Signal, bucket: Bucket, count: i64) -> Points {
        self.weights(bucket).map_or(Points::ZERO, |weights| Points::of(count, weights.of(signal)))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::Window;

    fn board(id: BoardId) -> Board {
        Board { id, title: String::new(), window: Window::Day, time_zone: TimeZone::UTC }
    }

    fn rule(version: i32, board: Option<BoardId>, weight: f64, created_at: Timestamp) -> WeightRule {
        WeightRule {
            version,
            board,
            weights: vec![(Signal::View, Weight::from_f64(weight).unwrap())],
            created_by: "ann".into(),
            created_at,
            note: "test".into(),
        }
    }

    #[test]
    fn later_rules_win_and_own_rules_win_over_shared_ones() {
        let noon = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
        let daily = board(BoardId::daily());
        let view = |rules: &[WeightRule]| {
            let scoring = Scoring::new(&daily, daily.period_at(noon), rules);
            scoring.points(Signal::View, Bucket::containing(noon), 10).as_f64()
        };
        let other = BoardId::new("other").unwrap();
        assert_eq!(view(&[]), 1.0);
        assert_eq!(view(&[rule(2, None, 0.5, noon), rule(1, None, 0.9, noon)]), 5.0);
        assert_eq!(view(&[rule(1, Some(BoardId::daily()), 0.2, noon), rule(2, None, 0.5, noon)]), 2.0);
        assert_eq!(view(&[rule(1, Some(other), 0.2, noon)]), 1.0);
        let after_the_day = Timestamp::parse("2026-11-23T00:00:00Z").unwrap();
        assert_eq!(view(&[rule(1, None, 0.5, after_the_day)]), 1.0);
        assert_eq!(view(&[rule(1, None, 0.5, after_the_day.minus_ms(1))]), 5.0);
    }

    #[test]
    fn only_the_period_counts() {
        let noon = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
        let daily = board(BoardId::daily());
        let scoring = Scoring::new(&daily, daily.period_at(noon), &[]);
        let first = scoring.period().first;
        assert_eq!(scoring.points(Signal::Order, Bucket(first.0 - 1), 1), Points::ZERO);
        assert_eq!(scoring.points(Signal::Order, first, 1).as_f64(), 0.6);
        assert_eq!(scoring.points(Signal::Order, Bucket(first.0 + 95), -1).as_f64(), -0.6);
        assert_eq!(scoring.points(Signal::Order, Bucket(first.0 + 96), 1), Points::ZERO);
    }

    #[test]
    fn the_count_of_likes_is_a_board_that_no_rule_reaches() {
        let mut likes = board(BoardId::likes());
        likes.window = Window::AllTime;
        let period = likes.period_at(Timestamp::now());
        let scoring = Scoring::new(&likes, period, &[rule(1, None, 0.5, Timestamp::now())]);
        assert_eq!(scoring.points(Signal::Like, Bucket(0), 1).as_f64(), 1.0);
        assert_eq!(scoring.points(Signal::View, Bucket(0), 1), Points::ZERO);
    }
}
