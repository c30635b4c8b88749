//! Sole use of the ledger, for an engine in one process's memory: a lease in a row of its own on Postgres, a locked file on
//! SQLite.
//!
//! A session of Postgres ends when the server is restarted or the network breaks, and a lock that it held is gone without its
//! holder hearing of it. So the holder renews the lease, and every write checks the lease's number (the fence) in its own
//! transaction. The kernel keeps the lock on a file as long as the process lives: SQLite needs neither.

use std::time::Duration;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::Instant;

use super::db::{Db, Postgres};
use super::error::{Failure, LedgerError, Result};
use super::lock::{LedgerLock, try_lock};
use super::schema::lease;

/// How often the holder renews the lease.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A lease that somebody has watched this long without a renewal has ended. Its holder has then had time to connect again
/// to a Postgres that was restarted, and to try a second time.
const ENDS_AFTER: Duration = Duration::from_secs(5);
/// How long a locked file may stay locked: servers on one Redis hold it for a moment when they start.
const FILE_WAIT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Sole use of the ledger, until [`super::Ledger::release_lease`] or the process's end; or until it is lost, of which
/// [`super::Ledger::renew_lease`] tells.
pub struct Lease {
    _file: Option<LedgerLock>,
}

/// What a look at a held lease shows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Held {
    fence: i64,
    renewals: i64,
}

/// The lease, once it is free; `None` as soon as it is seen that its holder lives.
pub(super) async fn take(db: &Db) -> Result<Option<Lease>> {
    match db {
        Db::Postgres(postgres) => take_row(postgres).await,
        Db::Sqlite(_) => {
            let deadline = Instant::now() + FILE_WAIT;
            loop {
                match try_lock(db, "memory-engine").await? {
                    Some(file) => return Ok(Some(Lease { _file: Some(file) })),
                    None if Instant::now() > deadline => return Ok(None),
                    None => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        }
    }
}

async fn take_row(postgres: &Postgres) -> Result<Option<Lease>> {
    let mut watched: Option<(Held, Instant)> = None;
    loop {
        let ended = watched.filter(|(_, since)| since.elapsed() >= ENDS_AFTER).map(|(held, _)| held);
        if claim(postgres, ended).await? {
            return Ok(Some(Lease { _file: None }));
        }
        let held = look(postgres).await?;
        match watched {
            Some((before, _)) if before == held => {}
            // Whoever holds it for the moment of a start never renews it.
            Some((before, _)) if before.fence == held.fence => return Ok(None),
            _ => watched = Some((held, Instant::now())),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Takes the lease if it is free, or still as it was when it ended.
async fn claim(postgres: &Postgres, ended: Option<Held>) -> Result<bool> {
    let ended = ended.unwrap_or(Held { fence: -1, renewals: -1 });
    let free = lease::held.eq(false).or(lease::fence.eq(ended.fence).and(lease::renewals.eq(ended.renewals)));
    let mut held = postgres.get().await?;
    let fence: QueryResult<Option<i64>> = diesel::update(lease::table.filter(free))
        .set((lease::fence.eq(lease::fence + 1_i64), lease::renewals.eq(0_i64), lease::held.eq(true)))
        .returning(lease::fence)
        .get_result(&mut held.diesel)
        .await
        .optional();
    let fence = held.finish(fence.map_err(Failure::from))?;
    if let Some(fence) = fence {
        postgres.set_fence(fence);
    }
    Ok(fence.is_some())
}

async fn look(postgres: &Postgres) -> Result<Held> {
    let mut held = postgres.get().await?;
    let row: QueryResult<(i64, i64)> =
        lease::table.select((lease::fence, lease::renewals)).first(&mut held.diesel).await;
    let (fence, renewals) = held.finish(row.map_err(Failure::from))?;
    Ok(Held { fence, renewals })
}

/// False where somebody else has taken it.
pub(super) async fn renew(db: &Db) -> Result<bool> {
    let Db::Postgres(postgres) = db else { return Ok(true) };
    let mine = lease::table.filter(lease::fence.eq(postgres.fence())).filter(lease::held.eq(true));
    let mut held = postgres.get().await?;
    let renewed = diesel::update(mine).set(lease::renewals.eq(lease::renewals + 1_i64)).execute(&mut held.diesel).await;
    Ok(held.finish(renewed.map_err(Failure::from))? > 0)
}

/// Lets the next one have it at once. Somebody else's is left alone.
pub(super) async fn release(db: &Db) -> Result<()> {
    let Db::Postgres(postgres) = db else { return Ok(()) };
    let mine = lease::table.filter(lease::fence.eq(postgres.fence()));
    let mut held = postgres.get().await?;
    let released = diesel::update(mine).set(lease::held.eq(false)).execute(&mut held.diesel).await;
    // The fence stays: what is still being written must not pass once the next one has the lease.
    held.finish(released.map_err(Failure::from)).map(drop)
}

/// Whether nobody has the lease, found by holding it for a moment. Writes are not fenced after it.
pub(super) async fn is_free(db: &Db) -> Result<bool> {
    if take(db).await?.is_none() {
        return Ok(false);
    }
    release(db).await?;
    if let Db::Postgres(postgres) = db {
        postgres.set_fence(0);
    }
    Ok(true)
}

/// Fails where `fence`, if there is one, is not the lease's. The row is held until the transaction ends, so nobody takes the
/// lease while what it protects is being written.
pub(super) async fn expect_mine(fence: i64, conn: &mut AsyncPgConnection) -> Result<(), Failure> {
    if fence == 0 {
        return Ok(());
    }
    let mine = lease::table.select(lease::fence).filter(lease::fence.eq(fence)).for_key_share();
    let found: Option<i64> = mine.first(conn).await.optional()?;
    found.map(drop).ok_or_else(|| lost().into())
}

pub(super) fn lost() -> LedgerError {
    LedgerError::Unavailable(
        "another server has taken this ledger for itself; this one waits until that one stops".into(),
    )
}
