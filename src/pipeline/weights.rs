//! Weights: an admin's change becomes a rule in the ledger, and the boards follow.

use std::time::Duration;

use super::{App, Result};
use crate::domain::{BoardId, WeightRule};
use crate::ledger::{KeysetPage, NewWeightRule, RuleOutcome};

/// How long `adjust_weights` waits until boards show the new weights: a board of 100,000 products is rebuilt in less.
const REWEIGH_WAIT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const REWEIGH_LOOK: Duration = Duration::from_millis(20);

impl App {
    /// Stores a weight rule; the boards follow at once. Waits, for at most 2 s, until they show the new weights.
    pub async fn adjust_weights(&self, rule: &NewWeightRule) -> Result<RuleOutcome> {
        let outcome = self.ledger.add_rule(rule).await?;
        if let RuleOutcome::Added(added) = &outcome {
            self.refresh_definitions().await?;
            // A node that misses the message finds the rule at its next look.
            self.engine.announce_definitions().await.ok();
            let shown = self.until_reweighed(added);
            if tokio::time::timeout(REWEIGH_WAIT, shown).await.is_err() {
                tracing::warn!(version = added.version, "boards do not show the new weights yet");
            }
        }
        Ok(outcome)
    }

    /// Looks until every board that the rule reaches was built under it.
    async fn until_reweighed(&self, rule: &WeightRule) {
        for definition in &self.definitions().boards {
            let id = &definition.board.id;
            if id.is_hidden() || rule.board.as_ref().is_some_and(|own| own != id) {
                continue;
            }
            let is_behind = |shown: Option<i32>| shown.is_none_or(|version| version < rule.version);
            while is_behind(
                self.engine.board(id).await.ok().and_then(|survey| Some(survey.shown?.build.basis.rules_version)),
            ) {
                tokio::time::sleep(REWEIGH_LOOK).await;
            }
        }
    }

    /// Rules, newest first; with a board, its own and the shared ones.
    pub async fn rules(
        &self,
        board: Option<&BoardId>,
        below: Option<i32>,
        first: u32,
    ) -> Result<KeysetPage<WeightRule>> {
        Ok(self.ledger.rules(board, below, first).await?)
    }
}
