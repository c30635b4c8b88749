//! What boards are computed from, read in one snapshot.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::activity::{ReadsActivity, Run, Tally};
use super::db::{Db, in_snapshot};
use super::error::Result;
use super::schema::{cursors, period_results, products};
use super::state::to_cursors;
use super::{Snapshot, Wanted};
use crate::domain::{Points, ProductId};

/// All that a board is computed from, with the cursors it belongs to.
pub(super) async fn snapshot(db: &Db, wanted: Wanted<'_>) -> Result<Snapshot> {
    let codes: Vec<_> = wanted.signals.iter().map(|signal| signal.code()).collect();
    let ids: Option<Vec<String>> = wanted.products.map(|ids| ids.iter().map(ToString::to_string).collect());
    let scope = &wanted.board.scope;
    type Read = (Vec<(i16, i64, i64)>, Tally, Vec<String>, Vec<(String, i64)>);
    let (cursors, tally, members, at_close): Read = in_snapshot!(db, |conn| {
        let cursors = cursors::table.load(conn).await?;
        let mut tally = Tally::default();
        for segment in wanted.segments {
            let run = Run { segment: *segment, signals: codes.clone(), products: ids.clone(), pace: wanted.pace };
            tally = conn.add_up(&run, tally).await?;
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
        Ok((cursors, tally, members, at_close))
    })?;
    // Of a large board, some milliseconds during which this thread would serve nobody.
    let activity = tokio::task::spawn_blocking(|| tally.finish()).await.expect("it neither panics nor is it aborted");
    let to_points = |(product, points)| (ProductId::from_stored(product), Points::from_millionths(points));
    Ok(Snapshot {
        cursors: to_cursors(cursors),
        activity,
        members: members.into_iter().map(ProductId::from_stored).collect::<HashSet<_>>(),
        at_close: at_close.into_iter().map(to_points).collect(),
    })
}
