//! The audit log, and the turns in which admins change things.
//!
//! Both are macros, since they serve the transactions of two databases.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::db::{Db, with_conn};
use super::error::Result;
use super::instant::At;
use super::schema::audit_log;
use super::{AuditEntry, Author, KeysetPage};
use crate::domain::Timestamp;

/// What is done in a transaction, for the audit log.
pub(super) struct Deed {
    /// The mutation's name.
    pub(super) action: &'static str,
    pub(super) target: String,
    pub(super) before: Value,
    pub(super) after: Value,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = audit_log)]
pub(super) struct AuditRow {
    id: i64,
    at: At,
    actor: String,
    action: String,
    target: String,
    before: Option<String>,
    after: Option<String>,
    note: Option<String>,
}

impl Deed {
    pub(super) fn row(self, id: i64, author: &Author) -> AuditRow {
        let text = |value: Value| (!value.is_null()).then(|| value.to_string());
        AuditRow {
            id,
            at: At(author.at),
            actor: author.name.clone(),
            action: self.action.to_owned(),
            target: self.target,
            before: text(self.before),
            after: text(self.after),
            note: Some(author.note.clone()).filter(|note| !note.is_empty()),
        }
    }
}

/// A JSON object of what is there.
pub(super) fn told<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// As the API shows instants.
pub(super) fn time_told(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| at.to_string().into())
}

/// Of two JSON objects, what one of them has otherwise than the other.
pub(super) fn differing(before: Value, after: Value) -> (Value, Value) {
    match (before, after) {
        (Value::Object(mut before), Value::Object(mut after)) => {
            let same: Vec<_> = before.keys().filter(|key| before.get(*key) == after.get(*key)).cloned().collect();
            for key in same {
                before.remove(&key);
                after.remove(&key);
            }
            (before.into(), after.into())
        }
        others => others,
    }
}

/// Waits for its turn among those that change something as an admin, until the transaction ends.
macro_rules! take_turn {
    ($conn:expr) => {{
        use $crate::ledger::schema::versions::dsl;
        diesel::update(dsl::versions).set(dsl::rules.eq(dsl::rules)).execute($conn).await?;
    }};
}

/// The next version of the rules.
macro_rules! next_version {
    ($conn:expr) => {{
        use $crate::ledger::schema::versions::dsl;
        let next = diesel::update(dsl::versions).set(dsl::rules.eq(dsl::rules + 1)).returning(dsl::rules);
        next.get_result::<i32>($conn).await?
    }};
}

/// Enters a deed into the audit log.
macro_rules! enter {
    ($conn:expr, $author:expr, $deed:expr) => {{
        use $crate::ledger::schema::{audit_log, versions::dsl};
        let next = diesel::update(dsl::versions).set(dsl::audit.eq(dsl::audit + 1)).returning(dsl::audit);
        let id = next.get_result::<i64>($conn).await?;
        diesel::insert_into(audit_log::table).values($deed.row(id, $author)).execute($conn).await?;
    }};
}

pub(super) use {enter, next_version, take_turn};

pub(super) async fn audit_log(db: &Db, below: Option<i64>, first: u32) -> Result<KeysetPage<AuditEntry>> {
    let rows: Vec<AuditRow> = with_conn!(db, |conn| {
        let newest_first = audit_log::table.order(audit_log::id.desc());
        let page = newest_first.filter(audit_log::id.lt(below.unwrap_or(i64::MAX))).limit(i64::from(first) + 1);
        Ok(page.load(conn).await?)
    })?;
    Ok(KeysetPage::of(rows.into_iter().map(AuditEntry::from), first))
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at, actor, action, target, before, after, note } = row;
        Self { id, at: at.0, actor, action, target, before, after, note }
    }
}
