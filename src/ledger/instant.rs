//! The SQL type of instants: `timestamptz` on Postgres, whole microseconds since 1970 in an INTEGER on SQLite.
//!
//! Invariant: what is stored is exactly the millisecond that was given. Both databases hold [`Event::TIMES_MS`]; an instant outside them is taken for the nearest one, so it may only stand in a comparison.

use diesel::deserialize::{self, FromSql};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;

use crate::domain::{Event, Timestamp};

/// 1184 and 1185 are the fixed oids of `timestamptz` and its array.
#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId, Clone, Copy, Debug)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Instant;

/// A [`Timestamp`] on its way to or from SQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, AsExpression, diesel::deserialize::FromSqlRow)]
#[diesel(sql_type = Instant)]
pub struct At(pub Timestamp);

/// Postgres counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since 1970, as SQLite stores them.
pub fn microseconds(at: Timestamp) -> i64 {
    at.as_ms().clamp(*Event::TIMES_MS.start(), *Event::TIMES_MS.end()) * 1000
}

impl ToSql<Instant, Sqlite> for At {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(microseconds(self.0));
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Sqlite> for At {
    fn from_sql(bytes: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let us = <i64 as FromSql<BigInt, Sqlite>>::from_sql(bytes)?;
        Ok(Self(Timestamp::from_ms(us.div_euclid(1000))))
    }
}

impl ToSql<Instant, Pg> for At {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let us = microseconds(self.0) - POSTGRES_EPOCH_US;
        ToSql::<BigInt, Pg>::to_sql(&us, &mut out.reborrow())
    }
}

impl FromSql<Instant, Pg> for At {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        let us = <i64 as FromSql<BigInt, Pg>>::from_sql(bytes)?;
        Ok(Self(Timestamp::from_ms(us.saturating_add(POSTGRES_EPOCH_US).div_euclid(1000))))
    }
}
