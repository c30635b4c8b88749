//! What the journal holds between two cursors, for those who compare one moment with another.
//!
//! The journal keeps what everybody has folded for about a second more, so that a moment just past is found here.

use super::App;
use crate::domain::{Cursors, EntryBody, Event};
use crate::engine::{EngineError, JournalReader};

/// Entries of a partition read at once.
const READ_COUNT: usize = 1_000;

/// Tells `each` event after `from` up to `upto`. False where the journal does not have all of them any more, or where they
/// are more than `entries_max`; what was told until then is of no use.
pub async fn between(
    reader: &mut dyn JournalReader,
    from: &Cursors,
    upto: &Cursors,
    entries_max: usize,
    mut each: impl FnMut(&Event) + Send,
) -> Result<bool, EngineError> {
    let mut cursors = from.clone();
    let mut left = entries_max;
    loop {
        cursors.retain(|partition, position| upto.get(partition).is_some_and(|end| *position < *end));
        if cursors.is_empty() {
            return Ok(true);
        }
        let after: Vec<_> = cursors.iter().map(|(partition, position)| (*partition, *position)).collect();
        let read = reader.read(&after, READ_COUNT, std::time::Duration::ZERO).await?;
        if read.is_empty() {
            return Ok(false);
        }
        for (partition, entries) in read {
            for entry in &entries {
                let previous = cursors[&partition];
                if previous >= upto[&partition] {
                    break;
                }
                if !previous.is_followed_by(entry.position) || left == 0 {
                    return Ok(false);
                }
                left -= 1;
                cursors.insert(partition, entry.position);
                if let EntryBody::Event(event) = &entry.body {
                    each(event);
                }
            }
        }
    }
}

impl App {
    /// As [`between`], with the one reader that requests of this node share: they read one after the other, over one
    /// connection, however many come.
    pub(super) async fn between(
        &self,
        from: &Cursors,
        upto: &Cursors,
        entries_max: usize,
        each: impl FnMut(&Event) + Send,
    ) -> Result<bool, EngineError> {
        let mut shared = self.reader.lock().await;
        // Taken out, so that a reader that failed, or whose caller went away in the middle, is not used again.
        let mut reader = match shared.take() {
            Some(reader) => reader,
            None => self.engine.journal_reader().await?,
        };
        let told = between(reader.as_mut(), from, upto, entries_max, each).await?;
        *shared = Some(reader);
        Ok(told)
    }
}
