//! What boards are computed from, read in one snapshot.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::activity::{ReadsActivity, Run, Tally};
use super::db::{Db, in_snapshot};
use super::error::Result;
use super::results::stored_points;
use super::schema::{cursors, period_results, products};
use super::state::to_cursors;
use crate::domain::{Board, Count, Cursors, Points, ProductId, Segment, Signal};

/// What is to be read for computing a board.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub board: &'a Board,
    pub segments: &'a [Segment],
    pub signals: &'a [Signal],
    /// Key of the closed period whose results carry over.
    pub carry_from: Option<&'a str>,
    /// `None` for every product.
    pub products: Option<&'a [ProductId]>,
    pub pace: Pace,
    /// Most counts of activity that are read; more are TOO_MANY.
    pub counts_max: Option<usize>,
}

impl<'a> Wanted<'a> {
    /// Nothing but who is in the board's scope.
    pub fn of(board: &'a Board) -> Self {
        let (products, pace, counts_max) = (None, Pace::Whole, None);
        Self { board, segments: &[], signals: &[], carry_from: None, products, pace, counts_max }
    }
}

/// How fast activity is read. SQLite reads it alike either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as possible: somebody waits for the answer.
    Whole,
    /// In short pieces, database and reader in turn, which takes half as long again: meanwhile others find a processor free.
    Pieces,
}

/// One product's count of one signal in a bucket or an even segment, over all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityRow {
    pub product: ProductId,
    pub count: Count,
}

/// What a board is computed from: all read in one snapshot of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub cursors: Cursors,
    /// Counts that come to nothing are left out. A product's rows stand together.
    pub activity: Vec<ActivityRow>,
    /// The products in the board's scope; empty where that is every product.
    pub members: HashSet<ProductId>,
    /// Points at the close of the period that carries over, of products that are in the catalogue.
    pub at_close: Vec<(ProductId, Points)>,
}

/// All that a board is computed from, with the cursors it belongs to.
pub(super) async fn snapshot(db: &Db, wanted: Wanted<'_>) -> Result<Snapshot> {
    let codes: Vec<_> = wanted.signals.iter().map(|signal| signal.code()).collect();
    let ids: Option<Vec<String>> = wanted.products.map(|ids| ids.iter().map(ToString::to_string).collect());
    let (scope, counts_max) = (&wanted.board.scope, wanted.counts_max);
    type Read = (Vec<(i16, i64, i64)>, Tally, Vec<String>, Vec<(String, i64, Option<String>)>);
    let (cursors, tally, members, at_close): Read = in_snapshot!(db, |conn| {
        let cursors = cursors::table.load(conn).await?;
        let mut tally = Tally::default();
        for segment in wanted.segments {
            let run =
                Run { segment: *segment, signals: codes.clone(), products: ids.clone(), pace: wanted.pace, counts_max };
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
                    .select((period_results::product_id, period_results::points, period_results::exact))
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
    let to_points = |(product, points, exact): (String, i64, Option<String>)| {
        Ok((ProductId::from_stored(product), stored_points(points, exact.as_deref())?))
    };
    Ok(Snapshot {
        cursors: to_cursors(cursors),
        activity,
        members: members.into_iter().map(ProductId::from_stored).collect::<HashSet<_>>(),
        at_close: at_close.into_iter().map(to_points).collect::<Result<_>>()?,
    })
}
