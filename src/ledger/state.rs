//! Migrations, and where the ledger stands: its epoch and its cursors.

use std::collections::HashSet;

use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::LedgerState;
use super::db::{Db, in_snapshot, in_tx, open_sqlite, signed, unsigned, with_conn};
use super::error::{Failure, LedgerError, Result};
use super::instant::At;
use super::lock::lock;
use super::schema::{cursors, meta};
use super::statement::Statement;
use crate::domain::{Cursors, Position, Timestamp};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Answers when the database does, and takes writes.
pub(super) async fn ping(db: &Db) -> Result<()> {
    #[derive(QueryableByName)]
    struct Said {
        #[diesel(sql_type = Bool)]
        only_reads: bool,
    }
    let Db::Postgres(postgres) = db else {
        return with_conn!(db, |conn| {
            diesel::select(1_i32.into_sql::<diesel::sql_types::Integer>()).get_result::<i32>(conn).await?;
            Ok(())
        });
    };
    let mut held = postgres.get().await?;
    let ask = Statement::new("SELECT current_setting('transaction_read_only') = 'on' AS only_reads");
    let said: QueryResult<Said> = ask.get_result(&mut held.diesel).await;
    match held.finish(said.map_err(Failure::from))?.only_reads {
        true => Err(held.refuse_reading_only()),
        false => Ok(()),
    }
}

/// The database server's clock; `None` for a file.
pub(super) async fn clock(db: &Db) -> Result<Option<Timestamp>> {
    #[derive(QueryableByName)]
    struct Said {
        #[diesel(sql_type = BigInt)]
        now_ms: i64,
    }
    let Db::Postgres(postgres) = db else { return Ok(None) };
    let mut held = postgres.get().await?;
    let ask = Statement::new("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms");
    let said: QueryResult<Said> = ask.get_result(&mut held.diesel).await;
    Ok(Some(Timestamp::from_ms(held.finish(said.map_err(Failure::from))?.now_ms)))
}

/// Must run in a task of its own: the harness blocks its thread.
pub(super) async fn migrate(db: &Db) -> Result<Vec<String>> {
    let _lock = lock(db, "migrations").await?;
    // Nothing is asked of a user who may not change tables where nothing is to be changed.
    let pending = pending(db).await?;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error: &dyn std::fmt::Display| LedgerError::Internal(format!("a migration failed: {error}"));
    match db {
        Db::Postgres(postgres) => {
            let mut connection = postgres.connector.open().await?;
            let seen = connection.seen();
            let not_allowed = || {
                let waiting = pending.join(", ");
                LedgerError::Internal(format!(
                    "the tables are not up to date ({waiting}), and this role may not change them; run acclaim migrate \
                     with a DATABASE_URL whose role owns them, grant this one what it needs, and start again"
                ))
            };
            // SQLite has this collation of its own; see the first migration.
            let collation = r#"CREATE COLLATION IF NOT EXISTS "binary" FROM "C""#;
            if let Err(error) = connection.diesel.batch_execute(collation).await {
                return Err(if seen.lacks_privilege() { not_allowed() } else { connection.explain(error.into()) });
            }
            apply(connection.diesel)
                .map_err(|error| if seen.lacks_privilege() { not_allowed() } else { failed(&error) })
        }
        Db::Sqlite(sqlite) => {
            let connection = open_sqlite(&sqlite.file.to_string_lossy()).await.map_err(|error| failed(&error))?;
            apply(connection).map_err(|error| failed(&error))
        }
    }
}

fn apply<C>(connection: C) -> diesel::migration::Result<Vec<String>>
where
    C: diesel_async::AsyncConnection,
    AsyncMigrationHarness<C>: MigrationHarness<C::Backend>,
{
    let mut harness = AsyncMigrationHarness::new(connection);
    let names = harness.pending_migrations(MIGRATIONS)?.iter().map(|migration| migration.name().to_string()).collect();
    harness.run_pending_migrations(MIGRATIONS)?;
    Ok(names)
}

/// Names of the migrations that are not applied.
pub(super) async fn pending(db: &Db) -> Result<Vec<String>> {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = Text)]
        version: String,
    }
    #[derive(QueryableByName)]
    struct Present {
        #[diesel(sql_type = Bool)]
        present: bool,
    }
    let listed = db.either(
        "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS present",
        "SELECT COUNT(*) > 0 AS present FROM sqlite_master WHERE name = '__diesel_schema_migrations'",
    );
    let applied: Vec<Version> = with_conn!(db, |conn| {
        let listed: Present = Statement::new(listed).get_result(conn).await?;
        match listed.present {
            true => Ok(Statement::new("SELECT version FROM __diesel_schema_migrations").load(conn).await?),
            false => Ok(Vec::new()),
        }
    })?;
    let applied: HashSet<String> = applied.into_iter().map(|row| row.version).collect();
    let all = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS);
    let all = all.map_err(|error| LedgerError::Internal(format!("the migrations can't be read: {error}")))?;
    let names = all.iter().map(|migration| migration.name());
    Ok(names.filter(|name| !applied.contains(&name.version().to_string())).map(ToString::to_string).collect())
}

/// The migration since which ledgers have ids.
const NAMED_SINCE: &str = "2026-11-27-000000_ledger_id";

/// The partitions that the ledger was begun with, and its id; also where migrations are to come that change neither.
pub(super) async fn begun_with(db: &Db) -> Result<Option<(u16, Option<String>)>> {
    if pending(db).await?.iter().any(|name| name.as_str() <= NAMED_SINCE) {
        return Ok(None);
    }
    let columns = (meta::partitions, meta::ledger_id);
    let found: Option<(i16, Option<String>)> =
        with_conn!(db, |conn| Ok(meta::table.select(columns).first(conn).await.optional()?))?;
    Ok(found.map(|(partitions, id)| (partition_of_code(partitions), id)))
}

/// Where the ledger stands; a new one is given its partitions and its id first.
pub(super) async fn state(db: &Db, partitions: u16) -> Result<LedgerState> {
    if let Some(state) = read(db, partitions).await? {
        return Ok(state);
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let began = At(Timestamp::now());
    in_tx!(db, |conn| {
        let row = (
            meta::id.eq(1_i16),
            meta::epoch.eq(0_i64),
            meta::epoch_began_at.eq(began),
            meta::partitions.eq(partition_code(partitions)),
        );
        diesel::insert_into(meta::table).values(row).on_conflict_do_nothing().execute(conn).await?;
        for partition in 0..partitions {
            let row =
                (cursors::partition.eq(partition_code(partition)), cursors::epoch.eq(0_i64), cursors::seq.eq(0_i64));
            diesel::insert_into(cursors::table).values(row).on_conflict_do_nothing().execute(conn).await?;
        }
        // Begun by an earlier version it has none. Of two who come at once, the first one's stays.
        let nameless = meta::table.filter(meta::ledger_id.is_null());
        diesel::update(nameless).set(meta::ledger_id.eq(&id)).execute(conn).await?;
        Ok(())
    })?;
    read(db, partitions).await?.ok_or_else(|| LedgerError::Internal("its state was removed meanwhile".to_owned()))
}

/// Epoch and when it began, partitions, id and history.
type MetaRow = (i64, At, i16, Option<String>, Option<i64>);

/// `None` for a ledger that has no partitions or no id yet.
async fn read(db: &Db, partitions: u16) -> Result<Option<LedgerState>> {
    let read = in_snapshot!(db, |conn| {
        let columns = (meta::epoch, meta::epoch_began_at, meta::partitions, meta::ledger_id, meta::history);
        let meta: Option<MetaRow> = meta::table.select(columns).first(conn).await.optional()?;
        let cursors: Vec<(i16, i64, i64)> = cursors::table.load(conn).await?;
        Ok(meta.map(|meta| (meta, cursors)))
    })?;
    let Some(((epoch, began_at, present, id, history), rows)) = read else { return Ok(None) };
    if present != partition_code(partitions) {
        return Err(LedgerError::Internal(format!(
            "it was begun with {present} partitions, and {partitions} are asked for; set the number of partitions to \
             {present}"
        )));
    }
    Ok(id.map(|id| LedgerState {
        id,
        epoch: unsigned(epoch),
        history: history.map(unsigned),
        epoch_began_at: began_at.0,
        cursors: to_cursors(rows),
    }))
}

pub(super) fn to_cursors(rows: Vec<(i16, i64, i64)>) -> Cursors {
    let cursor =
        |(partition, epoch, seq)| (partition_of_code(partition), Position::new(unsigned(epoch), unsigned(seq)));
    rows.into_iter().map(cursor).collect()
}

/// Partitions are few; the column is a SMALLINT, so that the key of `activity` stays short.
pub(super) fn partition_code(partition: u16) -> i16 {
    i16::try_from(partition).expect("the configuration allows far fewer than 32,768 partitions")
}

pub(super) fn partition_of_code(code: i16) -> u16 {
    u16::try_from(code).unwrap_or_default()
}

/// Begins an epoch: it, a new history and all cursors at (epoch, 0), in one transaction; returns the history.
pub(super) async fn begin_epoch(db: &Db, epoch: u64, at: Timestamp) -> Result<u64> {
    let epoch = signed(epoch);
    // 63 bits, since the column is signed. Two copies of a ledger that begin the same epoch draw different ones.
    let history = rand::random::<u64>() >> 1;
    in_tx!(db, |conn| {
        let begun = diesel::update(meta::table.filter(meta::epoch.lt(epoch)))
            .set((meta::epoch.eq(epoch), meta::history.eq(signed(history)), meta::epoch_began_at.eq(At(at))))
            .execute(conn)
            .await?;
        if begun == 0 {
            return Err(LedgerError::Rejected(format!("epoch {epoch} does not follow the present one")).into());
        }
        let partitions: Vec<i16> =
            cursors::table.select(cursors::partition).order(cursors::partition).load(conn).await?;
        // One by one, in the order in which a commit takes them, so that neither waits for the other's.
        for partition in partitions {
            diesel::update(cursors::table.find(partition))
                .set((cursors::epoch.eq(epoch), cursors::seq.eq(0_i64)))
                .execute(conn)
                .await?;
        }
        Ok(history)
    })
}
