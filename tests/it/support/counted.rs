//! An engine that writes down what a request asks of it, and passes everything on.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acclaim::domain::{BoardId, Cursors, FeedState, PageStart, Place, Points, Position, ProductId, Timestamp, UserId};
use acclaim::engine::{
    Apply, BoardSurvey, Build, Engine, EngineLimits, Generation, JournalReader, LikeOutcome, LikeRequest, Notice, Page,
    Progress, RecordOutcome, RecordRequest, Result, Survey, UserLikes,
};
use async_trait::async_trait;
use futures_util::stream::BoxStream;

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

fn note(call: String) {
    let _ = CALLS.try_with(|calls| calls.lock().unwrap().push(call));
}

pub struct Counted(pub Arc<dyn Engine>);

#[async_trait]
impl Engine for Counted {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn limits(&self) -> &EngineLimits {
        self.0.limits()
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn survey(&self) -> Result<Survey> {
        self.0.survey().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }

    async fn open(&self, epoch: u64) -> Result<()> {
        self.0.open(epoch).await
    }

    async fn like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        note("like".to_owned());
        self.0.like(epoch, request).await
    }

    async fn load_likes(&self, epoch: u64, users: &[UserLikes], at: Timestamp) -> Result<()> {
        note("load_likes".to_owned());
        self.0.load_likes(epoch, users, at).await
    }

    async fn viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        note("viewer_likes".to_owned());
        self.0.viewer_likes(epoch, user, products, at).await
    }

    async fn forget_likes(&self, users: &[UserId]) -> Result<()> {
        self.0.forget_likes(users).await
    }

    async fn record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>> {
        note("record".to_owned());
        self.0.record(epoch, partition, requests, at).await
    }

    async fn journal_reader(&self) -> Result<Box<dyn JournalReader>> {
        self.0.journal_reader().await
    }

    async fn trim(&self, partition: u16, upto: Position) -> Result<()> {
        self.0.trim(partition, upto).await
    }

    async fn announce(&self, progress: &[Progress]) -> Result<()> {
        self.0.announce(progress).await
    }

    async fn announce_definitions(&self) -> Result<()> {
        self.0.announce_definitions().await
    }

    async fn board(&self, board: &BoardId) -> Result<BoardSurvey> {
        self.0.board(board).await
    }

    async fn begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64> {
        self.0.begin_generation(board, cursors).await
    }

    async fn load_scores(&self, board: &BoardId, generation: u64, scores: &[(ProductId, Points)]) -> Result<bool> {
        self.0.load_scores(board, generation, scores).await
    }

    async fn set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool> {
        self.0.set_cursors(board, generation, cursors).await
    }

    async fn apply(&self, batch: &Apply) -> Result<bool> {
        self.0.apply(batch).await
    }

    async fn switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool> {
        self.0.switch(board, generation, build).await
    }

    async fn page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>> {
        note(format!("page {board}"));
        self.0.page(board, start, count).await
    }

    async fn entries(
        &self,
        board: &BoardId,
        products: &[ProductId],
    ) -> Result<Option<(Generation, Vec<Option<(u64, Points)>>)>> {
        note(format!("entries {board}"));
        self.0.entries(board, products).await
    }

    async fn whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>> {
        self.0.whole(board).await
    }

    async fn publish(&self, state: &FeedState) -> Result<bool> {
        self.0.publish(state).await
    }

    async fn published(&self, board: &BoardId) -> Result<Option<FeedState>> {
        self.0.published(board).await
    }

    async fn listen(&self) -> Result<BoxStream<'static, Notice>> {
        self.0.listen().await
    }

    async fn lease(&self, name: &str, owner: &str, ttl: Duration, at: Timestamp) -> Result<bool> {
        self.0.lease(name, owner, ttl, at).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<()> {
        self.0.release(name, owner).await
    }
}
