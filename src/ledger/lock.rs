//! Exclusive locks across processes for the length of a step, such as a migration: an advisory lock of a connection of its own
//! on Postgres, a locked file beside the database on SQLite. Both end with the process that holds them.
//!
//! A lock spares two processes the same work, and nothing more: Postgres may be restarted while it is held, and then it is gone. What
//! must hold all the same is checked in the transaction that writes, as `begin_epoch` compares the epoch. Sole use of the
//! ledger, which lasts, is a lease (`lease.rs`).

use std::fs::{File, TryLockError};
use std::time::Duration;

use diesel::sql_types::{BigInt, Bool, Integer};
use diesel_async::RunQueryDsl;

use super::db::{Db, Sqlite};
use super::error::{LedgerError, Result};
use super::postgres::PgConnection;
use super::statement::Statement;

/// An exclusive lock, held until dropped (or until the process dies).
pub struct LedgerLock {
    _holder: Holder,
}

enum Holder {
    Connection(Box<PgConnection>),
    File(File),
}

/// How often a waiting node asks again. Asking, rather than blocking in the database or the kernel, lets go at once when
/// the caller gives up; a lock is held for seconds, so a twentieth of one is soon enough.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A wait that goes on longer is told in the log, with who holds the lock.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// Who holds an advisory lock of 64 bits, which Postgres lists in two halves.
const OWNER: &str = "
    SELECT pid AS pid
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (CAST(CAST(classid AS BIGINT) AS BIT(32)) || CAST(CAST(objid AS BIGINT) AS BIT(32))) = CAST({key} AS BIT(64))";

pub(super) async fn lock(db: &Db, name: &str) -> Result<LedgerLock> {
    let mut holder = Holder::new(db, name).await?;
    let mut waited = Duration::ZERO;
    while !holder.take(name).await? {
        tokio::time::sleep(ASK_AGAIN).await;
        waited += ASK_AGAIN;
        if waited == NAMED_AFTER {
            tracing::warn!("waiting for the lock {name:?}: {}", holder.owner(name).await);
        }
    }
    Ok(LedgerLock { _holder: holder })
}

pub(super) async fn try_lock(db: &Db, name: &str) -> Result<Option<LedgerLock>> {
    let mut holder = Holder::new(db, name).await?;
    Ok(holder.take(name).await?.then_some(LedgerLock { _holder: holder }))
}

#[derive(diesel::QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    taken: bool,
}

#[derive(diesel::QueryableByName)]
struct Owner {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Other programs may lock numbers in the same database; 64 bits of a hash keep out of their way.
fn key_of(name: &str) -> i64 {
    xxhash_rust::xxh3::xxh3_64(format!("acclaim:{name}").as_bytes()) as i64
}

impl Holder {
    async fn new(db: &Db, name: &str) -> Result<Self> {
        match db {
            Db::Postgres(postgres) => Ok(Self::Connection(Box::new(postgres.connector.open().await?))),
            Db::Sqlite(sqlite) => open_file(sqlite, name).map(Self::File),
        }
    }

    async fn take(&mut self, name: &str) -> Result<bool> {
        match self {
            Self::Connection(connection) => {
                let ask = Statement::new("SELECT pg_try_advisory_lock({key}) AS taken").bind::<BigInt, _>(key_of(name));
                let answer: Result<Taken, _> = ask.get_result(&mut connection.diesel).await;
                answer.map(|row| row.taken).map_err(|error| connection.explain(error.into()))
            }
            Self::File(file) => match file.try_lock() {
                Ok(()) => Ok(true),
                Err(TryLockError::WouldBlock) => Ok(false),
                Err(TryLockError::Error(error)) => Err(LedgerError::Unavailable(format!("the lock {name}: {error}"))),
            },
        }
    }

    /// Who holds it, for the log.
    async fn owner(&mut self, name: &str) -> String {
        let Self::Connection(connection) = self else { return "another process holds it".to_owned() };
        let ask = Statement::new(OWNER).bind::<BigInt, _>(key_of(name));
        let owner: Option<Owner> = ask.get_result(&mut connection.diesel).await.ok();
        owner.map_or("another session of Postgres holds it".to_owned(), |Owner { pid }| {
            format!(
                "session {pid} of Postgres holds it; where no other server is starting, it was left behind: end it with \
                 SELECT pg_terminate_backend({pid})"
            )
        })
    }
}

/// `<database file>.<name>.lock`. Never removed: a lock on a removed file would exclude nobody.
fn open_file(sqlite: &Sqlite, name: &str) -> Result<File> {
    let mut path = sqlite.file.clone().into_os_string();
    path.push(format!(".{name}.lock"));
    File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| {
        LedgerError::Unavailable(format!("the lock file {} can not be opened: {error}", path.display()))
    })
}
