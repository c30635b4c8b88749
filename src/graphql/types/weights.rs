//! Signals, their weights, and the rules that change them.

use async_graphql::{Enum, ID, InputObject, SimpleObject};

use super::ranking::PageInfo;
use super::scalars::DateTime;
use crate::domain::{self, Board, BoardId, Bucket, Hours, Rules, Scoring, Timestamp};
use crate::graphql::cursor::Cursor;
use crate::graphql::errors::UserError;
use crate::ledger::{Author, KeysetPage, NewWeightRule, RuleOutcome};

/// Longest note, in bytes: a reason, not a report.
const NOTE_LEN_MAX: usize = 500;

#[derive(Enum, Clone, Copy, PartialEq, Eq, Debug)]
#[graphql(remote = "domain::Signal")]
pub enum Signal {
    View,
    Like,
    Cart,
    Share,
    Order,
}

#[derive(SimpleObject, Clone)]
pub struct Weight {
    pub signal: Signal,
    pub weight: f64,
}

#[derive(SimpleObject, Clone)]
pub struct WeightRule {
    pub id: ID,
    pub version: i32,
    pub board: Option<ID>,
    pub weights: Vec<Weight>,
    pub created_by: String,
    pub created_at: DateTime,
    pub note: String,
}

fn weights(weights: impl IntoIterator<Item = (domain::Signal, domain::Weight)>) -> Vec<Weight> {
    weights.into_iter().map(|(signal, weight)| Weight { signal: signal.into(), weight: weight.as_f64() }).collect()
}

impl From<domain::WeightRule> for WeightRule {
    fn from(rule: domain::WeightRule) -> Self {
        Self {
            id: ID(rule.version.to_string()),
            version: rule.version,
            board: rule.board.map(|board| ID(board.to_string())),
            weights: weights(rule.weights),
            created_by: rule.created_by,
            created_at: DateTime(rule.created_at),
            note: rule.note,
        }
    }
}

impl WeightRule {
    /// What counts on a board at an instant: every signal's weight, signed as the newest rule that has a say. It has an
    /// id of its own, because it says more than that rule does.
    pub fn in_force(board: &Board, rules: &Rules, at: Timestamp) -> Self {
        let period = board.period_at(at);
        let basis = rules.basis(at);
        let applying = rules.weights_of(&board.id, basis.rules_version).into_iter();
        let applying = applying.filter(|rule| rule.applies_to(&board.id, &period));
        let newest = applying.max_by_key(|rule| rule.version).cloned().unwrap_or_else(|| domain::WeightRule {
            version: 0,
            board: None,
            weights: Vec::new(),
            from: None,
            until: None,
            hours: None,
            cancels: None,
            created_by: "acclaim".to_owned(),
            created_at: Timestamp::from_ms(0),
            note: "Defaults".to_owned(),
        });
        let scoring = Scoring::new(board, period, rules, basis);
        let in_force = scoring.weights(Bucket::containing(at)).unwrap_or(board.base_weights());
        let id = ID(format!("{}:{}", board.id, newest.version));
        Self { id, weights: weights(in_force.iter()), ..newest.into() }
    }
}

#[derive(SimpleObject)]
pub struct WeightRuleEdge {
    #[graphql(complexity = 0)]
    pub cursor: String,
    pub node: WeightRule,
}

#[derive(SimpleObject)]
pub struct WeightRuleConnection {
    pub edges: Vec<WeightRuleEdge>,
    pub nodes: Vec<WeightRule>,
    #[graphql(complexity = 0)]
    pub page_info: PageInfo,
}

impl WeightRuleConnection {
    pub fn new(page: KeysetPage<domain::WeightRule>, has_previous_page: bool) -> Self {
        let nodes: Vec<WeightRule> = page.rows.into_iter().map(WeightRule::from).collect();
        let cursor = |rule: &WeightRule| Cursor::Rule(rule.version).encode();
        let page_info = PageInfo {
            has_next_page: page.has_more,
            has_previous_page,
            start_cursor: nodes.first().map(cursor),
            end_cursor: nodes.last().map(cursor),
        };
        let edges = nodes.iter().map(|rule| WeightRuleEdge { cursor: cursor(rule), node: rule.clone() }).collect();
        Self { edges, nodes, page_info }
    }
}

#[derive(InputObject)]
pub struct WeightInput {
    pub signal: Signal,
    pub weight: f64,
}

/// What a rule sets and when it counts, checked: the part that several inputs share.
pub struct Terms {
    pub weights: Vec<(domain::Signal, domain::Weight)>,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub hours: Option<Hours>,
}

impl Terms {
    /// Adds everything that is wrong to `errors`, under the names that these fields have in every input.
    pub fn parse(
        weights: &[WeightInput],
        from: Option<DateTime>,
        until: Option<DateTime>,
        hours: Option<&[i32]>,
        errors: &mut Vec<UserError>,
    ) -> Self {
        if weights.is_empty() {
            errors.push(UserError::invalid("weights", "name at least one signal"));
        }
        let mut checked: Vec<(domain::Signal, domain::Weight)> = Vec::with_capacity(domain::Signal::ALL.len());
        for (index, input) in weights.iter().enumerate() {
            let signal = domain::Signal::from(input.signal);
            if weights[..index].iter().any(|earlier| earlier.signal == input.signal) {
                let message = format!("{} is given twice", signal.name());
                errors.push(UserError::invalid(&format!("weights.{index}.signal"), message));
            }
            match domain::Weight::from_f64(input.weight) {
                Ok(weight) => checked.push((signal, weight)),
                Err(error) => errors.push(UserError::invalid(&format!("weights.{index}.weight"), error)),
            }
        }
        let (from, until) = (from.map(|at| at.0), until.map(|at| at.0));
        if from.zip(until).is_some_and(|(from, until)| until <= from) {
            errors.push(UserError::invalid("until", "a rule ends after it begins"));
        }
        let hours = hours.map(Hours::new).transpose().unwrap_or_else(|error| {
            errors.push(UserError::invalid("hours", error));
            None
        });
        Self { weights: checked, from, until, hours }
    }
}

#[derive(InputObject)]
pub struct AdjustWeightsInput {
    /// Null changes the default that every board without rules of its own uses.
    pub board: Option<ID>,
    /// Signals left out keep their weight.
    pub weights: Vec<WeightInput>,
    /// The version the admin looked at; CONFLICT if someone else changed it since.
    pub expected_version: Option<i32>,
    pub note: String,
}

impl AdjustWeightsInput {
    /// Checks everything that is wrong; `is_board` says whether there is such a board.
    pub fn parse(
        self,
        created_by: String,
        created_at: Timestamp,
        is_board: impl Fn(&BoardId) -> bool,
    ) -> Result<NewWeightRule, Vec<UserError>> {
        let mut errors = Vec::new();
        let board = self.board.map(|id| {
            BoardId::new(&id).map_err(|error| UserError::invalid("board", error)).and_then(|board| {
                let unknown = || UserError::not_found("board", format!("there is no board {board}"));
                if is_board(&board) { Ok(board) } else { Err(unknown()) }
            })
        });
        let board = board.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let Terms { weights, from, until, hours } = Terms::parse(&self.weights, None, None, None, &mut errors);
        if self.expected_version.is_some_and(|version| version < 0) {
            errors.push(UserError::invalid("expectedVersion", "a version is 0 or more"));
        }
        let len = self.note.len();
        if self.note.trim().is_empty() || len > NOTE_LEN_MAX || self.note.contains('\0') {
            let message = format!("say why, in 1 to {NOTE_LEN_MAX} bytes of text; these are {len}");
            errors.push(UserError::invalid("note", message));
        }
        let expected_version = self.expected_version;
        let rule = NewWeightRule {
            board,
            weights,
            from,
            until,
            hours,
            author: Author { name: created_by, at: created_at, note: self.note },
            expected_version,
        };
        if errors.is_empty() { Ok(rule) } else { Err(errors) }
    }
}

#[derive(SimpleObject, Default)]
pub struct WeightsPayload {
    pub rule: Option<WeightRule>,
    /// The rule's version; after a CONFLICT, the version to look at before trying again.
    pub version: Option<i32>,
    pub user_errors: Vec<UserError>,
}

impl WeightsPayload {
    pub fn refused(user_errors: Vec<UserError>) -> Self {
        Self { user_errors, ..Self::default() }
    }
}

impl From<RuleOutcome> for WeightsPayload {
    fn from(outcome: RuleOutcome) -> Self {
        match outcome {
            RuleOutcome::Added(rule) => {
                Self { version: Some(rule.version), rule: Some(rule.into()), user_errors: Vec::new() }
            }
            RuleOutcome::Conflict { present } => {
                let message = format!("the weights have changed since; the present version is {present}");
                let user_errors = vec![UserError::conflict("expectedVersion", message)];
                Self { rule: None, version: Some(present), user_errors }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Window;

    fn board() -> Board {
        Board::new(BoardId::daily(), "Daily", Window::Day, jiff::tz::TimeZone::UTC)
    }

    fn input(weights: &[(Signal, f64)], note: &str) -> AdjustWeightsInput {
        let weights = weights.iter().map(|(signal, weight)| WeightInput { signal: *signal, weight: *weight }).collect();
        AdjustWeightsInput { board: None, weights, expected_version: None, note: note.to_owned() }
    }

    fn paths(input: AdjustWeightsInput) -> Vec<String> {
        let errors = input.parse("ann".to_owned(), Timestamp::now(), |board| *board == BoardId::daily()).err();
        errors.into_iter().flatten().map(|error| error.path.unwrap().join(".")).collect()
    }

    #[test]
    fn changes_are_checked_whole() {
        assert_eq!(paths(input(&[(Signal::View, 0.5)], "more")), [""; 0]);
        assert_eq!(paths(input(&[], "")), ["weights", "note"]);
        assert_eq!(
            paths(input(&[(Signal::View, 0.5), (Signal::View, -1.0)], "x")),
            ["weights.1.signal", "weights.1.weight"]
        );
        assert_eq!(paths(input(&[(Signal::View, 0.5)], &"x".repeat(501))), ["note"]);
        let mut elsewhere = input(&[(Signal::View, 0.5)], "x");
        elsewhere.board = Some(ID("weekly".to_owned()));
        let errors = elsewhere.parse("ann".to_owned(), Timestamp::now(), |_| false).unwrap_err();
        assert_eq!(errors[0].code, crate::graphql::errors::UserErrorCode::NotFound);
    }

    #[test]
    fn a_rule_ends_after_it_begins_and_hours_are_of_a_day() {
        let weights = [WeightInput { signal: Signal::View, weight: 0.5 }];
        let wrong = |from: Option<&str>, until: Option<&str>, hours: Option<&[i32]>| {
            let at = |text: &str| DateTime(Timestamp::parse(text).unwrap());
            let mut errors = Vec::new();
            Terms::parse(&weights, from.map(at), until.map(at), hours, &mut errors);
            errors.into_iter().map(|error| error.path.unwrap().join(".")).collect::<Vec<_>>()
        };
        let (noon, one) = (Some("2026-11-22T12:00:00Z"), Some("2026-11-22T13:00:00Z"));
        assert_eq!(wrong(noon, one, Some(&[0, 23])), [""; 0]);
        assert_eq!(wrong(None, noon, None), [""; 0]);
        assert_eq!(wrong(one, noon, Some(&[24])), ["until", "hours"]);
        assert_eq!(wrong(noon, noon, Some(&[])), ["until", "hours"]);
    }

    #[test]
    fn what_is_in_force_names_every_signal() {
        let now = Timestamp::now();
        let defaults = WeightRule::in_force(&board(), &Rules::default(), now);
        assert_eq!((defaults.version, defaults.note.as_str(), defaults.weights.len()), (0, "Defaults", 5));
        let rule = domain::WeightRule {
            version: 3,
            board: None,
            weights: vec![(domain::Signal::Order, domain::Weight::from_f64(5.0).unwrap())],
            from: None,
            until: None,
            hours: None,
            cancels: None,
            created_by: "ann".to_owned(),
            created_at: now,
            note: "orders first".to_owned(),
        };
        let changed = WeightRule::in_force(&board(), &Rules { weights: vec![rule], products: vec![] }, now);
        assert_eq!((changed.version, changed.created_by.as_str()), (3, "ann"));
        let shown: Vec<_> = changed.weights.iter().map(|weight| weight.weight).collect();
        assert_eq!(shown, [0.1, 0.2, 0.3, 0.4, 5.0]);
    }
}
