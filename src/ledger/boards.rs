//! Boards and the rules of their weights, and the activity that boards are computed from.

use std::collections::HashMap;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::RunQueryDsl;
use jiff::tz::TimeZone;

use super::db::{Db, in_snapshot, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::schema::{activity, boards, cursors, weight_rules};
use super::state::to_cursors;
use super::{ActivityRow, BoardDefinition, Definitions, KeysetPage, NewWeightRule, RuleOutcome, Snapshot};
use crate::domain::{Board, BoardId, ProductId, Segment, Signal, Weight, WeightRule, Window};

type BoardRow = (String, String, String, String, i64);
type RuleRow = (i32, Option<String>, String, String, At, String);

/// Boards and rules, read together.
pub(super) async fn definitions(db: &Db) -> Result<Definitions> {
    let (boards, rules): (Vec<BoardRow>, Vec<RuleRow>) = in_snapshot!(db, |conn| {
        let boards = boards::table.order(boards::id).load(conn).await?;
        Ok((boards, weight_rules::table.order(weight_rules::version).load(conn).await?))
    })?;
    Ok(Definitions {
        boards: boards.into_iter().map(to_definition).collect::<Result<_>>()?,
        rules: rules.into_iter().map(to_rule).collect::<Result<_>>()?,
    })
}

fn to_definition((id, title, window, zone, revision): BoardRow) -> Result<BoardDefinition> {
    let wrong = |what| LedgerError::Internal(format!("the board {id:?} has a {what} that this version does not know"));
    let window = Window::from_name(&window).ok_or_else(|| wrong("window"))?;
    let time_zone = TimeZone::get(&zone).map_err(|_| wrong("time zone"))?;
    Ok(BoardDefinition { board: Board { id: BoardId::from_stored(id), title, window, time_zone }, revision })
}

/// Raises the revision of every board, so that they are rebuilt.
pub(super) async fn revise(db: &Db) -> Result<()> {
    in_tx!(db, |conn| {
        diesel::update(boards::table).set(boards::revision.eq(boards::revision + 1)).execute(conn).await?;
        Ok(())
    })
}

/// Times a rule is tried again because another one took its version. Each time one of the others has succeeded, and
/// there are not that many admins.
const TRIES_MAX: usize = 50;

/// Adds a rule under the next version. Two writers may choose the same one; the table's key lets only the first in, and
/// the second looks again.
pub(super) async fn add_rule(db: &Db, rule: &NewWeightRule) -> Result<RuleOutcome> {
    if rule.board.as_ref().is_some_and(BoardId::is_hidden) {
        return Err(LedgerError::Rejected("a hidden board has no rules".to_owned()));
    }
    for _ in 0..TRIES_MAX {
        if let Some(outcome) = try_rule(db, rule).await? {
            return Ok(outcome);
        }
    }
    Err(LedgerError::Unavailable(format!("other rules came first {TRIES_MAX} times")))
}

/// `None` where another rule has taken the version meanwhile.
async fn try_rule(db: &Db, rule: &NewWeightRule) -> Result<Option<RuleOutcome>> {
    let board = rule.board.as_ref().map(BoardId::as_str);
    let weights = to_json(&rule.weights);
    in_tx!(db, |conn| {
        // All at once, so that the table's key guards what the expected version was compared with.
        let versions: Vec<(i32, Option<String>)> =
            weight_rules::table.select((weight_rules::version, weight_rules::board)).load(conn).await?;
        let newest = versions.iter().map(|(version, _)| *version).max().unwrap_or(0);
        let reaching = versions.iter().filter(|(_, of)| of.is_none() || of.as_deref() == board);
        let present = reaching.map(|(version, _)| *version).max().unwrap_or(0);
        if rule.expected_version.is_some_and(|expected| expected != present) {
            return Ok(Some(RuleOutcome::Conflict { present }));
        }
        let row = (
            weight_rules::version.eq(newest + 1),
            weight_rules::board.eq(board),
            weight_rules::weights.eq(&weights),
            weight_rules::created_by.eq(&rule.created_by),
            weight_rules::created_at.eq(At(rule.created_at)),
            weight_rules::note.eq(&rule.note),
        );
        let added = diesel::insert_into(weight_rules::table).values(row).on_conflict_do_nothing().execute(conn).await?;
        if added == 0 {
            return Ok(None);
        }
        let raise = boards::revision.eq(boards::revision + 1);
        let raised = match board {
            Some(board) => diesel::update(boards::table.find(board)).set(raise).execute(conn).await?,
            None => {
                let shown = boards::table.filter(boards::id.ne(BoardId::likes().as_str().to_owned()));
                diesel::update(shown).set(raise).execute(conn).await?
            }
        };
        if let (0, Some(board)) = (raised, board) {
            return Err(LedgerError::Rejected(format!("there is no board {board:?}")).into());
        }
        let added: RuleRow = weight_rules::table.find(newest + 1).get_result(conn).await?;
        Ok(Some(RuleOutcome::Added(to_rule(added)?)))
    })
}

/// `{"VIEW": 100000, …}`, in millionths.
fn to_json(weights: &[(Signal, Weight)]) -> String {
    let object: serde_json::Map<_, _> =
        weights.iter().map(|(signal, weight)| (signal.name().to_owned(), weight.millionths().into())).collect();
    serde_json::Value::Object(object).to_string()
}

fn to_rule((version, board, weights, created_by, created_at, note): RuleRow) -> Result<WeightRule> {
    let wrong = || LedgerError::Internal(format!("the weights of rule {version} can not be read: {weights}"));
    let object: HashMap<String, i64> = serde_json::from_str(&weights).map_err(|_| wrong())?;
    if object.keys().any(|name| Signal::from_name(name).is_none()) {
        return Err(wrong());
    }
    let of = |signal: Signal| object.get(signal.name()).map(|weight| (signal, Weight::from_millionths(*weight)));
    let weights = Signal::ALL.into_iter().filter_map(of).collect();
    let board = board.map(BoardId::from_stored);
    Ok(WeightRule { version, board, weights, created_by, created_at: created_at.0, note })
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

/// Activity of some signals in segments, with the cursors it belongs to, in one snapshot.
pub(super) async fn snapshot(db: &Db, segments: &[Segment], signals: &[Signal]) -> Result<Snapshot> {
    let codes: Vec<_> = signals.iter().map(|signal| signal.code()).collect();
    type Sums = Vec<(String, i16, i64)>;
    let (cursors, activity): (_, Vec<Sums>) = in_snapshot!(db, |conn| {
        let cursors: Vec<(i16, i64, i64)> = cursors::table.load(conn).await?;
        let mut all = Vec::with_capacity(segments.len());
        for segment in segments {
            let rows = activity::table
                .filter(activity::bucket.ge(segment.first.0))
                .filter(activity::bucket.lt(segment.end.0))
                .filter(activity::signal.eq_any(&codes))
                .group_by((activity::product_id, activity::signal))
                .having(sql::<Bool>("SUM(count) <> 0"))
                .select((activity::product_id, activity::signal, sql::<BigInt>("CAST(SUM(count) AS BIGINT)")))
                .load(conn)
                .await?;
            all.push(rows);
        }
        Ok((cursors, all))
    })?;
    let to_row = |(product, signal, count)| {
        let signal = Signal::from_code(signal).ok_or_else(|| {
            LedgerError::Internal(format!("activity has a signal {signal} that this version does not know"))
        })?;
        Ok(ActivityRow { product: ProductId::from_stored(product), signal, count })
    };
    let activity = activity.into_iter().map(|rows| rows.into_iter().map(to_row).collect()).collect::<Result<_>>()?;
    Ok(Snapshot { cursors: to_cursors(cursors), activity })
}
