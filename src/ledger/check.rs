//! I3 and I4: whether likes and activity are what the events come to. Each check is one statement over all events, so it
//! sees one moment; it reads everything, and is meant for `verify`, not for requests.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::db::{Db, unsigned, with_conn};
use super::error::Result;
use super::schema::dead_letters;
use super::statement::Statement;
use crate::domain::{ProductId, UserId};

/// Differences listed; the rest are only counted.
const LISTED_MAX: i64 = 100;

/// Events with their buckets: the beginning of a statement, which `concat!` takes only as a macro.
macro_rules! TIMED_POSTGRES {
    () => {
        "WITH timed AS (SELECT *, CAST(FLOOR(EXTRACT(EPOCH FROM occurred_at) / 900) AS INTEGER) AS bucket FROM events),"
    };
}

/// Whole microseconds, and a division that truncates: rounded down for instants before 1970 too.
macro_rules! TIMED_SQLITE {
    () => {
        "WITH timed AS (SELECT *, (occurred_at - (occurred_at % 900000000 + 900000000) % 900000000) / 900000000 AS bucket
         FROM events),"
    };
}

pub(super) use {TIMED_POSTGRES, TIMED_SQLITE};

/// A difference between what the ledger holds and the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub product: ProductId,
    pub user: Option<UserId>,
    pub expected: i64,
    pub actual: i64,
}

/// What a check of one fold found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoldCheck {
    pub checked: u64,
    pub differing: u64,
    /// The first 100.
    pub rows: Vec<Difference>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    checked: i64,
    #[diesel(sql_type = BigInt)]
    differing: i64,
    #[diesel(sql_type = Nullable<Text>)]
    product_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_id: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    expected: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    actual: Option<i64>,
}

pub(super) async fn likes(db: &Db) -> Result<FoldCheck> {
    check(db, include_str!("check_likes.sql")).await
}

pub(super) async fn activity(db: &Db) -> Result<FoldCheck> {
    let postgres = concat!(TIMED_POSTGRES!(), include_str!("check_activity.sql"));
    let sqlite = concat!(TIMED_SQLITE!(), include_str!("check_activity.sql"));
    check(db, db.either(postgres, sqlite)).await
}

async fn check(db: &Db, text: &'static str) -> Result<FoldCheck> {
    let rows: Vec<Row> =
        with_conn!(db, |conn| Ok(Statement::new(text).bind::<BigInt, _>(LISTED_MAX).load(conn).await?))?;
    let mut found = FoldCheck::default();
    for row in rows {
        found.checked = unsigned(row.checked);
        found.differing = unsigned(row.differing);
        if let (Some(product), Some(expected), Some(actual)) = (row.product_id, row.expected, row.actual) {
            let (product, user) = (ProductId::from_stored(product), row.user_id.map(UserId::from_stored));
            found.rows.push(Difference { product, user, expected, actual });
        }
    }
    Ok(found)
}

pub(super) async fn dead_letter_count(db: &Db) -> Result<u64> {
    let count: i64 = with_conn!(db, |conn| Ok(dead_letters::table.count().get_result(conn).await?))?;
    Ok(unsigned(count))
}
