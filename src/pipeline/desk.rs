//! What admins change and look up: weights, products' rules, boards, dead letters, the audit log.
//!
//! A change is stored in the ledger, every node is told, and the boards follow. The answer waits, for at most 2 s, until
//! the boards concerned show it.

use std::time::Duration;

use super::doubt::unknown;
use super::sync::correct;
use super::{App, Result};
use crate::domain::{Board, BoardId, Period, ProductRule, WeightRule};
use crate::ledger::{
    AuditEntry, Author, BoardDefinition, CancelOutcome, KeysetPage, LedgerError, NewProductRule, NewWeightRule,
    ReopenOutcome, Replayed, RuleOutcome, SaveOutcome, StoredDeadLetter,
};

/// How long a change waits until boards show it: a board of 100,000 products is rebuilt in less.
const SHOW_WAIT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const SHOW_LOOK: Duration = Duration::from_millis(20);

impl App {
    // ------------------------------------------------------------ weights and products

    /// Stores a weight rule.
    pub async fn adjust_weights(&self, rule: &NewWeightRule) -> Result<RuleOutcome> {
        let outcome = self.ledger.add_rule(rule).await?;
        if let RuleOutcome::Added(added) = &outcome {
            self.show_on(|board| added.is_of(board)).await?;
        }
        Ok(outcome)
    }

    /// Takes a weight rule back.
    pub async fn cancel_weights(&self, version: i32, author: &Author) -> Result<CancelOutcome> {
        let outcome = self.ledger.cancel_rule(version, author).await?;
        if let CancelOutcome::Cancelled { rule, .. } = &outcome {
            self.show_on(|board| rule.is_of(board)).await?;
        }
        Ok(outcome)
    }

    /// Stores a decision about a product.
    pub async fn set_product_rule(&self, rule: &NewProductRule) -> Result<ProductRule> {
        let stored = self.ledger.set_product_rule(rule).await?;
        self.show_on(|board| !board.is_hidden() && stored.board.as_ref().is_none_or(|own| own == board)).await?;
        Ok(stored)
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

    /// The decisions about products that stand, by product: the newest for each product and board, unless it has ended or
    /// decides nothing.
    pub fn product_rules(&self) -> Vec<ProductRule> {
        let now = self.now();
        let mut newest = std::collections::BTreeMap::new();
        for rule in &self.definitions().rules.products {
            newest.insert((rule.product.clone(), rule.board.clone()), rule.clone());
        }
        let stands =
            |rule: &ProductRule| (rule.excluded || rule.boost.is_some()) && rule.until.is_none_or(|until| now < until);
        newest.into_values().filter(stands).collect()
    }

    // ------------------------------------------------------------ boards

    /// Makes or changes a board.
    pub async fn save_board(&self, board: &Board, author: &Author) -> Result<SaveOutcome> {
        let outcome = self.ledger.save_board(board, author).await?;
        if let SaveOutcome::Saved(_) = &outcome {
            self.show_on(|id| *id == board.id).await?;
        }
        Ok(outcome)
    }

    /// Deletes a board; says what it was, `None` where there is none.
    pub async fn delete_board(&self, board: &BoardId, author: &Author) -> Result<Option<BoardDefinition>> {
        let deleted = self.ledger.delete_board(board, author).await?;
        if deleted.is_some() {
            // The change is in the ledger, and only the answer fails.
            self.tell_definitions().await.map_err(|error| unknown(error.into()))?;
            let gone = async {
                // What can't be asked for now is not waited for any longer either.
                while self.engine.board(board).await.is_ok_and(|survey| survey.shown.is_some()) {
                    tokio::time::sleep(SHOW_LOOK).await;
                }
            };
            if tokio::time::timeout(SHOW_WAIT, gone).await.is_err() {
                tracing::warn!(%board, "a deleted board is still shown");
            }
        }
        Ok(deleted)
    }

    /// Computes a board anew, with `from` that period and all after it. The closed ones may take longer than this waits:
    /// see [`Self::is_current`].
    pub async fn rebuild_board(
        &self,
        board: &BoardId,
        from: Option<&Period>,
        author: &Author,
    ) -> Result<ReopenOutcome> {
        let outcome = self.ledger.reopen_board(board, from, author).await?;
        if let ReopenOutcome::Reopened { .. } = outcome {
            self.show_on(|id| id == board).await?;
        }
        Ok(outcome)
    }

    /// Whether a board shows what its definition, its rules and the results before it ask for, as far as this node knows.
    pub async fn is_current(&self, board: &BoardId) -> Result<bool> {
        let definitions = self.definitions();
        let Some(definition) = definitions.board(board) else { return Ok(false) };
        let epoch = self.epoch()?;
        let survey = self.engine.board(board).await.map_err(|error| self.engine_error(epoch, error))?;
        let Some(build) = survey.shown.map(|shown| shown.build) else { return Ok(false) };
        let now = self.now();
        let has_expired = definitions.rules.next_end(board, build.basis).is_some_and(|end| end <= now);
        Ok(build.epoch == epoch
            && build.revision >= definition.revision
            && build.period == definition.board.period_at(now).key
            && !has_expired)
    }

    // ------------------------------------------------------------ what was done, and what could not be

    /// Newest first, below an id.
    pub async fn audit_log(&self, below: Option<i64>, first: u32) -> Result<KeysetPage<AuditEntry>> {
        Ok(self.ledger.audit_log(below, first).await?)
    }

    /// What was done, by its id.
    pub async fn audit_entry(&self, id: i64) -> Result<Option<AuditEntry>> {
        let page = self.ledger.audit_log(id.checked_add(1), 1).await?;
        Ok(page.rows.into_iter().find(|entry| entry.id == id))
    }

    /// A dead letter, by its id.
    pub async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        Ok(self.ledger.dead_letter(id).await?)
    }

    /// Newest first, behind an id.
    pub async fn dead_letters(&self, after: Option<&str>, first: u32) -> Result<KeysetPage<StoredDeadLetter>> {
        Ok(self.ledger.dead_letters(after, first).await?)
    }

    /// Takes dead letters, all where none is named, for the events that they are.
    pub async fn replay_dead_letters(&self, ids: Option<&[String]>, author: &Author) -> Result<Replayed> {
        let replayed = self.ledger.replay(ids, author).await?;
        if !replayed.users.is_empty() {
            // The ledger knows better now what they like. Should the engine not hear of it, the ledger refuses what it
            // takes for a change and is none, and the users are forgotten then.
            if let Err(error) = self.engine.forget_likes(&replayed.users, self.now()).await {
                tracing::warn!("users of replayed likes keep what they had loaded: {error}");
            }
        }
        // What it refused once more is undone already.
        if !replayed.refused.is_empty()
            && let Err(fault) = correct(self).await
        {
            tracing::warn!("the engine is corrected at the next chance: {fault}");
        }
        if replayed.replayed > 0 {
            self.show_on(|_| true).await?;
        }
        Ok(replayed)
    }

    // ------------------------------------------------------------ how a change shows

    /// Reads the definitions anew, and has every node do so.
    pub(super) async fn tell_definitions(&self) -> Result<(), LedgerError> {
        self.refresh_definitions().await?;
        // A node that misses the message finds the change at its next look.
        self.engine.announce_definitions().await.ok();
        Ok(())
    }

    /// Tells of a change, and waits until the boards it reaches show it.
    pub(super) async fn show_on(&self, reaches: impl Fn(&BoardId) -> bool) -> Result<()> {
        // The change is in the ledger, and only the answer fails.
        self.tell_definitions().await.map_err(|error| unknown(error.into()))?;
        let definitions = self.definitions();
        let reached = definitions.boards.iter().filter(|definition| reaches(&definition.board.id));
        let shown = async {
            for BoardDefinition { board, revision, .. } in reached {
                while self.shown_revision(&board.id).await.is_none_or(|shown| shown < *revision) {
                    tokio::time::sleep(SHOW_LOOK).await;
                }
            }
        };
        if tokio::time::timeout(SHOW_WAIT, shown).await.is_err() {
            tracing::warn!("boards do not show a change within {} s", SHOW_WAIT.as_secs());
        }
        Ok(())
    }

    async fn shown_revision(&self, board: &BoardId) -> Option<i64> {
        let build = self.engine.board(board).await.ok()?.shown?.build;
        (Some(build.epoch) == self.epoch().ok()).then_some(build.revision)
    }
}
