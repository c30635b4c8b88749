//! What the journal holds between two cursors, for those who compare one moment with another.
//!
//! The journal keeps what everybody has folded for about a second more, so that a moment just past is found here.

use super::App;
use super::fault::Fault;
use super::progress::End;
use crate::domain::{Bucket, Cursors, Entry, EntryBody, ProductId, Signal};
use crate::engine::{EngineError, JournalReader};

/// Entries of a partition read at once.
const READ_COUNT: usize = 1_000;

/// By how much one moment differs from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub product: ProductId,
    pub signal: Signal,
    pub bucket: Bucket,
    pub count: i64,
}

/// Which of two moments the ledger was read at; the other one is a board's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerAt {
    Earlier,
    Later,
}

/// The entries after `from` up to `upto`. `None` where the journal does not have all of them any more, or where they are more
/// than `entries_max`.
async fn entries_between(
    reader: &mut dyn JournalReader,
    from: &Cursors,
    upto: &Cursors,
    entries_max: usize,
) -> Result<Option<Vec<(u16, Entry)>>, EngineError> {
    let mut cursors = from.clone();
    let mut found = Vec::new();
    loop {
        cursors.retain(|partition, position| upto.get(partition).is_some_and(|end| *position < *end));
        if cursors.is_empty() {
            return Ok(Some(found));
        }
        let after: Vec<_> = cursors.iter().map(|(partition, position)| (*partition, *position)).collect();
        let read = reader.read(&after, READ_COUNT, std::time::Duration::ZERO).await?;
        if read.is_empty() {
            return Ok(None);
        }
        for (partition, entries) in read {
            for entry in entries {
                let previous = cursors[&partition];
                if previous >= upto[&partition] {
                    break;
                }
                if !previous.is_followed_by(entry.position) || found.len() == entries_max {
                    return Ok(None);
                }
                cursors.insert(partition, entry.position);
                found.push((partition, entry));
            }
        }
    }
}

impl App {
    /// By how much the later moment differs from the earlier one, `from`: what the board has counted that the ledger had not,
    /// or the ledger that the board had not. `None` as above.
    pub(super) async fn counted_between(
        &self,
        reader: &mut dyn JournalReader,
        from: &Cursors,
        upto: &Cursors,
        ledger_at: LedgerAt,
        entries_max: usize,
    ) -> Result<Option<Vec<Counted>>, Fault> {
        let Some(entries) = entries_between(reader, from, upto, entries_max).await? else { return Ok(None) };
        let is_ledgers = ledger_at == LedgerAt::Later;
        // Boards count no like that waited and was refused; the ledger counts nothing that was refused.
        let mut refused = std::collections::HashSet::new();
        let mut asked = Vec::new();
        for (partition, Entry { position, body }) in &entries {
            if let EntryBody::Event(event) = body
                && (is_ledgers || event.waits_for_commit())
            {
                match self.waits.verdict(*partition, *position) {
                    Some(End::Passed) => {}
                    Some(End::Refused) => {
                        refused.insert((*partition, *position));
                    }
                    Some(End::Untold | End::Unknown) | None => asked.push((event.id.clone(), *partition, *position)),
                }
            }
        }
        refused.extend(self.refused_of(&asked).await?);
        let counted = entries.into_iter().filter_map(|(partition, Entry { position, body })| match body {
            EntryBody::Event(event) if !refused.contains(&(partition, position)) => {
                let (bucket, count) = (event.bucket(), event.count);
                Some(Counted { product: event.product, signal: event.signal, bucket, count })
            }
            // Of what was refused before, the board had counted it by then, and the ledger never does.
            EntryBody::Undo(undo) if (undo.refused <= from[&partition]) == is_ledgers => {
                let (bucket, count) = (undo.bucket(), -undo.count);
                Some(Counted { product: undo.product, signal: undo.signal, bucket, count })
            }
            _ => None,
        });
        Ok(Some(counted.collect()))
    }

    /// As [`Self::counted_between`], with the one reader that requests of this node share: they read one after the other, over
    /// one connection, however many come.
    pub(super) async fn counted_between_shared(
        &self,
        from: &Cursors,
        upto: &Cursors,
        ledger_at: LedgerAt,
        entries_max: usize,
    ) -> Result<Option<Vec<Counted>>, Fault> {
        let mut shared = self.reader.lock().await;
        // Taken out, so that a reader that failed, or whose caller went away in the middle, is not used again.
        let mut reader = match shared.take() {
            Some(reader) => reader,
            None => self.engine.journal_reader().await?,
        };
        let told = self.counted_between(reader.as_mut(), from, upto, ledger_at, entries_max).await?;
        *shared = Some(reader);
        Ok(told)
    }
}
