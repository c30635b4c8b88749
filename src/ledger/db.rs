//! The two databases behind one name, their pools, and the macros by which a block of diesel code serves both.
//!
//! `with_conn!(db, |conn| …)` reads, `in_snapshot!` reads several things as of one moment, and `in_tx!` writes, all or
//! nothing, and only while the ledger's lease, if this process has it, is still its own. Each expands its block once for each database, so the block may use whatever diesel offers for both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bb8::RunError;
use diesel::SqliteConnection;
use diesel_async::pooled_connection::bb8::{Pool as SqlitePool, PooledConnection as SqlitePooled};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::error::{LedgerError, Result};
use super::postgres::{CONNECT_TIMEOUT, Connector, Held};
use super::postgres_url::EXAMPLE;

pub(super) type SqliteConn = SyncConnectionWrapper<SqliteConnection>;

/// The database, for each purpose by connections of its own: a table that somebody has locked keeps those busy that read it,
/// and no others. SQLite has one set, whose readers wait for nobody.
#[derive(Clone)]
pub(super) struct Lanes {
    /// Answers to requests, and changes of admins.
    pub(super) requests: Arc<Db>,
    /// What must be known before a like or an event is taken.
    pub(super) intake: Arc<Db>,
    /// Commits and epochs.
    pub(super) sync: Arc<Db>,
    /// A node's own look at the ledger: heartbeats, the lease, clocks, definitions.
    pub(super) watch: Arc<Db>,
    /// Whole boards, results, verification and repair.
    pub(super) long: Arc<Db>,
}

/// How many connections to Postgres a purpose has, and how long one of its statements may take.
struct Lane {
    connections: u32,
    statement_timeout: Duration,
}

/// A little less than a request may take: nobody waits for the answer any longer.
const REQUESTS: Lane = Lane { connections: 4, statement_timeout: Duration::from_secs(14) };
/// Users are loaded by one query at a time, and beside it old events are looked up. Whoever asks waits for 2 s at most.
const INTAKE: Lane = Lane { connections: 2, statement_timeout: Duration::from_secs(2) };
/// Two sync tasks. The largest commit takes well under a second; on a disk that is so slow that it takes a minute nothing works
/// anyway.
const SYNC: Lane = Lane { connections: 2, statement_timeout: Duration::from_secs(60) };
/// A look and the clock beside it. Behind commits a heartbeat would come late, and others take over from whoever is not heard.
/// Each statement reads or writes a row or two.
const WATCH: Lane = Lane { connections: 2, statement_timeout: Duration::from_secs(5) };
/// Two whole boards at a time, and one connection for all else. The largest ledger that is verified is read through in less.
const LONG: Lane = Lane { connections: WHOLE_BOARDS_MAX as u32 + 1, statement_timeout: Duration::from_secs(3_600) };

/// Whole boards read at a time: each takes a connection for half a second and some 50 MB where it has 100,000 products.
pub(super) const WHOLE_BOARDS_MAX: usize = 2;

pub(super) enum Db {
    Postgres(Box<Postgres>),
    Sqlite(Sqlite),
}

pub(super) struct Postgres {
    pool: bb8::Pool<Connector>,
    /// Opens connections outside the pool.
    pub(super) connector: Connector,
    /// The lease's number while this process has, or believes to have, the ledger for itself; 0 for none. One for all lanes.
    fence: Arc<AtomicI64>,
}

pub(super) struct Sqlite {
    pub(super) file: PathBuf,
    /// SQLite lets one connection write at a time: queueing here for one beats queueing in SQLite's busy handler.
    writer: SqlitePool<SqliteConn>,
    readers: SqlitePool<SqliteConn>,
}

/// All lanes together; with seven nodes still below Postgres' default of 100.
pub(super) const POSTGRES_CONNECTIONS: u32 =
    REQUESTS.connections + INTAKE.connections + SYNC.connections + WATCH.connections + LONG.connections;
/// Readers never wait for the writer; each takes a thread while it reads.
const SQLITE_READERS: u32 = 4;
/// How long a write may wait for another process (a backup, `sqlite3` in a terminal) before it is told that the ledger
/// is locked, and for its turn among the writes of this one.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Lanes {
    pub(super) async fn connect(url: &str, ca_file: Option<&Path>) -> Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let connector = Connector::new(url, ca_file)?;
                // Once by hand, because a pool only says that it waited in vain.
                connector.expect_own_sessions().await?;
                let fence = Arc::new(AtomicI64::new(0));
                let lane =
                    |lane: &Lane| Arc::new(Db::Postgres(Box::new(Postgres::of(&connector, lane, Arc::clone(&fence)))));
                let (requests, intake, long) = (lane(&REQUESTS), lane(&INTAKE), lane(&LONG));
                Ok(Self { requests, intake, sync: lane(&SYNC), watch: lane(&WATCH), long })
            }
            Some("sqlite") => {
                let db = Arc::new(Db::Sqlite(Sqlite::connect(url).await?));
                let (intake, sync, long) = (Arc::clone(&db), Arc::clone(&db), Arc::clone(&db));
                Ok(Self { watch: Arc::clone(&db), requests: db, intake, sync, long })
            }
            Some(scheme) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Err(LedgerError::Internal(format!("{scheme}: is not a database Acclaim knows; {EXAMPLE}")))
            }
            _ => Err(LedgerError::Internal(format!("the database URL names no database; {EXAMPLE}"))),
        }
    }
}

impl Db {
    /// Where the two need different words.
    pub(super) fn either(&self, postgres: &'static str, sqlite: &'static str) -> &'static str {
        match self {
            Self::Postgres(_) => postgres,
            Self::Sqlite(_) => sqlite,
        }
    }
}

impl Postgres {
    fn of(connector: &Connector, lane: &Lane, fence: Arc<AtomicI64>) -> Self {
        let connector = connector.with_statement_timeout(lane.statement_timeout);
        let pool = bb8::Pool::builder()
            .max_size(lane.connections)
            .connection_timeout(CONNECT_TIMEOUT)
            .build_unchecked(connector.clone());
        Self { pool, connector, fence }
    }

    pub(super) fn fence(&self) -> i64 {
        self.fence.load(Ordering::Acquire)
    }

    pub(super) fn set_fence(&self, fence: i64) {
        self.fence.store(fence, Ordering::Release);
    }

    pub(super) async fn get(&self) -> Result<Held<'_>> {
        match self.pool.get().await {
            Ok(connection) => Ok(Held::new(connection, &self.connector)),
            Err(RunError::User(error)) => Err(error),
            Err(RunError::TimedOut) => Err(self.connector.out_of_reach()),
        }
    }
}

/// The file of a SQLite ledger that is not there: whoever connects makes it, if its folder is there.
pub fn missing_file(url: &str) -> Option<PathBuf> {
    let file = PathBuf::from(url.strip_prefix("sqlite://")?);
    let is_meant = !file.as_os_str().is_empty() && !url.contains(":memory:");
    let is_missing = file.try_exists().is_ok_and(|exists| !exists) && folder_of(&file).is_dir();
    (is_meant && is_missing).then_some(file)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Sqlite {
    async fn connect(url: &str) -> Result<Self> {
        let file = url.strip_prefix("sqlite://").unwrap_or_default();
        if file.is_empty() || file.contains(":memory:") || url.contains(":memory:") {
            return Err(LedgerError::Internal(format!(
                "{url} names no file, and the ledger is kept in one; for a passing one use sqlite:///tmp/acclaim.db"
            )));
        }
        let file = PathBuf::from(file);
        let folder = folder_of(&file);
        if !folder.is_dir() {
            return Err(LedgerError::Internal(format!(
                "the folder {} for the ledger {url} does not exist; create it, or name another file",
                folder.display()
            )));
        }
        make_private(&file);
        // Once by hand, as for Postgres.
        let deadline = tokio::time::Instant::now() + SQLITE_BUSY_TIMEOUT;
        while let Err(error) = open_sqlite(&file.to_string_lossy()).await {
            // Whoever opens a new file first turns its log on, and SQLite does not let the others wait for that.
            if !error.to_string().contains("locked") || tokio::time::Instant::now() > deadline {
                return Err(LedgerError::Internal(format!(
                    "the ledger file {} can not be opened: {error}",
                    file.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Locks are beside the file itself, by whatever link it was named.
        let file = file.canonicalize().unwrap_or(file);
        let pool = |size: u32| {
            let mut config = ManagerConfig::default();
            config.recycling_method = RecyclingMethod::Fast;
            config.custom_setup = Box::new(|file| open_sqlite(file).boxed());
            SqlitePool::builder()
                .max_size(size)
                .connection_timeout(SQLITE_BUSY_TIMEOUT)
                .build_unchecked(AsyncDieselConnectionManager::new_with_config(file.to_string_lossy(), config))
        };
        Ok(Self { writer: pool(1), readers: pool(SQLITE_READERS), file })
    }

    pub(super) async fn writer(&self) -> Result<SqlitePooled<'_, SqliteConn>> {
        self.writer.get().await.map_err(|error| self.no_connection(error))
    }

    pub(super) async fn reader(&self) -> Result<SqlitePooled<'_, SqliteConn>> {
        self.readers.get().await.map_err(|error| self.no_connection(error))
    }

    fn no_connection(&self, error: diesel_async::pooled_connection::bb8::RunError) -> LedgerError {
        LedgerError::Unavailable(format!("no connection to {}: {error}", self.file.display()))
    }
}

/// Makes a new ledger's file, for its owner alone: it names people and what they like. What SQLite puts beside a file has the
/// same permissions. One that is there keeps its own, and one that can't be made is met again by who opens it.
fn make_private(file: &Path) {
    let mut new = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
    drop(new.write(true).create_new(true).open(file));
}

/// Each connection's page cache: keys come in no order, so a commit touches pages all over the tables' trees, and those
/// of some hundred thousand likes fit into this.
const SQLITE_CACHE_KB: u32 = 64 * 1024;
/// Pages in the write-ahead log before it is brought into the file: 64 MB. At SQLite's own 1,000 every second or third
/// commit of a flood would wait for that.
const SQLITE_CHECKPOINT_PAGES: u32 = 16 * 1024;

/// Opens the file with what the ledger relies on: a write-ahead log, so that reading and writing do not wait for each
/// other, and a sync to the disk at each commit, because an answer COMMITTED must outlive a loss of power.
pub(super) async fn open_sqlite(file: &str) -> diesel::ConnectionResult<SqliteConn> {
    let mut conn = SqliteConn::establish(file).await?;
    let busy_ms = SQLITE_BUSY_TIMEOUT.as_millis();
    conn.batch_execute(&format!(
        "PRAGMA busy_timeout = {busy_ms}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{SQLITE_CACHE_KB};
         PRAGMA wal_autocheckpoint = {SQLITE_CHECKPOINT_PAGES}"
    ))
    .await
    .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Runs a write to its end even if its caller goes away: a cancelled request must not cut a transaction in half.
pub(super) async fn to_the_end<T, W>(write: W) -> Result<T>
where
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
{
    match tokio::spawn(write).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(LedgerError::Unavailable("the process is shutting down".to_owned())),
    }
}

/// How long a read goes on that nobody waits for any more. Cancelling it costs its connection, and a crowd that gives up at
/// the same moment, because the database is busy, would keep it busy with new connections. Nearly every read ends within this.
const UNWANTED_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs a read in a task of its own, which is cut off where its caller has gone away for a while.
pub(super) async fn while_wanted<T, R>(read: R) -> Result<T>
where
    T: Send + 'static,
    R: Future<Output = Result<T>> + Send + 'static,
{
    struct Wanted(Option<AbortHandle>);

    impl Drop for Wanted {
        fn drop(&mut self) {
            let Some(read) = self.0.take().filter(|read| !read.is_finished()) else { return };
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(async move {
                    tokio::time::sleep(UNWANTED_TIME_MAX).await;
                    read.abort();
                });
            }
        }
    }

    let task = tokio::spawn(read);
    let _wanted = Wanted(Some(task.abort_handle()));
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(LedgerError::Unavailable("the process is shutting down".to_owned())),
    }
}

/// SQL has no unsigned numbers. Epochs and sequences grow by one from 0, so the half above 2^63 is never reached.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back from [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

macro_rules! with_conn {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            $crate::ledger::db::Db::Postgres(postgres) => {
                let mut held = postgres.get().await?;
                let result: Result<_, $crate::ledger::error::Failure> = async {
                    let $conn = &mut held.diesel;
                    $body
                }
                .await;
                held.finish(result)
            }
            $crate::ledger::db::Db::Sqlite(sqlite) => {
                let mut held = sqlite.reader().await?;
                let result: Result<_, $crate::ledger::error::Failure> = async {
                    let $conn = &mut *held;
                    $body
                }
                .await;
                result.map_err(|failure| failure.explain(None))
            }
        }
    };
}

macro_rules! in_snapshot {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            $crate::ledger::db::Db::Postgres(postgres) => {
                let mut held = postgres.get().await?;
                let mut transaction = held.diesel.build_transaction().repeatable_read().read_only();
                let result = transaction.run::<_, $crate::ledger::error::Failure, _>(async |$conn| $body).await;
                held.finish(result)
            }
            $crate::ledger::db::Db::Sqlite(sqlite) => {
                use diesel_async::AsyncConnection;
                let mut held = sqlite.reader().await?;
                let result = held.transaction::<_, $crate::ledger::error::Failure, _>(async |$conn| $body).await;
                result.map_err(|failure| failure.explain(None))
            }
        }
    };
}

macro_rules! in_tx {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            $crate::ledger::db::Db::Postgres(postgres) => {
                use diesel_async::AsyncConnection;
                let mut held = postgres.get().await?;
                let (fence, mut ends) = (postgres.fence(), false);
                let result = held
                    .diesel
                    .transaction::<_, $crate::ledger::error::Failure, _>(async |$conn| {
                        $crate::ledger::lease::expect_mine(fence, $conn).await?;
                        let done: Result<_, $crate::ledger::error::Failure> = async { $body }.await;
                        ends = done.is_ok();
                        done
                    })
                    .await;
                if ends { held.finish_commit(result) } else { held.finish(result) }
            }
            $crate::ledger::db::Db::Sqlite(sqlite) => {
                let mut held = sqlite.writer().await?;
                let result =
                    held.immediate_transaction::<_, $crate::ledger::error::Failure, _>(async |$conn| $body).await;
                result.map_err(|failure| failure.explain(None))
            }
        }
    };
}

pub(super) use {in_snapshot, in_tx, with_conn};
