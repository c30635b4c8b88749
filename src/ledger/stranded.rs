//! Entries that were written to a journal after its epoch had been ended elsewhere.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::db::{Db, in_tx, signed};
use super::dead_letters::entry_of;
use super::error::Result;
use super::instant::At;
use super::schema::{dead_letters, events};
use super::state::partition_code;
use super::sync::storable;
use crate::domain::{Entry, EntryBody, EventId, Timestamp};

const REASON: &str = "stranded: it was written to a Redis that the other servers had left for another one";

/// Puts those of the entries that are not among the events into the dead letters; returns how many these are.
pub(super) async fn strand(db: &Db, partition: u16, entries: &[Entry], at: Timestamp) -> Result<u64> {
    let event_id = |entry: &Entry| match &entry.body {
        EntryBody::Event(event) => Some(event.id.clone()),
        EntryBody::Undo(_) | EntryBody::Malformed { .. } => None,
    };
    let ids: Vec<EventId> = entries.iter().filter_map(event_id).collect();
    let ids: Vec<&str> = ids.iter().map(EventId::as_str).collect();
    in_tx!(db, |conn| {
        let known: Vec<String> = events::table.filter(events::id.eq_any(&ids)).select(events::id).load(conn).await?;
        let known: std::collections::HashSet<String> = known.into_iter().collect();
        let mut stranded = 0;
        for entry in entries {
            let text = match &entry.body {
                EntryBody::Event(event) if known.contains(event.id.as_str()) => continue,
                // What it takes back is in no ledger.
                EntryBody::Undo(_) => continue,
                EntryBody::Event(event) => entry_of(event),
                EntryBody::Malformed { raw, .. } => raw.clone(),
            };
            let row = (
                dead_letters::id.eq(format!("{partition}:{}", entry.position)),
                dead_letters::partition.eq(partition_code(partition)),
                dead_letters::epoch.eq(signed(entry.position.epoch)),
                dead_letters::seq.eq(signed(entry.position.seq)),
                dead_letters::entry.eq(storable(&text)),
                dead_letters::error.eq(REASON),
                dead_letters::at.eq(At(at)),
            );
            stranded +=
                diesel::insert_into(dead_letters::table).values(row).on_conflict_do_nothing().execute(conn).await?
                    as u64;
        }
        Ok(stranded)
    })
}
