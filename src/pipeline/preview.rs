//! Preview: what a change of weights would do to a board, without making it.
//!
//! The open period is computed twice from one snapshot of the ledger, under the rules there are and as if the change were
//! one more, by the code that rebuilds boards.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::rebuild::compute_each;
use super::{App, Result};
use crate::domain::{
    Board, BoardId, Hours, Preview, Rules, Scoring, Signal, Timestamp, Weight, WeightRule, best_first,
};
use crate::ledger::{NewWeightRule, Pace};

/// Why awaiting a task does not fail.
const RUNS: &str = "it neither panics nor is it aborted";

/// Previews computed at a time on a node: each takes as much as a rebuild of the board.
pub(super) const PREVIEWS_AT_ONCE: usize = 1;

/// What a preview depends on: the board, the change, the rules there are, and what the ledger has counted.
pub(super) type PreviewKey = String;

/// A change of weights that is only looked at: the rule that it would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// `None` for the default that every board uses.
    pub board: Option<BoardId>,
    pub weights: Vec<(Signal, Weight)>,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub hours: Option<Hours>,
}

impl Trial {
    /// Whether the change would reach a board.
    fn is_of(&self, board: &BoardId) -> bool {
        !board.is_hidden() && self.board.as_ref().is_none_or(|own| own == board)
    }

    /// The rules as they would be, were this made a rule at an instant.
    fn added_to(&self, rules: &Rules, at: Timestamp) -> Rules {
        let mut rules = rules.clone();
        rules.weights.push(WeightRule {
            version: rules.version() + 1,
            board: self.board.clone(),
            weights: self.weights.clone(),
            from: self.from,
            until: self.until,
            hours: self.hours,
            cancels: None,
            created_by: String::new(),
            created_at: at,
            note: String::new(),
        });
        rules
    }
}

impl From<NewWeightRule> for Trial {
    fn from(rule: NewWeightRule) -> Self {
        let NewWeightRule { board, weights, from, until, hours, .. } = rule;
        Self { board, weights, from, until, hours }
    }
}

impl App {
    /// The boards that a change would reach, by id.
    pub fn boards_reached(&self, trial: &Trial) -> Vec<Arc<Board>> {
        let definitions = self.definitions();
        let boards = definitions.boards.iter().map(|known| &known.board);
        boards.filter(|board| trial.is_of(&board.id)).cloned().map(Arc::new).collect()
    }

    /// The board's open period before and after a change, with every move among the first `top` of either. Points are as
    /// they are shown.
    pub async fn weight_preview(&self, board: &Board, trial: &Trial, top: usize) -> Result<Arc<Preview>> {
        let counted = self.ledger.state(self.engine.limits().partitions).await?.cursors;
        let key = format!("{board:?} {trial:?} {top} {} {counted:?}", self.definitions().rules.version());
        self.previews.get(key, async { Ok(Arc::new(self.compute_preview(board, trial, top).await?)) }).await
    }

    async fn compute_preview(&self, board: &Board, trial: &Trial, top: usize) -> Result<Preview> {
        let now = self.now();
        let period = board.period_at(now);
        let definitions = self.definitions();
        let changed = trial.added_to(&definitions.rules, now);
        let under = |rules: &Rules| Scoring::new(board, period.clone(), rules, rules.basis(now));
        let carry_from = board.carries_from(&period).map(|before| before.key);
        let scorings = [under(&definitions.rules), under(&changed)];
        let computed = compute_each(&self.ledger, scorings, carry_from.as_deref(), Vec::new(), Pace::Whole).await?;
        // Large boards take as long to be ordered and compared as to be computed; so not where others are served.
        let ordering = computed.map(|it| tokio::task::spawn_blocking(|| best_first(it.points)));
        let ordered = try_join_all(ordering).await.expect(RUNS);
        let comparing = tokio::task::spawn_blocking(move || Preview::of(&ordered[0], &ordered[1], top));
        let mut preview = comparing.await.expect(RUNS);
        for step in &mut preview.moves {
            step.points_before = board.score(&period, step.points_before, now);
            step.points_after = board.score(&period, step.points_after, now);
        }
        Ok(preview)
    }
}
