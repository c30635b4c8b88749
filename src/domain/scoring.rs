//! The formula: what a board's points are made of. The only place where a score is decided.
//!
//! ```text
//! points(board, period, product) =
//!     carry + sum over buckets of the period, over signals of
//!             activity(product, bucket, signal) * weight(board, product, signal, bucket)
//! ```
//!
//! The weight is that of the rules in the bucket, times the product's boost, times 2^((bucket - landmark) / half-life)
//! where the board has one; each time truncated to whole millionths, so that everything after is whole numbers.
//!
//! Invariant: live increments, rebuild, degraded reads, preview, explanation and verification all call
//! [`Scoring::points`], so they agree as whole numbers whatever order the events come in.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{
    Basis, Board, Bucket, Factor, HalfLife, Hours, Period, Points, ProductId, Rules, Signal, Timestamp, Weight, Weights,
};

/// A run of buckets of a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub first: Bucket,
    pub end: Bucket,
    /// Whether every weight stays the same throughout, so that activity may be added up before it is weighed.
    pub is_even: bool,
}

impl Segment {
    /// The runs of one period cut wherever either is cut, so that what is read by them serves both.
    pub fn refine(one: &[Self], other: &[Self]) -> Vec<Self> {
        let edges: BTreeSet<_> = one.iter().chain(other).flat_map(|segment| [segment.first, segment.end]).collect();
        let is_even = |segments: &[Self], bucket: Bucket| {
            segments.iter().any(|segment| segment.is_even && segment.first <= bucket && bucket < segment.end)
        };
        let both_even = |bucket| is_even(one, bucket) && is_even(other, bucket);
        let runs = edges.iter().zip(edges.iter().skip(1));
        runs.map(|(first, end)| Self { first: *first, end: *end, is_even: both_even(*first) }).collect()
    }
}

/// Net count of a signal in a bucket, or in an even segment that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub bucket: Bucket,
    pub signal: Signal,
    pub count: i64,
}

/// The formula for one period of one board, with the rules that have a say in it.
#[derive(Clone, Debug)]
pub struct Scoring {
    board: Arc<Board>,
    period: Period,
    /// In order; together they are the period.
    spans: Vec<Span>,
    half_life: Option<(HalfLife, Timestamp)>,
    /// What the product rules in force make of each product.
    factors: HashMap<ProductId, Factor>,
    /// The products in the board's scope; `None` where that is every product.
    members: Option<Arc<HashSet<ProductId>>>,
}

/// Buckets in which the same rules count, but for their hours.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    first: Bucket,
    end: Bucket,
    ruled: Ruled,
    /// Rules that count at certain hours, and all that come after the first of these, in order. Empty in most spans.
    by_hour: Vec<HourRule>,
}

#[derive(Clone, Debug, PartialEq)]
struct HourRule {
    version: i32,
    hours: Option<Hours>,
    weights: Vec<(Signal, Weight)>,
}

/// What the rules give for every signal, before boosts and half-life.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ruled {
    weights: Weights,
    /// The version of the rule that each signal's weight is from; `None` for the weight before any rule.
    versions: [Option<i32>; Signal::ALL.len()],
}

impl Ruled {
    fn set_all(&mut self, version: i32, weights: &[(Signal, Weight)]) {
        self.weights.set_all(weights);
        weights.iter().for_each(|(signal, _)| self.versions[*signal as usize] = Some(version));
    }
}

impl Scoring {
    /// The formula for a board whose scope is every product; see [`Self::with_members`] for others, where until then no product counts.
    pub fn new(board: &Board, period: Period, rules: &Rules, basis: Basis) -> Self {
        let mut applying = rules.weights_of(&board.id, basis.rules_version);
        applying.retain(|rule| rule.applies_to(&board.id, &period));
        let from = Bucket::from_instant;
        let ends = applying.iter().flat_map(|rule| rule.from.into_iter().chain(rule.until)).map(from);
        let mut edges: BTreeSet<_> = ends.filter(|edge| period.contains(*edge)).collect();
        edges.extend([period.first, period.end]);
        let mut spans: Vec<Span> = Vec::with_capacity(edges.len());
        for (first, end) in edges.iter().zip(edges.iter().skip(1)) {
            let ruled = Ruled { weights: board.base_weights(), versions: Default::default() };
            let mut span = Span { first: *first, end: *end, ruled, by_hour: Vec::new() };
            for rule in &applying {
                let has_begun = rule.from.is_none_or(|start| from(start) <= *first);
                let has_ended = rule.until.is_some_and(|end| from(end) <= *first);
                if !has_begun || has_ended {
                    continue;
                }
                if rule.hours.is_none() && span.by_hour.is_empty() {
                    span.ruled.set_all(rule.version, &rule.weights);
                } else {
                    let (version, hours, weights) = (rule.version, rule.hours, rule.weights.clone());
                    span.by_hour.push(HourRule { version, hours, weights });
                }
            }
            match spans.last_mut() {
                Some(last) if (&last.ruled, &last.by_hour) == (&span.ruled, &span.by_hour) => last.end = span.end,
                _ => spans.push(span),
            }
        }
        let product_rules = rules.products_of(&board.id, basis);
        let factor =
            |excluded, boost: Option<Factor>| if excluded { Factor::ZERO } else { boost.unwrap_or(Factor::ONE) };
        Self {
            board: Arc::new(board.clone()),
            half_life: board.window.half_life().zip(period.starts_at),
            period,
            spans,
            factors: product_rules
                .into_iter()
                .map(|rule| (rule.product.clone(), factor(rule.excluded, rule.boost)))
                .collect(),
            members: (!board.scope.is_all() && !board.id.is_hidden()).then(Arc::default),
        }
    }

    /// With the products that are in the board's scope, which counts only where that is not every product.
    #[must_use]
    pub fn with_members(mut self, members: impl Into<Arc<HashSet<ProductId>>>) -> Self {
        self.members = self.members.map(|_| members.into());
        self
    }

    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub fn period(&self) -> &Period {
        &self.period
    }

    /// The runs of buckets to read activity of.
    pub fn segments(&self) -> Vec<Segment> {
        let is_even = |span: &Span| span.by_hour.is_empty() && self.half_life.is_none();
        self.spans.iter().map(|span| Segment { first: span.first, end: span.end, is_even: is_even(span) }).collect()
    }

    /// The signals that are worth anything in any bucket.
    pub fn signals(&self) -> Vec<Signal> {
        let counts = |signal: &Signal| {
            self.spans.iter().any(|span| {
                let by_hour = span.by_hour.iter().flat_map(|rule| &rule.weights);
                let mut weights = by_hour.filter(|(of, _)| of == signal).map(|(_, weight)| *weight);
                span.ruled.weights.of(*signal) != Weight::default() || weights.any(|weight| weight != Weight::default())
            })
        };
        Signal::ALL.into_iter().filter(counts).collect()
    }

    /// The weights that the rules give in a bucket, before boosts and half-life; `None` outside the period.
    pub fn weights(&self, bucket: Bucket) -> Option<Weights> {
        self.ruled(bucket).map(|ruled| ruled.weights)
    }

    /// The version of the rule that a signal's weight in a bucket is from; `None` where no rule has a say.
    pub fn rule_of(&self, signal: Signal, bucket: Bucket) -> Option<i32> {
        self.ruled(bucket)?.versions[signal as usize]
    }

    fn ruled(&self, bucket: Bucket) -> Option<Ruled> {
        let next = self.spans.partition_point(|span| span.first <= bucket);
        let span = self.spans.get(next.checked_sub(1)?).filter(|span| bucket < span.end)?;
        let mut ruled = span.ruled;
        if !span.by_hour.is_empty() {
            let hour = bucket.starts_at().in_zone(&self.board.time_zone).hour();
            for rule in &span.by_hour {
                if rule.hours.is_none_or(|hours| hours.contains(hour)) {
                    ruled.set_all(rule.version, &rule.weights);
                }
            }
        }
        Some(ruled)
    }

    /// Whether the product may be on the board.
    pub fn lists(&self, product: &ProductId) -> bool {
        self.members.as_ref().is_none_or(|members| members.contains(product))
            && self.factors.get(product).is_none_or(|factor| *factor != Factor::ZERO)
    }

    /// What the product's weights are multiplied by.
    pub fn boost(&self, product: &ProductId) -> Factor {
        self.factors.get(product).copied().unwrap_or(Factor::ONE)
    }

    /// What `count` signals of a product in a bucket are worth. Zero outside the period.
    pub fn points(&self, product: &ProductId, signal: Signal, bucket: Bucket, count: i64) -> Points {
        let Some(weights) = self.weights(bucket).filter(|_| self.lists(product)) else { return Points::ZERO };
        self.worth(weights.of(signal).times(self.boost(product)), bucket, count)
    }

    /// As [`Self::points`], of any product, before its boost and whether or not the board lists it.
    pub fn points_unlifted(&self, signal: Signal, bucket: Bucket, count: i64) -> Points {
        self.weights(bucket).map_or(Points::ZERO, |weights| self.worth(weights.of(signal), bucket, count))
    }

    /// What `count` signals in a bucket are worth at a weight, grown by the half-life.
    fn worth(&self, weight: Weight, bucket: Bucket, count: i64) -> Points {
        let grown =
            |(half_life, landmark): (HalfLife, Timestamp)| weight.grown(half_life.growth(landmark, bucket.starts_at()));
        Points::of(count, self.half_life.map_or(weight, grown))
    }

    /// What a product starts the period with, from its points at the close of the one before.
    pub fn carry(&self, product: &ProductId, at_close: Points) -> Points {
        if self.lists(product) { self.board.carry(at_close) } else { Points::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::{BoardId, ProductRule, WeightRule, Window};

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn noon() -> Timestamp {
        at("2026-11-22T12:00:00Z")
    }

    fn board(id: &str, window: Window) -> Board {
        Board::new(BoardId::new(id).unwrap(), "", window, TimeZone::UTC)
    }

    fn product() -> ProductId {
        ProductId::new("mug").unwrap()
    }

    /// A rule that sets what a view is worth.
    fn rule(version: i32, board: Option<&str>, weight: f64, created_at: Timestamp) -> WeightRule {
        WeightRule {
            version,
            board: board.map(|id| BoardId::new(id).unwrap()),
            weights: vec![(Signal::View, Weight::from_f64(weight).unwrap())],
            from: None,
            until: None,
            hours: None,
            cancels: None,
            created_by: "ann".into(),
            created_at,
            note: "test".into(),
        }
    }

    fn rules(weights: Vec<WeightRule>) -> Rules {
        Rules { weights, products: Vec::new() }
    }

    fn scoring(board: &Board, rules: &Rules, at: Timestamp) -> Scoring {
        Scoring::new(board, board.period_at(at), rules, rules.basis(at))
    }

    fn view(scoring: &Scoring, at: Timestamp) -> f64 {
        scoring.points(&product(), Signal::View, Bucket::containing(at), 10).as_f64()
    }

    #[test]
    fn later_rules_win_and_own_rules_win_over_shared_ones() {
        let daily = board("daily", Window::Day);
        let view = |weights| view(&scoring(&daily, &rules(weights), noon()), noon());
        assert_eq!(view(vec![]), 1.0);
        assert_eq!(view(vec![rule(1, None, 0.9, noon()), rule(2, None, 0.5, noon())]), 5.0);
        assert_eq!(view(vec![rule(1, Some("daily"), 0.2, noon()), rule(2, None, 0.5, noon())]), 2.0);
        assert_eq!(view(vec![rule(1, Some("other"), 0.2, noon())]), 1.0);
        let after_the_day = at("2026-11-23T00:00:00Z");
        assert_eq!(view(vec![rule(1, None, 0.5, after_the_day)]), 1.0);
        assert_eq!(view(vec![rule(1, None, 0.5, after_the_day.minus_ms(1))]), 5.0);
        let cancelled = WeightRule { weights: vec![], cancels: Some(1), ..rule(2, None, 0.0, noon()) };
        assert_eq!(view(vec![rule(1, None, 0.5, noon()), cancelled]), 1.0);
    }

    #[test]
    fn a_rule_counts_from_until_and_at_its_hours() {
        let daily = board("daily", Window::Day);
        let mut campaign = rule(1, None, 0.5, noon());
        campaign.from = Some(at("2026-11-22T09:05:00Z"));
        campaign.until = Some(at("2026-11-22T18:00:00Z"));
        let of = |rules: &[WeightRule], instant| {
            view(&scoring(&daily, &super::Rules { weights: rules.to_vec(), ..Default::default() }, noon()), instant)
        };
        let views =
            |rules: &[WeightRule], texts: [&str; 4]| texts.map(|text| of(rules, at(&format!("2026-11-22T{text}:00Z"))));
        assert_eq!(views(&[campaign.clone()], ["09:14", "09:15", "17:59", "18:00"]), [1.0, 5.0, 5.0, 1.0]);
        let mut dawn = rule(2, None, 2.0, noon());
        dawn.hours = Some(Hours::new(&[5, 17]).unwrap());
        let both = [campaign, dawn.clone()];
        assert_eq!(views(&both, ["04:59", "05:00", "16:59", "17:00"]), [1.0, 20.0, 5.0, 20.0]);
        // A later rule for all hours counts again over the one for some.
        assert_eq!(views(&[dawn, rule(3, None, 0.7, noon())], ["04:59", "05:00", "06:00", "17:00"]), [7.0; 4]);
    }

    #[test]
    fn hours_are_those_of_the_boards_clock() {
        let mut daily = board("daily", Window::Day);
        daily.time_zone = crate::domain::time_zone("Asia/Seoul").unwrap();
        let mut dawn = rule(1, None, 2.0, noon());
        dawn.hours = Some(Hours::new(&[21]).unwrap());
        let scoring = scoring(&daily, &rules(vec![dawn]), noon());
        assert_eq!((view(&scoring, noon()), view(&scoring, noon().minus_ms(1))), (20.0, 1.0));
    }

    #[test]
    fn segments_are_as_few_as_can_be() {
        let daily = board("daily", Window::Day);
        let mut campaign = rule(1, None, 0.5, noon());
        campaign.from = Some(noon());
        let segments = |rules| scoring(&daily, &rules, noon()).segments();
        assert_eq!(segments(rules(vec![campaign.clone()])).len(), 2);
        let over = rule(2, None, 0.3, noon());
        assert_eq!(segments(rules(vec![campaign, over])).len(), 1);
        let mut dawn = rule(1, None, 0.5, noon());
        dawn.hours = Some(Hours::new(&[5]).unwrap());
        assert_eq!(segments(rules(vec![dawn])).iter().map(|segment| segment.is_even).collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn segments_that_serve_two_are_cut_where_either_is() {
        let segment = |first, end, is_even| Segment { first: Bucket(first), end: Bucket(end), is_even };
        let one = [segment(0, 4, true), segment(4, 9, false), segment(9, 12, true)];
        let other = [segment(0, 6, true), segment(6, 12, true)];
        let both = [segment(0, 4, true), segment(4, 6, false), segment(6, 9, false), segment(9, 12, true)];
        assert_eq!(Segment::refine(&one, &other), both);
        assert_eq!(Segment::refine(&one, &one), one);
    }

    #[test]
    fn each_weight_names_its_rule() {
        let daily = board("daily", Window::Day);
        let mut campaign = rule(4, None, 0.5, noon());
        campaign.from = Some(noon());
        let mut dawn = rule(7, None, 2.0, noon());
        dawn.hours = Some(Hours::new(&[13]).unwrap());
        let scoring = scoring(&daily, &rules(vec![campaign, dawn]), noon());
        let of = |signal, hours: i64| scoring.rule_of(signal, Bucket::containing(noon().plus_ms(hours * 3_600_000)));
        assert_eq!([-1, 0, 1, 2, 12].map(|hours| of(Signal::View, hours)), [None, Some(4), Some(7), Some(4), None]);
        assert_eq!(of(Signal::Like, 1), None);
    }

    #[test]
    fn only_the_period_counts() {
        let scoring = scoring(&board("daily", Window::Day), &Rules::default(), noon());
        let points = |bucket, count| scoring.points(&product(), Signal::Order, Bucket(bucket), count).as_f64();
        let first = scoring.period().first.0;
        assert_eq!(
            [points(first - 1, 1), points(first, 1), points(first + 95, -1), points(first + 96, 1)],
            [0.0, 0.6, -0.6, 0.0]
        );
    }

    #[test]
    fn the_count_of_likes_is_a_board_that_no_rule_reaches() {
        let likes = Board::new(BoardId::likes(), "Likes", Window::AllTime, TimeZone::UTC);
        let excluded = product_rule(2, None, true, None);
        let scoring =
            scoring(&likes, &Rules { weights: vec![rule(1, None, 0.5, noon())], products: vec![excluded] }, noon());
        assert_eq!(scoring.points(&product(), Signal::Like, Bucket(0), 1).as_f64(), 1.0);
        assert_eq!(scoring.points(&product(), Signal::View, Bucket(0), 1), Points::ZERO);
    }

    fn product_rule(version: i32, board: Option<&str>, excluded: bool, boost: Option<f64>) -> ProductRule {
        ProductRule {
            version,
            product: product(),
            board: board.map(|id| BoardId::new(id).unwrap()),
            excluded,
            boost: boost.map(|boost| Factor::from_f64(boost).unwrap()),
            until: None,
            created_by: "ann".into(),
            created_at: noon(),
            note: "test".into(),
        }
    }

    #[test]
    fn product_rules_lift_and_exclude_until_they_end() {
        let daily = board("daily", Window::Day);
        let of =
            |products: Vec<ProductRule>, at| view(&scoring(&daily, &Rules { weights: vec![], products }, at), noon());
        assert_eq!(of(vec![product_rule(1, None, false, Some(1.5))], noon()), 1.5);
        assert_eq!(of(vec![product_rule(1, None, true, Some(1.5))], noon()), 0.0);
        assert_eq!(of(vec![product_rule(1, None, true, None), product_rule(2, None, false, None)], noon()), 1.0);
        let own = product_rule(1, Some("daily"), false, Some(2.0));
        assert_eq!(of(vec![own.clone(), product_rule(2, None, true, None)], noon()), 2.0);
        let until = Some(noon().plus_ms(1));
        let short = ProductRule { until, ..own };
        assert_eq!(of(vec![short.clone(), product_rule(2, None, false, Some(1.5))], noon()), 2.0);
        let rules = Rules { weights: vec![], products: vec![short, product_rule(2, None, false, Some(1.5))] };
        assert_eq!(rules.next_end(&daily.id, rules.basis(noon())), until);
        assert_eq!(view(&scoring(&daily, &rules, noon().plus_ms(1)), noon()), 1.5);
    }

    #[test]
    fn a_closed_period_has_the_product_rules_of_its_end() {
        let daily = board("daily", Window::Day);
        let later = noon().plus_ms(24 * 3_600_000);
        let excluded = product_rule(1, None, true, None);
        let listed = ProductRule { created_at: later, ..product_rule(2, None, false, None) };
        let own = ProductRule { created_at: later, ..product_rule(3, Some("daily"), false, Some(2.0)) };
        let rules = Rules { weights: vec![], products: vec![excluded, listed, own] };
        let period = daily.period_at(noon());
        let closed = Scoring::new(&daily, period.clone(), &rules, Basis::at_close(&period, rules.version()));
        assert_eq!(view(&closed, noon()), 0.0, "what was decided after the end says nothing of it");
        assert_eq!(view(&scoring(&daily, &rules, later), later), 2.0);
    }

    #[test]
    fn product_rules_count_at_once_by_whichever_clock_they_were_made() {
        let daily = board("daily", Window::Day);
        let ahead = ProductRule { created_at: noon().plus_ms(5_000), ..product_rule(1, None, true, None) };
        let other = ProductRule { product: ProductId::new("pen").unwrap(), ..product_rule(2, None, true, None) };
        let rules = Rules { weights: vec![], products: vec![ahead, other] };
        assert_eq!(view(&scoring(&daily, &rules, noon()), noon()), 0.0);
    }

    #[test]
    fn what_is_outside_the_scope_does_not_count() {
        let mut mugs = board("mugs", Window::Day);
        mugs.scope.category = Some("mugs".to_owned());
        let scoring = scoring(&mugs, &Rules::default(), noon());
        assert_eq!(view(&scoring, noon()), 0.0);
        assert_eq!(view(&scoring.with_members(HashSet::from([product()])), noon()), 1.0);
    }

    #[test]
    fn a_half_life_weighs_by_age_in_whole_millionths() {
        let hour = HalfLife::from_ms(3_600_000).unwrap();
        let scoring = scoring(&board("trending", Window::HalfLife(hour)), &Rules::default(), noon());
        let landmark = scoring.period().starts_at.unwrap();
        let points = |hours: i64, count| {
            let bucket = Bucket::containing(landmark.plus_ms(hours * 3_600_000));
            scoring.points(&product(), Signal::View, bucket, count).millionths()
        };
        assert_eq!(
            [points(-1, 10), points(0, 10), points(2, 10), points(-3, 3)],
            [500_000, 1_000_000, 4_000_000, 37_500]
        );
        assert_eq!(points(-17, 1_000_000), 0);
        assert!(scoring.segments().iter().all(|segment| !segment.is_even));
    }
}
