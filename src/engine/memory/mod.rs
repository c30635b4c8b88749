//! The engine in process memory: the executable specification, and what runs when nothing is configured.
//!
//! One lock over everything makes every step atomic; it is never held over an await. What a partition keeps is in
//! [`partition`] (with the steps of likes in `likes` and of events in `events`), its journal in [`journal`], what a
//! board keeps in [`boards`], and what goes when it is idle in [`expiring`].
//!
//! Invariant: a step either answers an error and has changed nothing, or has taken place as a whole.

mod boards;
mod events;
mod expiring;
mod journal;
mod likes;
mod partition;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use self::boards::BoardState;
use self::expiring::Expiring;
use self::journal::MemoryJournalReader;
use self::partition::Partition;
use super::{
    Apply, BoardSurvey, Build, Engine, EngineError, EngineLimits, EngineMemory, Entries, Generation, JournalReader,
    LikeOutcome, LikeRequest, Notice, Original, Page, Progress, RecordOutcome, RecordRequest, Result, Survey,
    UserLikes,
};
use crate::domain::{
    BoardId, Cursors, EventId, FeedState, PageStart, Place, Points, Position, ProductId, Timestamp, Undo, UserId,
    partition_of,
};

/// Notices that a slow listener may be behind before it misses some: ten seconds of a dozen boards' ticks. A published
/// state of 100 places is some 4 KB, so this holds 5 MB at most.
const NOTICES_MAX: usize = 1_024;

/// A handle; clones share one state. A new engine is closed and empty.
#[derive(Clone)]
pub struct MemoryEngine(Arc<Shared>);

struct Shared {
    /// A random name: no other process has this memory.
    instance: String,
    limits: EngineLimits,
    state: Mutex<State>,
    /// Wakes the readers of all journals: few, and cheaper to wake in vain than to find one by one.
    appended: Notify,
    notices: broadcast::Sender<Notice>,
}

struct State {
    /// The id of the ledger that it was opened for.
    ledger: Option<String>,
    partitions: Vec<Partition>,
    boards: HashMap<BoardId, BoardState>,
    /// Owner by the task's name.
    leases: Expiring<String, String>,
}

impl MemoryEngine {
    pub fn new(limits: EngineLimits) -> Self {
        let partitions = (0..limits.partitions).map(|_| Partition::new(limits)).collect();
        Self(Arc::new(Shared {
            instance: format!("memory:{:016x}", rand::random::<u64>()),
            limits,
            state: Mutex::new(State { ledger: None, partitions, boards: HashMap::new(), leases: Expiring::default() }),
            appended: Notify::new(),
            notices: broadcast::Sender::new(NOTICES_MAX),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    fn tell(&self, notice: Notice) {
        // An error means that nobody listens.
        let _ = self.0.notices.send(notice);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no step panics while it holds the lock")
    }
}

impl State {
    fn partition(&mut self, number: u16) -> Result<&mut Partition> {
        let lost = || EngineError::Lost(format!("there is no partition {number}"));
        self.partitions.get_mut(usize::from(number)).ok_or_else(lost)
    }

    fn partition_of(&mut self, user: &UserId) -> Result<&mut Partition> {
        let partitions = u16::try_from(self.partitions.len()).expect("made from a u16");
        if partitions == 0 {
            return Err(EngineError::Lost("there are no partitions".to_owned()));
        }
        self.partition(partition_of(user.as_str(), partitions))
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn limits(&self) -> &EngineLimits {
        &self.0.limits
    }

    fn key_pattern(&self) -> Option<String> {
        None
    }

    fn instance(&self) -> String {
        self.0.instance.clone()
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn memory(&self) -> Result<Option<EngineMemory>> {
        Ok(None)
    }

    /// Nobody else hears what is told in this memory.
    fn speak_for(&self, _ledger: &str) {}

    async fn survey(&self) -> Result<Survey> {
        let state = self.state();
        let partitions: Vec<_> = state.partitions.iter().map(|partition| partition.journal.survey()).collect();
        let has_witness = partitions.iter().all(|partition| partition.epoch.is_some());
        Ok(Survey { has_witness, ledgers: state.ledger.iter().cloned().collect(), partitions })
    }

    async fn close(&self) -> Result<()> {
        self.state().partitions.iter_mut().for_each(|partition| partition.journal.close());
        Ok(())
    }

    async fn open(&self, epoch: u64, history: u64, ledger: &str) -> Result<()> {
        let mut state = self.state();
        if state.ledger.get_or_insert_with(|| ledger.to_owned()) != ledger {
            return Err(EngineError::Lost("it was opened for another ledger".to_owned()));
        }
        state.partitions.iter_mut().for_each(|partition| partition.open(epoch, history));
        Ok(())
    }

    async fn join(&self, epoch: u64, history: u64) -> Result<()> {
        let survey = self.survey().await?;
        let begun = (Some(epoch), Some(history));
        match survey.partitions.iter().all(|partition| (partition.epoch, partition.history) == begun) {
            true => Ok(()),
            false => Err(EngineError::Lost(format!("it has not seen epoch {epoch} begin"))),
        }
    }

    async fn like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        let outcome = self.state().partition_of(&request.user)?.like(epoch, request)?;
        if matches!(&outcome, LikeOutcome::Done(answer) if answer.changed) {
            self.0.appended.notify_waiters();
        }
        Ok(outcome)
    }

    async fn load_likes(&self, epoch: u64, users: &[UserLikes], at: Timestamp) -> Result<()> {
        let mut state = self.state();
        users.iter().try_for_each(|loaded| state.partition_of(&loaded.user)?.load_likes(epoch, loaded, at))
    }

    async fn viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        self.state().partition_of(user)?.viewer_likes(epoch, user, products, at)
    }

    /// A page is a partition.
    async fn loaded_users(&self, cursor: u64) -> Result<(Vec<UserId>, u64)> {
        let state = self.state();
        let Some(partition) = usize::try_from(cursor).ok().and_then(|page| state.partitions.get(page)) else {
            return Ok((Vec::new(), 0));
        };
        let next = cursor + 1;
        let has_more = (next as usize) < state.partitions.len();
        Ok((partition.likes.keys().cloned().collect(), if has_more { next } else { 0 }))
    }

    async fn held_likes(&self, epoch: u64, users: &[UserId], at: Timestamp) -> Result<Vec<Option<Vec<ProductId>>>> {
        let mut state = self.state();
        let held = |user: &UserId| {
            let partition = state.partition_of(user)?;
            partition.journal.expect_epoch(epoch)?;
            Ok(partition.likes.get(user, at).map(|likes| likes.products().cloned().collect()))
        };
        users.iter().map(held).collect()
    }

    async fn charge_likes(&self, user: &UserId, likes: u32, at: Timestamp) -> Result<()> {
        self.state().partition_of(user)?.charge_likes(user, likes, at);
        Ok(())
    }

    async fn forget_likes(&self, users: &[UserId], at: Timestamp) -> Result<()> {
        let mut state = self.state();
        for user in users {
            state.partition_of(user)?.forget_likes(user, at);
        }
        Ok(())
    }

    async fn record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>> {
        let outcomes = self.state().partition(partition)?.record(epoch, requests, at)?;
        self.0.appended.notify_waiters();
        Ok(outcomes)
    }

    async fn undo(&self, epoch: u64, partition: u16, undos: &[Undo], at: Timestamp) -> Result<()> {
        let mut state = self.state();
        let journal = &mut state.partition(partition)?.journal;
        journal.expect_epoch(epoch)?;
        journal.undo(undos, at);
        self.0.appended.notify_waiters();
        Ok(())
    }

    async fn remember_events(&self, events: &[(EventId, Original)], at: Timestamp) -> Result<()> {
        let (mut state, partitions) = (self.state(), self.limits().partitions);
        for (id, original) in events {
            let partition = partition_of(id.as_str(), partitions);
            state.partition(partition)?.remember(id.clone(), original.clone(), at);
        }
        Ok(())
    }

    async fn forget_remembered(&self) -> Result<()> {
        for partition in &mut self.state().partitions {
            (partition.answers, partition.events) = (Expiring::default(), Expiring::default());
        }
        Ok(())
    }

    async fn forget_events(&self, events: &[(u16, EventId)]) -> Result<()> {
        let mut state = self.state();
        for (partition, id) in events {
            state.partition(*partition)?.events.take_if(id, |_| true);
        }
        Ok(())
    }

    async fn journal_reader(&self) -> Result<Box<dyn JournalReader>> {
        Ok(Box::new(MemoryJournalReader::new(self.0.clone())))
    }

    async fn trim(&self, partition: u16, upto: Position) -> Result<()> {
        self.state().partition(partition)?.journal.trim(upto);
        Ok(())
    }

    async fn announce(&self, progress: &[Progress]) -> Result<()> {
        let mut state = self.state();
        for progress in progress {
            if let Progress::Ledger { partition, position, .. } = *progress {
                state.partition(partition)?.journal.commit(position);
            }
        }
        progress.iter().for_each(|progress| self.tell(Notice::Progress(*progress)));
        Ok(())
    }

    async fn announce_definitions(&self) -> Result<()> {
        self.tell(Notice::Definitions);
        Ok(())
    }

    async fn board(&self, board: &BoardId) -> Result<BoardSurvey> {
        Ok(self.state().boards.get(board).map(BoardState::survey).unwrap_or_default())
    }

    async fn begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64> {
        Ok(self.state().boards.entry(board.clone()).or_default().begin(cursors))
    }

    async fn load_scores(&self, board: &BoardId, generation: u64, scores: &[(ProductId, Points)]) -> Result<bool> {
        Ok(self.state().boards.get_mut(board).is_some_and(|board| board.load(generation, scores)))
    }

    async fn set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool> {
        Ok(self.state().boards.get_mut(board).is_some_and(|board| board.set_cursors(generation, cursors)))
    }

    async fn apply(&self, batch: &Apply) -> Result<bool> {
        Ok(self.state().boards.get_mut(&batch.board).is_some_and(|board| board.apply(batch)))
    }

    async fn switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool> {
        Ok(self.state().boards.get_mut(board).is_some_and(|board| board.switch(generation, build)))
    }

    async fn drop_board(&self, board: &BoardId) -> Result<()> {
        self.state().boards.entry(board.clone()).and_modify(BoardState::drop);
        Ok(())
    }

    async fn page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>> {
        Ok(self.state().boards.get(board).and_then(|board| board.page(start, count)))
    }

    async fn entries(&self, board: &BoardId, products: &[ProductId]) -> Result<Option<Entries>> {
        Ok(self.state().boards.get(board).and_then(|board| board.entries(products)))
    }

    async fn whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>> {
        Ok(self.state().boards.get(board).and_then(BoardState::whole))
    }

    async fn publish(&self, feed_state: &FeedState) -> Result<bool> {
        let mut state = self.state();
        let published = state.boards.get_mut(&feed_state.board).is_some_and(|board| board.publish(feed_state));
        if published {
            // Told under the lock, so that listeners hear states in their order.
            self.tell(Notice::Feed(feed_state.clone()));
        }
        Ok(published)
    }

    async fn published(&self, board: &BoardId) -> Result<Option<FeedState>> {
        Ok(self.state().boards.get(board).and_then(BoardState::published))
    }

    async fn published_at(&self, board: &BoardId, seq: u64) -> Result<Option<FeedState>> {
        Ok(self.state().boards.get(board).and_then(|board| board.published_at(seq)))
    }

    async fn listen(&self) -> Result<BoxStream<'static, Notice>> {
        let heard = BroadcastStream::new(self.0.notices.subscribe()).map(|heard| heard.unwrap_or(Notice::Missed));
        Ok(stream::once(async { Notice::Missed }).chain(heard).boxed())
    }

    async fn lease(&self, name: &str, owner: &str, ttl: Duration, at: Timestamp) -> Result<bool> {
        let leases = &mut self.state().leases;
        let is_free = leases.get(name, at).is_none_or(|present| present == owner);
        if is_free {
            let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            leases.put(name.to_owned(), owner.to_owned(), at, at.plus_ms(ttl_ms));
        }
        Ok(is_free)
    }

    async fn lease_owner(&self, name: &str, at: Timestamp) -> Result<Option<String>> {
        Ok(self.state().leases.get(name, at).cloned())
    }

    async fn release(&self, name: &str, owner: &str) -> Result<()> {
        self.state().leases.take_if(name, |present| present == owner);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_lags_hears_so_and_goes_on() {
        let engine = MemoryEngine::new(EngineLimits::default());
        let heard = engine.listen().await.unwrap();
        let from = Position::new(1, 0);
        let told = |seq| Progress::Ledger { partition: 0, from, position: Position::new(1, seq) };
        let seqs_told = 3 * NOTICES_MAX as u64;
        for seq in 1..=seqs_told {
            engine.announce(&[told(seq)]).await.unwrap();
        }
        let heard: Vec<_> = heard.take(2 + NOTICES_MAX).collect().await;
        let kept = seqs_told - NOTICES_MAX as u64 + 1..=seqs_told;
        let expected = kept.map(|seq| Notice::Progress(told(seq)));
        assert_eq!(heard[..2], [Notice::Missed, Notice::Missed], "at the beginning, and for what was dropped");
        assert!(heard[2..].iter().cloned().eq(expected));
    }
}
