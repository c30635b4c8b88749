//! The ways out: boards, counts of likes and products, from the engine, and from the ledger while the engine has none.
//!
//! Invariant: an answer is from one generation; it is never put together from two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::fault::in_time;
use super::rebuild::Computed;
use super::{App, AppError, BoardEntries, BoardPage, Freshness, Reading, Result, Source};
use crate::domain::{
    Basis, Board, BoardId, Cursors, FeedPosition, FeedState, PageStart, Period, Points, ProductId, Standings,
    Timestamp, UserId,
};
use crate::engine::{EngineError, Generation};

/// How old a board computed from the ledger may be: while the engine is away, each board costs one computation a second,
/// or one after the other where they take longer, however many ask for it.
const LEDGER_BOARD_FRESH_FOR: Duration = Duration::from_secs(1);

/// Boards computed from the ledger, each by itself: one that takes long holds up no other.
#[derive(Default)]
pub struct LedgerBoards(Mutex<HashMap<BoardId, Computing>>);

/// A board as it was, or is being, computed for all who ask for it: `None` until it is done.
type Computing = watch::Receiver<Option<Result<Arc<LedgerBoard>>>>;

impl LedgerBoards {
    /// What is there of a board, or under way; else what `begin` begins.
    fn of(&self, board: &BoardId, begin: impl FnOnce() -> Computing) -> Computing {
        let mut boards = self.0.lock().expect("nothing panics while it holds the lock");
        // One that failed, or whose task is gone, is begun anew.
        let is_of_use = |computing: &&Computing| match &*computing.borrow() {
            None => computing.has_changed().is_ok(),
            Some(done) => done.as_ref().is_ok_and(|board| board.computed.elapsed() < LEDGER_BOARD_FRESH_FOR),
        };
        if let Some(computing) = boards.get(board).filter(is_of_use) {
            return computing.clone();
        }
        // Those of boards that were deleted go, too.
        boards.retain(|_, computing| is_of_use(&&*computing));
        let begun = begin();
        boards.insert(board.clone(), begun.clone());
        begun
    }
}

/// A period of a board, computed from the ledger.
pub struct LedgerBoard {
    period: Period,
    basis: Basis,
    cursors: Cursors,
    pub standings: Standings,
    computed_at: Timestamp,
    pub computed: Instant,
}

impl LedgerBoard {
    pub const fn ended_at(&self) -> Option<Timestamp> {
        self.period.ends_at
    }

    /// `degraded` where it stands for what the board should show.
    pub fn reading(&self, board: &Arc<Board>, degraded: bool) -> Reading {
        Reading {
            board: board.clone(),
            period: self.period.clone(),
            freshness: Freshness { source: Source::Ledger, as_of: self.computed_at, degraded },
            basis: self.basis,
            cursors: self.cursors.clone(),
        }
    }
}

/// What a place on the board that counts likes says: each like is one point.
pub fn like_count(place: Option<(u64, Points)>) -> u64 {
    place.map_or(0, |(_, points)| points.millionths() / 1_000_000).max(0) as u64
}

impl App {
    /// A page of a board: one engine call; from the ledger, marked degraded, while the engine has no board to show.
    pub async fn page(&self, board: &Arc<Board>, start: &PageStart, count: u64) -> Result<BoardPage> {
        let read = self.engine.page(&board.id, start, count).await;
        let read = read.map(|page| page.map(|page| (page.generation, page.cursors, page.rows)));
        match self.current(board, read) {
            Some((reading, rows)) => Ok(BoardPage { reading, rows }),
            None => {
                let (reading, computed) = self.computed(board).await?;
                Ok(BoardPage { reading, rows: computed.standings.rows(start, count) })
            }
        }
    }

    /// The first places of a board, as [`Self::page`], and where they stand among its published states.
    pub async fn top(&self, board: &Arc<Board>) -> Result<(BoardPage, FeedPosition)> {
        let read = self.engine.page(&board.id, &PageStart::Rank(1), FeedState::PLACES_MAX).await;
        let seq = read.as_ref().ok().and_then(|page| Some(page.as_ref()?.seq)).unwrap_or(0);
        let read =
            read.map(|page| page.map(|page| (page.generation.clone(), page.cursors, (page.generation, page.rows))));
        let Some((reading, (generation, rows))) = self.current(board, read) else {
            // Nothing leads on from a board that was computed from the ledger.
            let page = self.page(board, &PageStart::Rank(1), FeedState::PLACES_MAX).await?;
            return Ok((page, FeedPosition::NOWHERE));
        };
        let published = self.engine.published(&board.id).await.ok().flatten();
        let is_exact = published.is_some_and(|state| {
            (state.seq, state.epoch, state.generation) == (seq, generation.build.epoch, generation.number)
                && (state.total, &state.places) == (rows.total, &rows.places)
        });
        let (epoch, begun) = (generation.build.epoch, self.begun());
        let history = begun.history.filter(|_| begun.number == epoch);
        let position = FeedPosition { is_exact, ..FeedPosition::near(&board.id, epoch, history, seq) };
        Ok((BoardPage { reading, rows }, position))
    }

    /// Places of products, as [`Self::page`].
    pub async fn entries(&self, board: &Arc<Board>, products: &[ProductId]) -> Result<BoardEntries> {
        let read = self.engine.entries(&board.id, products).await;
        let read = read.map(|found| found.map(|found| (found.generation, found.cursors, found.entries)));
        match self.current(board, read) {
            Some((reading, entries)) => Ok(BoardEntries { reading, entries }),
            None => {
                let (reading, computed) = self.computed(board).await?;
                let entries = products.iter().map(|product| computed.standings.entry(product)).collect();
                Ok(BoardEntries { reading, entries })
            }
        }
    }

    /// Places of products on any board, hidden ones too, as [`Self::entries`].
    pub async fn places(&self, board: &BoardId, products: &[ProductId]) -> Result<BoardEntries> {
        let definitions = self.definitions();
        let found = definitions.boards.iter().find(|definition| definition.board.id == *board);
        let found = found.ok_or_else(|| AppError::Internal(format!("the ledger has no board {board}")))?;
        self.entries(&Arc::new(found.board.clone()), products).await
    }

    /// How many people like each product, in the order asked.
    pub async fn like_counts(&self, products: &[ProductId]) -> Result<Vec<u64>> {
        let places = self.places(&BoardId::likes(), products).await?;
        Ok(places.entries.into_iter().map(like_count).collect())
    }

    /// When the user liked each product, in the order asked. One engine call for a user who is loaded; one query of the ledger
    /// while the engine is away, as boards are answered then.
    pub async fn viewer_likes(&self, user: &UserId, products: &[ProductId]) -> Result<Vec<Option<Timestamp>>> {
        match self.viewer_likes_in_engine(user, products).await {
            Ok(likes) => Ok(likes),
            Err(error) => {
                tracing::debug!("a viewer's likes are read from the ledger: {error}");
                Ok(in_time(self.ledger.liked_at(user, products)).await?)
            }
        }
    }

    async fn viewer_likes_in_engine(&self, user: &UserId, products: &[ProductId]) -> Result<Vec<Option<Timestamp>>> {
        let epoch = self.epoch()?;
        for _ in 0..3 {
            let read = self.engine.viewer_likes(epoch, user, products, self.now()).await;
            match read.map_err(|error| self.engine_error(epoch, error))? {
                Some(likes) => return Ok(likes),
                None => self.load(user).await?,
            }
        }
        Err(AppError::Internal("a user's likes are loaded and not found".into()))
    }

    /// What was read, if it is of this node's epoch and of a period of the board.
    fn current<T>(
        &self,
        board: &Arc<Board>,
        read: Result<Option<(Generation, Cursors, T)>, EngineError>,
    ) -> Option<(Reading, T)> {
        let epoch = self.epoch().ok()?;
        let (generation, cursors, rows) = match read {
            Ok(read) => read?,
            Err(error) => {
                self.engine_error(epoch, error);
                return None;
            }
        };
        let period = board.period_of_key(&generation.build.period)?;
        let freshness = Freshness { source: Source::Engine, as_of: self.now(), degraded: false };
        let reading = Reading { board: board.clone(), period, freshness, basis: generation.build.basis, cursors };
        (generation.build.epoch == epoch).then_some((reading, rows))
    }

    async fn computed(&self, board: &Arc<Board>) -> Result<(Reading, Arc<LedgerBoard>)> {
        let mut computing = self.ledger_boards.of(&board.id, || {
            let (sender, computing) = watch::channel(None);
            let (app, board) = (self.me.upgrade().expect("whoever calls holds it"), board.clone());
            // By a task of its own: whoever asked first may go away, and the others wait for the same.
            self.spawn(async move {
                let computed = app.stop.run_until_cancelled(app.compute_board(&board)).await;
                if let Some(computed) = computed {
                    sender.send_replace(Some(computed.map(Arc::new)));
                }
            });
            computing
        });
        let ended = |_| AppError::Internal("a board's computation has panicked, or the server is stopping".to_owned());
        let computed = computing.wait_for(Option::is_some).await.map_err(ended)?.clone();
        let computed = computed.expect("this was waited for")?;
        Ok((computed.reading(board, true), computed))
    }

    async fn compute_board(&self, board: &Arc<Board>) -> Result<LedgerBoard> {
        let (now, began) = (self.now(), Instant::now());
        let (period, basis) = (board.period_at(now), self.definitions().rules.basis(now));
        let (Computed { cursors, points, .. }, _) = self.compute_chain(board, &period, basis, None).await?;
        Ok(self.ledger_board(period, basis, cursors, points, began).await)
    }

    /// What was computed of a period, in order.
    pub(super) async fn ledger_board(
        &self,
        period: Period,
        basis: Basis,
        cursors: Cursors,
        points: Vec<(ProductId, Points)>,
        computed: Instant,
    ) -> LedgerBoard {
        let computed_at = self.now();
        // Of 100,000 products this takes a tenth of a second, during which this thread would serve nobody.
        let order = tokio::task::spawn_blocking(|| points.into_iter().collect());
        let standings: Standings = order.await.expect("it neither panics nor is it aborted");
        LedgerBoard { period, basis, cursors, standings, computed_at, computed }
    }
}
