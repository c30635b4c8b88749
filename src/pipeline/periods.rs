//! Periods by key or instant, and what closed ones showed: from the results stored at their close as far as these are
//! kept, otherwise computed from the ledger.
//!
//! Invariant: an answer is all of stored results or all computed, and says which. What is computed follows the chain of
//! periods as the roll does, so that it carries over what the roll would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use super::chain::Before;
use super::fault::in_time;
use super::read::LedgerBoard;
use super::rebuild::Computed;
use super::{App, AppError, BoardEntries, BoardPage, Freshness, RETRY_AFTER_MS, Reading, Result, Source};
use crate::domain::{Basis, Board, BoardId, Bucket, Cursors, PageStart, Period, ProductId, Timestamp};
use crate::ledger::{ClosedPeriod, KeysetPage};

/// Closed periods computed from the ledger that a node remembers: with 100,000 products each some 300 MB.
const COMPUTED_MAX: usize = 16;
/// How long one is served before it is computed anew, so that late events show.
const COMPUTED_FRESH_FOR: Duration = Duration::from_secs(180);
/// Periods computed at a time on a node, so that whoever asks for many different ones does not keep the ledger from others.
const COMPUTED_AT_ONCE: usize = 1;

/// Ranks of periods before that a node remembers for while the ledger is away: as many as rows of the catalogue.
const RANKS_MAX: usize = 100_000;

/// What a node remembers of closed periods.
pub struct ClosedBoards {
    /// Closed periods computed from the ledger, by board, revision and key.
    computed: Cache<(BoardId, i64, String), Arc<LedgerBoard>>,
    /// The rank at a period's close, `None` for a product without one, by board, key and product.
    ranks: Cache<(BoardId, String, ProductId), Option<u64>>,
    turns: Semaphore,
    lookups: AtomicU64,
    computations: AtomicU64,
}

impl Default for ClosedBoards {
    fn default() -> Self {
        Self {
            computed: Cache::new(COMPUTED_MAX),
            ranks: Cache::new(RANKS_MAX),
            turns: Semaphore::new(COMPUTED_AT_ONCE),
            lookups: AtomicU64::new(0),
            computations: AtomicU64::new(0),
        }
    }
}

/// Which period is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    Key(String),
    At(Timestamp),
}

/// A period that there is.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The one that the board shows.
    Shown(Reading),
    /// A closed one, with its reading where its results are stored.
    Closed(Period, Option<Reading>),
}

impl App {
    /// `None` for a key that no period has, for one that has not begun, and for one that ended before anything happened.
    pub async fn period(&self, board: &Arc<Board>, meant: &Meant) -> Result<Option<Found>> {
        let (period, is_instant) = match meant {
            Meant::Key(key) => (board.period_of_key(key), false),
            Meant::At(at) => (Some(board.period_at(*at)), true),
        };
        let Some(period) = period else { return Ok(None) };
        let shown = self.entries(board, &[]).await?.reading;
        let now = self.now();
        let is_present = period.key == board.period_at(now).key;
        // From the boundary to the switch, the board still shows the period before.
        if period.key == shown.period.key || (is_instant && is_present) {
            return Ok(Some(Found::Shown(shown)));
        }
        // Another node's clock may run ahead of this one's.
        let is_over = period.is_over(now) || shown.period.starts_at.is_some_and(|begun| period.is_over(begun));
        if !is_over {
            let about_to_begin = || AppError::Unavailable {
                reason: format!("the board {} is about to begin the period {}", board.id, period.key),
                retry_after_ms: RETRY_AFTER_MS,
            };
            return if is_present { Err(about_to_begin()) } else { Ok(None) };
        }
        if let Some(closed) = self.ledger.closed_period(&board.id, &period.key).await? {
            return Ok(Some(found(board, &closed)));
        }
        let first = self.ledger.next_active(Bucket::MIN).await?;
        Ok(first.filter(|first| *first < period.end).map(|_| Found::Closed(period, None)))
    }

    /// The board's periods whose results are stored, that ended before an instant, newest first.
    pub async fn closed_periods(&self, board: &Arc<Board>, before: Timestamp, first: u32) -> Result<KeysetPage<Found>> {
        let page = self.ledger.closed_periods(&board.id, before, first).await?;
        Ok(KeysetPage { rows: page.rows.iter().map(|closed| found(board, closed)).collect(), has_more: page.has_more })
    }

    /// What a closed period's answers are read from.
    pub async fn closed_reading(&self, board: &Arc<Board>, period: &Period) -> Result<Reading> {
        match self.ledger.closed_period(&board.id, &period.key).await? {
            Some(closed) => Ok(reading(board, &closed)),
            None => Ok(self.closed_board(board, period).await?.reading(board, false)),
        }
    }

    /// A page of a closed period: one look-up as far as its results are kept.
    pub async fn closed_page(
        &self,
        board: &Arc<Board>,
        period: &Period,
        start: &PageStart,
        count: u64,
    ) -> Result<BoardPage> {
        self.closed_boards.lookups.fetch_add(1, Ordering::Relaxed);
        let stored = in_time(self.ledger.results_page(&board.id, &period.key, start, count)).await?;
        if let Some((closed, Some(rows))) = stored {
            return Ok(BoardPage { reading: reading(board, &closed), rows });
        }
        let computed = self.closed_board(board, period).await?;
        Ok(BoardPage { reading: computed.reading(board, false), rows: computed.standings.rows(start, count) })
    }

    /// Places of products at a period's close: one look-up where they are kept.
    pub async fn closed_entries(
        &self,
        board: &Arc<Board>,
        period: &Period,
        products: &[ProductId],
    ) -> Result<BoardEntries> {
        self.closed_boards.lookups.fetch_add(1, Ordering::Relaxed);
        if let Some((closed, entries)) = in_time(self.ledger.results_of(&board.id, &period.key, products)).await?
            && (closed.is_whole() || entries.iter().all(Option::is_some))
        {
            return Ok(BoardEntries { reading: reading(board, &closed), entries });
        }
        let computed = self.closed_board(board, period).await?;
        let entries = products.iter().map(|product| computed.standings.entry(product)).collect();
        Ok(BoardEntries { reading: computed.reading(board, false), entries })
    }

    /// How often pages and places of closed periods were looked up in the ledger.
    pub fn result_lookups(&self) -> u64 {
        self.closed_boards.lookups.load(Ordering::Relaxed)
    }

    /// How many closed periods were computed.
    pub fn periods_computed(&self) -> u64 {
        self.closed_boards.computations.load(Ordering::Relaxed)
    }

    /// The ranks that products held when the period before ended; `None` where none is before. While the ledger is away, as
    /// far as they were read before.
    pub async fn ranks_before(
        &self,
        board: &Arc<Board>,
        period: &Period,
        products: &[ProductId],
    ) -> Result<Option<Vec<Option<u64>>>> {
        let Some(before) = board.period_before(period) else { return Ok(None) };
        let ranks = &self.closed_boards.ranks;
        let key = |product: &ProductId| (board.id.clone(), before.key.clone(), product.clone());
        let remembered = || products.iter().map(|product| ranks.get(&key(product))).collect::<Option<Vec<_>>>();
        if self.is_ledger_away()
            && let Some(known) = remembered()
        {
            return Ok(Some(known));
        }
        match self.closed_entries(board, &before, products).await {
            Ok(BoardEntries { entries, .. }) => {
                let read: Vec<_> = entries.into_iter().map(|entry| entry.map(|(rank, _)| rank)).collect();
                products.iter().zip(&read).for_each(|(product, rank)| ranks.insert(key(product), *rank));
                Ok(Some(read))
            }
            Err(away @ AppError::Unavailable { .. }) => remembered().map(Some).ok_or(away),
            Err(error) => Err(error),
        }
    }

    /// A closed period computed from the ledger, once for all who ask at the same time. What would be too much is refused
    /// before it waits for its turn.
    async fn closed_board(&self, board: &Arc<Board>, period: &Period) -> Result<Arc<LedgerBoard>> {
        let ClosedBoards { computed, turns, computations, .. } = &self.closed_boards;
        let revision = self.definitions().board(&board.id).map_or(0, |definition| definition.revision);
        let key = |period: &Period| (board.id.clone(), revision, period.key.clone());
        computed.remove_if(&key(period), |known| known.computed.elapsed() > COMPUTED_FRESH_FOR);
        let compute = async {
            self.chain(board, period, self.known_before(board, revision, period), 1).await?;
            let _turn = turns.acquire().await.expect("nobody closes it");
            computations.fetch_add(1, Ordering::Relaxed);
            // What somebody has computed meanwhile may be a nearer place to begin at.
            let known = self.known_before(board, revision, period);
            // What begins with something computed is as old as that.
            let began = known.as_ref().map_or_else(Instant::now, |(_, known)| known.computed);
            let basis = self.basis_of(board, period).await?;
            let (of_period, before) = self.compute_chain(board, period, basis, known).await?;
            if let Some(Before { period, cursors, points }) = before {
                // Whoever reads a page asks how its rows have moved.
                let basis = self.basis_of(board, &period).await?;
                let key = key(&period);
                computed.insert(key, Arc::new(self.ledger_board(period, basis, cursors, points, began).await));
            }
            let Computed { cursors, points, .. } = of_period;
            Ok(Arc::new(self.ledger_board(period.clone(), basis, cursors, points, began).await))
        };
        computed.get_or_insert_async(&key(period), compute).await
    }

    /// The last of the computed periods of a board that ended before another one began, and when it ended.
    fn known_before(&self, board: &Board, revision: i64, period: &Period) -> Option<(Timestamp, Arc<LedgerBoard>)> {
        let starts_at = period.starts_at?;
        let known = self.closed_boards.computed.iter().filter_map(|((id, of_revision, _), known)| {
            let is_fresh = known.computed.elapsed() <= COMPUTED_FRESH_FOR;
            let ended_at = known.ended_at().filter(|ended_at| *ended_at <= starts_at)?;
            ((id, of_revision) == (board.id.clone(), revision) && is_fresh).then_some((ended_at, known))
        });
        known.max_by_key(|(ended_at, _)| *ended_at)
    }

    /// The rules that a closed period counts under: those it was closed under, or, where it never was, those it would be.
    async fn basis_of(&self, board: &Board, period: &Period) -> Result<Basis> {
        let closed = self.ledger.closed_period(&board.id, &period.key).await?;
        let rules_version = closed.map_or_else(|| self.definitions().rules.version(), |closed| closed.rules_version);
        Ok(Basis::at_close(period, rules_version))
    }
}

fn found(board: &Arc<Board>, closed: &ClosedPeriod) -> Found {
    let reading = reading(board, closed);
    Found::Closed(reading.period.clone(), Some(reading))
}

/// What stored results say of themselves.
fn reading(board: &Arc<Board>, closed: &ClosedPeriod) -> Reading {
    let period = period_of(board, closed);
    Reading {
        board: board.clone(),
        basis: Basis::at_close(&period, closed.rules_version),
        period,
        freshness: Freshness { source: Source::Results, as_of: closed.closed_at, degraded: false },
        cursors: Cursors::new(),
    }
}

/// The period as it was when it was closed: the board may have had another time zone then.
fn period_of(board: &Board, closed: &ClosedPeriod) -> Period {
    let of_key = board.period_of_key(&closed.key);
    let is_same = |period: &Period| (period.starts_at, period.ends_at) == (closed.starts_at, Some(closed.ends_at));
    of_key.filter(is_same).unwrap_or_else(|| Period {
        key: closed.key.clone(),
        first: closed.starts_at.map_or(Bucket::MIN, Bucket::containing),
        end: Bucket::containing(closed.ends_at),
        starts_at: closed.starts_at,
        ends_at: Some(closed.ends_at),
    })
}
