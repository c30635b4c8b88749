//! The journal as the projector has it before it: read ahead, and of each entry whether boards may count it.
//!
//! A like counts once the ledger has committed it, unless it [is new](crate::domain::Event::is_new). Whether a key that a client
//! sent is new, only the ledger can tell, since the engine forgets keys: a like that the ledger refuses because of it never shows
//! on a board. Everything behind a like that waits for its commit waits with it, so that a cursor says what is counted. New likes
//! and other events count at once; what the ledger refuses of them is taken back by an [`crate::domain::Undo`] in the journal.
//!
//! Invariant: an entry is settled only when it counts for certain, or is certain never to count.

use std::collections::{BTreeMap, HashSet};
use std::future::pending;
use std::time::Duration;

use futures_util::future::{BoxFuture, select_all};
use tokio::time::{Instant, sleep_until, timeout};

use super::App;
use super::fault::{Fault, in_time};
use super::progress::{End, Waits};
use crate::domain::{Cursors, Entry, EntryBody, EventId, Position};
use crate::engine::{EngineError, JournalReader};
use crate::ledger::{EventState, LedgerError};

/// Entries held of all partitions: bounds one step's memory and how long the engine is held up by it.
const HELD_COUNT: usize = 20_000;
/// Entries looked up in the ledger at once.
const LOOKED_UP: usize = 1_000;
/// How long a projector that is to finish waits for a commit before it looks again.
const FINISHING_WAIT: Duration = Duration::from_millis(20);

type Reader = Box<dyn JournalReader>;
type Read = Result<Vec<(u16, Vec<Entry>)>, EngineError>;

/// A partition's entries behind the lowest cursor.
#[derive(Default)]
struct Line {
    entries: Vec<Entry>,
    /// How many of them are settled.
    settled: usize,
    /// Of these, the likes that the ledger has refused.
    refused: HashSet<Position>,
}

/// Entries of a partition that are settled, in order.
#[derive(Clone, Copy)]
pub struct Settled<'a> {
    pub partition: u16,
    pub entries: &'a [Entry],
    refused: &'a HashSet<Position>,
}

pub struct Tail {
    lines: BTreeMap<u16, Line>,
    idle: Option<Reader>,
    /// A read is never cut off, since its answer would stay behind in the connection.
    reading: Option<BoxFuture<'static, (Reader, Read)>>,
    /// Where the read under way began.
    asked: Cursors,
    /// Whether the ledger could not say what it has of a like that it has passed.
    is_unanswered: bool,
}

impl Settled<'_> {
    /// What boards count of an entry.
    pub fn counted<'e>(&self, entry: &'e Entry) -> Option<&'e EntryBody> {
        (!self.refused.contains(&entry.position)).then_some(&entry.body)
    }
}

impl Tail {
    pub async fn open(app: &App) -> Result<Self, EngineError> {
        let idle = Some(app.engine.journal_reader().await?);
        Ok(Self { lines: BTreeMap::new(), idle, reading: None, asked: Cursors::new(), is_unanswered: false })
    }

    /// Waits until something was read behind the lowest cursors, something held was committed, or `until`, and settles what
    /// can be. Says whether anything was read. One who is finishing reads what is there, and does not wait for more.
    pub async fn advance(
        &mut self,
        app: &App,
        lowest: &Cursors,
        until: Instant,
        is_finishing: bool,
    ) -> Result<bool, Fault> {
        let wait = if is_finishing { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        self.begin(lowest, wait);
        let must_read = is_finishing && self.reading.is_some();
        let (lines, reading, is_unanswered) = (&self.lines, &mut self.reading, self.is_unanswered);
        let read = async {
            match reading {
                Some(reading) => reading.await,
                None => pending().await,
            }
        };
        let mut has_read = false;
        tokio::select! {
            (reader, read) = read => {
                (self.reading, self.idle) = (None, Some(reader));
                let read = read?;
                has_read = !read.is_empty();
                self.take(read, lowest);
            }
            () = passed(lines, is_unanswered, &app.waits), if !must_read => {}
            () = sleep_until(until), if !must_read => {}
        }
        if is_finishing && !has_read && !self.is_settled() {
            timeout(FINISHING_WAIT, passed(&self.lines, self.is_unanswered, &app.waits)).await.ok();
        }
        self.settle(app).await?;
        Ok(has_read)
    }

    /// Whether nothing waits for the ledger.
    pub fn is_settled(&self) -> bool {
        self.lines.values().all(|line| line.settled == line.entries.len())
    }

    pub fn settled(&self) -> impl Iterator<Item = Settled<'_>> {
        self.lines.iter().map(|(&partition, line)| Settled {
            partition,
            entries: &line.entries[..line.settled],
            refused: &line.refused,
        })
    }

    /// Drops what all have folded, and begins to read behind what is held, where nothing is read yet and there is room.
    fn begin(&mut self, lowest: &Cursors, wait: Duration) {
        self.lines.retain(|partition, _| lowest.contains_key(partition));
        let room = HELD_COUNT.div_ceil(lowest.len().max(1));
        let mut ends = Cursors::new();
        for (&partition, &low) in lowest {
            let line = self.lines.entry(partition).or_default();
            line.drop_folded(low);
            if line.entries.len() < room {
                ends.insert(partition, line.entries.last().map_or(low, |last| last.position));
            }
        }
        if ends.is_empty() {
            return;
        }
        if let Some(mut reader) = self.idle.take() {
            let after: Vec<_> = ends.iter().map(|(partition, end)| (*partition, *end)).collect();
            self.asked = ends;
            self.reading = Some(Box::pin(async move {
                let read = reader.read(&after, room, wait).await;
                (reader, read)
            }));
        }
    }

    fn take(&mut self, read: Vec<(u16, Vec<Entry>)>, lowest: &Cursors) {
        for (partition, entries) in read {
            let Some(line) = self.lines.get_mut(&partition) else { continue };
            let end = line.entries.last().map(|last| &last.position).or(lowest.get(&partition));
            // Else a new generation begins before where this was read from; the next read begins there.
            if self.asked.get(&partition) == end {
                line.entries.extend(entries);
            }
        }
    }

    async fn settle(&mut self, app: &App) -> Result<(), Fault> {
        let mut untold = Vec::new();
        let mut ends: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
        for (&partition, line) in &mut self.lines {
            let mut first_untold = None;
            let mut end = line.settled;
            for entry in &line.entries[line.settled..] {
                if let EntryBody::Event(event) = &entry.body
                    && event.waits_for_commit()
                {
                    match app.waits.verdict(partition, entry.position) {
                        Some(End::Passed) => {}
                        Some(End::Refused) => {
                            line.refused.insert(entry.position);
                        }
                        Some(End::Untold) => {
                            first_untold = first_untold.or(Some(end));
                            untold.push((event.id.clone(), partition, entry.position));
                        }
                        // Of an epoch that is over nothing is projected any more.
                        None | Some(End::Unknown) => break,
                    }
                }
                end += 1;
            }
            ends.insert(partition, (end, first_untold.unwrap_or(end)));
        }
        let refused = match untold[..] {
            [] => Some(HashSet::new()),
            _ if app.is_ledger_away() => None,
            _ => app.refused_of(&untold).await.ok(),
        };
        self.is_unanswered = refused.is_none();
        for (&partition, line) in &mut self.lines {
            let Some(&(end, before_untold)) = ends.get(&partition) else { continue };
            line.settled = if refused.is_some() { end } else { before_untold };
        }
        for (partition, position) in refused.unwrap_or_default() {
            self.lines.entry(partition).or_default().refused.insert(position);
        }
        Ok(())
    }
}

impl Line {
    /// Lets go of entries up to a cursor; of all, where they do not follow it.
    fn drop_folded(&mut self, low: Position) {
        let folded = self.entries.partition_point(|entry| entry.position <= low);
        self.entries.drain(..folded);
        self.settled = self.settled.saturating_sub(folded);
        self.refused.retain(|position| *position > low);
        if self.entries.first().is_some_and(|first| !low.is_followed_by(first.position)) {
            *self = Self::default();
        }
    }
}

/// Ends when the ledger has passed an entry that is held. Where the ledger does not answer, that says nothing.
async fn passed(lines: &BTreeMap<u16, Line>, is_unanswered: bool, waits: &Waits) {
    let held = |(&partition, line): (&u16, &Line)| Some((partition, line.entries.get(line.settled)?.position));
    let held: Vec<_> = lines.iter().filter_map(held).collect();
    if held.is_empty() || is_unanswered {
        return pending().await;
    }
    select_all(held.iter().map(|(partition, position)| Box::pin(waits.ledger(*partition, *position)))).await;
}

impl App {
    /// Which of some likes that the ledger has passed it has not taken.
    pub(super) async fn refused_of(
        &self,
        likes: &[(EventId, u16, Position)],
    ) -> Result<HashSet<(u16, Position)>, LedgerError> {
        let mut refused = HashSet::new();
        for likes in likes.chunks(LOOKED_UP) {
            let states = in_time(self.ledger.event_states(likes)).await?;
            let lacking = likes.iter().zip(states).filter(|(_, state)| *state != EventState::Committed);
            refused.extend(lacking.map(|((_, partition, position), _)| (*partition, *position)));
        }
        Ok(refused)
    }
}
