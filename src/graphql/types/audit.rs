//! What admins have done, and the journal entries that could not be taken over.

use async_graphql::{ComplexObject, ID, InputObject, SimpleObject};

use super::ranking::PageInfo;
use super::scalars::{DateTime, int};
use crate::graphql::cursor::Cursor;
use crate::graphql::errors::UserError;
use crate::graphql::node::NodeId;
use crate::ledger::{self, KeysetPage, StoredDeadLetter};

/// What an admin did. `before` and `after` are JSON.
#[derive(SimpleObject, Clone)]
#[graphql(complex)]
pub struct AuditEntry {
    #[graphql(skip)]
    number: i64,
    id: ID,
    at: DateTime,
    actor: String,
    action: String,
    target: Option<String>,
    before: Option<String>,
    after: Option<String>,
    note: Option<String>,
}

#[ComplexObject]
impl AuditEntry {
    pub async fn node_id(&self) -> ID {
        NodeId::AuditEntry(self.number).encode()
    }
}

impl From<ledger::AuditEntry> for AuditEntry {
    fn from(entry: ledger::AuditEntry) -> Self {
        let ledger::AuditEntry { id, at, actor, action, target, before, after, note } = entry;
        let (number, id, at) = (id, ID(id.to_string()), DateTime(at));
        Self { number, id, at, actor, action, target: Some(target), before, after, note }
    }
}

#[derive(SimpleObject)]
pub struct AuditEdge {
    cursor: String,
    node: AuditEntry,
}

#[derive(SimpleObject)]
pub struct AuditConnection {
    edges: Vec<AuditEdge>,
    nodes: Vec<AuditEntry>,
    page_info: PageInfo,
}

impl AuditConnection {
    pub fn new(page: KeysetPage<ledger::AuditEntry>, has_previous_page: bool) -> Self {
        let cursors: Vec<_> = page.rows.iter().map(|entry| Cursor::Audit(entry.id).encode()).collect();
        let page_info = PageInfo::new(&cursors, page.has_more, has_previous_page);
        let nodes: Vec<AuditEntry> = page.rows.into_iter().map(AuditEntry::from).collect();
        let edges = cursors.into_iter().zip(nodes.clone()).map(|(cursor, node)| AuditEdge { cursor, node }).collect();
        Self { edges, nodes, page_info }
    }
}

/// A journal entry that the ledger could not take, kept as it was.
#[derive(SimpleObject, Clone)]
#[graphql(complex)]
pub struct DeadLetter {
    id: ID,
    position: String,
    entry: String,
    error: String,
    at: DateTime,
}

#[ComplexObject]
impl DeadLetter {
    pub async fn node_id(&self) -> ID {
        NodeId::DeadLetter(self.id.0.clone()).encode()
    }
}

impl From<StoredDeadLetter> for DeadLetter {
    fn from(letter: StoredDeadLetter) -> Self {
        Self {
            id: ID(letter.id),
            position: format!("{}:{}", letter.partition, letter.position),
            entry: letter.entry,
            error: letter.error,
            at: DateTime(letter.at),
        }
    }
}

#[derive(SimpleObject)]
pub struct DeadLetterEdge {
    cursor: String,
    node: DeadLetter,
}

#[derive(SimpleObject)]
pub struct DeadLetterConnection {
    edges: Vec<DeadLetterEdge>,
    nodes: Vec<DeadLetter>,
    page_info: PageInfo,
}

impl DeadLetterConnection {
    pub fn new(page: KeysetPage<StoredDeadLetter>, has_previous_page: bool) -> Self {
        let cursors: Vec<_> = page.rows.iter().map(|letter| Cursor::Letter(letter.id.clone()).encode()).collect();
        let page_info = PageInfo::new(&cursors, page.has_more, has_previous_page);
        let nodes: Vec<DeadLetter> = page.rows.into_iter().map(DeadLetter::from).collect();
        let edges =
            cursors.into_iter().zip(nodes.clone()).map(|(cursor, node)| DeadLetterEdge { cursor, node }).collect();
        Self { edges, nodes, page_info }
    }
}

/// Most entries that one call names, as many as events in a call.
pub const LETTERS_MAX: usize = 500;

#[derive(InputObject)]
pub struct ReplayDeadLettersInput {
    /// At most 500. Null for all.
    pub ids: Option<Vec<ID>>,
    /// For the audit log.
    pub note: Option<String>,
}

#[derive(SimpleObject)]
pub struct ReplayPayload {
    pub replayed: i32,
    /// One for each entry that stays a dead letter.
    pub user_errors: Vec<UserError>,
}

impl ReplayPayload {
    /// `ids` are those that were asked for, if any were.
    pub fn new(done: ledger::Replayed, ids: Option<&[String]>) -> Self {
        let place = |id: &String| ids.and_then(|ids| ids.iter().position(|asked| asked == id));
        let error = |(id, why): &(String, String)| match place(id) {
            Some(place) => UserError::invalid(&format!("ids.{place}"), why),
            None => UserError::invalid("ids", format!("{id}: {why}")),
        };
        Self { replayed: int(done.replayed.into()), user_errors: done.refused.iter().map(error).collect() }
    }
}
