//! Explain: what products were counted for when a page was read, and so what their scores are made of.
//!
//! The ledger says what it has counted, and up to which cursors; the journal says what lies between these and the page's.
//! Invariant: an explanation adds up to the score it explains, or there is none.

use std::collections::HashMap;
use std::sync::Arc;

use super::between::LedgerAt;
use super::fault::Fault;
use super::{App, Reading, Result, Source};
use crate::domain::{Count, Cursors, Explanation, Points, ProductId, Scoring, Signal};
use crate::ledger::{Definitions, Snapshot, Wanted};

/// Entries of the journal that are read to bring the ledger's counts to a page's: at 10,000 events a second those of five
/// seconds, which is longer than the ledger lags behind when all is well, and takes a tenth of a second to read.
const ENTRIES_MAX: usize = 50_000;

/// Counts of activity that a look-up may read, added up by the ledger as far as they have one weight: of a page of 100 all five
/// signals of two days in each quarter of an hour, some 50 ms of the ledger's time and of ours.
const COUNTS_MAX: usize = 100_000;
/// Look-ups at a time on a node, so that they keep neither the ledger nor a processor from others.
pub(super) const TALLIES_AT_ONCE: usize = 2;

/// What a look-up depends on: what was read, and for which products.
pub(super) type TallyKey = (String, Vec<ProductId>);

/// At which moment products' counts are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When the page was read.
    AsRead,
    /// Now: for a page whose moment the journal does not reach back to any more. Whatever has not changed since is
    /// explained by this as well.
    Present,
}

/// Products' counts at a moment, and all that makes scores of them.
#[derive(Debug)]
pub struct Tally {
    scoring: Scoring,
    definitions: Arc<Definitions>,
    counts: HashMap<ProductId, Vec<Count>>,
    at_close: HashMap<ProductId, Points>,
}

impl Reading {
    /// Whether this is of results that were stored when the period was closed, and do not follow the journal.
    fn is_stored(&self) -> bool {
        self.freshness.source == Source::Results
    }
}

impl App {
    /// What products on one page, or on boards read with it, were counted for: one look-up in the ledger. `None` where the
    /// journal does not have what lies between the ledger's counts and that moment.
    pub async fn tally(
        &self,
        reading: &Arc<Reading>,
        products: &[ProductId],
        moment: Moment,
    ) -> Result<Option<Arc<Tally>>> {
        let Reading { board, period, freshness, basis, cursors } = &**reading;
        let key = format!("{moment:?} {board:?} {} {:?} {basis:?} {cursors:?}", period.key, freshness.source);
        let read = async { Ok(self.read_tally(reading, products, moment).await?.map(Arc::new)) };
        self.tallies.get((key, products.to_vec()), read).await
    }

    async fn read_tally(
        &self,
        reading: &Arc<Reading>,
        products: &[ProductId],
        moment: Moment,
    ) -> Result<Option<Tally>> {
        let Reading { board, period, basis, .. } = &**reading;
        // Another node may have read the page under a rule that this one has not heard of yet.
        if self.definitions().rules.version() < basis.rules_version {
            self.refresh_definitions().await?;
        }
        let definitions = self.definitions();
        let scoring = Scoring::new(board, period.clone(), &definitions.rules, *basis);
        // What is on the board was in its scope.
        let scoring = scoring.with_members(std::collections::HashSet::from_iter(products.iter().cloned()));
        let before = board.carries_from(period);
        let carry_from = before.as_ref().map(|before| before.key.clone());
        let wanted = Wanted {
            segments: &scoring.segments(),
            signals: &Signal::ALL,
            carry_from: carry_from.as_deref(),
            products: Some(products),
            counts_max: Some(COUNTS_MAX),
            ..Wanted::of(board)
        };
        let Snapshot { cursors, activity, at_close, .. } = self.ledger.snapshot(wanted).await?;
        let mut counts: HashMap<_, Vec<Count>> = products.iter().map(|product| (product.clone(), Vec::new())).collect();
        for row in activity {
            counts.entry(row.product).or_default().push(row.count);
        }
        if !reading.is_stored() {
            let wanted = self.cursors_at(reading, &cursors, moment).await;
            // A journal that does not answer is one that does not have it.
            if !self.bring(&mut counts, &cursors, &wanted).await.unwrap_or(false) {
                return Ok(None);
            }
        }
        let mut at_close: HashMap<_, _> = at_close.into_iter().collect();
        // What is computed from the ledger also carries over what is not stored.
        if let (Source::Ledger, Some(before)) = (reading.freshness.source, before)
            && !self.ledger.has_results(&board.id, &before.key).await?
        {
            let places = self.closed_entries(board, &before, products).await?.entries;
            let points = products.iter().zip(places).filter_map(|(product, place)| Some((product.clone(), place?.1)));
            at_close.extend(points);
        }
        Ok(Some(Tally { scoring, definitions, counts, at_close }))
    }

    async fn cursors_at(&self, reading: &Reading, in_ledger: &Cursors, moment: Moment) -> Cursors {
        match (moment, reading.freshness.source) {
            (Moment::AsRead, _) => reading.cursors.clone(),
            (Moment::Present, Source::Engine) => {
                let shown = self.engine.entries(&reading.board.id, &[]).await.ok().flatten();
                shown.map_or_else(|| in_ledger.clone(), |shown| shown.cursors)
            }
            (Moment::Present, _) => in_ledger.clone(),
        }
    }

    /// Adds what lies between the ledger's cursors and the wanted ones, or takes it away where the ledger is ahead.
    async fn bring(
        &self,
        counts: &mut HashMap<ProductId, Vec<Count>>,
        in_ledger: &Cursors,
        wanted: &Cursors,
    ) -> Result<bool, Fault> {
        let is_behind = |one: &Cursors, other: &Cursors| {
            one.iter().any(|(partition, position)| other.get(partition).is_some_and(|other| position < other))
        };
        let ways = [(in_ledger, wanted, LedgerAt::Earlier, 1), (wanted, in_ledger, LedgerAt::Later, -1)];
        for (from, upto, ledger_at, sign) in ways.into_iter().filter(|(from, upto, ..)| is_behind(from, upto)) {
            let counted = self.counted_between_shared(from, upto, ledger_at, ENTRIES_MAX).await?;
            let Some(counted) = counted else { return Ok(false) };
            for one in counted {
                if let Some(counts) = counts.get_mut(&one.product) {
                    counts.push(Count { bucket: one.bucket, signal: one.signal, count: sign * one.count });
                }
            }
        }
        Ok(true)
    }
}

impl Tally {
    /// What a product's points on a page that was read at this moment are made of, as they are shown there. `None` where
    /// what was counted does not come to these points: the moment is another one, or the board is about to be corrected.
    pub fn explain(&self, reading: &Reading, product: &ProductId, points: Points) -> Option<Explanation> {
        let counts = self.counts.get(product).map(Vec::as_slice).unwrap_or_default();
        let at_close = self.at_close.get(product).copied().unwrap_or_default();
        let rules = &self.definitions.rules;
        let mut explanation = Explanation::new(&self.scoring, rules, reading.basis, product, counts, at_close);
        if reading.is_stored() {
            explanation.settle(points);
        }
        let Reading { board, period, freshness, .. } = reading;
        (explanation.total() == points).then(|| explanation.shown(board, period, freshness.as_of))
    }
}
