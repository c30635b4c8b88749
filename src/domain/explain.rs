//! What a score is made of, line by line.
//!
//! The lines come from the formula itself: signals as the rules weigh them, then what a product rule adds or takes, then
//! the carry. Invariant: they add up to the points as whole millionths, and what is shown of them to what is shown of the
//! points.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Basis, Board, Count, Factor, HalfLife, Period, Points, ProductId, Rules, Scoring, Signal, Timestamp, Weight,
};

/// The rule line of a closed period whose score does not follow from what is in the ledger any more.
const SINCE_CLOSED: &str = "arrived after the period was closed, or weighed otherwise since; rebuildBoard counts it";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScoreSource {
    Signal,
    CarryOver,
    Rule,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScoreLine {
    pub source: ScoreSource,
    pub signal: Option<Signal>,
    /// Net, where the line is of a signal.
    pub count: Option<i64>,
    /// What one signal counts; `None` where that depends on when it occurred.
    pub weight: Option<Weight>,
    pub points: Points,
    /// What the line follows from; empty where no rule has a say.
    pub notes: Vec<Note>,
}

/// What a line follows from, and the reason that an admin has given for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    pub what: String,
    pub reason: Option<String>,
}

impl Note {
    const fn plain(what: String) -> Self {
        Self { what, reason: None }
    }
}

impl ScoreLine {
    /// As one text, with admins' reasons or without.
    pub fn note(&self, with_reasons: bool) -> Option<String> {
        let text = |Note { what, reason }: &Note| match reason {
            Some(reason) if with_reasons => format!("{what}: {reason}"),
            _ => what.clone(),
        };
        let texts: Vec<_> = self.notes.iter().map(text).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// The lines that a product's points are made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explanation {
    pub lines: Vec<ScoreLine>,
}

impl Explanation {
    /// Of a product with these counts, and these points at the close of the period that carries over. `basis` and `rules`
    /// are those of `scoring`. The product is one that the board lists, or listed.
    pub fn new(
        scoring: &Scoring,
        rules: &Rules,
        basis: Basis,
        product: &ProductId,
        counts: &[Count],
        at_close: Points,
    ) -> Self {
        let half_life = scoring.board().window.half_life();
        let (mut unlifted, mut lifted) = (Points::ZERO, Points::ZERO);
        let mut signals: BTreeMap<(Signal, Option<Weight>), Part> = BTreeMap::new();
        for Count { bucket, signal, count } in counts {
            let Some(weights) = scoring.weights(*bucket) else { continue };
            let weight = half_life.is_none().then(|| weights.of(*signal));
            let points = scoring.points_unlifted(*signal, *bucket, *count);
            unlifted = unlifted.plus(points);
            lifted = lifted.plus(scoring.points(product, *signal, *bucket, *count));
            let part = signals.entry((*signal, weight)).or_default();
            part.count += count;
            part.points = part.points.plus(points);
            part.rules.extend(scoring.rule_of(*signal, *bucket));
        }
        let mut lines: Vec<_> = signals
            .into_iter()
            .filter(|(_, part)| part.count != 0 || part.points != Points::ZERO)
            .map(|((signal, weight), part)| ScoreLine {
                source: ScoreSource::Signal,
                signal: Some(signal),
                count: Some(part.count),
                weight,
                points: part.points,
                notes: part.notes(rules, half_life),
            })
            .collect();
        let board = scoring.board();
        let mut add = |source, points, note| {
            if points != Points::ZERO {
                lines.push(ScoreLine { source, signal: None, count: None, weight: None, points, notes: vec![note] });
            }
        };
        add(ScoreSource::Rule, lifted.minus(unlifted), lift(scoring, rules, basis, product));
        let carried_from = board.carries_from(scoring.period()).map(|before| before.key).unwrap_or_default();
        let note = format!("{} of {} at the close of {carried_from}", board.carry_over.as_f64(), at_close.as_f64());
        add(ScoreSource::CarryOver, scoring.carry(product, at_close), Note::plain(note));
        Self { lines }
    }

    /// What the lines add up to.
    pub fn total(&self) -> Points {
        self.lines.iter().fold(Points::ZERO, |sum, line| sum.plus(line.points))
    }

    /// Makes the lines of a closed period add up to its points, which stand whatever has come since.
    pub fn settle(&mut self, points: Points) {
        let rest = points.minus(self.total());
        if rest != Points::ZERO {
            let notes = vec![Note::plain(SINCE_CLOSED.to_owned())];
            let line =
                ScoreLine { source: ScoreSource::Rule, signal: None, count: None, weight: None, points: rest, notes };
            self.lines.push(line);
        }
    }

    /// As it is shown at an instant, see [`Board::score`]. Rounding falls on the lines in turn, so that they still add up.
    #[must_use]
    pub fn shown(mut self, board: &Board, period: &Period, at: Timestamp) -> Self {
        let (mut sum, mut shown) = (Points::ZERO, Points::ZERO);
        for line in &mut self.lines {
            sum = sum.plus(line.points);
            let next = board.score(period, sum, at);
            line.points = next.minus(shown);
            shown = next;
        }
        self
    }
}

/// What one line of a signal is put together from.
#[derive(Default)]
struct Part {
    count: i64,
    points: Points,
    rules: BTreeSet<i32>,
}

impl Part {
    fn notes(&self, rules: &Rules, half_life: Option<HalfLife>) -> Vec<Note> {
        let decays = half_life.map(|half_life| {
            let half_life = jiff::SignedDuration::from_millis(half_life.ms());
            Note::plain(format!("each counts half after every {half_life:#}"))
        });
        let named = self.rules.iter().map(|version| {
            let rule = rules.weights.iter().find(|rule| rule.version == *version);
            Note { what: format!("rule {version}"), reason: rule.map(|rule| rule.note.clone()) }
        });
        decays.into_iter().chain(named).collect()
    }
}

/// Why a product's signals count otherwise than those of others.
fn lift(scoring: &Scoring, rules: &Rules, basis: Basis, product: &ProductId) -> Note {
    let of_board = rules.products_of(&scoring.board().id, basis);
    let Some(rule) = of_board.into_iter().find(|rule| rule.product == *product) else {
        return Note::plain("outside the board's scope".to_owned());
    };
    let does = if rule.excluded {
        "excluded".to_owned()
    } else {
        format!("{} times the weights", rule.boost.unwrap_or(Factor::ONE).as_f64())
    };
    Note { what: format!("{does}, rule {}", rule.version), reason: Some(rule.note.clone()) }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::{BoardId, Bucket, ProductRule, WeightRule, Window};

    fn noon() -> Timestamp {
        Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
    }

    fn mug() -> ProductId {
        ProductId::new("mug").unwrap()
    }

    fn board(window: Window) -> Board {
        let mut board = Board::new(BoardId::daily(), "Daily", window, TimeZone::UTC);
        board.carry_over = Factor::from_f64(0.3).unwrap();
        board
    }

    /// Views count 0.5 from noon on, and the mug 1.5 times.
    fn rules() -> Rules {
        let author = || ("ann".to_owned(), noon().minus_ms(1), "more views".to_owned());
        let (created_by, created_at, note) = author();
        let weights = vec![(Signal::View, Weight::from_f64(0.5).unwrap())];
        let (until, hours, cancels) = (None, None, None);
        let from = Some(noon());
        let views =
            WeightRule { version: 3, board: None, weights, from, until, hours, cancels, created_by, created_at, note };
        let (created_by, created_at, note) = author();
        let boost = Some(Factor::from_f64(1.5).unwrap());
        let lifted = ProductRule {
            version: 4,
            product: mug(),
            board: None,
            excluded: false,
            boost,
            until: None,
            created_by,
            created_at,
            note,
        };
        Rules { weights: vec![views], products: vec![lifted] }
    }

    fn counts(rows: &[(Signal, i64, i64)]) -> Vec<Count> {
        let bucket = |hours: i64| Bucket::containing(noon().plus_ms(hours * 3_600_000));
        rows.iter()
            .map(|(signal, hours, count)| Count { bucket: bucket(*hours), signal: *signal, count: *count })
            .collect()
    }

    fn explained(board: &Board, rules: &Rules, rows: &[(Signal, i64, i64)], at_close: f64) -> (Scoring, Explanation) {
        let basis = rules.basis(noon());
        let scoring = Scoring::new(board, board.period_at(noon()), rules, basis);
        let at_close = Points::from_millionths((at_close * 1e6) as i128);
        let explanation = Explanation::new(&scoring, rules, basis, &mug(), &counts(rows), at_close);
        (scoring, explanation)
    }

    fn by_formula(scoring: &Scoring, rows: &[(Signal, i64, i64)]) -> Points {
        let points = |count: &Count| scoring.points(&mug(), count.signal, count.bucket, count.count);
        counts(rows).iter().fold(Points::ZERO, |sum, count| sum.plus(points(count)))
    }

    #[test]
    fn every_part_has_its_line() {
        let rows = [(Signal::View, -1, 10), (Signal::View, 1, 4), (Signal::View, 2, 3), (Signal::Order, 0, 1)];
        let (scoring, explanation) = explained(&board(Window::Day), &rules(), &rows, 7.0);
        let lines: Vec<_> = explanation
            .lines
            .iter()
            .map(|line| (line.signal, line.count, line.weight.map(Weight::as_f64), line.points.as_f64()))
            .collect();
        assert_eq!(
            lines,
            [
                (Some(Signal::View), Some(10), Some(0.1), 1.0),
                (Some(Signal::View), Some(7), Some(0.5), 3.5),
                (Some(Signal::Order), Some(1), Some(0.6), 0.6),
                (None, None, None, 2.55),
                (None, None, None, 2.1),
            ]
        );
        let notes: Vec<_> = explanation.lines.iter().map(|line| line.note(true)).collect();
        let notes: Vec<_> = notes.iter().map(Option::as_deref).collect();
        let lifted = "1.5 times the weights, rule 4: more views";
        let carried = "0.3 of 7 at the close of 2026-11-21";
        assert_eq!(notes, [None, Some("rule 3: more views"), None, Some(lifted), Some(carried)]);
        let without_reasons: Vec<_> = explanation.lines.iter().map(|line| line.note(false)).collect();
        assert_eq!(without_reasons[1].as_deref(), Some("rule 3"));
        assert!(without_reasons.iter().flatten().all(|note| !note.contains("more views")), "{without_reasons:?}");
        let points = by_formula(&scoring, &rows).plus(scoring.carry(&mug(), Points::from_millionths(7_000_000)));
        assert_eq!(explanation.total(), points);
        let (board, period) = (scoring.board(), scoring.period());
        assert_eq!(explanation.clone().shown(board, period, noon()), explanation);
    }

    #[test]
    fn what_was_taken_back_has_no_line() {
        let rows = [(Signal::Like, 0, 1), (Signal::Like, 0, -1)];
        assert_eq!(explained(&board(Window::Day), &Rules::default(), &rows, 0.0).1, Explanation::default());
    }

    #[test]
    fn lines_add_up_at_any_size() {
        let mut rules = rules();
        rules.weights[0].weights = vec![(Signal::View, Weight::MAX), (Signal::Order, Weight::MAX)];
        rules.products[0].boost = Some(Factor::MAX);
        let rows: Vec<_> = (0..40).map(|n| ([Signal::View, Signal::Order][n % 2], n as i64 % 8, 1_000_000)).collect();
        for (taken_back, left) in [(0, 3e12), (37, 3e11), (40, 0.0)] {
            let back = rows[..taken_back].iter().map(|(signal, hours, count)| (*signal, *hours, -count));
            let rows: Vec<_> = rows.iter().copied().chain(back).collect();
            let (scoring, explanation) = explained(&board(Window::Day), &rules, &rows, 1e12);
            let points = by_formula(&scoring, &rows);
            assert_eq!(points.as_f64(), (40 - taken_back) as f64 * 1e11);
            let carried = scoring.carry(&mug(), Points::from_millionths(1_000_000_000_000_000_000));
            assert_eq!(explanation.total(), points.plus(carried));
            assert!(left <= explanation.total().as_f64());
        }
    }

    #[test]
    fn what_has_decayed_adds_up_as_it_is_shown() {
        let trending = board(Window::HalfLife(HalfLife::from_ms(3_600_000).unwrap()));
        let rows = [(Signal::View, -3, 7), (Signal::Like, -2, 3), (Signal::Cart, -1, 1), (Signal::Order, 0, 5)];
        let (scoring, explanation) = explained(&trending, &rules(), &rows, 0.0);
        let stored = by_formula(&scoring, &rows);
        assert_eq!(explanation.total(), stored);
        assert!(explanation.lines.iter().all(|line| line.weight.is_none()));
        assert_eq!(explanation.lines[0].note(true).as_deref(), Some("each counts half after every 1h"));
        for seconds in 0..2_000 {
            let at = noon().plus_ms(seconds * 1_000);
            let shown = explanation.clone().shown(&trending, scoring.period(), at);
            assert_eq!(shown.total(), trending.score(scoring.period(), stored, at));
        }
    }

    #[test]
    fn a_closed_period_keeps_its_score() {
        let (_, mut explanation) = explained(&board(Window::Day), &rules(), &[(Signal::Order, 0, 2)], 0.0);
        let before = explanation.clone();
        explanation.settle(before.total());
        assert_eq!(explanation, before);
        let frozen = Points::from_millionths(600_000);
        explanation.settle(frozen);
        assert_eq!((explanation.total(), explanation.lines.len()), (frozen, before.lines.len() + 1));
        assert_eq!(explanation.lines.last().unwrap().points.as_f64(), -1.2);
    }

    #[test]
    fn an_excluded_product_says_so() {
        let mut rules = rules();
        rules.products[0].excluded = true;
        let (_, explanation) = explained(&board(Window::Day), &rules, &[(Signal::Order, 0, 2)], 9.0);
        assert_eq!(explanation.total(), Points::ZERO);
        assert_eq!(explanation.lines[1].note(true).as_deref(), Some("excluded, rule 4: more views"));
    }
}
