//! Sync: takes the journal over into the ledger.
//!
//! It commits what has come while the last commit was under way, so one idle like commits at once and a flood commits
//! in large batches. Correct however many run side by side: each commit compares the cursors first.
//!
//! Invariant: an entry is passed only when the ledger has it, as an event or as a dead letter. A ledger that is away
//! makes sync wait, never skip.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::fault::Fault;
use crate::domain::{Cursors, Entry, EntryBody, Position};
use crate::engine::{Backoff, EngineError, Progress, Survey};
use crate::ledger::{Batch, Commit, DeadLetter, Refused, Rejection};

/// Entries in one commit, over all partitions that are followed: large enough that a flood is bound by the database's rows
/// and not by its commits, small enough that a commit takes well under the acknowledgement's timeout.
const READ_COUNT: usize = 4_000;
/// How long a read waits for an entry before it looks whether to finish. A read is never cut off, since its answer would
/// stay behind in the connection.
const READ_WAIT: Duration = Duration::from_millis(200);

/// What a sync task knows of its last attempts. While they fail, the node says that the ledger is down, however well it may be read.
struct Attempts<'a> {
    app: &'a App,
    backoff: Backoff,
    is_failing: bool,
}

impl Attempts<'_> {
    fn set_failing(&mut self, is_failing: bool) {
        match (std::mem::replace(&mut self.is_failing, is_failing), is_failing) {
            (false, true) => drop(self.app.failing_syncs.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.app.failing_syncs.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    fn succeeded(&mut self) {
        self.set_failing(false);
        self.app.sync_failing.store(false, Ordering::Relaxed);
        self.backoff.reset();
    }

    fn ledger_failed(&mut self) {
        self.set_failing(true);
        self.app.metrics.commit_failed();
        self.app.sync_failing.store(true, Ordering::Relaxed);
    }
}

/// Whoever does not sync any more knows nothing of it.
impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        self.set_failing(false);
    }
}

/// Follows some partitions until `finish`, then until nothing is left in them. Returns an error only for a lost engine.
pub async fn sync(app: &App, partitions: &[u16], finish: &CancellationToken) -> Result<(), Fault> {
    let mut attempts = Attempts { app, backoff: Backoff::default(), is_failing: false };
    loop {
        match follow(app, partitions, finish, &mut attempts).await {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_lost() => return Err(fault),
            Err(fault) => {
                if matches!(fault, Fault::Ledger(_)) {
                    attempts.ledger_failed();
                }
                let wait = attempts.backoff.after_failure();
                tracing::warn!(?partitions, wait_ms = wait.as_millis() as u64, "sync waits: {fault}");
                if finish.is_cancelled() {
                    // The journal keeps what could not be committed; the next node to start takes it over.
                    return Ok(());
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

async fn follow(
    app: &App,
    partitions: &[u16],
    finish: &CancellationToken,
    attempts: &mut Attempts<'_>,
) -> Result<(), Fault> {
    let mut follower = Follower::from_ledger(app, partitions).await?;
    let mut reader = app.engine.journal_reader().await?;
    // Whoever committed what is before the cursors may have died in between.
    correct(app).await?;
    let mut progress = follower.progress();
    loop {
        let finishing = finish.is_cancelled();
        let wait = if finishing { Duration::ZERO } else { READ_WAIT };
        // The other nodes are told while this one reads on.
        let positions = follower.positions();
        let read = reader.read(&positions, follower.read_count(), wait);
        let (told, read) = tokio::join!(app.engine.announce(&progress), read);
        told?;
        progress.clear();
        let batches = follower.batches(&read?);
        if batches.is_empty() {
            if finishing {
                return Ok(());
            }
            continue;
        }
        let began = Instant::now();
        match app.ledger.commit(&batches).await? {
            Commit::Done { rejected, dead_lettered } => {
                let entries = batches.iter().map(|batch| batch.events.len() + batch.dead_letters.len()).sum();
                app.metrics.commit(entries, rejected.len(), dead_lettered.len(), began.elapsed());
                attempts.succeeded();
                progress.extend(rejected.iter().chain(&dead_lettered).map(Refused::progress));
                // Before anything can fail, so that nobody takes them for committed.
                progress.iter().for_each(|progress| app.waits.reach(*progress));
                if let Some(first) = rejected.first() {
                    let (events, first) = (rejected.len(), first.position);
                    tracing::warn!(events, %first, "the ledger had these events already");
                }
                if let Some(first) = dead_lettered.first() {
                    let (events, first) = (dead_lettered.len(), first.position);
                    tracing::error!(events, %first, "the ledger can't store these events; they are dead letters");
                }
                if !(rejected.is_empty() && dead_lettered.is_empty()) {
                    correct(app).await?;
                }
                progress.extend(follower.advance(&batches));
                progress.iter().for_each(|progress| app.waits.reach(*progress));
            }
            Commit::CursorMoved => {
                attempts.succeeded();
                // A half of the batch may have been committed before.
                correct(app).await?;
                follower = Follower::from_ledger(app, partitions).await?;
                progress = follower.progress();
            }
        }
    }
}

impl Refused {
    /// As it is told to those who wait for the entry.
    fn progress(&self) -> Progress {
        Progress::Refused { partition: self.partition, position: self.position }
    }
}

/// Corrects the engine of what the ledger has rejected or dead-lettered: what boards have counted of it is taken back by an
/// entry of the journal, the users whose likes the engine has wrong are made to load anew, and producers' events are
/// remembered as the ledger has them, or forgotten, so that sent again they are judged anew.
pub(super) async fn correct(app: &App) -> Result<(), Fault> {
    loop {
        let rejections = app.ledger.rejections().await?;
        if rejections.is_empty() {
            return Ok(());
        }
        undo(app, &rejections).await?;
        let (likes, others): (Vec<_>, Vec<_>) = rejections.iter().partition(|rejection| rejection.event.is_of_like());
        let mut users: BTreeMap<_, u32> = BTreeMap::new();
        for user in likes.into_iter().filter_map(|rejection| rejection.user.clone()) {
            *users.entry(user).or_default() += 1;
        }
        // Whoever sends old keys pays for the work of taking them back as for so many likes more.
        for (user, likes) in &users {
            app.engine.charge_likes(user, *likes, app.now()).await?;
        }
        if !users.is_empty() {
            app.engine.forget_likes(&Vec::from_iter(users.into_keys()), app.now()).await?;
        }
        // A reversal would take back what the engine took, perhaps of another quarter of an hour than what the ledger
        // counted; and what a refused reversal took back is there still.
        let mut places = BTreeSet::new();
        for rejection in others {
            let ids = [Some(&rejection.event), rejection.reverses.as_ref()];
            places.extend(ids.into_iter().flatten().map(|id| (rejection.partition, id.clone())));
        }
        let ids: Vec<_> = places.iter().map(|(_, id)| id.clone()).collect();
        if !ids.is_empty() {
            let originals = app.ledger.originals(&ids).await?;
            let known: HashSet<_> = originals.iter().map(|(id, _)| id).collect();
            match app.engine.remember_events(&originals, app.now()).await {
                // They are forgotten: what is sent again comes to the ledger once more.
                Err(EngineError::Full(_)) => {}
                remembered => {
                    remembered?;
                    places.retain(|(_, id)| !known.contains(id));
                }
            }
            app.engine.forget_events(&Vec::from_iter(places)).await?;
        }
        app.ledger.settle_rejections(&rejections).await?;
    }
}

/// Journals what takes refused events back. Boards of an epoch that is over are computed anew.
async fn undo(app: &App, rejections: &[Rejection]) -> Result<(), Fault> {
    let epoch = app.begun().number;
    let mut undos: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for Rejection { partition, position, undo, .. } in rejections {
        if let Some(undo) = undo.clone()
            && position.epoch == epoch
        {
            undos.entry(*partition).or_default().push(undo);
        }
    }
    for (partition, undos) in undos {
        app.engine.undo(epoch, partition, &undos, app.now()).await?;
    }
    Ok(())
}

/// What is known of entries that are not there any more. It takes the position before them.
fn gap(partition: u16, after: Position, before: Position) -> DeadLetter {
    tracing::error!(partition, %after, %before, "journal entries are lost");
    let error = format!("lost: the journal has nothing between {after} and {before}");
    DeadLetter { position: after, entry: String::new(), error }
}

/// Where a reader of some partitions stands.
pub struct Follower {
    cursors: Cursors,
}

impl Follower {
    pub fn new(cursors: Cursors) -> Self {
        Self { cursors }
    }

    async fn from_ledger(app: &App, partitions: &[u16]) -> Result<Self, Fault> {
        let known = app.known_in_ledger();
        let state = app.ledger.state(app.engine.limits().partitions).await?;
        if app.epoch().is_err() || app.begun() != state.present_epoch() {
            let why = format!("the ledger is in epoch {}, or is another one", state.epoch);
            return Err(EngineError::Lost(why).into());
        }
        // What is missing there must not be taken for a gap in the journal.
        let is_behind = |(partition, cursor): (&u16, &Position)| {
            known.get(partition).is_some_and(|known| known.epoch == cursor.epoch && known > cursor)
        };
        if state.cursors.iter().any(is_behind) {
            return Err(EngineError::Lost("the ledger has gone back behind what it had committed".to_owned()).into());
        }
        Ok(Self::new(state.cursors.into_iter().filter(|(partition, _)| partitions.contains(partition)).collect()))
    }

    pub fn positions(&self) -> Vec<(u16, Position)> {
        self.cursors.iter().map(|(partition, position)| (*partition, *position)).collect()
    }

    /// Entries of each partition to read at once.
    pub fn read_count(&self) -> usize {
        READ_COUNT.div_ceil(self.cursors.len().max(1))
    }

    fn progress(&self) -> Vec<Progress> {
        // What was refused on the way there is for those to tell who committed it.
        let stands =
            |(&partition, &position): (&u16, &Position)| Progress::Ledger { partition, from: position, position };
        self.cursors.iter().map(stands).collect()
    }

    /// What was read, as batches to commit. A step in the journal that is missing becomes a dead letter of its own.
    pub fn batches(&self, read: &[(u16, Vec<Entry>)]) -> Vec<Batch> {
        read.iter().filter_map(|(partition, entries)| self.batch(*partition, entries)).collect()
    }

    fn batch(&self, partition: u16, entries: &[Entry]) -> Option<Batch> {
        let from = self.cursors[&partition];
        let to = entries.last()?.position;
        let mut batch = Batch { partition, from, to, events: Vec::new(), dead_letters: Vec::new() };
        let mut previous = from;
        for entry in entries {
            if !previous.is_followed_by(entry.position) {
                batch.dead_letters.push(gap(partition, previous, entry.position));
            }
            match &entry.body {
                EntryBody::Event(event) => batch.events.push((entry.position, event.clone())),
                // It takes back what is in no ledger.
                EntryBody::Undo(_) => {}
                EntryBody::Malformed { raw, reason } => batch.dead_letters.push(DeadLetter {
                    position: entry.position,
                    entry: raw.clone(),
                    error: reason.clone(),
                }),
            }
            previous = entry.position;
        }
        Some(batch)
    }

    /// What the journals had written beyond all that could be read from them, as dead letters: the ledger is an older
    /// backup, and the entries are trimmed.
    pub fn lost(&self, survey: &Survey) -> Vec<Batch> {
        let beyond = |(&partition, &from): (&u16, &Position)| {
            let to = survey.partitions.get(usize::from(partition))?.last.filter(|last| *last > from)?;
            let letter = gap(partition, from, to);
            Some(Batch { partition, from, to, events: Vec::new(), dead_letters: vec![letter] })
        };
        self.cursors.iter().filter_map(beyond).collect()
    }

    /// Moves behind batches that were committed.
    pub fn advance(&mut self, batches: &[Batch]) -> Vec<Progress> {
        self.cursors.extend(batches.iter().map(|batch| (batch.partition, batch.to)));
        let told =
            |batch: &Batch| Progress::Ledger { partition: batch.partition, from: batch.from, position: batch.to };
        batches.iter().map(told).collect()
    }
}
