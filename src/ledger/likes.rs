//! Reading likes and events: what a user likes, the answers of recent keys, and what is known of an event.

use std::collections::{BTreeSet, HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::KeysetPage;
use super::db::{Db, in_snapshot, unsigned, with_conn};
use super::error::Result;
use super::instant::{At, Instant};
use super::schema::{events, likes};
use super::statement::Statement;
use crate::domain::{EventId, Position, ProductId, Signal, Timestamp, UserId};
use crate::engine::{EngineLimits, LikeAnswer, Original, UserLikes};

/// The last likes of each user in a list, oldest first: for each user a short walk back through `events_by_user`. As one
/// join it might be planned over the whole table.
const ANSWERS_POSTGRES: &str = "
    SELECT asked.user_id, recent.*
    FROM json_array_elements_text(CAST({users} AS json)) AS asked (user_id)
    CROSS JOIN LATERAL (
        SELECT id, count, recorded_at, epoch, seq
        FROM events
        WHERE signal = 1 AND events.user_id = asked.user_id AND recorded_at >= {since}
        ORDER BY recorded_at DESC, epoch DESC, seq DESC
        LIMIT {most}
    ) AS recent
    ORDER BY asked.user_id, epoch, seq";

/// The same in the words of SQLite, which has no LATERAL and numbers the rows instead.
const ANSWERS_SQLITE: &str = "
    SELECT user_id, id, count, recorded_at, epoch, seq FROM (
        SELECT user_id, id, count, recorded_at, epoch, seq,
            ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY recorded_at DESC, epoch DESC, seq DESC) AS place
        FROM events
        WHERE signal = 1 AND user_id IN (SELECT value FROM json_each({users})) AND recorded_at >= {since}
    ) AS recent
    WHERE place <= {most}
    ORDER BY user_id, epoch, seq";

/// What each user of a list likes; OFFSET 0 keeps Postgres from turning it into one join, for the same reason.
const LIKES_POSTGRES: &str = "
    SELECT asked.user_id, liked.product_id, liked.liked_at
    FROM json_array_elements_text(CAST({users} AS json)) AS asked (user_id)
    CROSS JOIN LATERAL (
        SELECT product_id, liked_at FROM likes WHERE likes.user_id = asked.user_id AND liked OFFSET 0
    ) AS liked";

const LIKES_SQLITE: &str = "
    SELECT user_id, product_id, liked_at
    FROM likes
    WHERE user_id IN (SELECT value FROM json_each({users})) AND liked";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = Instant)]
    recorded_at: At,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

#[derive(QueryableByName)]
struct Liked {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    product_id: String,
    #[diesel(sql_type = Instant)]
    liked_at: At,
}

/// One query for all likes and one for all answers.
pub(super) async fn user_likes(db: &Db, users: &[UserId], since: Timestamp) -> Result<Vec<UserLikes>> {
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    // A commit between the two is of a like by a user who was loaded elsewhere meanwhile, so the engine keeps what it has.
    let answers = answers(db, &names, since).await?;
    let text = db.either(LIKES_POSTGRES, LIKES_SQLITE);
    let users = to_json(&names);
    let rows: Vec<Liked> = with_conn!(db, |conn| Ok(Statement::new(text).bind::<Text, _>(&users).load(conn).await?))?;
    let mut by_user: HashMap<String, UserLikes> = HashMap::with_capacity(users.len());
    let empty = |user: &str| UserLikes { user: UserId::from_stored(user), likes: Vec::new(), answers: Vec::new() };
    for row in rows {
        let entry = by_user.entry(row.user_id).or_insert_with_key(|user| empty(user));
        entry.likes.push((ProductId::from_stored(row.product_id), row.liked_at.0));
    }
    for row in answers {
        let Some(key) = EventId::from_stored(row.id).like_key() else { continue };
        let answer = LikeAnswer {
            liked: row.count > 0,
            changed: true,
            at: row.recorded_at.0,
            position: Position::new(unsigned(row.epoch), unsigned(row.seq)),
        };
        by_user.entry(row.user_id).or_insert_with_key(|user| empty(user)).answers.push((key, answer));
    }
    // A user may be asked for twice.
    Ok(names.iter().map(|user| by_user.get(*user).cloned().unwrap_or_else(|| empty(user))).collect())
}

/// A list of users, each once: a row for each would come for each time that one is named.
fn to_json(users: &[&str]) -> String {
    let users: BTreeSet<_> = users.iter().collect();
    serde_json::to_string(&users).expect("texts are JSON")
}

async fn answers(db: &Db, users: &[&str], since: Timestamp) -> Result<Vec<Answer>> {
    let text = db.either(ANSWERS_POSTGRES, ANSWERS_SQLITE);
    let users = to_json(users);
    with_conn!(db, |conn| {
        let query = Statement::new(text)
            .bind::<Text, _>(&users)
            .bind::<Instant, _>(At(since))
            .bind::<BigInt, _>(EngineLimits::ANSWERS_MAX as i64);
        Ok(query.load(conn).await?)
    })
}

pub(super) async fn liked_products(
    db: &Db,
    user: &UserId,
    after: Option<(Timestamp, ProductId)>,
    first: u32,
) -> Result<KeysetPage<(ProductId, Timestamp)>> {
    let rows: Vec<(String, At)> = with_conn!(db, |conn| {
        let mut page = likes::table
            .filter(likes::user_id.eq(user.as_str()))
            .filter(likes::liked)
            .select((likes::product_id, likes::liked_at))
            .order((likes::liked_at.desc(), likes::product_id.desc()))
            .limit(i64::from(first) + 1)
            .into_boxed();
        if let Some((at, product)) = &after {
            // The first condition alone bounds the run of the index that is read.
            let earlier = likes::liked_at.lt(At(*at)).or(likes::product_id.lt(product.as_str()));
            page = page.filter(likes::liked_at.le(At(*at))).filter(earlier);
        }
        Ok(page.load(conn).await?)
    })?;
    Ok(KeysetPage::of(rows.into_iter().map(|(product, at)| (ProductId::from_stored(product), at.0)), first))
}

pub(super) async fn liked_count(db: &Db, user: &UserId) -> Result<u64> {
    let count: i64 = with_conn!(db, |conn| {
        let liked = likes::table.filter(likes::user_id.eq(user.as_str())).filter(likes::liked);
        Ok(liked.count().get_result(conn).await?)
    })?;
    Ok(unsigned(count))
}

pub(super) async fn originals(db: &Db, ids: &[EventId]) -> Result<Vec<(EventId, Original)>> {
    let ids: Vec<&str> = ids.iter().map(EventId::as_str).collect();
    type Row = (String, i16, String, i64, At);
    let (rows, reversed): (Vec<Row>, Vec<Option<String>>) = in_snapshot!(db, |conn| {
        let columns = (events::id, events::signal, events::product_id, events::count, events::occurred_at);
        let rows = events::table.filter(events::id.eq_any(&ids)).select(columns).load(conn).await?;
        let reversals = events::table.filter(events::reverses.eq_any(&ids)).select(events::reverses);
        Ok((rows, reversals.load(conn).await?))
    })?;
    let reversed: HashSet<String> = reversed.into_iter().flatten().collect();
    let known = rows.into_iter().filter_map(|(id, signal, product, count, occurred_at)| {
        let original = Original {
            signal: Signal::from_code(signal)?,
            product: ProductId::from_stored(product),
            count,
            occurred_at: occurred_at.0,
            reversed: reversed.contains(&id),
        };
        Some((EventId::from_stored(id), original))
    });
    Ok(known.collect())
}
