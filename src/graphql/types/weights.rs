//! Signals, their weights, and the rules that change them.

use async_graphql::{Enum, ID, InputObject, SimpleObject};

use super::ranking::PageInfo;
use super::scalars::DateTime;
use crate::domain::{self, Board, BoardId, Bucket, Hours, Rules, Scoring, Timestamp};
use crate::graphql::cursor::Cursor;
use crate::graphql::errors::UserError;
use crate::graphql::inputs;
use crate::ledger::{Author, BoardDefinition, CancelOutcome, KeysetPage, NewWeightRule, RuleOutcome};
use crate::live::Update;

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

/// A change of weights. Rules apply in the order of their versions, the shared ones first; each sets only the signals it
/// names.
#[derive(SimpleObject, Clone)]
pub struct WeightRule {
    pub id: ID,
    pub version: i32,
    /// Null for every board.
    pub board: Option<ID>,
    pub weights: Vec<Weight>,
    /// Null for the start of every period that was open when the rule was made, and of all since.
    pub from: Option<DateTime>,
    pub until: Option<DateTime>,
    /// Of the day, in the board's time zone. Null for all.
    pub hours: Option<Vec<i32>>,
    pub created_by: String,
    pub created_at: DateTime,
    pub note: String,
    /// Whether it was taken back: as if it had never been made.
    pub cancelled: bool,
}

fn weights(weights: impl IntoIterator<Item = (domain::Signal, domain::Weight)>) -> Vec<Weight> {
    weights.into_iter().map(|(signal, weight)| Weight { signal: signal.into(), weight: weight.as_f64() }).collect()
}

impl WeightRule {
    pub fn new(rule: domain::WeightRule, cancelled: bool) -> Self {
        Self {
            id: ID(rule.version.to_string()),
            version: rule.version,
            board: rule.board.map(|board| ID(board.to_string())),
            weights: weights(rule.weights),
            from: rule.from.map(DateTime),
            until: rule.until.map(DateTime),
            hours: rule.hours.map(|hours| hours.iter().collect()),
            created_by: rule.created_by,
            created_at: DateTime(rule.created_at),
            note: rule.note,
            cancelled,
        }
    }

    /// `None` for what is none.
    pub fn of(update: Update) -> Option<Self> {
        let Update::Rule { rule, cancelled } = update else { return None };
        Some(Self::new(*rule, cancelled))
    }

    /// What counts on a board at an instant, then the rules that are still to come, or to come again at their hours.
    pub fn of_board(board: &Board, rules: &Rules, at: Timestamp) -> Vec<Self> {
        let bucket = Bucket::containing(at);
        let mut coming = rules.weights_of(&board.id, rules.version());
        coming.retain(|rule| {
            let is_over = rule.until.is_some_and(|until| until <= at);
            !is_over && !rule.counts_in(bucket, &board.time_zone)
        });
        coming.sort_by_key(|rule| (rule.from.map_or(at, |from| from.max(at)), rule.version));
        let coming = coming.into_iter().map(|rule| Self::new(rule.clone(), false));
        std::iter::once(Self::in_force(board, rules, at)).chain(coming).collect()
    }

    /// What counts on a board at an instant: every signal's weight, signed as the newest rule that has a say. It has an
    /// id of its own, because it says more than that rule does.
    fn in_force(board: &Board, rules: &Rules, at: Timestamp) -> Self {
        let (period, bucket) = (board.period_at(at), Bucket::containing(at));
        let basis = rules.basis(at);
        let applying = rules.weights_of(&board.id, basis.rules_version).into_iter();
        let applying =
            applying.filter(|rule| rule.applies_to(&board.id, &period) && rule.counts_in(bucket, &board.time_zone));
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
        let in_force = scoring.weights(bucket).unwrap_or(board.base_weights());
        let id = ID(format!("{}:{}", board.id, newest.version));
        Self { id, weights: weights(in_force.iter()), ..Self::new(newest, false) }
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
    /// `rules` say which of the page's were cancelled.
    pub fn new(page: KeysetPage<domain::WeightRule>, has_previous_page: bool, rules: &Rules) -> Self {
        let rule = |rule: domain::WeightRule| {
            let cancelled = rules.is_cancelled(rule.version, rules.version());
            WeightRule::new(rule, cancelled)
        };
        let nodes: Vec<WeightRule> = page.rows.into_iter().map(rule).collect();
        let cursors: Vec<_> = nodes.iter().map(|rule| Cursor::Rule(rule.version).encode()).collect();
        let page_info = PageInfo::new(&cursors, page.has_more, has_previous_page);
        let edges =
            cursors.into_iter().zip(nodes.clone()).map(|(cursor, node)| WeightRuleEdge { cursor, node }).collect();
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
        } else if until.is_some_and(|until| {
            until <= Bucket::from_instant(from.unwrap_or(Timestamp::from_ms(i64::MIN))).starts_at()
        }) {
            let message = "signals count by quarters of an hour, and none begins within this time";
            errors.push(UserError::invalid("until", message));
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
    /// Null changes the default of every board; a board's own rules go before it.
    pub board: Option<ID>,
    /// Signals left out keep their weight.
    pub weights: Vec<WeightInput>,
    /// Null re-scores the open periods from their start. An instant, past or future, makes the rule count from there.
    pub from: Option<DateTime>,
    /// The rule ends by itself: an event season, a brand day.
    pub until: Option<DateTime>,
    /// Hours of the day, in the board's time zone, in which the rule counts. Null means all.
    pub hours: Option<Vec<i32>>,
    /// The version the admin looked at; CONFLICT if someone else changed it since. A preview does not look at it.
    pub expected_version: Option<i32>,
    pub note: String,
}

impl AdjustWeightsInput {
    /// Checks everything that is wrong; `boards` are those that there are, `now` says which of their periods are open.
    pub fn parse(
        self,
        author: impl FnOnce(String) -> Author,
        boards: &[BoardDefinition],
        now: Timestamp,
    ) -> Result<NewWeightRule, Vec<UserError>> {
        let mut errors = Vec::new();
        let is_board = |id: &BoardId| !id.is_hidden() && boards.iter().any(|known| known.board.id == *id);
        let board = self.board.and_then(|id| inputs::board("board", &id, is_board, &mut errors));
        let Terms { weights, from, until, hours } =
            Terms::parse(&self.weights, self.from, self.until, self.hours.as_deref(), &mut errors);
        let reached = boards.iter().map(|known| &known.board);
        let reached =
            reached.filter(|known| !known.id.is_hidden() && board.as_ref().is_none_or(|own| *own == known.id));
        // Without `from` a rule counts in open periods only.
        if let (None, Some(until), Some(opened)) = (from, until, reached.map(|known| known.period_at(now).first).min())
            && until <= opened.starts_at()
            && errors.is_empty()
        {
            let message = format!("the rule would count nowhere: the open period begins at {}", opened.starts_at());
            errors.push(UserError::invalid("until", message));
        }
        if self.expected_version.is_some_and(|version| version < 0) {
            errors.push(UserError::invalid("expectedVersion", "a version is 0 or more"));
        }
        inputs::check_note(&self.note, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let expected_version = self.expected_version;
        Ok(NewWeightRule { board, weights, from, until, hours, author: author(self.note), expected_version })
    }
}

#[derive(InputObject)]
pub struct CancelWeightsInput {
    /// Of a rule that `admin.weightRules` lists.
    pub id: ID,
    pub note: String,
}

impl CancelWeightsInput {
    /// The version of the rule, and all that is wrong.
    pub fn parse(&self) -> Result<i32, Vec<UserError>> {
        let mut errors = Vec::new();
        let version = self.id.parse().ok().filter(|version| *version > 0);
        if version.is_none() {
            errors.push(UserError::invalid("id", format!("{:?} is not the id of a rule", self.id.0)));
        }
        inputs::check_note(&self.note, &mut errors);
        version.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

#[derive(SimpleObject, Default)]
pub struct WeightsPayload {
    pub rule: Option<WeightRule>,
    /// The present version: that of the rule or its cancellation; after a CONFLICT, the one to look at before trying again.
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
                Self { version: Some(rule.version), rule: Some(WeightRule::new(rule, false)), user_errors: Vec::new() }
            }
            RuleOutcome::Conflict { present } => {
                let message = format!("the weights have changed since; the present version is {present}");
                let user_errors = vec![UserError::conflict("expectedVersion", message)];
                Self { rule: None, version: Some(present), user_errors }
            }
        }
    }
}

impl From<CancelOutcome> for WeightsPayload {
    fn from(outcome: CancelOutcome) -> Self {
        match outcome {
            CancelOutcome::Cancelled { rule, version } => {
                Self { rule: Some(WeightRule::new(rule, true)), version: Some(version), user_errors: Vec::new() }
            }
            CancelOutcome::Unknown => Self::refused(vec![UserError::not_found("id", "there is no such rule")]),
            CancelOutcome::Already => {
                Self::refused(vec![UserError::conflict("id", "this rule has been cancelled already")])
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
        AdjustWeightsInput {
            board: None,
            weights,
            from: None,
            until: None,
            hours: None,
            expected_version: None,
            note: note.to_owned(),
        }
    }

    fn ann(note: String) -> Author {
        Author { name: "ann".to_owned(), at: Timestamp::now(), note }
    }

    fn paths(input: AdjustWeightsInput) -> Vec<String> {
        let definition = BoardDefinition { board: board(), revision: 0, closed_from: None, reopened: 0 };
        let errors = input.parse(ann, &[definition], Timestamp::parse("2026-11-22T12:00:00Z").unwrap()).err();
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
        let errors = elsewhere.parse(ann, &[], Timestamp::now()).unwrap_err();
        assert_eq!(errors[0].code, crate::graphql::errors::UserErrorCode::NotFound);
    }

    #[test]
    fn a_rule_that_would_count_nowhere_is_refused() {
        let until = |from: Option<&str>, until: &str| {
            let at = |text: &str| DateTime(Timestamp::parse(text).unwrap());
            paths(AdjustWeightsInput {
                from: from.map(at),
                until: Some(at(until)),
                ..input(&[(Signal::View, 0.5)], "x")
            })
        };
        // It is noon on the 22nd.
        assert_eq!(until(None, "2026-11-22T00:00:00Z"), ["until"]);
        assert_eq!(until(None, "2026-11-22T00:00:01Z"), [""; 0], "the first quarter of the day counts anew");
        assert_eq!(
            until(Some("2026-11-20T00:00:00Z"), "2026-11-21T00:00:00Z"),
            [""; 0],
            "for when that day is rebuilt"
        );
        assert_eq!(until(Some("2026-11-23T09:01:00Z"), "2026-11-23T09:15:00Z"), ["until"]);
        assert_eq!(until(Some("2026-11-23T09:01:00Z"), "2026-11-23T09:15:01Z"), [""; 0]);
        assert_eq!(until(Some("1700-01-01T00:00:00Z"), "2026-11-23T09:00:00Z"), [""; 0], "means: ever since");
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

    fn rule(version: i32, order: f64, created_at: Timestamp) -> domain::WeightRule {
        domain::WeightRule {
            version,
            board: None,
            weights: vec![(domain::Signal::Order, domain::Weight::from_f64(order).unwrap())],
            from: None,
            until: None,
            hours: None,
            cancels: None,
            created_by: "ann".to_owned(),
            created_at,
            note: "orders first".to_owned(),
        }
    }

    fn rules(weights: Vec<domain::WeightRule>) -> Rules {
        Rules { weights, products: Vec::new() }
    }

    #[test]
    fn what_is_in_force_names_every_signal() {
        let now = Timestamp::now();
        let defaults = WeightRule::in_force(&board(), &Rules::default(), now);
        assert_eq!((defaults.version, defaults.note.as_str(), defaults.weights.len()), (0, "Defaults", 5));
        let changed = WeightRule::in_force(&board(), &rules(vec![rule(3, 5.0, now)]), now);
        assert_eq!((changed.version, changed.created_by.as_str()), (3, "ann"));
        let shown: Vec<_> = changed.weights.iter().map(|weight| weight.weight).collect();
        assert_eq!(shown, [0.1, 0.2, 0.3, 0.4, 5.0]);
    }

    #[test]
    fn what_is_scheduled_follows_what_is_in_force() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let now = at("2026-11-22T12:00:00Z");
        let until = |rule: domain::WeightRule, until: &str| domain::WeightRule { until: Some(at(until)), ..rule };
        let from = |rule: domain::WeightRule, from: &str| domain::WeightRule { from: Some(at(from)), ..rule };
        let dawn = domain::WeightRule { hours: Some(Hours::new(&[5, 6]).unwrap()), ..rule(5, 1.5, now) };
        let cancelled = from(rule(6, 8.0, now), "2026-11-28T00:00:00Z");
        let cancels = domain::WeightRule { cancels: Some(6), weights: Vec::new(), ..rule(7, 0.0, now) };
        let all = vec![
            from(rule(1, 9.0, now), "2026-11-29T00:00:00Z"),
            rule(2, 2.0, now),
            until(rule(3, 7.0, now), "2026-11-22T12:00:00Z"),
            from(rule(4, 3.0, now), "2026-11-27T00:00:00Z"),
            dawn,
            cancelled,
            cancels,
        ];
        let shown = |at| {
            let listed = WeightRule::of_board(&board(), &rules(all.clone()), at);
            let order = listed[0].weights[4].weight;
            (order, listed.iter().map(|rule| rule.version).collect::<Vec<_>>())
        };
        assert_eq!(shown(now), (2.0, vec![2, 5, 4, 1]));
        assert_eq!(shown(at("2026-11-23T05:30:00Z")), (1.5, vec![5, 4, 1]));
        assert_eq!(shown(at("2026-11-30T12:00:00Z")), (3.0, vec![4, 5]));
    }
}
