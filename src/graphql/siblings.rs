//! Batching: products resolved together are siblings, and ask together.
//!
//! Whichever of them is asked first (for its catalogue row, its likes, its place on a board now or before) asks for all of them in one
//! call; the others wait for that answer. So a page costs the same few calls however long it is. A failure is an answer
//! too: siblings never repeat a call that just failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::guards::Viewing;
use crate::domain::{Board, BoardId, Explanation, Period, Points, Product, ProductId, Timestamp};
use crate::pipeline::{App, AppError, BoardEntries, Moment, Reading, Result, Tally};

type Shared<T> = OnceCell<Result<T>>;
/// `None` where no period is before.
type RanksBefore = Shared<Option<Vec<Option<u64>>>>;

pub struct Siblings {
    app: Arc<App>,
    viewer: Viewing,
    ids: Vec<ProductId>,
    rows: Shared<Vec<Option<Arc<Product>>>>,
    like_counts: Shared<Vec<u64>>,
    viewer_likes: Shared<Vec<Option<Timestamp>>>,
    entries: Mutex<HashMap<BoardId, Arc<Shared<Arc<BoardEntries>>>>>,
    /// By board and key of the period that came after.
    ranks_before: Mutex<HashMap<(BoardId, String), Arc<RanksBefore>>>,
    /// By what was read and the moment; a query names a few boards at most.
    tallies: Mutex<Vec<(Arc<Reading>, Moment, SharedTally)>>,
}

/// `None` where that moment is out of reach.
type SharedTally = Arc<Shared<Option<Arc<Tally>>>>;

/// When a client may ask for a page and its explanations again: the journal has reached the page's moment by then, and a
/// board that is being corrected is soon done.
const EXPLAIN_RETRY_AFTER_MS: u64 = 500;

impl Siblings {
    pub fn new(app: &Arc<App>, viewer: &Viewing, ids: Vec<ProductId>) -> Arc<Self> {
        Arc::new(Self {
            app: app.clone(),
            viewer: viewer.clone(),
            ids,
            rows: OnceCell::new(),
            like_counts: OnceCell::new(),
            viewer_likes: OnceCell::new(),
            entries: Mutex::default(),
            ranks_before: Mutex::default(),
            tallies: Mutex::default(),
        })
    }

    pub fn ids(&self) -> &[ProductId] {
        &self.ids
    }

    /// The catalogue's row of the product at `index`.
    pub async fn row(&self, index: usize) -> Result<Option<Arc<Product>>> {
        let rows = self.rows.get_or_init(|| self.app.products(&self.ids)).await;
        at(rows, index)
    }

    pub async fn like_count(&self, index: usize) -> Result<u64> {
        let counts = self.like_counts.get_or_init(|| self.app.like_counts(&self.ids)).await;
        at(counts, index)
    }

    /// When the viewer liked it: `None` where nobody is signed in, `Some(None)` where the viewer does not like it.
    pub async fn viewer_liked_at(&self, index: usize) -> Result<Option<Option<Timestamp>>> {
        let Some(viewer) = self.viewer.as_ref().map_err(Clone::clone)? else { return Ok(None) };
        let likes = self.viewer_likes.get_or_init(|| self.app.viewer_likes(viewer, &self.ids)).await;
        at(likes, index).map(Some)
    }

    /// Every sibling's place on a board, in the order of [`Self::ids`].
    pub async fn entries(&self, board: &Arc<Board>) -> Result<Arc<BoardEntries>> {
        let cell = {
            let mut boards = self.entries.lock().expect("no panic happens under this lock");
            boards.entry(board.id.clone()).or_default().clone()
        };
        let ask = async || self.app.entries(board, &self.ids).await.map(Arc::new);
        cell.get_or_init(ask).await.clone()
    }

    /// The rank of the product at `index` when the period before `period` ended, if it had one; `None` where no period is
    /// before.
    pub async fn rank_before(&self, board: &Arc<Board>, period: &Period, index: usize) -> Result<Option<Option<u64>>> {
        let cell = {
            let mut periods = self.ranks_before.lock().expect("no panic happens under this lock");
            periods.entry((board.id.clone(), period.key.clone())).or_default().clone()
        };
        let ranks = cell.get_or_init(|| self.app.ranks_before(board, period, &self.ids)).await;
        ranks.as_ref().map(|ranks| ranks.as_ref().map(|ranks| ranks[index])).map_err(Clone::clone)
    }

    /// What the points of the product at `index` are made of, as it was read.
    pub async fn explanation(&self, reading: &Arc<Reading>, index: usize, points: Points) -> Result<Explanation> {
        for moment in [Moment::AsRead, Moment::Present] {
            let tally = self.tally(reading, moment).await?;
            if let Some(explanation) = tally.and_then(|tally| tally.explain(reading, &self.ids[index], points)) {
                return Ok(explanation);
            }
        }
        Err(AppError::Unavailable {
            reason: "what this score was made of is not at hand any more".to_owned(),
            retry_after_ms: EXPLAIN_RETRY_AFTER_MS,
        })
    }

    /// What all siblings were counted for.
    async fn tally(&self, reading: &Arc<Reading>, moment: Moment) -> Result<Option<Arc<Tally>>> {
        let cell = {
            let mut tallies = self.tallies.lock().expect("no panic happens under this lock");
            match tallies.iter().find(|(of, at, _)| *at == moment && of == reading) {
                Some((_, _, cell)) => cell.clone(),
                None => {
                    let cell = SharedTally::default();
                    tallies.push((reading.clone(), moment, cell.clone()));
                    cell
                }
            }
        };
        cell.get_or_init(|| self.app.tally(reading, &self.ids, moment)).await.clone()
    }
}

/// One sibling's part of an answer about all.
fn at<T: Clone>(answers: &Result<Vec<T>>, index: usize) -> Result<T> {
    match answers {
        Ok(answers) => Ok(answers[index].clone()),
        Err(error) => Err(error.clone()),
    }
}
