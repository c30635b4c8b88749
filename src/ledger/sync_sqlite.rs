//! A commit on SQLite: one immediate transaction of a few statements, each over a whole list given as JSON.
//!
//! It runs as one piece on a blocking thread, so nothing can cut it in half. What `commit.sql` folds in SQL is folded
//! here in Rust, since SQLite can not hand the rows of an INSERT to another one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, SmallInt, Text};
use diesel::sqlite::Sqlite as Backend;
use serde_json::{Value, json};

use super::db::{Sqlite, SqliteConn, signed};
use super::error::{Failure, Result, is_of_sqlite};
use super::instant::microseconds;
use super::schema::cursors;
use super::state::partition_code;
use super::statement::Statement;
use super::sync::{Attempt, DROPPED, Placed, Run, TakesOver};
use crate::domain::{Event, EventId, Position, Timestamp};

const EVENTS: &str = "
    INSERT INTO events
        (id, partition, epoch, seq, signal, product_id, user_id, count, occurred_at, recorded_at, reverses)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10
    FROM json_each({rows})
    WHERE true
    ON CONFLICT DO NOTHING";

const KNOWN: &str = "SELECT events.id FROM json_each({rows}) JOIN events ON events.id = value";

const REVERSED: &str = "SELECT events.reverses AS id FROM json_each({rows}) JOIN events ON events.reverses = value";

/// What raises errors by triggers, whichever table they are on.
const RAISING: &str = "SELECT sql AS id FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%RAISE%'";

const LIKED: &str = "
    SELECT user_id, product_id
    FROM json_each({rows})
    JOIN likes ON user_id = value ->> 0 AND product_id = value ->> 1
    WHERE liked";

const KEPT: &str = "
    SELECT events.partition, events.epoch, events.seq
    FROM json_each({rows}) AS batch
    JOIN events ON events.id = value ->> 0
        AND events.partition = value ->> 1 AND events.epoch = value ->> 2 AND events.seq = value ->> 3";

const ACTIVITY: &str = "
    INSERT INTO activity (bucket, signal, product_id, partition, count)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
    FROM json_each({rows})
    WHERE true
    ON CONFLICT (bucket, signal, product_id, partition) DO UPDATE SET count = count + EXCLUDED.count";

const LIKES: &str = "
    INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
    FROM json_each({rows})
    WHERE true
    ON CONFLICT (user_id, product_id) DO UPDATE
    SET liked = EXCLUDED.liked, liked_at = EXCLUDED.liked_at, epoch = EXCLUDED.epoch, seq = EXCLUDED.seq
    WHERE (likes.epoch, likes.seq) < (EXCLUDED.epoch, EXCLUDED.seq)";

const DEAD_LETTERS: &str = "
    INSERT INTO dead_letters (id, partition, epoch, seq, entry, error, at)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
    FROM json_each({rows})
    WHERE true
    ON CONFLICT DO NOTHING";

const REJECTIONS: &str = "
    INSERT INTO rejections
        (partition, epoch, seq, event_id, user_id, reverses, signal, product_id, count, occurred_at, counted)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10
    FROM json_each({rows})
    WHERE true
    ON CONFLICT DO NOTHING";

/// What one transaction is made of, owned, since it runs on another thread.
struct Rows {
    cursors: Vec<(i16, Position, Position)>,
    events: Vec<(u16, Position, Event)>,
    letters: Vec<Value>,
    /// The events among the dead letters, as rows of `rejections`.
    dead_lettered: Vec<Value>,
}

/// `None` for moved cursors; else the places in `events` of those that were rejected.
type Outcome = Option<Vec<usize>>;

pub(super) async fn commit<'a>(sqlite: &Sqlite, runs: &[Run<'a>]) -> Result<Attempt<'a>> {
    let rows = Rows::of(runs);
    let mut writer = sqlite.writer().await?;
    let outcome = writer.spawn_blocking(move |conn| transaction(conn, &rows)).await;
    outcome.map(|outcome| attempt(runs, outcome)).map_err(|error| Failure::Sql(error).explain(None))
}

impl TakesOver for SqliteConn {
    async fn take_over<'a>(&mut self, runs: &[Run<'a>]) -> Result<Attempt<'a>, Failure> {
        let rows = Rows::of(runs);
        Ok(attempt(runs, self.spawn_blocking(move |conn| write_or_refuse(conn, &rows)).await?))
    }
}

fn placed<'a>(runs: &[Run<'a>]) -> impl Iterator<Item = Placed<'a>> {
    runs.iter().flat_map(|run| run.events.iter().map(move |(at, event)| (run.partition, *at, *event)))
}

fn attempt<'a>(runs: &[Run<'a>], outcome: Outcome) -> Attempt<'a> {
    let Some(places) = outcome else { return Attempt::CursorMoved };
    let all: Vec<_> = placed(runs).collect();
    Attempt::Done { rejected: places.into_iter().map(|place| all[place]).collect() }
}

/// A row of `rejections`.
fn rejection((partition, at, event): (u16, Position, &Event)) -> Value {
    json!([
        partition,
        signed(at.epoch),
        signed(at.seq),
        event.id,
        event.user,
        event.reverses,
        event.signal.code(),
        event.product,
        event.count,
        microseconds(event.occurred_at),
        !event.waits_for_commit(),
    ])
}

impl Rows {
    fn of(runs: &[Run<'_>]) -> Self {
        let now = microseconds(Timestamp::now());
        let letters = runs.iter().flat_map(|run| {
            run.letters.iter().map(move |letter| {
                let Position { epoch, seq } = letter.position;
                json!([letter.id, run.partition, signed(epoch), signed(seq), letter.entry, letter.error, now])
            })
        });
        Self {
            cursors: runs.iter().map(|run| (partition_code(run.partition), run.from, run.to)).collect(),
            events: placed(runs).map(|(partition, at, event)| (partition, at, event.clone())).collect(),
            letters: letters.collect(),
            dead_lettered: runs.iter().flat_map(Run::dead_lettered).map(rejection).collect(),
        }
    }
}

fn transaction(conn: &mut SqliteConnection, rows: &Rows) -> QueryResult<Outcome> {
    // Kept aside, since a rollback that finds nothing to roll back (a trigger has done so) would hide it.
    let mut failed = Ok(None);
    let written = conn.immediate_transaction(|conn| match write_or_refuse(conn, rows) {
        Ok(Some(rejected)) => Ok(Some(rejected)),
        not_written => {
            failed = not_written;
            Err(Error::RollbackTransaction)
        }
    });
    match (written, failed) {
        (_, Err(error)) => Err(error),
        (Err(Error::RollbackTransaction), Ok(_)) => Ok(None),
        (written, Ok(_)) => written,
    }
}

/// As [`write`], and tells what a trigger refuses from what the database can't do.
fn write_or_refuse(conn: &mut SqliteConnection, rows: &Rows) -> QueryResult<Outcome> {
    write(conn, rows).map_err(|error| match &error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, info) if is_raised(conn, info.message()) => {
            refused(info.message().to_owned())
        }
        _ => error,
    })
}

/// Whether a trigger has raised an error: its text stands in the trigger, or, where that puts it together, is none of SQLite's.
fn is_raised(conn: &mut SqliteConnection, message: &str) -> bool {
    let triggers = Statement::<Backend>::new(RAISING).load::<Known>(conn).unwrap_or_default();
    let literal = format!("'{}'", message.replace('\'', "''"));
    let is_known = triggers.iter().any(|trigger| trigger.id.contains(&literal));
    is_known || !triggers.is_empty() && !is_of_sqlite(message)
}

/// An error that says of the rows that they can't be stored.
fn refused(reason: String) -> Error {
    Error::SerializationError(reason.into())
}

/// Where it says that a cursor has moved, some of what it has done must be rolled back.
fn write(conn: &mut SqliteConnection, rows: &Rows) -> QueryResult<Outcome> {
    if !move_cursors(conn, &rows.cursors)? {
        return Ok(None);
    }
    if !rows.letters.is_empty() {
        run(conn, DEAD_LETTERS, &rows.letters)?;
    }
    let rejected = insert_events(conn, &rows.events)?;
    let noted = rejected.iter().map(|place| {
        let (partition, at, event) = &rows.events[*place];
        rejection((*partition, *at, event))
    });
    let noted: Vec<_> = noted.chain(rows.dead_lettered.iter().cloned()).collect();
    if !noted.is_empty() {
        run(conn, REJECTIONS, &noted)?;
    }
    let rejected_set: HashSet<_> = rejected.iter().copied().collect();
    let kept = rows.events.iter().enumerate().filter(|(place, _)| !rejected_set.contains(place)).map(|(_, row)| row);
    fold(conn, kept)?;
    Ok(Some(rejected))
}

fn move_cursors(conn: &mut SqliteConnection, moves: &[(i16, Position, Position)]) -> QueryResult<bool> {
    for (partition, from, to) in moves {
        let at_from = cursors::table
            .find(partition)
            .filter(cursors::epoch.eq(signed(from.epoch)))
            .filter(cursors::seq.eq(signed(from.seq)));
        let moved = diesel::update(at_from)
            .set((cursors::epoch.eq(signed(to.epoch)), cursors::seq.eq(signed(to.seq))))
            .execute(conn)?;
        if moved == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Inserts what is new, and says which are not, by their places in the list.
fn insert_events(conn: &mut SqliteConnection, events: &[(u16, Position, Event)]) -> QueryResult<Vec<usize>> {
    let mut idle = idle_likes(conn, events)?;
    idle.extend(taken_ids(conn, events)?);
    let rows: Vec<_> = events
        .iter()
        .enumerate()
        .filter(|(place, _)| !idle.contains(place))
        .map(|(_, (partition, at, event))| {
            (
                &event.id,
                partition,
                signed(at.epoch),
                signed(at.seq),
                event.signal.code(),
                &event.product,
                &event.user,
                event.count,
                microseconds(event.occurred_at),
                microseconds(event.recorded_at),
                &event.reverses,
            )
        })
        .collect();
    if rows.is_empty() || run(conn, EVENTS, &rows)? == events.len() {
        return Ok(idle.into_iter().collect());
    }
    let kept: HashSet<(i16, i64, i64)> =
        list(KEPT, &rows)?.load::<Place>(conn)?.into_iter().map(|row| (row.partition, row.epoch, row.seq)).collect();
    let is_rejected = |(partition, at, _): &(u16, Position, Event)| {
        !kept.contains(&(partition_code(*partition), signed(at.epoch), signed(at.seq)))
    };
    let rejected: Vec<_> = events.iter().enumerate().filter(|(_, row)| is_rejected(row)).collect();
    expect_explained(conn, rejected.iter().filter(|(place, _)| !idle.contains(place)).map(|(_, (.., event))| event))?;
    Ok(rejected.into_iter().map(|(place, _)| place).collect())
}

/// Fails where events were not inserted, and the ledger has neither their ids nor another reversal of the same: they were
/// dropped, by a trigger, or for a constraint of somebody's own.
fn expect_explained<'e>(conn: &mut SqliteConnection, events: impl Iterator<Item = &'e Event>) -> QueryResult<()> {
    let events: Vec<_> = events.collect();
    let mut known = |text, ids: &[&EventId]| -> QueryResult<HashSet<String>> {
        Ok(list(text, ids)?.load::<Known>(conn)?.into_iter().map(|row| row.id).collect())
    };
    let ids = known(KNOWN, &events.iter().map(|event| &event.id).collect::<Vec<_>>())?;
    let reversed = known(REVERSED, &events.iter().filter_map(|event| event.reverses.as_ref()).collect::<Vec<_>>())?;
    let is_explained = |event: &&Event| {
        ids.contains(event.id.as_str()) || event.reverses.as_ref().is_some_and(|id| reversed.contains(id.as_str()))
    };
    match events.iter().find(|event| !is_explained(event)) {
        None => Ok(()),
        Some(event) => Err(refused(format!("{DROPPED}{}", event.id))),
    }
}

/// New likes that change nothing, by their places in the list: the engine, having forgotten a key, may have taken the
/// same like twice, and what followed it for the wrong way round.
fn idle_likes(conn: &mut SqliteConnection, events: &[(u16, Position, Event)]) -> QueryResult<BTreeSet<usize>> {
    let likes: Vec<_> = events
        .iter()
        .enumerate()
        .filter(|(_, (.., event))| event.id.like_key().is_some())
        .filter_map(|(place, (.., event))| Some((place, event, event.user.as_ref()?)))
        .collect();
    if likes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ids: Vec<_> = likes.iter().map(|(_, event, _)| &event.id).collect();
    let mut known: HashSet<_> = list(KNOWN, &ids)?.load::<Known>(conn)?.into_iter().map(|row| row.id).collect();
    let pairs: Vec<_> = likes.iter().map(|(_, event, user)| (user, &event.product)).collect();
    let liked = list(LIKED, &pairs)?.load::<Liked>(conn)?;
    let mut liked: HashSet<_> = liked.into_iter().map(|row| (row.user_id, row.product_id)).collect();
    let (mut idle, mut idle_ids) = (BTreeSet::new(), HashSet::new());
    for (place, event, user) in likes {
        if !known.insert(event.id.to_string()) {
            // Of an id that comes twice the first decides.
            if idle_ids.contains(&event.id) {
                idle.insert(place);
            }
            continue;
        }
        let pair = (user.to_string(), event.product.to_string());
        let changes = if event.count > 0 { liked.insert(pair) } else { liked.remove(&pair) };
        if !changes {
            idle.insert(place);
            idle_ids.insert(&event.id);
        }
    }
    Ok(idle)
}

/// Producers' events whose ids belong to nobody's, by their places in the list.
fn taken_ids(conn: &mut SqliteConnection, events: &[(u16, Position, Event)]) -> QueryResult<Vec<usize>> {
    let sent = events.iter().enumerate().filter_map(|(place, (.., event))| Some((place, event.id.as_sent()?)));
    let sent: Vec<_> = sent.collect();
    if sent.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = sent.iter().map(|(_, id)| id).collect();
    let known: HashSet<_> = list(KNOWN, &ids)?.load::<Known>(conn)?.into_iter().map(|row| row.id).collect();
    Ok(sent.into_iter().filter(|(_, id)| known.contains(id.as_str())).map(|(place, _)| place).collect())
}

#[derive(QueryableByName)]
struct Known {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct Liked {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    product_id: String,
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = SmallInt)]
    partition: i16,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// Adds events to activity, and the last one of each user and product to the likes.
fn fold<'r>(conn: &mut SqliteConnection, kept: impl Iterator<Item = &'r (u16, Position, Event)>) -> QueryResult<()> {
    // Both in the order of their table's key, so that the pages of its tree are touched one after the other.
    let mut activity = BTreeMap::new();
    let mut likes = BTreeMap::new();
    for (partition, at, event) in kept {
        *activity.entry((event.bucket().0, event.signal.code(), &event.product, partition)).or_insert(0) += event.count;
        if event.id.like_key().is_some()
            && let Some(user) = &event.user
        {
            let last = likes.entry((user, &event.product)).or_insert((at, event));
            if at > last.0 {
                *last = (at, event);
            }
        }
    }
    let rows: Vec<_> = activity
        .into_iter()
        .map(|((bucket, signal, product, partition), count)| (bucket, signal, product, partition, count))
        .collect();
    if !rows.is_empty() {
        run(conn, ACTIVITY, &rows)?;
    }
    let rows: Vec<_> = likes
        .into_iter()
        .map(|((user, product), (at, event))| {
            let liked = event.count > 0;
            let since = microseconds(if liked { event.occurred_at } else { event.recorded_at });
            (user, product, liked, since, signed(at.epoch), signed(at.seq))
        })
        .collect();
    if !rows.is_empty() {
        run(conn, LIKES, &rows)?;
    }
    Ok(())
}

fn run<R: serde::Serialize>(conn: &mut SqliteConnection, text: &'static str, rows: &[R]) -> QueryResult<usize> {
    list(text, rows)?.execute(conn)
}

fn list<R: serde::Serialize>(text: &'static str, rows: &[R]) -> QueryResult<Statement<'static, Backend>> {
    let json = serde_json::to_string(rows).map_err(|error| Error::SerializationError(error.into()))?;
    Ok(Statement::new(text).bind::<Text, _>(json))
}
