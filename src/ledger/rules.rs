//! Rules of weights and of products.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::db::{Db, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::schema::{boards, versions, weight_rules};
use super::{KeysetPage, NewWeightRule, RuleOutcome};
use crate::domain::{BoardId, Factor, Hours, ProductId, ProductRule, Signal, Weight, WeightRule};

#[rustfmt::skip]
pub(super) type RuleRow =
    (i32, Option<String>, String, String, At, String, Option<At>, Option<At>, Option<String>, Option<i32>);
pub(super) type ProductRuleRow = (i32, String, Option<String>, bool, Option<i64>, Option<At>, String, At, String);

/// Adds a rule under the next version.
pub(super) async fn add_rule(db: &Db, rule: &NewWeightRule) -> Result<RuleOutcome> {
    if rule.board.as_ref().is_some_and(BoardId::is_hidden) {
        return Err(LedgerError::Rejected("a hidden board has no rules".to_owned()));
    }
    let board = rule.board.as_ref().map(BoardId::as_str);
    let weights = to_json(&rule.weights);
    in_tx!(db, |conn| {
        // Taking this row first lets one change of rules follow the other.
        let newest: i32 = diesel::update(versions::table)
            .set(versions::rules.eq(versions::rules))
            .returning(versions::rules)
            .get_result(conn)
            .await?;
        let all: Vec<(i32, Option<String>)> =
            weight_rules::table.select((weight_rules::version, weight_rules::board)).load(conn).await?;
        let reaching = all.iter().filter(|(_, of)| of.is_none() || of.as_deref() == board);
        let present = reaching.map(|(version, _)| *version).max().unwrap_or(0);
        if rule.expected_version.is_some_and(|expected| expected != present) {
            return Ok(RuleOutcome::Conflict { present });
        }
        let version = newest + 1;
        diesel::update(versions::table).set(versions::rules.eq(version)).execute(conn).await?;
        let row = (
            weight_rules::version.eq(version),
            weight_rules::board.eq(board),
            weight_rules::weights.eq(&weights),
            weight_rules::from_at.eq(rule.from.map(At)),
            weight_rules::until_at.eq(rule.until.map(At)),
            weight_rules::hours.eq(rule.hours.map(hours_to_json)),
            weight_rules::created_by.eq(&rule.created_by),
            weight_rules::created_at.eq(At(rule.created_at)),
            weight_rules::note.eq(&rule.note),
        );
        diesel::insert_into(weight_rules::table).values(row).execute(conn).await?;
        let raise = boards::revision.eq(boards::revision + 1);
        let raised = match board {
            Some(board) => {
                let shown = boards::table.filter(boards::id.eq(board)).filter(boards::deleted.eq(false));
                diesel::update(shown).set(raise).execute(conn).await?
            }
            None => {
                let shown = boards::table.filter(boards::id.ne(BoardId::likes().as_str().to_owned()));
                diesel::update(shown).set(raise).execute(conn).await?
            }
        };
        if let (0, Some(board)) = (raised, board) {
            return Err(LedgerError::Rejected(format!("there is no board {board:?}")).into());
        }
        let added: RuleRow = weight_rules::table.find(version).get_result(conn).await?;
        Ok(RuleOutcome::Added(to_rule(added)?))
    })
}

fn hours_to_json(hours: Hours) -> String {
    serde_json::Value::from_iter(hours.iter()).to_string()
}

/// `{"VIEW": 100000, …}`, in millionths.
fn to_json(weights: &[(Signal, Weight)]) -> String {
    let object: serde_json::Map<_, _> =
        weights.iter().map(|(signal, weight)| (signal.name().to_owned(), weight.millionths().into())).collect();
    serde_json::Value::Object(object).to_string()
}

pub(super) fn to_rule(row: RuleRow) -> Result<WeightRule> {
    let (version, board, weights, created_by, created_at, note, from, until, hours, cancels) = row;
    let wrong = || LedgerError::Internal(format!("the weights of rule {version} can not be read: {weights}"));
    let object: HashMap<String, i64> = serde_json::from_str(&weights).map_err(|_| wrong())?;
    if object.keys().any(|name| Signal::from_name(name).is_none()) {
        return Err(wrong());
    }
    let of = |signal: Signal| object.get(signal.name()).map(|weight| (signal, Weight::from_millionths(*weight)));
    let weights = Signal::ALL.into_iter().filter_map(of).collect();
    let board = board.map(BoardId::from_stored);
    let to_hours = |text: String| {
        let wrong = || LedgerError::Internal(format!("the hours of rule {version} can not be read: {text}"));
        Hours::new(&serde_json::from_str::<Vec<i32>>(&text).map_err(|_| wrong())?).map_err(|_| wrong())
    };
    Ok(WeightRule {
        version,
        board,
        weights,
        from: from.map(|at| at.0),
        until: until.map(|at| at.0),
        hours: hours.map(to_hours).transpose()?,
        cancels,
        created_by,
        created_at: created_at.0,
        note,
    })
}

pub(super) fn to_product_rule(row: ProductRuleRow) -> ProductRule {
    let (version, product, board, excluded, boost, until, created_by, created_at, note) = row;
    ProductRule {
        version,
        product: ProductId::from_stored(product),
        board: board.map(BoardId::from_stored),
        excluded,
        boost: boost.map(Factor::from_millionths),
        until: until.map(|at| at.0),
        created_by,
        created_at: created_at.0,
        note,
    }
}

/// Rules, newest first, below a version; with a board, its own and the shared ones.
pub(super) async fn rules(
    db: &Db,
    board: Option<&BoardId>,
    below: Option<i32>,
    first: u32,
) -> Result<KeysetPage<WeightRule>> {
    let rows: Vec<RuleRow> = with_conn!(db, |conn| {
        let newest_first = weight_rules::version.desc();
        let mut page = weight_rules::table.order(newest_first).limit(i64::from(first) + 1).into_boxed();
        if let Some(board) = board {
            page =
                page.filter(weight_rules::board.is_null().or(weight_rules::board.eq(board.as_str()).assume_not_null()));
        }
        if let Some(below) = below {
            page = page.filter(weight_rules::version.lt(below));
        }
        Ok(page.load(conn).await?)
    })?;
    let rules = rows.into_iter().map(to_rule).collect::<Result<Vec<_>>>()?;
    Ok(KeysetPage::of(rules, first))
}
