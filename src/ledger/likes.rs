//! Reading likes and events: what a user likes, the answers of recent keys, and what is known of an event.

use std::collections::{BTreeSet, HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::KeysetPage;
use super::db::{Db, in_snapshot, unsigned, with_conn};
use super::error::Result;
use super::instant::{At, Instant};
use super::schema::{events, likes};
use super::statement::Statement;
use crate::domain::{EventId, Position, ProductId, Signal, Timestamp, UserId};
use crate::engine::{EngineLimits, LikeAnswer, Original, UserLikes};

/// What each user of a list likes, the user's last likes and unlikes, and what the unlikes took back: for each user a short walk through `likes_by_user`
/// and two back through `events_by_user`. As joins they might be planned over whole tables, from which LIMIT keeps
/// Postgres.
const LOADED_POSTGRES: &str = "
    SELECT asked.user_id, own.*
    FROM json_array_elements_text(CAST({users} AS json)) AS asked (user_id)
    CROSS JOIN LATERAL (
        (
            SELECT product_id, liked_at AS at, CAST(NULL AS TEXT) AS id, CAST(0 AS BIGINT) AS count,
                CAST(0 AS BIGINT) AS epoch, CAST(0 AS BIGINT) AS seq
            FROM likes
            WHERE likes.user_id = asked.user_id AND liked
            LIMIT {likes}
        )
        UNION ALL
        (
            SELECT product_id, recorded_at, id, count, epoch, seq
            FROM events
            WHERE signal = 1 AND events.user_id = asked.user_id AND recorded_at >= {since}
            ORDER BY recorded_at DESC, epoch DESC, seq DESC
            LIMIT {most}
        )
        UNION ALL
        (
            SELECT product_id, occurred_at, CAST(NULL AS TEXT), CAST(-1 AS BIGINT), epoch, seq
            FROM events
            WHERE signal = 1 AND events.user_id = asked.user_id AND recorded_at >= {since} AND count < 0
                AND STARTS_WITH(id, 'like:')
            ORDER BY recorded_at DESC, epoch DESC, seq DESC
            LIMIT {likes}
        )
    ) AS own";

/// The same in the words of SQLite, which has no LATERAL: it joins a list made for each user, or numbers the rows.
const LOADED_SQLITE: &str = "
    WITH asked AS (SELECT value AS user_id FROM json_each({users}))
    SELECT user_id, own.value ->> 0 AS product_id, own.value ->> 1 AS at, NULL AS id, 0 AS count, 0 AS epoch, 0 AS seq
    FROM asked, json_each((
        SELECT json_group_array(json_array(product_id, liked_at))
        FROM (
            SELECT product_id, liked_at FROM likes WHERE likes.user_id = asked.user_id AND liked LIMIT {likes}
        )
    )) AS own
    UNION ALL
    SELECT user_id, product_id, at, id, count, epoch, seq FROM (
        SELECT user_id, product_id, recorded_at AS at, id, count, epoch, seq,
            ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY recorded_at DESC, epoch DESC, seq DESC) AS place
        FROM events
        WHERE signal = 1 AND user_id IN (SELECT user_id FROM asked) AND recorded_at >= {since}
    ) AS recent
    WHERE place <= {most}
    UNION ALL
    SELECT user_id, product_id, occurred_at, NULL, -1, epoch, seq FROM (
        SELECT user_id, product_id, occurred_at, epoch, seq,
            ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY recorded_at DESC, epoch DESC, seq DESC) AS place
        FROM events
        WHERE signal = 1 AND user_id IN (SELECT user_id FROM asked) AND recorded_at >= {since} AND count < 0
            AND id LIKE 'like:%'
    ) AS unliked
    WHERE place <= {likes}";

#[derive(QueryableByName)]
struct Loaded {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    product_id: String,
    #[diesel(sql_type = Instant)]
    at: At,
    /// Of an event; none for what is liked (a count of 0) and what an unlike took back (-1).
    #[diesel(sql_type = Nullable<Text>)]
    id: Option<String>,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// One query for all: what was unliked and which keys were used since an instant, and at most `likes_max` likes, and unlikes, of
/// each.
pub(super) async fn user_likes(db: &Db, users: &[UserId], since: Timestamp, likes_max: i64) -> Result<Vec<UserLikes>> {
    let text = db.either(LOADED_POSTGRES, LOADED_SQLITE);
    // Each user once: a row for each would come for each time that one is named.
    let names: BTreeSet<&str> = users.iter().map(UserId::as_str).collect();
    let names = serde_json::to_string(&names).expect("texts are JSON");
    let rows: Vec<Loaded> = with_conn!(db, |conn| {
        let query = Statement::new(text)
            .bind::<Text, _>(&names)
            .bind::<BigInt, _>(likes_max)
            .bind::<Instant, _>(At(since))
            .bind::<BigInt, _>(EngineLimits::ANSWERS_MAX as i64)
            .bind::<Instant, _>(At(since))
            .bind::<BigInt, _>(likes_max);
        Ok(query.load(conn).await?)
    })?;
    let empty = |user: &UserId| UserLikes {
        user: user.clone(),
        // The caller knows.
        as_of: Position::default(),
        likes: Vec::new(),
        unliked: Vec::new(),
        answers: Vec::new(),
    };
    let mut unliked: HashMap<String, Vec<_>> = HashMap::new();
    let mut by_user: HashMap<&str, UserLikes> = users.iter().map(|user| (user.as_str(), empty(user))).collect();
    for row in rows {
        let Some(known) = by_user.get_mut(row.user_id.as_str()) else { continue };
        let product = ProductId::from_stored(row.product_id);
        let position = Position::new(unsigned(row.epoch), unsigned(row.seq));
        let Some(id) = row.id else {
            match row.count {
                0 => known.likes.push((product, row.at.0)),
                _ => unliked.entry(row.user_id).or_default().push((position, product, row.at.0)),
            }
            continue;
        };
        let Some(key) = EventId::from_stored(id).like_key() else { continue };
        let answer = LikeAnswer { liked: row.count > 0, changed: true, at: row.at.0, position };
        known.answers.push((key, product, answer));
    }
    for (user, mut rows) in unliked {
        rows.sort_by_key(|(position, ..)| *position);
        if let Some(known) = by_user.get_mut(user.as_str()) {
            known.unliked = rows.into_iter().map(|(_, product, first)| (product, first)).collect();
        }
    }
    by_user.values_mut().for_each(|known| known.answers.sort_by_key(|(.., answer)| answer.position));
    // A user may be asked for twice.
    Ok(users.iter().map(|user| by_user[user.as_str()].clone()).collect())
}

pub(super) async fn answer(db: &Db, id: &EventId) -> Result<Option<(ProductId, LikeAnswer)>> {
    let row: Option<(String, i64, At, i64, i64)> = with_conn!(db, |conn| {
        let columns = (events::product_id, events::count, events::recorded_at, events::epoch, events::seq);
        Ok(events::table.find(id.as_str()).select(columns).first(conn).await.optional()?)
    })?;
    Ok(row.map(|(product, count, at, epoch, seq)| {
        let position = Position::new(unsigned(epoch), unsigned(seq));
        (ProductId::from_stored(product), LikeAnswer { liked: count > 0, changed: true, at: at.0, position })
    }))
}

/// Whether the user likes the product, and since which entry that is so; `None` where there never was one.
pub(super) async fn last_like(db: &Db, user: &UserId, product: &ProductId) -> Result<Option<(bool, Position)>> {
    let row: Option<(bool, i64, i64)> = with_conn!(db, |conn| {
        let found = likes::table.find((user.as_str(), product.as_str()));
        Ok(found.select((likes::liked, likes::epoch, likes::seq)).first(conn).await.optional()?)
    })?;
    Ok(row.map(|(liked, epoch, seq)| (liked, Position::new(unsigned(epoch), unsigned(seq)))))
}

/// One query, by the primary key.
pub(super) async fn liked_at(db: &Db, user: &UserId, products: &[ProductId]) -> Result<Vec<Option<Timestamp>>> {
    let names: BTreeSet<&str> = products.iter().map(ProductId::as_str).collect();
    let rows: Vec<(String, At)> = with_conn!(db, |conn| {
        let own = likes::table.filter(likes::user_id.eq(user.as_str())).filter(likes::liked);
        let asked = own.filter(likes::product_id.eq_any(names.iter().copied()));
        Ok(asked.select((likes::product_id, likes::liked_at)).load(conn).await?)
    })?;
    let liked: HashMap<String, At> = rows.into_iter().collect();
    Ok(products.iter().map(|product| liked.get(product.as_str()).map(|at| at.0)).collect())
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
