//! Signals, their weights, and the rules that change them.

use async_graphql::{ComplexObject, Enum, ID, SimpleObject};

use super::ranking::PageInfo;
use super::scalars::DateTime;
use crate::domain::{self, Board, BoardId, Bucket, Rules, Scoring, Timestamp};
use crate::graphql::cursor::Cursor;
use crate::graphql::errors::UserError;
use crate::graphql::guards::{Needs, Role};
use crate::graphql::node::NodeId;
use crate::ledger::{CancelOutcome, KeysetPage, RuleOutcome};
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
#[graphql(complex)]
pub struct WeightRule {
    /// The board whose weights in force this says, where it is no rule by itself.
    #[graphql(skip)]
    in_force_on: Option<BoardId>,
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
    /// For the admin role; null, with an error, without it.
    #[graphql(guard = "Needs(Role::Admin)")]
    pub created_by: Option<String>,
    pub created_at: DateTime,
    /// For the admin role; null, with an error, without it.
    #[graphql(guard = "Needs(Role::Admin)")]
    pub note: Option<String>,
    /// Whether it was taken back: as if it had never been made.
    pub cancelled: bool,
}

#[ComplexObject]
impl WeightRule {
    pub async fn node_id(&self) -> ID {
        let id = match &self.in_force_on {
            Some(board) => NodeId::InForce(board.clone(), self.version),
            None => NodeId::WeightRule(self.version),
        };
        id.encode()
    }
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
            created_by: Some(rule.created_by),
            created_at: DateTime(rule.created_at),
            note: Some(rule.note),
            cancelled,
            in_force_on: None,
        }
    }

    /// The rule of a version, if that is one.
    pub fn of_version(version: i32, rules: &Rules) -> Option<Self> {
        let rule = rules.weights.iter().find(|rule| rule.version == version && rule.cancels.is_none())?;
        Some(Self::new(rule.clone(), rules.is_cancelled(version, rules.version())))
    }

    /// Whether it counts already, in some of its hours at least, or did.
    pub fn has_begun(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from.0 <= now)
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
    pub fn in_force(board: &Board, rules: &Rules, at: Timestamp) -> Self {
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
        let in_force_on = Some(board.id.clone());
        Self { id, in_force_on, weights: weights(in_force.iter()), ..Self::new(newest, false) }
    }
}

#[derive(SimpleObject)]
pub struct WeightRuleEdge {
    pub cursor: String,
    pub node: WeightRule,
}

#[derive(SimpleObject)]
pub struct WeightRuleConnection {
    pub edges: Vec<WeightRuleEdge>,
    pub nodes: Vec<WeightRule>,
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
    use crate::domain::{Hours, Window};

    fn board() -> Board {
        Board::new(BoardId::daily(), "Daily", Window::Day, jiff::tz::TimeZone::UTC)
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
        assert_eq!((defaults.version, defaults.note.as_deref(), defaults.weights.len()), (0, Some("Defaults"), 5));
        let changed = WeightRule::in_force(&board(), &rules(vec![rule(3, 5.0, now)]), now);
        assert_eq!((changed.version, changed.created_by.as_deref()), (3, Some("ann")));
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
