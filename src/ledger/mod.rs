//! The ledger: the SQL truth. Postgres, or SQLite when nothing is configured, behind the same functions.
//!
//! `Ledger` is the handle the rest of the crate works with; diesel appears only in this folder. `events` is append-only
//! and everything else about likes and scores is a fold of it, kept in the same transaction as the cursor up to which
//! the journal has been taken over.
//!
//! Invariants: an event's id is there once; `likes` and `activity` change only together with `cursors`, in one
//! transaction that compares the cursors first; a database that is away is never a reason to drop an entry.

mod activity;
mod audit;
mod boards;
mod catalogue;
mod check;
mod closed;
mod db;
mod dead_letters;
mod desk;
mod error;
mod examine;
mod heartbeats;
mod instant;
mod lease;
mod likes;
mod lock;
mod postgres;
mod postgres_url;
mod rejections;
mod repair;
mod results;
mod rules;
mod schema;
mod snapshot;
mod state;
mod statement;
mod stranded;
mod sync;
mod sync_postgres;
mod sync_sqlite;
mod tls;
mod wait;
mod wire;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::{
    Basis, Board, BoardId, Bucket, Cursors, Entry, EventId, Finding, IdempotencyKey, Money, Period, Place, Position,
    Product, ProductId, Rules, Timestamp, UserId,
};
use crate::engine::{LikeAnswer, Original, UserLikes};

pub use boards::BOARDS_MAX;
pub use check::{Difference, FoldCheck};
pub use closed::{ClosedPeriod, StoredEntries};
pub use db::missing_file;
use db::{Db, Lanes, WHOLE_BOARDS_MAX, to_the_end, while_wanted};
pub use dead_letters::DeadLetterKinds;
pub use desk::{
    AuditEntry, Author, CancelOutcome, NewProductRule, NewWeightRule, ReopenOutcome, Replayed, RuleOutcome,
    SaveOutcome, StoredDeadLetter,
};
pub use error::{LedgerError, Result};
pub use heartbeats::{Epoch, Heartbeat};
pub use lease::{Lease, RENEW_EVERY};
pub use lock::LedgerLock;
pub use rejections::{EventState, Rejection};
pub use results::KEPT_PLACES;
pub use snapshot::{ActivityRow, Pace, Snapshot, Wanted};
pub use sync::{Batch, Commit, DeadLetter, Refused};
pub use wait::name_long_wait;

/// Which database, from a URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LedgerKind {
    Sqlite,
    Postgres,
}

impl LedgerKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// The handle. Cheap to clone; connections are pooled.
#[derive(Clone)]
pub struct Ledger {
    lanes: Lanes,
    /// The lane of requests.
    db: Arc<Db>,
    /// Turns at reading whole boards.
    whole_boards: Arc<Semaphore>,
}

/// Where the ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerState {
    /// A random name of its own; a copy, and what is restored from a backup, has it too.
    pub id: String,
    pub epoch: u64,
    /// Drawn when the epoch began; `None` where an earlier version began it.
    pub history: Option<u64>,
    pub epoch_began_at: Timestamp,
    /// One for each partition.
    pub cursors: Cursors,
}

/// A board with what tells whether its generation is up to date.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardDefinition {
    pub board: Board,
    /// Grows with every reason to compute the board anew: another definition, a rule, a product that has moved, a refused
    /// event, a wish.
    pub revision: i64,
    /// Where the chain of closed periods begins, if somebody has asked for one.
    pub closed_from: Option<Timestamp>,
    /// Grows whenever an admin asks for the board anew: who was closing a period of it by then must not go on.
    pub reopened: i64,
}

/// Boards and rules, read together.
#[derive(Debug, Clone, PartialEq)]
pub struct Definitions {
    /// Hidden ones too, by id.
    pub boards: Vec<BoardDefinition>,
    pub rules: Rules,
}

impl Definitions {
    pub fn board(&self, id: &BoardId) -> Option<&BoardDefinition> {
        self.boards.iter().find(|definition| definition.board.id == *id)
    }
}

/// What an upsert of products did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upserted {
    /// Distinct ones.
    pub products: u64,
    /// Boards whose scope one of them has entered or left.
    pub boards: u64,
}

/// A product as producers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    pub id: ProductId,
    pub name: String,
    pub image_url: Option<String>,
    pub price: Option<Money>,
    pub category: Option<String>,
    pub brand: Option<String>,
}

/// A page of a keyset-paged list: `rows`, and whether more follow.
#[derive(Debug, Clone, PartialEq)]
pub struct KeysetPage<T> {
    pub rows: Vec<T>,
    pub has_more: bool,
}

impl<T> KeysetPage<T> {
    /// Of one row more than was asked for, if there was one.
    fn of(rows: impl IntoIterator<Item = T>, first: u32) -> Self {
        let mut rows: Vec<T> = rows.into_iter().collect();
        let has_more = rows.len() > first as usize;
        rows.truncate(first as usize);
        Self { rows, has_more }
    }
}

/// What was otherwise than the events say, and is so no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    pub likes: u64,
    /// Counts of a product's signal in a bucket and partition.
    pub activity: u64,
    /// Whose likes they were.
    pub users: Vec<UserId>,
}

impl Ledger {
    /// As [`Self::connect_trusting`], with the authorities that browsers trust.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_trusting(url, None).await
    }

    /// Opens the pools; `postgres://…`, `postgresql://…` or `sqlite://FILE`. Fails with a sentence that says why, with no password
    /// in it. Changes nothing in the database. With a file of authorities, Postgres must have a certificate of one of them.
    pub async fn connect_trusting(url: &str, ca_file: Option<&Path>) -> Result<Self> {
        let lanes = Lanes::connect(url, ca_file).await?;
        let whole_boards = Arc::new(Semaphore::new(WHOLE_BOARDS_MAX));
        Ok(Self { db: Arc::clone(&lanes.requests), lanes, whole_boards })
    }

    pub fn kind(&self) -> LedgerKind {
        match *self.db {
            Db::Postgres(_) => LedgerKind::Postgres,
            Db::Sqlite(_) => LedgerKind::Sqlite,
        }
    }

    /// Answers when the database does.
    pub async fn ping(&self) -> Result<()> {
        let db = Arc::clone(&self.lanes.watch);
        while_wanted(async move { state::ping(&db).await }).await
    }

    /// The database server's clock; `None` for a file, which has none.
    pub async fn clock(&self) -> Result<Option<Timestamp>> {
        let db = Arc::clone(&self.lanes.watch);
        while_wanted(async move { state::clock(&db).await }).await
    }

    /// Applies the migrations that are missing, under a lock; returns their names.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        let db = Arc::clone(&self.lanes.sync);
        to_the_end(async move { state::migrate(&db).await }).await
    }

    /// Waits for an exclusive lock of that name, across processes.
    pub async fn lock(&self, name: &str) -> Result<LedgerLock> {
        lock::lock(&self.lanes.sync, name).await
    }

    /// Takes the lock if it is free.
    pub async fn try_lock(&self, name: &str) -> Result<Option<LedgerLock>> {
        lock::try_lock(&self.lanes.sync, name).await
    }

    /// Sole use of the ledger, once nobody else has it; `None` where somebody has, and lives. Once it is lost every write fails.
    pub async fn take_lease(&self) -> Result<Option<Lease>> {
        lease::take(&self.lanes.sync).await
    }

    /// Whether nobody has the lease, and nobody who had it lives.
    pub async fn is_lease_free(&self) -> Result<bool> {
        lease::is_free(&self.lanes.sync).await
    }

    /// Says each [`RENEW_EVERY`] that the holder lives; false where somebody else has taken the lease.
    pub async fn renew_lease(&self) -> Result<bool> {
        lease::renew(&self.lanes.watch).await
    }

    /// Lets the next one have it at once.
    pub async fn release_lease(&self) -> Result<()> {
        lease::release(&self.lanes.sync).await
    }

    /// Epoch 0 and cursors at (0, 0) in a new ledger, which is given `partitions`; one without an id is given one. A
    /// ledger with another number of partitions is an `Internal` error that says what to set.
    pub async fn state(&self, partitions: u16) -> Result<LedgerState> {
        let db = Arc::clone(&self.lanes.watch);
        to_the_end(async move { state::state(&db, partitions).await }).await
    }

    /// Begins an epoch: it, a new history and all cursors at (epoch, 0), in one transaction; returns the history.
    pub async fn begin_epoch(&self, epoch: u64, at: Timestamp) -> Result<u64> {
        let db = Arc::clone(&self.lanes.sync);
        to_the_end(async move { state::begin_epoch(&db, epoch, at).await }).await
    }

    /// The partitions that it was begun with, and its id if it has one; `None` for a ledger that was never worked on.
    pub async fn begun_with(&self) -> Result<Option<(u16, Option<String>)>> {
        state::begun_with(&self.lanes.sync).await
    }

    /// A check-up of the database, without changing anything.
    pub async fn examine(&self) -> Result<Vec<Finding>> {
        let db = Arc::clone(&self.lanes.sync);
        to_the_end(async move { examine::examine(&db).await }).await
    }

    /// Says that a node works in an epoch with an engine; how often by now, `None` where the ledger is in another one, or another.
    pub async fn beat(&self, node: &str, engine: &str, epoch: &Epoch) -> Result<Option<i64>> {
        let db = Arc::clone(&self.lanes.watch);
        let (node, engine, epoch) = (node.to_owned(), engine.to_owned(), epoch.clone());
        to_the_end(async move { heartbeats::beat(&db, &node, &engine, &epoch).await }).await
    }

    /// The heartbeats of an epoch.
    pub async fn heartbeats(&self, epoch: u64) -> Result<Vec<Heartbeat>> {
        heartbeats::list(&self.lanes.watch, epoch).await
    }

    /// Puts a journal's entries, some thousand at most, that are not among the events into the dead letters; returns how many.
    pub async fn strand(&self, partition: u16, entries: &[Entry], at: Timestamp) -> Result<u64> {
        let (db, entries) = (Arc::clone(&self.lanes.sync), entries.to_vec());
        to_the_end(async move { stranded::strand(&db, partition, &entries, at).await }).await
    }

    // ------------------------------------------------------------ sync

    /// Commits batches of different partitions in one transaction, all or nothing. Refused events raise the revision of
    /// every board in that transaction. Entries that can't be stored go to the dead letters; should the database find
    /// one that this code did not foresee, the rest is committed around it in several transactions, in order.
    pub async fn commit(&self, batches: &[Batch]) -> Result<Commit> {
        sync::commit(&self.lanes.sync, batches).await
    }

    /// Raises the revision of every board, so that they are rebuilt.
    pub async fn revise_boards(&self) -> Result<()> {
        let db = Arc::clone(&self.lanes.sync);
        to_the_end(async move { boards::revise(&db).await }).await
    }

    // ------------------------------------------------------------ likes and events

    /// What the ledger has not taken of what the engine has, and the engine was not corrected of yet; the oldest 4,000.
    pub async fn rejections(&self) -> Result<Vec<Rejection>> {
        rejections::pending(&self.lanes.sync).await
    }

    /// Says that the engine is corrected of these.
    pub async fn settle_rejections(&self, settled: &[Rejection]) -> Result<()> {
        let (db, settled) = (Arc::clone(&self.lanes.sync), settled.to_vec());
        to_the_end(async move { rejections::settle(&db, &settled).await }).await
    }

    /// What the ledger has of entries that its cursors have passed, in the order asked.
    pub async fn event_states(&self, entries: &[(EventId, u16, Position)]) -> Result<Vec<EventState>> {
        let (db, entries) = (Arc::clone(&self.lanes.intake), entries.to_vec());
        while_wanted(async move { rejections::states(&db, &entries).await }).await
    }

    /// Likes and recent answers (events recorded at `since` or later) of users, in the order asked, in one query.
    /// `answers` are the last 16 of each user.
    pub async fn user_likes(&self, users: &[UserId], since: Timestamp) -> Result<Vec<UserLikes>> {
        self.first_user_likes(users, since, usize::MAX).await
    }

    /// As [`Self::user_likes`], at most so many likes of each.
    pub async fn first_user_likes(&self, users: &[UserId], since: Timestamp, first: usize) -> Result<Vec<UserLikes>> {
        let (db, users, first) =
            (Arc::clone(&self.lanes.intake), users.to_vec(), i64::try_from(first).unwrap_or(i64::MAX));
        while_wanted(async move { likes::user_likes(&db, &users, since, first).await }).await
    }

    /// When the user liked each product, in the order asked; `None` where the user does not like it.
    pub async fn liked_at(&self, user: &UserId, products: &[ProductId]) -> Result<Vec<Option<Timestamp>>> {
        let (db, user, products) = (Arc::clone(&self.db), user.clone(), products.to_vec());
        while_wanted(async move { likes::liked_at(&db, &user, &products).await }).await
    }

    /// What the user likes, newest first (then by product id, high to low), after a place in that order.
    pub async fn liked_products(
        &self,
        user: &UserId,
        after: Option<(Timestamp, ProductId)>,
        first: u32,
    ) -> Result<KeysetPage<(ProductId, Timestamp)>> {
        likes::liked_products(&self.db, user, after, first).await
    }

    /// How many products the user likes.
    pub async fn liked_count(&self, user: &UserId) -> Result<u64> {
        likes::liked_count(&self.db, user).await
    }

    /// Whether the user likes a product, and the entry that made it so; `None` where there never was one.
    pub async fn last_like(&self, user: &UserId, product: &ProductId) -> Result<Option<(bool, Position)>> {
        let (db, user, product) = (Arc::clone(&self.lanes.intake), user.clone(), product.clone());
        while_wanted(async move { likes::last_like(&db, &user, &product).await }).await
    }

    /// What a key of the user's was used for and the answer that it was given, however long ago, as the ledger has it.
    pub async fn answer(&self, user: &UserId, key: &IdempotencyKey) -> Result<Option<(ProductId, LikeAnswer)>> {
        let (db, id) = (Arc::clone(&self.lanes.intake), EventId::of_like(user, key));
        while_wanted(async move { likes::answer(&db, &id).await }).await
    }

    /// What is known of events; unknown ids are left out.
    pub async fn originals(&self, ids: &[EventId]) -> Result<Vec<(EventId, Original)>> {
        let (db, ids) = (Arc::clone(&self.lanes.intake), ids.to_vec());
        while_wanted(async move { likes::originals(&db, &ids).await }).await
    }

    // ------------------------------------------------------------ catalogue

    /// Unknown ids are left out; order is free.
    pub async fn products(&self, ids: &[ProductId]) -> Result<Vec<Product>> {
        let (db, ids) = (Arc::clone(&self.db), ids.to_vec());
        while_wanted(async move { catalogue::products(&db, &ids).await }).await
    }

    /// Inserts or replaces by id (the last of a repeated id wins), and revises the boards whose scope they enter or leave.
    pub async fn upsert_products(&self, products: &[NewProduct], at: Timestamp) -> Result<Upserted> {
        let (db, products) = (Arc::clone(&self.db), products.to_vec());
        to_the_end(async move { catalogue::upsert_products(&db, &products, at).await }).await
    }

    // ------------------------------------------------------------ boards

    pub async fn definitions(&self) -> Result<Definitions> {
        boards::definitions(&self.lanes.watch).await
    }

    /// As [`Self::definitions`], read as far as they differ from those that are known; `None` where they do not.
    pub async fn definitions_since(&self, known: &Definitions) -> Result<Option<Definitions>> {
        boards::definitions_since(&self.lanes.watch, known).await
    }

    /// The boards that were deleted, and not made anew since.
    pub async fn deleted_boards(&self) -> Result<Vec<BoardId>> {
        boards::deleted_boards(&self.db).await
    }

    /// The products in a board's scope; empty, and not looked up, where that is every product.
    pub async fn members(&self, board: &Board) -> Result<HashSet<ProductId>> {
        if board.scope.is_all() {
            return Ok(HashSet::new());
        }
        Ok(self.snapshot(Wanted::of(board)).await?.members)
    }

    /// All that a board is computed from, with the cursors it belongs to, in one snapshot. Whole boards wait for their turn.
    pub async fn snapshot(&self, wanted: Wanted<'_>) -> Result<Snapshot> {
        if wanted.products.is_some() {
            return snapshot::snapshot(&self.db, wanted).await;
        }
        let _turn = self.whole_boards.acquire().await.expect("nobody closes it");
        snapshot::snapshot(&self.lanes.long, wanted).await
    }

    // ------------------------------------------------------------ closed periods

    /// Whether a period's results are written.
    pub async fn has_results(&self, board: &BoardId, period: &str) -> Result<bool> {
        results::has_results(&self.db, board, period).await
    }

    /// When the latest of the board's closed periods that had ended at an instant did so.
    pub async fn latest_close(&self, board: &BoardId, by: Timestamp) -> Result<Option<Timestamp>> {
        results::latest_close(&self.db, board, by).await
    }

    /// The first bucket from `from` on in which anything was counted.
    pub async fn next_active(&self, from: Bucket) -> Result<Option<Bucket>> {
        results::next_active(&self.db, from).await
    }

    /// Writes a closed period's results under the rules of `basis`, best first, and cuts older periods of the board to
    /// their first 1,000, but for those that a carry to a period without results begins with; does nothing and says false where they are written already. `Rejected` where the board was
    /// deleted, or its periods taken back, since it was read. One transaction.
    pub async fn write_results(
        &self,
        definition: &BoardDefinition,
        period: &Period,
        places: &[Place],
        basis: Basis,
    ) -> Result<bool> {
        let (db, places) = (Arc::clone(&self.lanes.long), places.to_vec());
        let (definition, period) = (definition.clone(), period.clone());
        to_the_end(async move { results::write_results(&db, &definition, &period, &places, basis).await }).await
    }

    /// A closed period's results, best first.
    pub async fn results(&self, board: &BoardId, period: &str, first: u32) -> Result<Vec<Place>> {
        results::results(&self.db, board, period, first).await
    }

    // ------------------------------------------------------------ checks

    /// I3 and I4 for likes: events of a (user, product) alternate from +1, and `likes` is what they come to.
    pub async fn check_likes(&self) -> Result<FoldCheck> {
        check::likes(&self.lanes.long).await
    }

    /// I4 for activity: the table equals the sum of the events.
    pub async fn check_activity(&self) -> Result<FoldCheck> {
        check::activity(&self.lanes.long).await
    }

    /// Sets likes and activity to what the events come to, and has every board computed anew, in one transaction for which
    /// commits wait.
    pub async fn repair(&self, author: &Author) -> Result<Repaired> {
        let (db, author) = (Arc::clone(&self.lanes.long), author.clone());
        to_the_end(async move { repair::repair(&db, &author).await }).await
    }

    /// How many entries stand in the dead letters.
    pub async fn dead_letter_count(&self) -> Result<u64> {
        check::dead_letter_count(&self.db).await
    }

    /// What kinds of dead letters there are, at a cost that does not grow with them.
    pub async fn dead_letter_kinds(&self) -> Result<DeadLetterKinds> {
        dead_letters::kinds(&self.db).await
    }
}
