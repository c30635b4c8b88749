//! An engine that writes down what a request asks of it, and passes everything on, some of it slowly.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acclaim::domain::{
    BoardId, Cursors, EventId, FeedState, PageStart, Place, Points, Position, ProductId, Timestamp, Undo, UserId,
};
use acclaim::engine::{
    Apply, BoardSurvey, Build, Engine, EngineLimits, EngineMemory, Entries, Generation, JournalReader, LeaderHeartbeat,
    LikeOutcome, LikeRequest, Notice, Original, Page, Progress, RecordOutcome, RecordRequest, Result, Survey,
    UserLikes,
};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

tokio::task_local! {
    /// Set while a request runs: what other tasks ask in the meantime is not its doing.
    static CALLS: Mutex<Vec<String>>;
}

/// Runs a request, and says what it asked of the engine, in alphabetical order: who came first among siblings is of no
/// interest.
pub async fn calls_of<T>(request: impl Future<Output = T>) -> (T, Vec<String>) {
    let counted = async {
        let answer = request.await;
        (answer, CALLS.with(|calls| std::mem::take(&mut *calls.lock().unwrap())))
    };
    let (answer, mut calls) = CALLS.scope(Mutex::default(), counted).await;
    calls.sort();
    (answer, calls)
}

pub struct Counted {
    engine: Arc<dyn Engine>,
    all: Mutex<Vec<String>>,
    survey_time: Duration,
    /// Loads of this user wait until they are released.
    held: Option<(UserId, Semaphore)>,
}

impl Counted {
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, all: Mutex::default(), survey_time: Duration::ZERO, held: None }
    }

    /// The answer to a survey is that much on its way.
    pub fn with_slow_surveys(self, survey_time: Duration) -> Self {
        Self { survey_time, ..self }
    }

    /// This user's likes are on their way until [`Self::release_loads`]; each load of them counts as `held`.
    pub fn with_held_loads(self, user: UserId) -> Self {
        Self { held: Some((user, Semaphore::new(0))), ..self }
    }

    pub fn release_loads(&self) {
        self.held.iter().for_each(|(_, held)| held.add_permits(Semaphore::MAX_PERMITS));
    }

    /// How often anybody has asked this.
    pub fn count(&self, call: &str) -> usize {
        self.all.lock().unwrap().iter().filter(|known| *known == call).count()
    }

    fn note(&self, call: String) {
        let _ = CALLS.try_with(|calls| calls.lock().unwrap().push(call.clone()));
        self.all.lock().unwrap().push(call);
    }
}

#[async_trait]
impl Engine for Counted {
    fn kind(&self) -> &'static str {
        self.engine.kind()
    }

    fn limits(&self) -> &EngineLimits {
        self.engine.limits()
    }

    fn key_pattern(&self) -> Option<String> {
        self.engine.key_pattern()
    }

    fn instance(&self) -> String {
        self.engine.instance()
    }

    async fn ping(&self) -> Result<()> {
        self.engine.ping().await
    }

    async fn memory(&self) -> Result<Option<EngineMemory>> {
        self.engine.memory().await
    }

    fn speak_for(&self, ledger: &str) {
        self.engine.speak_for(ledger);
    }

    async fn survey(&self) -> Result<Survey> {
        let survey = self.engine.survey().await;
        self.note("survey".to_owned());
        tokio::time::sleep(self.survey_time).await;
        survey
    }

    async fn close(&self) -> Result<()> {
        self.engine.close().await
    }

    async fn open(&self, epoch: u64, history: u64, ledger: &str) -> Result<()> {
        self.engine.open(epoch, history, ledger).await
    }

    async fn join(&self, epoch: u64, history: u64) -> Result<()> {
        self.engine.join(epoch, history).await
    }

    async fn former(&self) -> Result<Option<Box<dyn Engine>>> {
        self.engine.former().await
    }

    async fn take_over_former(&self, keeps_remembered: bool) -> Result<()> {
        self.engine.take_over_former(keeps_remembered).await
    }

    async fn like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        self.note("like".to_owned());
        self.engine.like(epoch, request).await
    }

    async fn load_likes(&self, epoch: u64, users: &[UserLikes], at: Timestamp) -> Result<()> {
        self.note("load_likes".to_owned());
        if let Some((user, held)) = &self.held
            && users.iter().any(|known| known.user == *user)
        {
            self.note("held".to_owned());
            let _released = held.acquire().await.expect("nobody closes it");
        }
        self.engine.load_likes(epoch, users, at).await
    }

    async fn viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        self.note("viewer_likes".to_owned());
        self.engine.viewer_likes(epoch, user, products, at).await
    }

    async fn loaded_users(&self, cursor: u64) -> Result<(Vec<UserId>, u64)> {
        self.engine.loaded_users(cursor).await
    }

    async fn held_likes(&self, epoch: u64, users: &[UserId], at: Timestamp) -> Result<Vec<Option<Vec<ProductId>>>> {
        self.engine.held_likes(epoch, users, at).await
    }

    async fn charge_likes(&self, user: &UserId, likes: u32, at: Timestamp) -> Result<()> {
        self.engine.charge_likes(user, likes, at).await
    }

    async fn forget_likes(&self, users: &[UserId], at: Timestamp) -> Result<()> {
        self.engine.forget_likes(users, at).await
    }

    async fn record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>> {
        self.note("record".to_owned());
        self.engine.record(epoch, partition, requests, at).await
    }

    async fn undo(&self, epoch: u64, partition: u16, undos: &[Undo], at: Timestamp) -> Result<()> {
        self.engine.undo(epoch, partition, undos, at).await
    }

    async fn remember_events(&self, events: &[(EventId, Original)], at: Timestamp) -> Result<()> {
        self.engine.remember_events(events, at).await
    }

    async fn forget_remembered(&self) -> Result<()> {
        self.engine.forget_remembered().await
    }

    async fn forget_events(&self, events: &[(u16, EventId)]) -> Result<()> {
        self.engine.forget_events(events).await
    }

    async fn journal_reader(&self) -> Result<Box<dyn JournalReader>> {
        self.engine.journal_reader().await
    }

    async fn trim(&self, partition: u16, upto: Position) -> Result<()> {
        self.engine.trim(partition, upto).await
    }

    async fn announce(&self, progress: &[Progress]) -> Result<()> {
        self.engine.announce(progress).await
    }

    async fn announce_definitions(&self) -> Result<()> {
        self.engine.announce_definitions().await
    }

    async fn board(&self, board: &BoardId) -> Result<BoardSurvey> {
        self.engine.board(board).await
    }

    async fn begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64> {
        self.engine.begin_generation(board, cursors).await
    }

    async fn load_scores(&self, board: &BoardId, generation: u64, scores: &[(ProductId, Points)]) -> Result<bool> {
        self.engine.load_scores(board, generation, scores).await
    }

    async fn set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool> {
        self.engine.set_cursors(board, generation, cursors).await
    }

    async fn apply(&self, batch: &Apply) -> Result<bool> {
        self.engine.apply(batch).await
    }

    async fn switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool> {
        self.engine.switch(board, generation, build).await
    }

    async fn drop_board(&self, board: &BoardId) -> Result<()> {
        self.engine.drop_board(board).await
    }

    async fn page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>> {
        self.note(format!("page {board}"));
        self.engine.page(board, start, count).await
    }

    async fn entries(&self, board: &BoardId, products: &[ProductId]) -> Result<Option<Entries>> {
        self.note(format!("entries {board}"));
        self.engine.entries(board, products).await
    }

    async fn whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>> {
        self.engine.whole(board).await
    }

    async fn publish(&self, state: &FeedState) -> Result<bool> {
        self.engine.publish(state).await
    }

    async fn published(&self, board: &BoardId) -> Result<Option<FeedState>> {
        self.engine.published(board).await
    }

    async fn published_at(&self, board: &BoardId, seq: u64) -> Result<Option<FeedState>> {
        self.note(format!("published_at {board}"));
        self.engine.published_at(board, seq).await
    }

    async fn listen(&self) -> Result<BoxStream<'static, Notice>> {
        self.engine.listen().await
    }

    async fn lease(&self, name: &str, owner: &str, ttl: Duration, at: Timestamp) -> Result<bool> {
        self.engine.lease(name, owner, ttl, at).await
    }

    async fn tell_heartbeat(&self, told: &LeaderHeartbeat) -> Result<()> {
        self.engine.tell_heartbeat(told).await
    }

    async fn leader_heartbeat(&self) -> Result<Option<LeaderHeartbeat>> {
        self.engine.leader_heartbeat().await
    }

    async fn lease_owner(&self, name: &str, at: Timestamp) -> Result<Option<String>> {
        self.engine.lease_owner(name, at).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<()> {
        self.engine.release(name, owner).await
    }
}
