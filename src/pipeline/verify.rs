//! Verify: recomputes from the ledger what is served, and says what differs. It changes nothing, and works while likes
//! pour in. Repair: rebuilds what is derived.
//!
//! A board is compared at its own cursors: a snapshot of the ledger, folded on with the journal up to where the board
//! stands. The journal keeps what everybody has folded for a little longer, so that this finds what it needs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::between::LedgerAt;
use super::fault::Fault;
use super::rebuild::{Computed, compute};
use super::{App, AppError, Result, VerifyReport, VerifyRow, VerifyTarget};
use crate::domain::{Board, BoardId, Cursors, Place, Points, ProductId, Scoring};
use crate::engine::Generation;
use crate::ledger::{Author, FoldCheck, Pace, Repaired};

/// Differences listed in a report; the rest is counted.
const ROWS_MAX: usize = 100;
/// How often a board that moves on is looked at again before verification gives up.
const ATTEMPTS: usize = 50;
const ATTEMPT_WAIT: Duration = Duration::from_millis(50);

impl App {
    /// I3 and I4 for likes and activity, and I5: one board, or, with `None`, likes, activity, what the engine holds of users'
    /// likes, and every board, the hidden count of likes among them. `Unavailable` while it goes on for longer than a request
    /// may take: ask again for the result.
    pub async fn verify(self: &Arc<Self>, board: Option<&BoardId>) -> Result<VerifyReport> {
        let (app, key) = (self.clone(), board.cloned());
        self.verifying.ask(self, board.cloned(), || async move { app.verify_now(key.as_ref()).await }).await
    }

    /// Sets likes and activity to what the events come to, makes users whose likes the engine has otherwise load anew, and has
    /// every board computed anew. `Unavailable` as above.
    pub async fn repair(self: &Arc<Self>, author: &Author) -> Result<Repaired> {
        let (app, author) = (self.clone(), author.clone());
        self.repairing.ask(self, (), || async move { app.repair_now(&author).await }).await
    }

    async fn repair_now(&self, author: &Author) -> Result<Repaired> {
        // Until it is recovered, the engine may be another ledger's.
        self.epoch()?;
        let mut repaired = self.ledger.repair(author).await?;
        // Should the engine not hear of it, the ledger refuses what it takes for a change and is none.
        if !repaired.users.is_empty()
            && let Err(error) = self.engine.forget_likes(&repaired.users, self.now()).await
        {
            tracing::warn!("users of repaired likes keep what they had loaded: {error}");
        }
        let held = self.check_held(true).await?;
        repaired.users.extend(held.users);
        repaired.users.sort();
        repaired.users.dedup();
        let users = repaired.users.len();
        tracing::warn!(
            likes = repaired.likes,
            activity = repaired.activity,
            users,
            "repaired; boards are computed anew"
        );
        self.show_on(|_| true).await?;
        Ok(repaired)
    }

    async fn verify_now(&self, board: Option<&BoardId>) -> Result<VerifyReport> {
        self.epoch()?;
        let mut report = VerifyReport::default();
        if board.is_none() {
            report.add_fold(VerifyTarget::Likes, self.ledger.check_likes().await?);
            report.add_fold(VerifyTarget::Activity, self.ledger.check_activity().await?);
            report.add_fold(VerifyTarget::LoadedLikes, self.check_held(false).await?.check);
        }
        for definition in &self.definitions().boards {
            if board.is_none_or(|wanted| *wanted == definition.board.id) {
                self.verify_board(&definition.board, &mut report).await?;
            }
        }
        Ok(report)
    }

    async fn verify_board(&self, board: &Board, report: &mut VerifyReport) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if let Some((expected, places)) = self.expected_and_actual(board).await? {
                report.add_board(&board.id, expected, places);
                return Ok(());
            }
            tokio::time::sleep(ATTEMPT_WAIT).await;
        }
        Err(AppError::Unavailable {
            reason: format!("the board {} is being rebuilt; it can be verified afterwards", board.id),
            retry_after_ms: 1_000,
        })
    }

    /// What the board should hold at its cursors, and what it holds. `None` where it has moved on or is not there.
    async fn expected_and_actual(
        &self,
        board: &Board,
    ) -> Result<Option<(HashMap<ProductId, Points>, Vec<Place>)>, Fault> {
        let Some(shown) = self.engine.board(&board.id).await?.shown else { return Ok(None) };
        let Some(period) = board.period_of_key(&shown.build.period) else { return Ok(None) };
        let definitions = self.definitions();
        // What was built from another definition, or before a rule, is about to be replaced.
        if definitions.board(&board.id).is_none_or(|definition| definition.revision != shown.build.revision) {
            return Ok(None);
        }
        let carry_from = board.carries_from(&period).map(|period| period.key);
        let scoring = Scoring::new(board, period, &definitions.rules, shown.build.basis);
        let computed = compute(&self.ledger, scoring, carry_from.as_deref(), Pace::Pieces).await?;
        let Computed { cursors, scoring, points } = computed;
        let mut expected: HashMap<_, _> = points.into_iter().collect();
        // What the ledger had refused by then is taken back once the board has folded what the journal holds by now.
        if self.ledger.rejections().await?.iter().any(|rejection| rejection.undo.is_some()) {
            return Ok(None);
        }
        let mut wanted = cursors.clone();
        for (partition, here) in (0..).zip(self.engine.survey().await?.partitions) {
            wanted.entry(partition).and_modify(|position| *position = here.last.unwrap_or_default().max(*position));
        }
        let Some((cursors_shown, places)) = self.whole_from(&board.id, &shown, &wanted).await? else {
            return Ok(None);
        };
        // As soon as somebody closes it, what it began with is cut.
        if scoring.period().is_over(self.now()) {
            return Ok(None);
        }
        let mut reader = self.engine.journal_reader().await?;
        let (from, upto) = (&cursors, &cursors_shown);
        let counted = self.counted_between(reader.as_mut(), from, upto, LedgerAt::Earlier, usize::MAX).await?;
        let Some(counted) = counted else { return Ok(None) };
        for one in counted {
            let points = scoring.points(&one.product, one.signal, one.bucket, one.count);
            let sum = expected.entry(one.product).or_default();
            *sum = sum.plus(points);
        }
        expected.retain(|_, points| *points != Points::ZERO);
        Ok(Some((expected, places)))
    }

    /// The generation's places once it has folded all up to the cursors; the journal keeps the rest for us.
    async fn whole_from(
        &self,
        board: &BoardId,
        shown: &Generation,
        cursors: &Cursors,
    ) -> Result<Option<(Cursors, Vec<Place>)>, Fault> {
        for _ in 0..ATTEMPTS {
            let survey = self.engine.board(board).await?;
            let here = survey.cursors.into_iter().find(|(number, _)| *number == shown.number);
            let Some((_, here)) = here.filter(|_| survey.shown.as_ref() == Some(shown)) else { return Ok(None) };
            if cursors.iter().all(|(partition, position)| here[partition] >= *position) {
                let Some((generation, here, places)) = self.engine.whole(board).await? else { return Ok(None) };
                return Ok((generation == *shown).then_some((here, places)));
            }
            tokio::time::sleep(ATTEMPT_WAIT).await;
        }
        Ok(None)
    }
}

impl VerifyReport {
    fn add_fold(&mut self, target: VerifyTarget, check: FoldCheck) {
        self.checked += check.checked;
        let listed = check.rows.len() as u64;
        for row in check.rows {
            self.add(VerifyRow {
                target,
                board: None,
                product: row.product,
                user: row.user,
                expected: row.expected as f64,
                actual: row.actual as f64,
            });
        }
        self.differing += check.differing - listed;
    }

    fn add_board(&mut self, board: &BoardId, mut expected: HashMap<ProductId, Points>, places: Vec<Place>) {
        let row = |product: ProductId, expected: Points, actual: Points| VerifyRow {
            target: VerifyTarget::Board,
            board: Some(board.clone()),
            product,
            user: None,
            expected: expected.as_f64(),
            actual: actual.as_f64(),
        };
        self.checked += places.len() as u64;
        for place in places {
            let points = expected.remove(&place.product).unwrap_or_default();
            if points != place.points {
                self.add(row(place.product, points, place.points));
            }
        }
        self.checked += expected.len() as u64;
        for (product, points) in expected {
            self.add(row(product, points, Points::ZERO));
        }
    }

    fn add(&mut self, row: VerifyRow) {
        self.differing += 1;
        if self.rows.len() < ROWS_MAX {
            self.rows.push(row);
        }
    }
}
