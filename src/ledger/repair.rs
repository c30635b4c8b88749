//! Rebuilds what is derived from the events: likes and activity.
//!
//! Invariant: events are never touched, and no commit comes in between: the cursors are held until all of it is done.

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::audit::{Deed, enter, take_turn};
use super::check::{TIMED_POSTGRES, TIMED_SQLITE};
use super::db::{Db, in_tx};
use super::error::Result;
use super::schema::{boards, cursors};
use super::statement::Statement;
use super::{Author, Repaired};
use crate::domain::UserId;

#[derive(QueryableByName)]
struct Whose {
    #[diesel(sql_type = Text)]
    user_id: String,
}

/// Likes that no event speaks of.
const UNFOUNDED: &str = "
    UPDATE likes SET liked = FALSE
    WHERE liked AND NOT EXISTS (
        SELECT 1 FROM events
        WHERE events.user_id = likes.user_id AND events.product_id = likes.product_id AND events.signal = 1
            AND events.id >= 'like:' AND events.id < 'like;'
    )
    RETURNING user_id";

/// Sets likes and activity to what the events come to, and has every board computed anew. One transaction, during which
/// commits wait.
pub(super) async fn repair(db: &Db, author: &Author) -> Result<Repaired> {
    let activity = db.either(
        concat!(TIMED_POSTGRES!(), include_str!("repair_activity.sql")),
        concat!(TIMED_SQLITE!(), include_str!("repair_activity.sql")),
    );
    in_tx!(db, |conn| {
        take_turn!(conn);
        // One by one, in the order in which a commit takes them.
        let partitions: Vec<i16> =
            cursors::table.select(cursors::partition).order(cursors::partition).load(conn).await?;
        for partition in partitions {
            diesel::update(cursors::table.find(partition)).set(cursors::seq.eq(cursors::seq)).execute(conn).await?;
        }
        let mut whose: Vec<Whose> = Statement::new(include_str!("repair_likes.sql")).load(conn).await?;
        let unfounded: Vec<Whose> = Statement::new(UNFOUNDED).load(conn).await?;
        whose.extend(unfounded);
        let activity = Statement::new(activity).execute(conn).await? as u64;
        let counts = (boards::revision.eq(boards::revision + 1), boards::reopened.eq(boards::reopened + 1));
        diesel::update(boards::table).set(counts).execute(conn).await?;
        let likes = whose.len() as u64;
        let after = json!({ "likes": likes, "activity": activity });
        let target = "what is derived from the events".to_owned();
        enter!(conn, author, Deed { action: "repair", target, before: Value::Null, after });
        let mut users: Vec<UserId> = whose.into_iter().map(|row| UserId::from_stored(row.user_id)).collect();
        users.sort();
        users.dedup();
        Ok(Repaired { likes, activity, users })
    })
}
