//! Boards.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use jiff::tz::TimeZone;

use super::db::{Db, in_snapshot, in_tx};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::rules::{ProductRuleRow, RuleRow, to_product_rule, to_rule};
use super::schema::{boards, product_rules, weight_rules};
use super::{BoardDefinition, Definitions};
use crate::domain::{Board, BoardId, Factor, HalfLife, Rules, Scope, Window};

#[derive(Queryable, Selectable)]
#[diesel(table_name = boards)]
struct BoardRow {
    id: String,
    title: String,
    time_window: String,
    half_life_ms: Option<i64>,
    category: Option<String>,
    brand: Option<String>,
    time_zone: String,
    carry_over: i64,
    revision: i64,
    closed_from: Option<At>,
}

/// Boards and rules, read together.
pub(super) async fn definitions(db: &Db) -> Result<Definitions> {
    type Rows = (Vec<BoardRow>, Vec<RuleRow>, Vec<ProductRuleRow>);
    let (boards, weights, products): Rows = in_snapshot!(db, |conn| {
        let shown = boards::table.filter(boards::deleted.eq(false)).order(boards::id);
        let boards = shown.select(BoardRow::as_select()).load(conn).await?;
        let weights = weight_rules::table.order(weight_rules::version).load(conn).await?;
        let products = product_rules::table.order(product_rules::version).load(conn).await?;
        Ok((boards, weights, products))
    })?;
    Ok(Definitions {
        boards: boards.into_iter().map(to_definition).collect::<Result<_>>()?,
        rules: Rules {
            weights: weights.into_iter().map(to_rule).collect::<Result<_>>()?,
            products: products.into_iter().map(to_product_rule).collect(),
        },
    })
}

fn to_definition(row: BoardRow) -> Result<BoardDefinition> {
    let wrong =
        |what| LedgerError::Internal(format!("the board {:?} has a {what} that this version does not know", row.id));
    let half_life = row.half_life_ms.map(HalfLife::from_ms).transpose().map_err(|_| wrong("half-life"))?;
    let window = Window::from_name(&row.time_window, half_life).ok_or_else(|| wrong("window"))?;
    let time_zone = TimeZone::get(&row.time_zone).map_err(|_| wrong("time zone"))?;
    let board = Board {
        id: BoardId::from_stored(row.id),
        title: row.title,
        window,
        scope: Scope { category: row.category, brand: row.brand },
        time_zone,
        carry_over: Factor::from_millionths(row.carry_over),
    };
    Ok(BoardDefinition { board, revision: row.revision, closed_from: row.closed_from.map(|at| at.0) })
}

/// Raises the revision of every board, so that they are rebuilt.
pub(super) async fn revise(db: &Db) -> Result<()> {
    in_tx!(db, |conn| {
        diesel::update(boards::table).set(boards::revision.eq(boards::revision + 1)).execute(conn).await?;
        Ok(())
    })
}
