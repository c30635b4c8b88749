//! What boards are computed from, read in one snapshot.

use std::collections::HashSet;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::RunQueryDsl;

use super::db::{Db, in_snapshot};
use super::error::{LedgerError, Result};
use super::schema::{activity, cursors, period_results, products};
use super::state::to_cursors;
use super::{ActivityRow, Snapshot, Wanted};
use crate::domain::{Bucket, Count, Points, ProductId, Signal};

/// All that a board is computed from, with the cursors it belongs to.
pub(super) async fn snapshot(db: &Db, wanted: Wanted<'_>) -> Result<Snapshot> {
    let codes: Vec<_> = wanted.signals.iter().map(|signal| signal.code()).collect();
    let ids: Option<Vec<&str>> = wanted.products.map(|ids| ids.iter().map(ProductId::as_str).collect());
    let scope = &wanted.board.scope;
    type Counts = Vec<(i32, String, i16, i64)>;
    type Read = (Vec<(i16, i64, i64)>, Counts, Vec<String>, Vec<(String, i64)>);
    let (cursors, counts, members, at_close): Read = in_snapshot!(db, |conn| {
        let cursors = cursors::table.load(conn).await?;
        let mut counts = Counts::new();
        for segment in wanted.segments {
            // An even segment is read as if all had happened in its first bucket.
            if segment.is_even {
                let mut sums = activity::table
                    .group_by((activity::product_id, activity::signal))
                    .having(sql::<Bool>("SUM(count) <> 0"))
                    .select((activity::product_id, activity::signal, sql::<BigInt>("CAST(SUM(count) AS BIGINT)")))
                    .filter(activity::bucket.ge(segment.first.0))
                    .filter(activity::bucket.lt(segment.end.0))
                    .filter(activity::signal.eq_any(&codes))
                    .into_boxed();
                if let Some(ids) = &ids {
                    sums = sums.filter(activity::product_id.eq_any(ids));
                }
                let sums: Vec<(String, i16, i64)> = sums.load(conn).await?;
                counts
                    .extend(sums.into_iter().map(|(product, signal, count)| (segment.first.0, product, signal, count)));
            } else {
                let key = (activity::bucket, activity::product_id, activity::signal);
                let count = sql::<BigInt>("CAST(SUM(count) AS BIGINT)");
                let mut sums = activity::table
                    .group_by(key)
                    .having(sql::<Bool>("SUM(count) <> 0"))
                    .select((activity::bucket, activity::product_id, activity::signal, count))
                    .filter(activity::bucket.ge(segment.first.0))
                    .filter(activity::bucket.lt(segment.end.0))
                    .filter(activity::signal.eq_any(&codes))
                    .into_boxed();
                if let Some(ids) = &ids {
                    sums = sums.filter(activity::product_id.eq_any(ids));
                }
                counts.extend(sums.load::<(i32, String, i16, i64)>(conn).await?);
            }
        }
        let members = if scope.is_all() {
            Vec::new()
        } else {
            let mut members = products::table.select(products::id).into_boxed();
            if let Some(category) = &scope.category {
                members = members.filter(products::category.eq(category));
            }
            if let Some(brand) = &scope.brand {
                members = members.filter(products::brand.eq(brand));
            }
            if let Some(ids) = &ids {
                members = members.filter(products::id.eq_any(ids));
            }
            members.load(conn).await?
        };
        let at_close = match wanted.carry_from {
            None => Vec::new(),
            Some(period) => {
                let mut results = period_results::table
                    .filter(period_results::board.eq(wanted.board.id.as_str()))
                    .filter(period_results::period.eq(period))
                    .filter(period_results::product_id.eq_any(products::table.select(products::id)))
                    .select((period_results::product_id, period_results::points))
                    .into_boxed();
                if let Some(ids) = &ids {
                    results = results.filter(period_results::product_id.eq_any(ids));
                }
                results.load(conn).await?
            }
        };
        Ok((cursors, counts, members, at_close))
    })?;
    let to_row = |(bucket, product, signal, count)| {
        let signal = Signal::from_code(signal).ok_or_else(|| {
            LedgerError::Internal(format!("activity has a signal {signal} that this version does not know"))
        })?;
        let count = Count { bucket: Bucket(bucket), signal, count };
        Ok(ActivityRow { product: ProductId::from_stored(product), count })
    };
    let to_points = |(product, points)| (ProductId::from_stored(product), Points::from_millionths(points));
    Ok(Snapshot {
        cursors: to_cursors(cursors),
        activity: counts.into_iter().map(to_row).collect::<Result<_>>()?,
        members: members.into_iter().map(ProductId::from_stored).collect::<HashSet<_>>(),
        at_close: at_close.into_iter().map(to_points).collect(),
    })
}
