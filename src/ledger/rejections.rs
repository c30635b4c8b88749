//! What the engine has taken and the ledger has not: asked for by who waits for an answer, and kept until the engine is
//! corrected.
//!
//! Invariant: a row of `rejections` is written by the commit that rejects or dead-letters the entry, and goes only when
//! somebody has corrected the engine.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::db::{Db, in_snapshot, in_tx, signed, unsigned, with_conn};
use super::error::Result;
use super::instant::At;
use super::schema::{dead_letters, events, rejections};
use super::state::{partition_code, partition_of_code};
use crate::domain::{EventId, Position, ProductId, Signal, Undo, UserId};

/// An event that the engine has taken and the ledger has not, until the engine is corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub partition: u16,
    pub position: Position,
    pub event: EventId,
    pub user: Option<UserId>,
    pub reverses: Option<EventId>,
    /// What takes it back on boards: not for likes that boards count only once they are committed, nor for what an older version
    /// has noted without saying what it counted.
    pub undo: Option<Undo>,
}

/// What the ledger has of an event that the engine has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    Committed,
    /// The id is another entry's, or it is a second reversal, or a like that changed nothing.
    Rejected,
    DeadLettered,
}

/// Rows read at once: as many as a commit rejects at most, so that nearly always one look is enough.
const PENDING_MAX: i64 = 4_000;

type Row = (
    (i16, i64, i64, String, Option<String>, Option<String>),
    (Option<i16>, Option<String>, Option<i64>, Option<At>, Option<bool>),
);

/// The oldest ones.
pub(super) async fn pending(db: &Db) -> Result<Vec<Rejection>> {
    let order = (rejections::epoch, rejections::seq, rejections::partition);
    let entry = (
        rejections::partition,
        rejections::epoch,
        rejections::seq,
        rejections::event_id,
        rejections::user_id,
        rejections::reverses,
    );
    let counted =
        (rejections::signal, rejections::product_id, rejections::count, rejections::occurred_at, rejections::counted);
    let oldest = rejections::table.order(order).select((entry, counted)).limit(PENDING_MAX);
    let rows: Vec<Row> = with_conn!(db, |conn| Ok(oldest.load(conn).await?))?;
    let rejection = |((code, epoch, seq, event, user, reverses), counted): Row| {
        let (position, event) = (Position::new(unsigned(epoch), unsigned(seq)), EventId::from_stored(event));
        let undo = match counted {
            (Some(signal), Some(product), Some(count), Some(occurred_at), is_counted)
                if is_counted.unwrap_or(!event.is_of_like()) =>
            {
                Signal::from_code(signal).map(|signal| Undo {
                    refused: position,
                    signal,
                    product: ProductId::from_stored(product),
                    count,
                    occurred_at: occurred_at.0,
                    // Not before it is in the journal.
                    recorded_at: occurred_at.0,
                })
            }
            _ => None,
        };
        let (user, reverses) = (user.map(UserId::from_stored), reverses.map(EventId::from_stored));
        Rejection { partition: partition_of_code(code), position, event, user, reverses, undo }
    };
    Ok(rows.into_iter().map(rejection).collect())
}

/// Takes rows away that the engine was corrected of.
pub(super) async fn settle(db: &Db, settled: &[Rejection]) -> Result<()> {
    let mut seqs: BTreeMap<(i16, i64), Vec<i64>> = BTreeMap::new();
    for Rejection { partition, position, .. } in settled {
        seqs.entry((partition_code(*partition), signed(position.epoch))).or_default().push(signed(position.seq));
    }
    in_tx!(db, |conn| {
        for ((of_partition, of_epoch), of_seqs) in &seqs {
            let there = rejections::table.filter(rejections::partition.eq(of_partition));
            let there = there.filter(rejections::epoch.eq(of_epoch)).filter(rejections::seq.eq_any(of_seqs));
            diesel::delete(there).execute(conn).await?;
        }
        Ok(())
    })
}

/// An event's id, partition, epoch and seq.
type KnownRow = (String, i16, i64, i64);

/// What the ledger has of entries that it has passed, in the order asked.
pub(super) async fn states(db: &Db, entries: &[(EventId, u16, Position)]) -> Result<Vec<EventState>> {
    let ids: Vec<&str> = entries.iter().map(|(id, ..)| id.as_str()).collect();
    // A gap's notice may stand at the same position, and has no entry.
    let letters: Vec<String> = entries
        .iter()
        .flat_map(|(_, partition, at)| [format!("{partition}:{at}"), format!("{partition}:{at}.1")])
        .collect();
    let (known, letters): (Vec<KnownRow>, Vec<(i16, i64, i64)>) = in_snapshot!(db, |conn| {
        let columns = (events::id, events::partition, events::epoch, events::seq);
        let known = events::table.filter(events::id.eq_any(&ids)).select(columns).load(conn).await?;
        let letters = dead_letters::table.filter(dead_letters::id.eq_any(&letters)).filter(dead_letters::entry.ne(""));
        let columns = (dead_letters::partition, dead_letters::epoch, dead_letters::seq);
        Ok((known, letters.select(columns).load(conn).await?))
    })?;
    let known: HashMap<String, (i16, i64, i64)> =
        known.into_iter().map(|(id, partition, epoch, seq)| (id, (partition, epoch, seq))).collect();
    let letters: HashSet<(i16, i64, i64)> = letters.into_iter().collect();
    let state = |(id, partition, at): &(EventId, u16, Position)| {
        let place = (partition_code(*partition), signed(at.epoch), signed(at.seq));
        match known.get(id.as_str()) {
            Some(known) if *known == place => EventState::Committed,
            // Its own letter says more than that another entry has had the id since.
            _ if letters.contains(&place) => EventState::DeadLettered,
            _ => EventState::Rejected,
        }
    };
    Ok(entries.iter().map(state).collect())
}
