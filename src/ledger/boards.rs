//! Boards.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::audit::{Deed, differing, enter, next_version, take_turn, time_told, told};
use super::db::{Db, in_snapshot, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::rules::{ProductRuleRow, RuleRow, cancel, cancel_all_of, to_product_rule, to_rule};
use super::schema::{boards, closed_periods, period_results, product_rules, versions, weight_rules};
use super::{Author, BoardDefinition, Definitions, ReopenOutcome, SaveOutcome};
use crate::domain::{
    Board, BoardId, Factor, HalfLife, Period, ProductRule, Rules, Scope, Timestamp, Window, time_zone,
};

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
    reopened: i64,
}

/// What an admin says about a board.
#[derive(AsChangeset, Insertable)]
#[diesel(table_name = boards, treat_none_as_null = true)]
struct Saying<'a> {
    title: &'a str,
    time_window: &'static str,
    half_life_ms: Option<i64>,
    category: Option<&'a str>,
    brand: Option<&'a str>,
    time_zone: &'a str,
    carry_over: i64,
}

/// Boards that a ledger may have, hidden ones not counted: the projector folds every entry into each of them.
pub const BOARDS_MAX: u32 = 64;

/// Raises the revision of a board, or of all that rules reach; says of how many.
macro_rules! raise {
    ($conn:expr, $board:expr) => {{
        use $crate::ledger::schema::boards::dsl;
        let raised = diesel::update(dsl::boards).set(dsl::revision.eq(dsl::revision + 1));
        let raised = raised.filter(dsl::deleted.eq(false)).filter(dsl::id.ne(BoardId::likes().as_str().to_owned()));
        match $board {
            Some(board) => raised.filter(dsl::id.eq(board)).execute($conn).await?,
            None => raised.execute($conn).await?,
        }
    }};
}
pub(super) use raise;

/// Takes back the results of a board's periods that ended after an instant, or of all.
macro_rules! take_back {
    ($conn:expr, $board:expr, $after:expr) => {{
        let after: Option<Timestamp> = $after;
        let of_board = || closed_periods::table.filter(closed_periods::board.eq($board));
        let results = period_results::table.filter(period_results::board.eq($board));
        match after {
            Some(after) => {
                let later = || of_board().filter(closed_periods::ends_at.gt(At(after)));
                let results = results.filter(period_results::period.eq_any(later().select(closed_periods::period)));
                diesel::delete(results).execute($conn).await?;
                diesel::delete(later()).execute($conn).await?
            }
            None => {
                diesel::delete(results).execute($conn).await?;
                diesel::delete(of_board()).execute($conn).await?
            }
        }
    }};
}

/// Boards and rules, read together.
pub(super) async fn definitions(db: &Db) -> Result<Definitions> {
    let nothing = Definitions { boards: Vec::new(), rules: Rules::default() };
    Ok(definitions_since(db, &nothing).await?.unwrap_or(nothing))
}

/// Boards, and what is known of the rules with those that are newer; `None` where nothing has changed. Rules are only ever
/// added, each with a version above all others, so only those above what is known are read; all of them where the ledger
/// is behind it, as one that was restored from a backup.
pub(super) async fn definitions_since(db: &Db, known: &Definitions) -> Result<Option<Definitions>> {
    let known_version = known.rules.version();
    type Rows = (i32, Vec<BoardRow>, Vec<RuleRow>, Vec<ProductRuleRow>);
    let (since, boards, weights, products): Rows = in_snapshot!(db, |conn| {
        let newest: i32 = versions::table.select(versions::rules).first(conn).await?;
        let since = if newest < known_version { 0 } else { known_version };
        let shown = boards::table.filter(boards::deleted.eq(false)).order(boards::id);
        let boards = shown.select(BoardRow::as_select()).load(conn).await?;
        if newest == since {
            return Ok((since, boards, Vec::new(), Vec::new()));
        }
        let weights = weight_rules::table.filter(weight_rules::version.gt(since)).order(weight_rules::version);
        let products = product_rules::table.filter(product_rules::version.gt(since)).order(product_rules::version);
        Ok((since, boards, weights.load(conn).await?, products.load(conn).await?))
    })?;
    let boards = boards.into_iter().map(to_definition).collect::<Result<Vec<_>>>()?;
    if since == known_version && weights.is_empty() && products.is_empty() && boards == known.boards {
        return Ok(None);
    }
    let mut rules = if since == known_version { known.rules.clone() } else { Rules::default() };
    rules.weights.extend(weights.into_iter().map(to_rule).collect::<Result<Vec<_>>>()?);
    rules.products.extend(products.into_iter().map(to_product_rule));
    Ok(Some(Definitions { boards, rules }))
}

fn to_definition(row: BoardRow) -> Result<BoardDefinition> {
    let wrong =
        |what| LedgerError::Internal(format!("the board {:?} has a {what} that this version does not know", row.id));
    let half_life = row.half_life_ms.map(HalfLife::from_ms).transpose().map_err(|_| wrong("half-life"))?;
    let window = Window::from_name(&row.time_window, half_life).ok_or_else(|| wrong("window"))?;
    let time_zone = time_zone(&row.time_zone).map_err(|error| {
        let advice = "set time_zone in the table boards to one that every release knows, such as UTC";
        LedgerError::Internal(format!("the board {:?}: {error}; {advice}", row.id))
    })?;
    let board = Board {
        id: BoardId::from_stored(row.id),
        title: row.title,
        window,
        scope: Scope { category: row.category, brand: row.brand },
        time_zone,
        carry_over: Factor::from_millionths(row.carry_over),
    };
    let (revision, closed_from, reopened) = (row.revision, row.closed_from.map(|at| at.0), row.reopened);
    Ok(BoardDefinition { board, revision, closed_from, reopened })
}

fn saying(board: &Board) -> Result<Saying<'_>> {
    let time_zone = board.time_zone.iana_name();
    let unnamed = || LedgerError::Rejected(format!("the time zone of {} has no name", board.id));
    Ok(Saying {
        title: &board.title,
        time_window: board.window.name(),
        half_life_ms: board.window.half_life().map(HalfLife::ms),
        category: board.scope.category.as_deref(),
        brand: board.scope.brand.as_deref(),
        time_zone: time_zone.ok_or_else(unnamed)?,
        carry_over: board.carry_over.millionths(),
    })
}

/// A board, for the audit log.
fn board_told(board: &Board) -> Value {
    told([
        ("title", json!(board.title)),
        ("window", json!(board.window.name())),
        ("halfLifeMs", json!(board.window.half_life().map(HalfLife::ms))),
        ("category", json!(board.scope.category)),
        ("brand", json!(board.scope.brand)),
        ("timeZone", json!(board.time_zone.iana_name())),
        ("carryOver", json!(board.carry_over.as_f64())),
    ])
}

/// Makes a board, or changes one of the same kind of window.
pub(super) async fn save_board(db: &Db, board: &Board, author: &Author) -> Result<SaveOutcome> {
    if board.id.is_hidden() {
        return Err(LedgerError::Rejected(format!("{} is a hidden board's id", board.id)));
    }
    let (id, saying) = (board.id.as_str(), &saying(board)?);
    in_tx!(db, |conn| {
        take_turn!(conn);
        let row = boards::table.find(id).select((boards::deleted, BoardRow::as_select()));
        let present: Option<(bool, BoardRow)> = row.first(conn).await.optional()?;
        let was = match present {
            Some((false, row)) => Some(to_definition(row)?),
            Some((true, _)) | None => None,
        };
        match &was {
            Some(was) if was.board == *board => return Ok(SaveOutcome::Saved(was.clone())),
            Some(was) if was.board.window.name() != board.window.name() => {
                return Ok(SaveOutcome::Taken(was.board.window));
            }
            Some(was) => {
                // Another title alone is nothing to compute anew.
                let is_same = Board { title: board.title.clone(), ..was.board.clone() } == *board;
                let raised = i64::from(!is_same);
                let counts =
                    (boards::revision.eq(boards::revision + raised), boards::reopened.eq(boards::reopened + raised));
                diesel::update(boards::table.find(id)).set((saying, counts)).execute(conn).await?;
            }
            None => {
                let others = boards::table.filter(boards::deleted.eq(false));
                let others = others.filter(boards::id.ne(BoardId::likes().as_str().to_owned()));
                if others.count().get_result::<i64>(conn).await? >= i64::from(BOARDS_MAX) {
                    return Ok(SaveOutcome::Full { most: BOARDS_MAX });
                }
                // The revision of one that was deleted goes on.
                let row = (boards::id.eq(id), saying, boards::revision.eq(0_i64));
                diesel::insert_into(boards::table).values(row).on_conflict_do_nothing().execute(conn).await?;
                let begun = (
                    saying,
                    boards::revision.eq(boards::revision + 1),
                    boards::reopened.eq(boards::reopened + 1),
                    boards::closed_from.eq(None::<At>),
                    boards::deleted.eq(false),
                );
                diesel::update(boards::table.find(id)).set(begun).execute(conn).await?;
            }
        }
        let is = to_definition(boards::table.find(id).select(BoardRow::as_select()).first(conn).await?)?;
        let before = was.as_ref().map_or(Value::Null, |was| board_told(&was.board));
        let (before, after) = differing(before, board_told(&is.board));
        enter!(conn, author, Deed { action: "saveBoard", target: format!("board {id}"), before, after });
        Ok(SaveOutcome::Saved(is))
    })
}

/// Deletes a board with its closed periods and takes its own rules back; its row stays.
pub(super) async fn delete_board(db: &Db, board: &BoardId, author: &Author) -> Result<Option<BoardDefinition>> {
    if board.is_hidden() || *board == BoardId::daily() {
        return Err(LedgerError::Rejected(format!("the board {board} can not be deleted")));
    }
    let id = board.as_str();
    in_tx!(db, |conn| {
        take_turn!(conn);
        let shown = || boards::table.find(id).filter(boards::deleted.eq(false));
        let Some(row) = shown().select(BoardRow::as_select()).first(conn).await.optional()? else { return Ok(None) };
        let was = to_definition(row)?;
        // First, since it waits for whoever closes a period.
        let gone = (boards::deleted.eq(true), boards::reopened.eq(boards::reopened + 1));
        diesel::update(shown()).set(gone).execute(conn).await?;
        take_back!(conn, id, None);
        // Or they would count for whatever board gets this id next.
        let rules = cancel_all_of!(conn, id, author);
        let (mut before, after) = (board_told(&was.board), Value::Null);
        if !rules.is_empty() {
            before["rules"] = json!(rules);
        }
        enter!(conn, author, Deed { action: "deleteBoard", target: format!("board {id}"), before, after });
        Ok(Some(was))
    })
}

/// The boards that were deleted.
pub(super) async fn deleted_boards(db: &Db) -> Result<Vec<BoardId>> {
    let deleted = boards::table.filter(boards::deleted.eq(true)).select(boards::id);
    let ids: Vec<String> = with_conn!(db, |conn| Ok(deleted.load(conn).await?))?;
    Ok(ids.into_iter().map(BoardId::from_stored).collect())
}

/// Has a board computed anew, with its closed periods from one on.
pub(super) async fn reopen_board(
    db: &Db,
    board: &BoardId,
    from: Option<&Period>,
    author: &Author,
) -> Result<ReopenOutcome> {
    let id = board.as_str();
    in_tx!(db, |conn| {
        take_turn!(conn);
        let shown = || boards::table.find(id).filter(boards::deleted.eq(false));
        // Holds the row, so that nobody closes a period beside this.
        let counts = (boards::revision.eq(boards::revision + 1), boards::reopened.eq(boards::reopened + 1));
        let raised = diesel::update(shown()).set(counts);
        let Some(row) = raised.returning(BoardRow::as_returning()).get_result(conn).await.optional()? else {
            return Ok(ReopenOutcome::Unknown);
        };
        let definition = to_definition(row)?;
        let mut begins_at = from.and_then(|period| period.starts_at);
        if let Some(starts_at) = begins_at {
            let earlier = closed_periods::table
                .filter(closed_periods::board.eq(id))
                .filter(closed_periods::ends_at.le(At(starts_at)))
                .order(closed_periods::ends_at.desc())
                .select((
                    closed_periods::starts_at,
                    closed_periods::ends_at,
                    closed_periods::places,
                    closed_periods::kept,
                ));
            if definition.board.carries() {
                begins_at = Some(exact_from(starts_at, &earlier.load(conn).await?));
            }
        }
        let mut taken_back = 0;
        if let Some(begins_at) = begins_at {
            taken_back = take_back!(conn, id, Some(begins_at));
            diesel::update(shown()).set(boards::closed_from.eq(At(begins_at))).execute(conn).await?;
        }
        let after = told([
            ("revision", json!(definition.revision)),
            ("closedFrom", time_told(begins_at)),
            ("periodsTakenBack", json!(taken_back)),
        ]);
        let before =
            told([("revision", json!(definition.revision - 1)), ("closedFrom", time_told(definition.closed_from))]);
        enter!(conn, author, Deed { action: "rebuildBoard", target: format!("board {id}"), before, after });
        Ok(ReopenOutcome::Reopened { from: begins_at })
    })
}

/// Start, end, places and places kept of a closed period.
type Closed = (Option<At>, At, i64, i64);

/// Where a chain that is to begin at an instant can begin, so that what it starts with is known to the last place: there,
/// or where the latest of the `earlier` periods (latest first) that was not cut ended, or with the very first of them,
/// which started with nothing.
fn exact_from(starts_at: Timestamp, earlier: &[Closed]) -> Timestamp {
    match earlier.iter().position(|(_, _, places, kept)| kept >= places) {
        Some(0) => starts_at,
        Some(cut) => earlier[cut].1.0,
        None => earlier.last().and_then(|(first, ..)| *first).map_or(starts_at, |first| first.0),
    }
}

/// Raises the revision of every board, so that they are rebuilt.
pub(super) async fn revise(db: &Db) -> Result<()> {
    in_tx!(db, |conn| {
        diesel::update(boards::table).set(boards::revision.eq(boards::revision + 1)).execute(conn).await?;
        Ok(())
    })
}
