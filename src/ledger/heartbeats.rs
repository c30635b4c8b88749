//! Heartbeats: which servers work in the ledger's epoch, each with which engine.
//!
//! A heartbeat is known by its count, which is seen to grow; the database's own clock only says which ones are too old to be
//! worth watching.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::LedgerState;
use super::db::{Db, in_tx, signed, with_conn};
use super::error::Result;
use super::schema::meta;
use super::statement::Statement;

/// An epoch of a ledger: its number alone may be that of a copy too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// As [`LedgerState::id`].
    pub ledger: String,
    pub number: u64,
    /// As [`LedgerState::history`].
    pub history: Option<u64>,
}

impl LedgerState {
    pub fn present_epoch(&self) -> Epoch {
        Epoch { ledger: self.id.clone(), number: self.epoch, history: self.history }
    }
}

/// A server that works, or has worked, in an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub node: String,
    /// As [`crate::engine::Engine::instance`].
    pub engine: String,
    /// Grows while it works.
    pub beats: i64,
    /// How long ago it was counted last, by the database's clock.
    pub age_ms: i64,
}

/// Rows of servers that have been gone for so long are removed when another one comes: an hour, in microseconds.
const GONE_POSTGRES: &str = "DELETE FROM heartbeats WHERE at < clock_timestamp() - INTERVAL '1 hour'";
const GONE_SQLITE: &str =
    "DELETE FROM heartbeats WHERE at < CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) - 3600000000";

const BEAT_POSTGRES: &str = "
    UPDATE heartbeats SET engine = {engine}, epoch = {epoch}, beats = beats + 1, at = clock_timestamp()
    WHERE node = {node}
    RETURNING beats";
const BEAT_SQLITE: &str = "
    UPDATE heartbeats SET engine = {engine}, epoch = {epoch}, beats = beats + 1,
        at = CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)
    WHERE node = {node}
    RETURNING beats";

const JOIN_POSTGRES: &str = "
    INSERT INTO heartbeats (engine, epoch, node, beats, at)
    VALUES ({engine}, {epoch}, {node}, 1, clock_timestamp())";
const JOIN_SQLITE: &str = "
    INSERT INTO heartbeats (engine, epoch, node, beats, at)
    VALUES ({engine}, {epoch}, {node}, 1, CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER))";

const LIST_POSTGRES: &str = "
    SELECT node, engine, beats, CAST(EXTRACT(EPOCH FROM clock_timestamp() - at) * 1000 AS BIGINT) AS age_ms
    FROM heartbeats
    WHERE epoch = {epoch}";
const LIST_SQLITE: &str = "
    SELECT node, engine, beats,
        (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) - at) / 1000 AS age_ms
    FROM heartbeats
    WHERE epoch = {epoch}";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    node: String,
    #[diesel(sql_type = Text)]
    engine: String,
    #[diesel(sql_type = BigInt)]
    beats: i64,
    #[diesel(sql_type = BigInt)]
    age_ms: i64,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    beats: i64,
}

/// Says that a server works in an epoch with an engine, and how often it has by now; `None` where the ledger is in another one, or
/// another ledger.
pub(super) async fn beat(db: &Db, node: &str, engine: &str, epoch: &Epoch) -> Result<Option<i64>> {
    let (text, join, gone) = (
        db.either(BEAT_POSTGRES, BEAT_SQLITE),
        db.either(JOIN_POSTGRES, JOIN_SQLITE),
        db.either(GONE_POSTGRES, GONE_SQLITE),
    );
    in_tx!(db, |conn| {
        let columns = (meta::epoch, meta::ledger_id, meta::history);
        let present: Option<(i64, Option<String>, Option<i64>)> =
            meta::table.select(columns).first(conn).await.optional()?;
        let wanted = (signed(epoch.number), Some(epoch.ledger.clone()), epoch.history.map(signed));
        if present != Some(wanted) {
            return Ok(None);
        }
        let number = signed(epoch.number);
        let counted = Statement::new(text).bind::<Text, _>(engine).bind::<BigInt, _>(number).bind::<Text, _>(node);
        let counted: Vec<Counted> = counted.load(conn).await?;
        if let [Counted { beats }] = counted[..] {
            return Ok(Some(beats));
        }
        Statement::new(gone).execute(conn).await?;
        let joins = Statement::new(join).bind::<Text, _>(engine).bind::<BigInt, _>(number).bind::<Text, _>(node);
        joins.execute(conn).await?;
        Ok(Some(1))
    })
}

/// The heartbeats of an epoch.
pub(super) async fn list(db: &Db, epoch: u64) -> Result<Vec<Heartbeat>> {
    let text = db.either(LIST_POSTGRES, LIST_SQLITE);
    let rows: Vec<Row> =
        with_conn!(db, |conn| Ok(Statement::new(text).bind::<BigInt, _>(signed(epoch)).load(conn).await?))?;
    let heartbeat = |Row { node, engine, beats, age_ms }: Row| Heartbeat { node, engine, beats, age_ms };
    Ok(rows.into_iter().map(heartbeat).collect())
}
