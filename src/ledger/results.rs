//! Closed periods and the places at their close.

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::BoardDefinition;
use super::db::{Db, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::schema::{activity, boards, closed_periods, period_results};
use super::statement::Statement;
use crate::domain::{Basis, BoardId, Bucket, Period, Place, Points, ProductId, Timestamp};

/// Places kept of the periods before the last closed one: a page of results reaches no further, and a board of 100,000
/// products would otherwise grow by as many rows a day.
pub const KEPT_PLACES: usize = 1_000;

/// Rows in one statement: 5,000 are some 300 KB of text.
const CHUNK: usize = 5_000;

macro_rules! insert {
    ($rows:literal) => {
        concat!(
            "INSERT INTO period_results (board, period, rank, product_id, points, exact)
            SELECT {board}, {period}, CAST(value ->> 0 AS BIGINT), value ->> 1, CAST(value ->> 2 AS BIGINT), value ->> 3
            FROM ",
            $rows
        )
    };
}

/// When the latest of the board's closed periods that had ended at an instant did so.
pub(super) async fn latest_close(db: &Db, board: &BoardId, by: Timestamp) -> Result<Option<Timestamp>> {
    let found: Option<At> = with_conn!(db, |conn| {
        let ended = closed_periods::table
            .filter(closed_periods::board.eq(board.as_str()))
            .filter(closed_periods::ends_at.le(At(by)))
            .order(closed_periods::ends_at.desc());
        Ok(ended.select(closed_periods::ends_at).first(conn).await.optional()?)
    })?;
    Ok(found.map(|ended_at| ended_at.0))
}

/// The first bucket from `from` on in which anything was counted.
pub(super) async fn next_active(db: &Db, from: Bucket) -> Result<Option<Bucket>> {
    let found: Option<i32> = with_conn!(db, |conn| {
        let later = activity::table.filter(activity::bucket.ge(from.0)).order(activity::bucket);
        Ok(later.select(activity::bucket).first(conn).await.optional()?)
    })?;
    Ok(found.map(Bucket))
}

/// Whether a period's results are written.
pub(super) async fn has_results(db: &Db, board: &BoardId, period: &str) -> Result<bool> {
    with_conn!(db, |conn| {
        let header = closed_periods::table.find((board.as_str(), period)).select(closed_periods::places);
        Ok(header.get_result::<i64>(conn).await.optional()?.is_some())
    })
}

/// Writes a closed period's results, best first, and cuts older periods of the board; says false where they are written
/// already.
pub(super) async fn write_results(
    db: &Db,
    definition: &BoardDefinition,
    period: &Period,
    places: &[Place],
    basis: Basis,
) -> Result<bool> {
    let (board, key) = (definition.board.id.as_str(), period.key.as_str());
    let Some(ends_at) = period.ends_at else {
        return Err(LedgerError::Rejected(format!("the period {key} of {board} never ends")));
    };
    let chunks: Vec<String> = places.chunks(CHUNK).zip(0..).map(|(chunk, n)| to_json(chunk, n * CHUNK + 1)).collect();
    let text =
        db.either(insert!("json_array_elements(CAST({rows} AS json)) AS listed (value)"), insert!("json_each({rows})"));
    in_tx!(db, |conn| {
        // Changes nothing, and holds the row: whoever takes periods back comes before, and is seen here, or after.
        let unchanged = boards::table.find(board).filter(boards::deleted.eq(false));
        let unchanged = unchanged.filter(boards::reopened.eq(definition.reopened));
        let held = diesel::update(unchanged).set(boards::reopened.eq(boards::reopened)).execute(conn).await?;
        if held == 0 {
            let reason = format!("the board {board} was deleted, or asked for anew, meanwhile");
            return Err(LedgerError::Rejected(reason).into());
        }
        let header = (
            closed_periods::board.eq(board),
            closed_periods::period.eq(key),
            closed_periods::starts_at.eq(period.starts_at.map(At)),
            closed_periods::ends_at.eq(At(ends_at)),
            closed_periods::closed_at.eq(At(basis.at)),
            closed_periods::rules_version.eq(basis.rules_version),
            closed_periods::places.eq(places.len() as i64),
            closed_periods::kept.eq(places.len() as i64),
        );
        // The first to write the header wins; a second one waits here until the first is through.
        let written =
            diesel::insert_into(closed_periods::table).values(header).on_conflict_do_nothing().execute(conn).await?;
        if written == 0 {
            return Ok(false);
        }
        for rows in &chunks {
            let insert = Statement::new(text).bind::<Text, _>(board).bind::<Text, _>(key).bind::<Text, _>(rows);
            insert.execute(conn).await?;
        }
        let of_board = || closed_periods::table.filter(closed_periods::board.eq(board));
        let newest = of_board().select(closed_periods::ends_at).order(closed_periods::ends_at.desc());
        let newest: At = newest.first(conn).await?;
        let whole: Vec<(String, At)> = of_board()
            .filter(closed_periods::kept.gt(KEPT_PLACES as i64))
            .filter(closed_periods::ends_at.lt(newest))
            .select((closed_periods::period, closed_periods::ends_at))
            .load(conn)
            .await?;
        for (older, ended_at) in whole {
            // Periods that are not stored follow from the results before them, and need all of these.
            let follows =
                of_board().filter(closed_periods::starts_at.eq(Some(ended_at))).select(closed_periods::places);
            if definition.board.carries() && follows.first::<i64>(conn).await.optional()?.is_none() {
                continue;
            }
            let beyond = period_results::table
                .filter(period_results::board.eq(board))
                .filter(period_results::period.eq(&older))
                .filter(period_results::rank.gt(KEPT_PLACES as i64));
            diesel::delete(beyond).execute(conn).await?;
            diesel::update(closed_periods::table.find((board, &older)))
                .set(closed_periods::kept.eq(KEPT_PLACES as i64))
                .execute(conn)
                .await?;
        }
        Ok(true)
    })
}

/// `[[rank, product, points as they rank, exact points or null], …]`
fn to_json(places: &[Place], first_rank: usize) -> String {
    let row = |(place, rank): (&Place, usize)| {
        let (ranked, millionths) = (place.points.ranked(), place.points.millionths());
        json!([rank, place.product, ranked, (millionths != ranked.into()).then(|| millionths.to_string())])
    };
    serde_json::Value::Array(places.iter().zip(first_rank..).map(row).collect()).to_string()
}

/// Points as `period_results` has them: as they rank, and exact where they lie beyond. Only exact ones are ever added up.
pub(super) fn stored_points(ranked: i64, exact: Option<&str>) -> Result<Points> {
    let millionths = exact.map_or(Ok(ranked.into()), str::parse);
    millionths.map(Points::from_millionths).map_err(|_| {
        LedgerError::Internal(format!("results have points that are no whole number: {}", exact.unwrap_or_default()))
    })
}

/// A closed period's results, best first.
pub(super) async fn results(db: &Db, board: &BoardId, period: &str, first: u32) -> Result<Vec<Place>> {
    let rows: Vec<(String, i64, Option<String>)> = with_conn!(db, |conn| {
        let best = period_results::table
            .filter(period_results::board.eq(board.as_str()))
            .filter(period_results::period.eq(period))
            .order(period_results::rank)
            .limit(i64::from(first));
        let columns = (period_results::product_id, period_results::points, period_results::exact);
        Ok(best.select(columns).load(conn).await?)
    })?;
    let to_place = |(product, points, exact): (String, i64, Option<String>)| {
        Ok(Place { product: ProductId::from_stored(product), points: stored_points(points, exact.as_deref())? })
    };
    rows.into_iter().map(to_place).collect()
}
