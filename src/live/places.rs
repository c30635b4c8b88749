//! The places of single products, for those who follow a product and not a board's top.
//!
//! A published state holds the first places only, so these are read: for all products that anybody on this node follows,
//! together, and only after the boards have moved.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::domain::{BoardId, Points, ProductId};
use crate::pipeline::{App, BoardEntries};

/// How often places are read at most: twice as often as a subscriber is told unless it asks for more.
const READ_EVERY: Duration = Duration::from_millis(250);
/// Products in one read: some 2 ms of Redis' time.
const READ_LEN_MAX: usize = 1_000;

/// Products followed by all subscribers of a node: reading them all takes some 40 ms of Redis' time, four times a second.
pub const FOLLOWED_MAX: usize = 20_000;

/// Products that one caller may follow on a node: as many as one socket's 20 subscriptions of 100, so that it takes ten callers
/// who go to their limit before others have to do without.
pub const FOLLOWED_PER_CALLER_MAX: usize = 2_000;

/// The node follows [`FOLLOWED_MAX`] products already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this server follows as many single products as it may")]
pub struct TooManyFollowed;

/// Rank and the score that was shown when this was read; `None` for a product that is not on the board.
pub type Place = Option<(u64, Points)>;

#[derive(Default)]
pub struct Places {
    boards: Mutex<HashMap<BoardId, Followed>>,
    moved: Arc<Notify>,
}

struct Followed {
    products: BTreeMap<ProductId, Known>,
    /// Changes whenever something was read that differs.
    read: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    followers: usize,
    /// `None` until it was first read.
    place: Option<Place>,
    /// Rank and points, which stay while the score of a board with a half-life fades.
    read: Option<(u64, Points)>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<BoardId, Followed>> {
        self.boards.lock().expect("nothing panics while it holds the places")
    }

    /// The boards may have moved.
    pub fn suspect(&self) {
        self.moved.notify_one();
    }

    /// Begins to follow products; told by the receiver's changes, which end when the board is deleted.
    pub fn follow(
        &self,
        app: &App,
        board: &BoardId,
        products: &[ProductId],
    ) -> Result<watch::Receiver<()>, TooManyFollowed> {
        let mut boards = self.lock();
        if app.definitions().board(board).is_none() {
            return Ok(watch::channel(()).1);
        }
        let followed: usize = boards.values().map(|followed| followed.products.len()).sum();
        if followed + products.len() > FOLLOWED_MAX {
            return Err(TooManyFollowed);
        }
        let new = || Followed { products: BTreeMap::new(), read: watch::Sender::new(()) };
        let followed = boards.entry(board.clone()).or_insert_with(new);
        for product in products {
            followed.products.entry(product.clone()).or_default().followers += 1;
        }
        self.suspect();
        Ok(followed.read.subscribe())
    }

    /// Ends what `read` was given for.
    pub fn leave(&self, board: &BoardId, products: &[ProductId], read: &watch::Receiver<()>) {
        let mut boards = self.lock();
        // A board that was deleted and made anew is followed by others.
        let Some(followed) = boards.get_mut(board).filter(|it| it.read.subscribe().same_channel(read)) else { return };
        for product in products {
            if let Some(known) = followed.products.get_mut(product) {
                known.followers -= 1;
            }
        }
        followed.products.retain(|_, known| known.followers > 0);
        if followed.products.is_empty() {
            boards.remove(board);
        }
    }

    /// Forgets the other boards.
    pub fn retain(&self, is_kept: impl Fn(&BoardId) -> bool) {
        self.lock().retain(|board, _| is_kept(board));
    }

    /// What is known of products, in the order asked; `None` for one that was not read yet.
    pub fn of(&self, board: &BoardId, products: &[ProductId]) -> Vec<Option<Place>> {
        let boards = self.lock();
        let known = |product| boards.get(board)?.products.get(product)?.place;
        products.iter().map(known).collect()
    }

    /// Reads places whenever boards may have moved.
    pub async fn keep_read(&self, app: &App) {
        loop {
            self.moved.notified().await;
            for (board, products) in self.followed() {
                for products in products.chunks(READ_LEN_MAX) {
                    match app.places(&board, products).await {
                        Ok(places) => self.take(&board, products, &places),
                        // Whatever was away comes back with a notice, or is looked for after a silence.
                        Err(error) => tracing::debug!(%board, "places can't be read: {error}"),
                    }
                }
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn followed(&self) -> Vec<(BoardId, Vec<ProductId>)> {
        let boards = self.lock();
        boards.iter().map(|(board, followed)| (board.clone(), followed.products.keys().cloned().collect())).collect()
    }

    fn take(&self, board: &BoardId, products: &[ProductId], BoardEntries { reading, entries }: &BoardEntries) {
        let mut boards = self.lock();
        let Some(followed) = boards.get_mut(board) else { return };
        let mut has_changed = false;
        for (product, read) in products.iter().zip(entries) {
            let Some(known) = followed.products.get_mut(product) else { continue };
            if known.place.is_some() && known.read == *read {
                continue;
            }
            known.read = *read;
            known.place = Some(read.map(|(rank, points)| (rank, reading.score(points))));
            has_changed = true;
        }
        if has_changed {
            followed.read.send_replace(());
        }
    }
}
