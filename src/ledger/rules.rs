//! Rules of weights and of products.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::audit::{Deed, enter, next_version, take_turn, time_told, told};
use super::boards::raise;
use super::db::{Db, in_tx, with_conn};
use super::error::{Failure, LedgerError, Result};
use super::instant::At;
use super::schema::{product_rules, weight_rules};
use super::{Author, CancelOutcome, KeysetPage, NewProductRule, NewWeightRule, RuleOutcome};
use crate::domain::{BoardId, Factor, Hours, ProductId, ProductRule, Signal, Weight, WeightRule};

#[rustfmt::skip]
pub(super) type RuleRow =
    (i32, Option<String>, String, String, At, String, Option<At>, Option<At>, Option<String>, Option<i32>);
pub(super) type ProductRuleRow = (i32, String, Option<String>, bool, Option<i64>, Option<At>, String, At, String);

/// The newest version that a rule may get: every node keeps all rules, some 300 bytes each, and looks through them for each
/// board that it computes. A change an hour reaches it after eleven years. Rules can be taken back beyond it.
const VERSION_MAX: i32 = 100_000;

/// Fails where a rule would be one too many.
fn expect_room(version: i32) -> Result<(), Failure> {
    if version <= VERSION_MAX {
        return Ok(());
    }
    let message = "there are as many rules of weights and products as there may be";
    Err(LedgerError::TooMany { limit: "rules", value: VERSION_MAX as usize, message }.into())
}

/// Adds a rule under the next version.
pub(super) async fn add_rule(db: &Db, rule: &NewWeightRule) -> Result<RuleOutcome> {
    let board = visible(rule.board.as_ref())?;
    let weights = to_json(&rule.weights);
    in_tx!(db, |conn| {
        take_turn!(conn);
        let reaching = weight_rules::table.filter(
            weight_rules::board.is_null().or(weight_rules::board.eq(board.unwrap_or_default()).assume_not_null()),
        );
        let present: Option<i32> = reaching.select(diesel::dsl::max(weight_rules::version)).first(conn).await?;
        let present = present.unwrap_or(0);
        if rule.expected_version.is_some_and(|expected| expected != present) {
            return Ok(RuleOutcome::Conflict { present });
        }
        let version = next_version!(conn);
        expect_room(version)?;
        let row = (
            weight_rules::version.eq(version),
            weight_rules::board.eq(board),
            weight_rules::weights.eq(&weights),
            weight_rules::from_at.eq(rule.from.map(At)),
            weight_rules::until_at.eq(rule.until.map(At)),
            weight_rules::hours.eq(rule.hours.map(hours_to_json)),
            weight_rules::created_by.eq(&rule.author.name),
            weight_rules::created_at.eq(At(rule.author.at)),
            weight_rules::note.eq(&rule.author.note),
        );
        diesel::insert_into(weight_rules::table).values(row).execute(conn).await?;
        let raised = raise!(conn, board);
        if let (0, Some(board)) = (raised, board) {
            return Err(LedgerError::Rejected(format!("there is no board {board:?}")).into());
        }
        let added: RuleRow = weight_rules::table.find(version).get_result(conn).await?;
        let added = to_rule(added)?;
        let deed = Deed {
            action: "adjustWeights",
            target: format!("rule {version}"),
            before: json!({ "version": present }),
            after: weights_told(&added),
        };
        enter!(conn, &rule.author, deed);
        Ok(RuleOutcome::Added(added))
    })
}

/// Takes a rule of a board, or of all, back under the next version, which it returns.
macro_rules! cancel {
    ($conn:expr, $version:expr, $board:expr, $author:expr) => {{
        use $crate::ledger::schema::weight_rules::dsl;
        let cancelled_by = next_version!($conn);
        let row = (
            dsl::version.eq(cancelled_by),
            dsl::board.eq($board),
            dsl::weights.eq("{}"),
            dsl::cancels.eq($version),
            dsl::created_by.eq(&$author.name),
            dsl::created_at.eq(At($author.at)),
            dsl::note.eq(&$author.note),
        );
        diesel::insert_into(dsl::weight_rules).values(row).execute($conn).await?;
        cancelled_by
    }};
}

/// Takes back all rules that were made for one board; returns their versions.
macro_rules! cancel_all_of {
    ($conn:expr, $board:expr, $author:expr) => {{
        use $crate::ledger::schema::{product_rules, weight_rules};
        let own = || weight_rules::table.filter(weight_rules::board.eq($board));
        let made = own().filter(weight_rules::cancels.is_null()).order(weight_rules::version);
        let mut versions: Vec<i32> = made.select(weight_rules::version).load($conn).await?;
        let cancelled = own().filter(weight_rules::cancels.is_not_null()).select(weight_rules::cancels);
        let cancelled: Vec<Option<i32>> = cancelled.load($conn).await?;
        versions.retain(|version| !cancelled.contains(&Some(*version)));
        for version in &versions {
            cancel!($conn, *version, Some($board), $author);
        }
        let decided = product_rules::table.filter(product_rules::board.eq($board)).order(product_rules::version);
        let newest: std::collections::BTreeMap<String, ProductRule> = decided
            .load::<ProductRuleRow>($conn)
            .await?
            .into_iter()
            .map(|row| (row.1.clone(), to_product_rule(row)))
            .collect();
        for rule in newest.into_values().filter(|rule| rule.until.is_none_or(|until| $author.at < until)) {
            // One that has ended is as if there were none, so that what counts for all boards counts again.
            let row = (
                product_rules::version.eq(next_version!($conn)),
                product_rules::product_id.eq(rule.product.as_str().to_owned()),
                product_rules::board.eq($board),
                product_rules::excluded.eq(false),
                product_rules::boost.eq(None::<i64>),
                product_rules::until_at.eq(At($author.at)),
                product_rules::created_by.eq(&$author.name),
                product_rules::created_at.eq(At($author.at)),
                product_rules::note.eq(&$author.note),
            );
            diesel::insert_into(product_rules::table).values(row).execute($conn).await?;
            versions.push(rule.version);
        }
        versions
    }};
}
pub(super) use {cancel, cancel_all_of};

/// Takes a rule back under the next version.
pub(super) async fn cancel_rule(db: &Db, version: i32, author: &Author) -> Result<CancelOutcome> {
    in_tx!(db, |conn| {
        take_turn!(conn);
        let made = weight_rules::table.find(version).filter(weight_rules::cancels.is_null());
        let Some(row) = made.first::<RuleRow>(conn).await.optional()? else { return Ok(CancelOutcome::Unknown) };
        let rule = to_rule(row)?;
        let cancellation = weight_rules::table.filter(weight_rules::cancels.eq(version).assume_not_null());
        if cancellation.count().get_result::<i64>(conn).await? > 0 {
            return Ok(CancelOutcome::Already);
        }
        let board = rule.board.as_ref().map(BoardId::as_str);
        let cancelled_by = cancel!(conn, version, board, author);
        raise!(conn, board);
        let deed = Deed {
            action: "cancelWeights",
            target: format!("rule {version}"),
            before: weights_told(&rule),
            after: json!({ "cancelledBy": cancelled_by }),
        };
        enter!(conn, author, deed);
        Ok(CancelOutcome::Cancelled { rule, version: cancelled_by })
    })
}

/// Adds a decision about a product under the next version; the one that stands where it says the same.
pub(super) async fn set_product_rule(db: &Db, rule: &NewProductRule) -> Result<ProductRule> {
    let board = visible(rule.board.as_ref())?;
    in_tx!(db, |conn| {
        take_turn!(conn);
        let of_product = product_rules::table.filter(product_rules::product_id.eq(rule.product.as_str()));
        let newest_first = of_product.order(product_rules::version.desc()).load::<ProductRuleRow>(conn).await?;
        let present = newest_first.into_iter().map(to_product_rule).find(|known| known.board == rule.board);
        if let Some(known) = &present
            && (known.excluded, known.boost, known.until) == (rule.excluded, rule.boost, rule.until)
        {
            return Ok(known.clone());
        }
        let version = next_version!(conn);
        expect_room(version)?;
        let row = (
            product_rules::version.eq(version),
            product_rules::product_id.eq(rule.product.as_str()),
            product_rules::board.eq(board),
            product_rules::excluded.eq(rule.excluded),
            product_rules::boost.eq(rule.boost.map(Factor::millionths)),
            product_rules::until_at.eq(rule.until.map(At)),
            product_rules::created_by.eq(&rule.author.name),
            product_rules::created_at.eq(At(rule.author.at)),
            product_rules::note.eq(&rule.author.note),
        );
        diesel::insert_into(product_rules::table).values(row).execute(conn).await?;
        let raised = raise!(conn, board);
        if let (0, Some(board)) = (raised, board) {
            return Err(LedgerError::Rejected(format!("there is no board {board:?}")).into());
        }
        let added = to_product_rule(product_rules::table.find(version).get_result(conn).await?);
        let deed = Deed {
            action: "setProductRule",
            target: format!("product {}", rule.product),
            before: present.as_ref().map_or(Value::Null, product_told),
            after: product_told(&added),
        };
        enter!(conn, &rule.author, deed);
        Ok(added)
    })
}

/// A board that rules may be made for.
fn visible(board: Option<&BoardId>) -> Result<Option<&str>> {
    match board {
        Some(board) if board.is_hidden() => Err(LedgerError::Rejected("a hidden board has no rules".to_owned())),
        board => Ok(board.map(BoardId::as_str)),
    }
}

/// A rule, for the audit log.
fn weights_told(rule: &WeightRule) -> Value {
    let weights: serde_json::Map<_, _> =
        rule.weights.iter().map(|(signal, weight)| (signal.name().to_owned(), json!(weight.as_f64()))).collect();
    told([
        ("version", json!(rule.version)),
        ("board", json!(rule.board)),
        ("weights", weights.into()),
        ("from", time_told(rule.from)),
        ("until", time_told(rule.until)),
        ("hours", rule.hours.map_or(Value::Null, |hours| Value::from_iter(hours.iter()))),
    ])
}

/// A decision about a product, for the audit log.
fn product_told(rule: &ProductRule) -> Value {
    told([
        ("version", json!(rule.version)),
        ("board", json!(rule.board)),
        ("excluded", json!(rule.excluded)),
        ("boost", json!(rule.boost.map(Factor::as_f64))),
        ("until", time_told(rule.until)),
    ])
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

/// Rules, newest first, below a version, without the rows that take one back; with a board, its own and the shared ones.
pub(super) async fn rules(
    db: &Db,
    board: Option<&BoardId>,
    below: Option<i32>,
    first: u32,
) -> Result<KeysetPage<WeightRule>> {
    let rows: Vec<RuleRow> = with_conn!(db, |conn| {
        let made = weight_rules::table.filter(weight_rules::cancels.is_null());
        let mut page = made.order(weight_rules::version.desc()).limit(i64::from(first) + 1).into_boxed();
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
