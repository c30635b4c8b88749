//! Closed periods, as they are read: what was stored of each when it was closed.
//!
//! Invariant: a period's header and its rows are read in one snapshot, so an answer is whole even while results are cut
//! or taken back.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use diesel_async::RunQueryDsl;

use super::db::{in_snapshot, unsigned, with_conn};
use super::error::Result;
use super::instant::At;
use super::results::stored_points;
use super::schema::{closed_periods, period_results, products};
use super::statement::Statement;
use super::{KeysetPage, Ledger};
use crate::domain::{BoardId, Bucket, PageStart, Place, Points, ProductId, Rows, Timestamp};

/// A period whose results are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPeriod {
    pub key: String,
    pub starts_at: Option<Timestamp>,
    pub ends_at: Timestamp,
    /// When the results were written.
    pub closed_at: Timestamp,
    /// The newest of the rules that they were computed under.
    pub rules_version: i32,
    /// Places at the close.
    pub places: u64,
    /// How many of them are kept, from the first one on.
    pub kept: u64,
}

/// Ranks and points in the order asked; `None` for a product that is not among what is kept.
pub type StoredEntries = Vec<Option<(u64, Points)>>;

#[derive(Queryable, Selectable)]
#[diesel(table_name = closed_periods)]
struct Header {
    period: String,
    starts_at: Option<At>,
    ends_at: At,
    closed_at: At,
    rules_version: i32,
    places: i64,
    kept: i64,
}

#[derive(QueryableByName)]
struct ActiveBucket {
    #[diesel(sql_type = Integer)]
    bucket: i32,
    #[diesel(sql_type = BigInt)]
    counts: i64,
}

impl From<Header> for ClosedPeriod {
    fn from(header: Header) -> Self {
        Self {
            key: header.period,
            starts_at: header.starts_at.map(|at| at.0),
            ends_at: header.ends_at.0,
            closed_at: header.closed_at.0,
            rules_version: header.rules_version,
            places: unsigned(header.places),
            kept: unsigned(header.kept),
        }
    }
}

impl ClosedPeriod {
    /// Whether every place is kept.
    pub fn is_whole(&self) -> bool {
        self.kept == self.places
    }
}

/// Reading what [`Ledger::write_results`] wrote.
impl Ledger {
    /// What is stored about a period besides its places.
    pub async fn closed_period(&self, board: &BoardId, period: &str) -> Result<Option<ClosedPeriod>> {
        let found: Option<Header> = with_conn!(&*self.db, |conn| {
            let header = closed_periods::table.find((board.as_str(), period)).select(Header::as_select());
            Ok(header.first(conn).await.optional()?)
        })?;
        Ok(found.map(ClosedPeriod::from))
    }

    /// The board's closed periods that ended before an instant, newest first.
    pub async fn closed_periods(
        &self,
        board: &BoardId,
        before: Timestamp,
        first: u32,
    ) -> Result<KeysetPage<ClosedPeriod>> {
        let rows: Vec<Header> = with_conn!(&*self.db, |conn| {
            let ended = closed_periods::table
                .filter(closed_periods::board.eq(board.as_str()))
                .filter(closed_periods::ends_at.lt(At(before)))
                .order(closed_periods::ends_at.desc())
                .limit(i64::from(first) + 1);
            Ok(ended.select(Header::as_select()).load(conn).await?)
        })?;
        Ok(KeysetPage::of(rows.into_iter().map(ClosedPeriod::from), first))
    }

    /// The latest of the board's closed periods that had ended at an instant and are kept whole: what carries over from
    /// it is exact.
    pub async fn latest_whole(&self, board: &BoardId, by: Timestamp) -> Result<Option<ClosedPeriod>> {
        let found: Option<Header> = with_conn!(&*self.db, |conn| {
            let whole = closed_periods::table
                .filter(closed_periods::board.eq(board.as_str()))
                .filter(closed_periods::ends_at.le(At(by)))
                .filter(closed_periods::kept.eq(closed_periods::places))
                .order(closed_periods::ends_at.desc());
            Ok(whole.select(Header::as_select()).first(conn).await.optional()?)
        })?;
        Ok(found.map(ClosedPeriod::from))
    }

    /// Under which rules the board's periods that ended within (`after`, `by`] were closed, by key.
    pub async fn rules_closed_under(
        &self,
        board: &BoardId,
        after: Timestamp,
        by: Timestamp,
    ) -> Result<HashMap<String, i32>> {
        let found: Vec<(String, i32)> = with_conn!(&*self.db, |conn| {
            let ended = closed_periods::table
                .filter(closed_periods::board.eq(board.as_str()))
                .filter(closed_periods::ends_at.gt(At(after)))
                .filter(closed_periods::ends_at.le(At(by)));
            Ok(ended.select((closed_periods::period, closed_periods::rules_version)).load(conn).await?)
        })?;
        Ok(found.into_iter().collect())
    }

    /// How many counts are kept of each bucket within [`first`, `end`), in order. At most `most` of them are looked at: if
    /// there are more, so many come to more than that.
    pub async fn active_buckets(&self, first: Bucket, end: Bucket, most: u32) -> Result<Vec<(Bucket, u64)>> {
        let rows: Vec<ActiveBucket> = with_conn!(&*self.db, |conn| {
            let counted = Statement::new(
                "SELECT bucket, COUNT(*) AS counts
                FROM (SELECT bucket FROM activity WHERE bucket >= {first} AND bucket < {end} LIMIT {most}) AS kept
                GROUP BY bucket ORDER BY bucket",
            );
            let counted = counted.bind::<Integer, _>(first.0).bind::<Integer, _>(end.0);
            Ok(counted.bind::<BigInt, _>(i64::from(most) + 1).load(conn).await?)
        })?;
        Ok(rows.into_iter().map(|row| (Bucket(row.bucket), unsigned(row.counts))).collect())
    }

    /// At most `count` of a period's places from `start` on. `None` for a period that is not stored; no rows where they
    /// reach beyond what is kept of it.
    pub async fn results_page(
        &self,
        board: &BoardId,
        period: &str,
        start: &PageStart,
        count: u64,
    ) -> Result<Option<(ClosedPeriod, Option<Rows>)>> {
        type Read = Option<(Header, Option<(i64, Vec<(String, i64, Option<String>)>)>)>;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let read: Read = in_snapshot!(&*self.db, |conn| {
            let header = closed_periods::table.find((board.as_str(), period)).select(Header::as_select());
            let Some(header) = header.first(conn).await.optional()? else { return Ok(None) };
            let of_period = period_results::table
                .filter(period_results::board.eq(board.as_str()))
                .filter(period_results::period.eq(period));
            let first_rank = match start {
                PageStart::Rank(rank) => i64::try_from(*rank).unwrap_or(i64::MAX).max(1),
                PageStart::After(place) => {
                    let (points, product) = (place.points.ranked(), place.product.as_str());
                    let equal = period_results::points.eq(points).and(period_results::product_id.ge(product));
                    let above = of_period.filter(period_results::points.gt(points).or(equal));
                    above.count().get_result::<i64>(conn).await? + 1
                }
                PageStart::Around { product, radius } => {
                    let own = of_period.filter(period_results::product_id.eq(product.as_str()));
                    match own.select(period_results::rank).first::<i64>(conn).await.optional()? {
                        Some(rank) => rank.saturating_sub_unsigned(*radius).max(1),
                        None => header.kept + 1,
                    }
                }
            };
            let end = first_rank.saturating_add(count).min(header.places + 1);
            if end > header.kept + 1 {
                return Ok(Some((header, None)));
            }
            let page = of_period
                .filter(period_results::rank.ge(first_rank))
                .filter(period_results::rank.lt(end))
                .order(period_results::rank);
            let columns = (period_results::product_id, period_results::points, period_results::exact);
            let rows = page.select(columns).load(conn).await?;
            Ok(Some((header, Some((first_rank, rows)))))
        })?;
        let Some((header, rows)) = read else { return Ok(None) };
        let total = unsigned(header.places);
        let to_place = |(product, points, exact): (String, i64, Option<String>)| {
            Ok(Place { product: ProductId::from_stored(product), points: stored_points(points, exact.as_deref())? })
        };
        let to_rows = |(first_rank, rows): (i64, Vec<_>)| {
            let places = rows.into_iter().map(to_place).collect::<Result<_>>()?;
            Ok(Rows { first_rank: unsigned(first_rank), places, total })
        };
        Ok(Some((header.into(), rows.map(to_rows).transpose()?)))
    }

    /// Places of products at a period's close, and what is stored about it, in one statement. `None` for a period that
    /// is not stored.
    pub async fn results_of(
        &self,
        board: &BoardId,
        period: &str,
        products: &[ProductId],
    ) -> Result<Option<(ClosedPeriod, StoredEntries)>> {
        let ids: Vec<&str> = products.iter().map(ProductId::as_str).collect();
        type Entry = (String, i64, i64, Option<String>);
        let rows: Vec<(Header, Option<Entry>)> = with_conn!(&*self.db, |conn| {
            let of_period = period_results::board
                .eq(closed_periods::board)
                .and(period_results::period.eq(closed_periods::period))
                .and(period_results::product_id.eq_any(&ids));
            let columns =
                (period_results::product_id, period_results::rank, period_results::points, period_results::exact);
            let entries = closed_periods::table
                .left_join(period_results::table.on(of_period))
                .filter(closed_periods::board.eq(board.as_str()))
                .filter(closed_periods::period.eq(period))
                .select((Header::as_select(), columns.nullable()));
            Ok(entries.load(conn).await?)
        })?;
        let mut closed = None;
        let mut found = HashMap::new();
        for (header, entry) in rows {
            closed = Some(header.into());
            if let Some((product, rank, points, exact)) = entry {
                found.insert(product, (unsigned(rank), stored_points(points, exact.as_deref())?));
            }
        }
        Ok(closed.map(|closed| (closed, ids.iter().map(|id| found.get(*id).copied()).collect())))
    }

    /// Every product there is.
    pub async fn product_ids(&self) -> Result<HashSet<ProductId>> {
        let ids: Vec<String> =
            with_conn!(&*self.db, |conn| Ok(products::table.select(products::id).load(conn).await?))?;
        Ok(ids.into_iter().map(ProductId::from_stored).collect())
    }
}
