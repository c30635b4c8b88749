//! What follows the journal, and the ways in and out of it.
//!
//! [`App`] is a node's state. Its methods are what the API calls: `intake` (likes), `record` (events), `read` (boards and
//! counts), `periods` (closed ones), `explain`, `preview`, `desk` (what admins do), `system` and `verify`. Beside it runs
//! the background work that `lead` owns: `recover`, `sync`, `project` with `rebuild` and `roll`.
//!
//! Invariant: nothing here writes to engine or ledger but by steps that compare a cursor, an epoch or a version first.

mod agreement;
mod alive;
mod alone;
mod between;
mod catalogue;
mod chain;
mod clock;
mod desk;
mod doubt;
mod epoch;
mod error;
mod explain;
mod fault;
mod intake;
mod lead;
mod lengthy;
mod metrics;
mod notices;
mod periods;
mod preview;
mod progress;
mod project;
mod read;
mod rebuild;
mod record;
mod recover;
mod roll;
mod shared;
mod sync;
mod system;
mod tail;
mod together;
mod verify;
mod verify_held;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::{
    Basis, Board, BoardId, Cursors, Period, Points, Preview, Product, ProductId, Rows, Timestamp, UserId,
};
use crate::engine::{Engine, JournalReader};
use crate::ledger::{
    Definitions, Epoch, KeysetPage, Lease, Ledger, LedgerError, NewProduct, Repaired, Upserted, name_long_wait,
};
pub use clock::ClockOffsets;
pub use error::{AppError, Result};
pub use explain::{Moment, Tally};
pub use intake::LikeResult;
pub use metrics::{Counted, Metrics};
pub use periods::{Found, Meant};
pub use preview::Trial;
pub use project::project;
pub use read::like_count;
pub use record::{EventResult, NewEvent, Recorder};
pub use sync::sync;
pub use system::{EngineState, Gauges, Lags, LedgerState, System, examine_lag, examine_owner};

use catalogue::Catalogue;
use clock::Time;
use error::RETRY_AFTER_MS;
use explain::TallyKey;
use lengthy::Lengthy;
use periods::ClosedBoards;
use preview::PreviewKey;
use progress::Waits;
use read::LedgerBoards;
use shared::Shared;
use together::{BATCH_LEN_MAX, Loaded, Together};

/// Where the node has the time from; tests set their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How the node behaves.
#[derive(Clone)]
pub struct Settings {
    /// How long a like waits for the ledger before it is answered ACCEPTED.
    pub ack_timeout: Duration,
    /// How often changed boards are published.
    pub tick: Duration,
    pub clock: Clock,
    /// Whether time is the ledger's, as a server's is; those who set their own clock have it for themselves.
    pub follows_ledger_clock: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_millis(250),
            tick: Duration::from_millis(100),
            clock: Arc::new(Timestamp::now),
            follows_ledger_clock: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    Accepted,
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Engine,
    /// Computed from the ledger.
    Ledger,
    /// Stored when the period was closed.
    Results,
}

/// How fresh an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    pub source: Source,
    pub as_of: Timestamp,
    pub degraded: bool,
}

/// What an answer about a board was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub board: Arc<Board>,
    pub period: Period,
    pub freshness: Freshness,
    /// The rules that the points were computed under.
    pub basis: Basis,
    /// What had been counted. Empty for results that were stored when the period was closed.
    pub cursors: Cursors,
}

impl Reading {
    /// Whether this is about a closed period, and not about what the board shows: what is computed from the ledger in
    /// place of what the board shows is marked degraded.
    pub fn is_closed(&self) -> bool {
        match self.freshness.source {
            Source::Engine => false,
            Source::Ledger => !self.freshness.degraded,
            Source::Results => true,
        }
    }

    /// The score that is shown for points.
    pub fn score(&self, points: Points) -> Points {
        self.board.score(&self.period, points, self.freshness.as_of)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct BoardPage {
    pub reading: Reading,
    pub rows: Rows,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BoardEntries {
    pub reading: Reading,
    /// Rank and points, in the order asked; `None` for a product that is not on the board.
    pub entries: Vec<Option<(u64, Points)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyTarget {
    Likes,
    Activity,
    /// Users' likes as the engine holds them.
    LoadedLikes,
    Board,
}

/// One difference. Counts for likes and activity; points for boards.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRow {
    pub target: VerifyTarget,
    pub board: Option<BoardId>,
    pub product: ProductId,
    pub user: Option<UserId>,
    pub expected: f64,
    pub actual: f64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct VerifyReport {
    pub checked: u64,
    pub differing: u64,
    /// The first 100.
    pub rows: Vec<VerifyRow>,
}

/// Whether a part answers and takes what is written, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub engine: Result<(), String>,
    /// Whether the engine answers and has no memory left.
    pub is_full: bool,
    pub ledger: Result<(), String>,
}

/// A node's state. Shared behind an `Arc`.
pub struct App {
    /// For tasks that outlive the call which begins them.
    me: Weak<Self>,
    engine: Arc<dyn Engine>,
    ledger: Ledger,
    /// As [`crate::ledger::LedgerState::id`].
    ledger_id: String,
    settings: Settings,
    time: Time,
    /// This node's name among the owners of leases.
    node: String,
    /// `None` while the node recovers.
    epoch: watch::Sender<Option<u64>>,
    /// The epoch that this node took up last.
    begun: std::sync::Mutex<Epoch>,
    epoch_began_at_ms: AtomicI64,
    definitions: watch::Sender<Arc<Definitions>>,
    waits: Waits,
    /// Whether the last commit failed, so that nobody waits for the next.
    sync_failing: AtomicBool,
    /// Sync tasks of this node whose last attempt the ledger has failed.
    failing_syncs: AtomicUsize,
    /// Whether the ledger did not answer this node's last look: another node may be the one that commits.
    ledger_silent: AtomicBool,
    /// Users on their first touch, to be loaded into the engine.
    loads: Together<UserId, Loaded>,
    /// Those of them who like so much that they would hold up the others.
    heavy_loads: Together<UserId, ()>,
    /// Products whose count of likes an answer waits for.
    counts: Together<ProductId, u64>,
    catalogue: Catalogue,
    metrics: Arc<Metrics>,
    ledger_boards: LedgerBoards,
    verifying: Lengthy<Option<BoardId>, VerifyReport>,
    repairing: Lengthy<(), Repaired>,
    closed_boards: ClosedBoards,
    tallies: Shared<TallyKey, Option<Arc<Tally>>>,
    previews: Shared<PreviewKey, Arc<Preview>>,
    /// Reads the journal for requests; `None` until one needs it.
    reader: tokio::sync::Mutex<Option<Box<dyn JournalReader>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Sole use of a ledger whose engine is this process's memory.
    lease: Option<Lease>,
}

impl App {
    /// Starts a node: recovery, then the background work. Returns when likes and events are taken; boards that must be
    /// rebuilt are answered from the ledger until they are.
    pub async fn start(engine: Arc<dyn Engine>, ledger: Ledger, settings: Settings) -> Result<Arc<Self>> {
        let app = Self::open(engine, ledger, settings).await?;
        app.spawn(lead::run(app.clone()));
        Ok(app)
    }

    /// A node that takes likes and events but does no background work, for whoever drives [`sync`] and [`project`]
    /// by themselves.
    pub async fn open(engine: Arc<dyn Engine>, ledger: Ledger, settings: Settings) -> Result<Arc<Self>> {
        let lease = alone::take(engine.as_ref(), &ledger).await?;
        let node = format!("{:016x}", rand::random::<u64>());
        let recovery = async {
            let id = ledger.state(engine.limits().partitions).await?.id;
            engine.speak_for(&id);
            recover::recover(engine.as_ref(), &ledger, &node).await
        };
        let start = async {
            let epoch = name_long_wait("engine and ledger to be brought to one epoch", recovery).await?;
            let definitions = name_long_wait("the ledger to tell its boards", ledger.definitions()).await?;
            Ok::<_, fault::Fault>((epoch, definitions))
        };
        let (epoch, definitions) = match alone::renewing(&ledger, lease.as_ref(), start).await {
            Ok(known) => known,
            Err(fault) => {
                alone::release(&ledger, lease.as_ref()).await;
                return Err(fault.into());
            }
        };
        let ledger_id = epoch.ledger.clone();
        let time = Time::new(settings.clock.clone(), settings.follows_ledger_clock);
        time.compare(engine.as_ref(), &ledger).await;
        let (loads, loading) = Together::new();
        let (heavy_loads, loading_heavy) = Together::new();
        let (counts, counting) = Together::new();
        let app = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            waits: Waits::new(engine.limits().partitions),
            catalogue: Catalogue::new(ledger.clone()),
            engine,
            ledger,
            ledger_id,
            settings,
            time,
            node,
            epoch: watch::Sender::new(None),
            begun: std::sync::Mutex::new(epoch.clone()),
            epoch_began_at_ms: AtomicI64::new(i64::MAX),
            definitions: watch::Sender::new(Arc::new(definitions)),
            sync_failing: AtomicBool::new(false),
            failing_syncs: AtomicUsize::new(0),
            ledger_silent: AtomicBool::new(false),
            loads,
            heavy_loads,
            counts,
            metrics: Arc::default(),
            ledger_boards: LedgerBoards::default(),
            verifying: Lengthy::default(),
            repairing: Lengthy::default(),
            closed_boards: ClosedBoards::default(),
            tallies: Shared::new(explain::TALLIES_AT_ONCE),
            previews: Shared::new(preview::PREVIEWS_AT_ONCE),
            reader: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            lease,
        });
        app.begin(epoch).await;
        app.spawn(together::answer(app.clone(), loading, BATCH_LEN_MAX, together::load_users));
        app.spawn(together::answer(app.clone(), loading_heavy, 1, together::load_heavy_users));
        app.spawn(together::answer(app.clone(), counting, BATCH_LEN_MAX, together::count_likes));
        app.spawn(notices::listen(app.clone()));
        app.spawn(notices::look(app.clone()));
        if app.lease.is_some() {
            app.spawn(alone::keep(app.clone()));
        }
        Ok(app)
    }

    /// Runs a task that ends by itself when the node stops; [`Self::stop`] awaits it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Stops the background work once what is in the journal is in the ledger, or after `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("the journal could not be synced in time; the next start takes it over");
        }
        alone::release(&self.ledger, self.lease.as_ref()).await;
    }

    /// Whether this node commits, as far as it does so. A ledger that is only read (no rights, no space) takes nothing.
    pub fn commits(&self) -> bool {
        self.failing_syncs.load(Ordering::Relaxed) == 0
    }

    /// Whether engine and ledger answer within a limit, each by itself.
    pub async fn readiness(&self, limit: Duration) -> Readiness {
        let silent = |_| Err(format!("no answer within {} ms", limit.as_millis()));
        let engine = async {
            let memory = self.engine.memory().await.map_err(|error| error.to_string())?;
            self.epoch().map_err(|error| error.to_string())?;
            Ok(memory.is_some_and(|memory| memory.is_full))
        };
        let ledger = async { self.ledger.ping().await.map_err(|error| error.to_string()) };
        let (engine, ledger) = tokio::join!(timeout(limit, engine), timeout(limit, ledger));
        let engine = engine.unwrap_or_else(|late| silent(late).map(|()| false));
        let is_full = engine == Ok(true);
        let engine = engine.and_then(|is_full| match is_full {
            true => Err("its memory is full: likes and events are refused".to_owned()),
            false => Ok(()),
        });
        Readiness { engine, is_full, ledger: ledger.unwrap_or_else(silent) }
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the node counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How often changed boards are published.
    pub fn tick(&self) -> Duration {
        self.settings.tick
    }

    /// The epoch this node works in; `Unavailable` while it recovers.
    pub fn epoch(&self) -> Result<u64> {
        (*self.epoch.borrow()).ok_or_else(|| AppError::Unavailable {
            reason: "the engine is being recovered".into(),
            retry_after_ms: RETRY_AFTER_MS,
        })
    }

    /// Ends when the node stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Boards and rules as this node knows them.
    pub fn definitions(&self) -> Arc<Definitions> {
        self.definitions.borrow().clone()
    }

    /// Told whenever boards or rules change.
    pub fn follow_definitions(&self) -> watch::Receiver<Arc<Definitions>> {
        self.definitions.subscribe()
    }

    /// A visible board's definition.
    pub fn board(&self, id: &BoardId) -> Option<Arc<Board>> {
        let definitions = self.definitions();
        let found = definitions.board(id).filter(|_| !id.is_hidden())?;
        Some(Arc::new(found.board.clone()))
    }

    /// Inserts or replaces products; returns how many.
    pub async fn upsert_products(&self, products: &[NewProduct]) -> Result<u64> {
        let Upserted { products: upserted, boards } = self.ledger.upsert_products(products, self.now()).await?;
        self.catalogue.forget(products.iter().map(|product| &product.id));
        if boards > 0 {
            // The products are in the ledger, and only the answer fails.
            self.tell_definitions().await.map_err(|error| doubt::unknown(error.into()))?;
        }
        Ok(upserted)
    }

    /// In the order asked; `None` for an unknown id. At most one look-up in the ledger, none when all are remembered.
    pub async fn products(&self, ids: &[ProductId]) -> Result<Vec<Option<Arc<Product>>>> {
        Ok(self.catalogue.products(ids).await?)
    }

    /// How often the catalogue was looked up in the ledger.
    pub fn product_lookups(&self) -> u64 {
        self.catalogue.lookups()
    }

    /// What the user likes, newest first, and how many in all.
    pub async fn liked_products(
        &self,
        user: &UserId,
        after: Option<(Timestamp, ProductId)>,
        first: u32,
    ) -> Result<(KeysetPage<(ProductId, Timestamp)>, u64)> {
        let page = self.ledger.liked_products(user, after, first).await?;
        Ok((page, self.ledger.liked_count(user).await?))
    }

    /// Whether a like would wait for the ledger in vain.
    fn is_ledger_away(&self) -> bool {
        self.sync_failing.load(Ordering::Relaxed) || self.ledger_silent.load(Ordering::Relaxed)
    }

    fn epoch_began_at(&self) -> Timestamp {
        Timestamp::from_ms(self.epoch_began_at_ms.load(Ordering::Relaxed))
    }

    /// Reads boards, and rules that are not known yet.
    async fn refresh_definitions(&self) -> Result<(), LedgerError> {
        let known = self.definitions();
        if let Some(definitions) = self.ledger.definitions_since(&known).await? {
            self.take_definitions(definitions);
        }
        Ok(())
    }

    fn take_definitions(&self, definitions: Definitions) {
        self.definitions.send_if_modified(|known| {
            let changed = **known != definitions;
            if changed {
                *known = Arc::new(definitions);
            }
            changed
        });
    }
}
