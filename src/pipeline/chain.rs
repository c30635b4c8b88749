//! Chains: what carries over to a period from others whose results are not kept whole, computed from the ledger.
//!
//! Anybody may ask for any period, so what one answer costs is found out first, from dates and from how much there is to
//! read, and refused at once where it is too much. The chain begins where its points are known: at the latest results
//! that are kept whole, at a period that this node has just computed, or with the first activity; or, where that is
//! nearer, at what no longer makes a difference ([`Carried`]). A period in which nothing happened costs no look-up.
//!
//! Invariant: what is carried over is exact, or nothing is answered.

use std::collections::HashMap;
use std::sync::Arc;

use super::read::LedgerBoard;
use super::rebuild::{Computed, compute_after};
use super::{App, AppError, Result};
use crate::domain::{
    Basis, Board, Bucket, Carried, Cursors, Period, Points, ProductId, Scoring, Segment, Signal, Timestamp,
};
use crate::ledger::{ActivityRow, Pace, Snapshot, Wanted};

/// Periods that one answer may compute: some ten years of days. Those of a board of 100,000 products whose points never
/// fade take some three seconds.
const LINKS_MAX: usize = 4_000;
/// Counts of activity that one answer may read: some three seconds of the ledger's time.
const COUNTS_MAX: u32 = 1_000_000;
/// Counts read at a time: some 20 MB.
const BATCH_COUNTS: u64 = 100_000;

/// Where a chain begins.
enum Start {
    /// With nothing: before it nothing had happened.
    Nothing,
    /// With results that are kept whole, by their key.
    Stored(String),
    /// With what was computed of a period.
    Computed(Arc<LedgerBoard>),
    /// With what makes no difference any more.
    Unknown,
}

/// What is to be computed before a period.
pub struct Chain {
    start: Start,
    /// Oldest first; the last one is the one before the period. Empty where nothing carries over, or all is known.
    links: Vec<Period>,
    /// Counts of activity in each bucket.
    active: Vec<(Bucket, u64)>,
}

/// The period before, as it was computed.
pub struct Before {
    pub period: Period,
    /// Where the ledger stood.
    pub cursors: Cursors,
    pub points: Vec<(ProductId, Points)>,
}

type Closed = (Vec<(ProductId, Points)>, Option<(Period, Cursors)>);

impl App {
    /// A period of a board under the rules of `basis`, with what carries over to it, and the one before it, if that was
    /// computed too. `known` was computed before, and ended when its instant says.
    pub(super) async fn compute_chain(
        &self,
        board: &Arc<Board>,
        period: &Period,
        basis: Basis,
        known: Option<(Timestamp, Arc<LedgerBoard>)>,
    ) -> Result<(Computed, Option<Before>)> {
        let mut stretch = 1;
        let (mut points, last) = loop {
            let chain = self.chain(board, period, known.clone(), stretch).await?;
            match self.follow(board, chain).await? {
                Some(close) => break close,
                None => stretch *= 2,
            }
        };
        let before = last.map(|(period, cursors)| Before { period, cursors, points: points.clone() });
        if !points.is_empty() {
            // As with stored results: what is no longer in the catalogue carries nothing.
            let listed = self.ledger.product_ids().await?;
            points.retain(|(product, _)| listed.contains(product));
        }
        let scoring = Scoring::new(board, period.clone(), &self.definitions().rules, basis);
        Ok((compute_after(&self.ledger, scoring, None, points, Pace::Whole).await?, before))
    }

    /// Finds out what carries over to a period, without computing it: refuses what would be too much. A chain whose points
    /// turn out to depend on what is before it is tried again with a greater `stretch`.
    pub(super) async fn chain(
        &self,
        board: &Board,
        period: &Period,
        known: Option<(Timestamp, Arc<LedgerBoard>)>,
        stretch: usize,
    ) -> Result<Chain> {
        let none = Chain { start: Start::Nothing, links: Vec::new(), active: Vec::new() };
        let (Some(starts_at), Some(_)) = (period.starts_at, board.carries_from(period)) else { return Ok(none) };
        let whole = self.ledger.latest_whole(&board.id, starts_at).await?;
        let stored = whole.map(|closed| (closed.ends_at, Start::Stored(closed.key)));
        let computed = known.map(|(ended_at, computed)| (ended_at, Start::Computed(computed)));
        // Of two that ended together, the stored one.
        let begins = match computed.into_iter().chain(stored).max_by_key(|(ended_at, _)| *ended_at) {
            Some(known) => Some(known),
            None => {
                let first = self.ledger.next_active(Bucket::MIN).await?;
                first.map(|first| (first.starts_at(), Start::Nothing))
            }
        };
        let Some((begins_at, start)) = begins.filter(|(begins_at, _)| *begins_at <= starts_at) else { return Ok(none) };
        let reach = Carried::reach(board).map(|reach| reach.saturating_mul(stretch));
        let most = LINKS_MAX.min(reach.unwrap_or(LINKS_MAX));
        let mut links = Vec::new();
        let mut reached = starts_at;
        while begins_at < reached && links.len() < most {
            let before = board.period_at(reached.minus_ms(1));
            reached = before.starts_at.unwrap_or(begins_at);
            links.push(before);
        }
        links.reverse();
        let is_known = reached <= begins_at;
        if !is_known && reach.is_none_or(|reach| reach > LINKS_MAX) {
            let message = format!(
                "the period {} of the board {} carries over what {} periods before it that are not stored would have to be \
                 computed for",
                period.key,
                board.id,
                links.len()
            );
            return Err(AppError::TooMuch { limit: "periods", value: LINKS_MAX, message });
        }
        let start = if is_known { start } else { Start::Unknown };
        let active = match links.first() {
            Some(first) => self.ledger.active_buckets(first.first, period.end, COUNTS_MAX).await?,
            None => Vec::new(),
        };
        if active.iter().map(|(_, counts)| counts).sum::<u64>() > COUNTS_MAX.into() {
            let message = format!(
                "the period {} of the board {} is not stored, and too much happened in the {} periods that it carries over \
                 from",
                period.key,
                board.id,
                links.len()
            );
            return Err(AppError::TooMuch { limit: "activity", value: COUNTS_MAX as usize, message });
        }
        Ok(Chain { start, links, active })
    }

    /// The points at the end of a chain, and its last period with where the ledger stood; `None` where what stood before it
    /// makes a difference.
    async fn follow(&self, board: &Arc<Board>, chain: Chain) -> Result<Option<Closed>> {
        let Chain { start, links, active } = chain;
        let (first, last) = (links.first().cloned(), links.last().cloned());
        if last.is_none() && matches!(start, Start::Nothing) {
            return Ok(Some((Vec::new(), None)));
        }
        let definitions = self.definitions();
        let listed = Arc::new(self.ledger.product_ids().await?);
        let members = Arc::new(self.ledger.members(board).await?);
        let closed_under =
            match first.and_then(|first| first.starts_at).zip(last.as_ref().and_then(|last| last.ends_at)) {
                Some((from, to)) => self.ledger.rules_closed_under(&board.id, from, to).await?,
                None => HashMap::new(),
            };
        let closed_under = Arc::new(closed_under);
        let listed_only = |points: Vec<(ProductId, Points)>| points.into_iter().filter(|(id, _)| listed.contains(id));
        let mut carried = match start {
            Start::Nothing => Carried::known([]),
            Start::Unknown => Carried::unknown(),
            Start::Stored(key) => {
                let places = self.ledger.results(&board.id, &key, u32::MAX).await?;
                Carried::known(listed_only(places.into_iter().map(|place| (place.product, place.points)).collect()))
            }
            Start::Computed(computed) => Carried::known(listed_only(computed.standings.to_vec())),
        };
        let mut cursors = Cursors::new();
        for (links, has_counts) in batches(links, &active) {
            let mut rows = Vec::new();
            if has_counts && let (Some(first), Some(last)) = (links.first(), links.last()) {
                let segments = [Segment { first: first.first, end: last.end, is_even: false }];
                let wanted = Wanted { segments: &segments, signals: &Signal::ALL, ..Wanted::of(board) };
                let read: Snapshot = self.ledger.snapshot(wanted).await?;
                (rows, cursors) = (read.activity, read.cursors);
            }
            let last = last.clone();
            let (board, definitions) = (board.clone(), definitions.clone());
            let (listed, members, closed_under) = (listed.clone(), members.clone(), closed_under.clone());
            let fold = move || {
                let newest = definitions.rules.version();
                let scoring = |link: Period| {
                    let version = closed_under.get(&link.key).copied().unwrap_or(newest);
                    let basis = Basis::at_close(&link, version);
                    Scoring::new(&board, link, &definitions.rules, basis).with_members(members.clone())
                };
                // What is no longer in the catalogue carries nothing, and counts only in the last one.
                let counts =
                    |row: &ActivityRow, link: &Period| last.as_ref() == Some(link) || listed.contains(&row.product);
                fold(carried, links, rows, scoring, counts)
            };
            carried = tokio::task::spawn_blocking(fold).await.expect("it neither panics nor is it aborted");
        }
        Ok(carried.exact().map(|points| (points, last.map(|last| (last, cursors)))))
    }
}

/// Runs of links of which about [`BATCH_COUNTS`] are read at once, and whether anything happened in them.
fn batches(links: Vec<Period>, active: &[(Bucket, u64)]) -> Vec<(Vec<Period>, bool)> {
    let counts_before = |bucket: Bucket| active.partition_point(|(active, _)| *active < bucket);
    let mut batches: Vec<(Vec<Period>, u64)> = Vec::new();
    for link in links {
        let of_link = &active[counts_before(link.first)..counts_before(link.end)];
        let counts: u64 = of_link.iter().map(|(_, counts)| counts).sum();
        match batches.last_mut() {
            Some((links, sum)) if *sum + counts <= BATCH_COUNTS => {
                links.push(link);
                *sum += counts;
            }
            _ => batches.push((vec![link], counts)),
        }
    }
    batches.into_iter().map(|(links, counts)| (links, counts > 0)).collect()
}

fn fold(
    mut carried: Carried,
    links: Vec<Period>,
    mut rows: Vec<ActivityRow>,
    scoring: impl Fn(Period) -> Scoring,
    counts: impl Fn(&ActivityRow, &Period) -> bool,
) -> Carried {
    rows.sort_unstable_by_key(|row| row.count.bucket);
    let mut rows = rows.into_iter().peekable();
    for link in links {
        let scoring = scoring(link);
        let link = scoring.period();
        carried.pass(&scoring);
        while let Some(row) = rows.next_if(|row| row.count.bucket < link.end) {
            if link.contains(row.count.bucket) && counts(&row, link) {
                let points = scoring.points(&row.product, row.count.signal, row.count.bucket, row.count.count);
                carried.add(&scoring, row.product, points);
            }
        }
    }
    carried
}
