//! Loads users' likes from the ledger on their first touch.
//!
//! All users waiting when a load begins share it, so a crowd of new visitors costs batches, not a query each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{App, AppError, Result};
use crate::domain::UserId;

/// Users in one load: bounds its query, and the step that puts them into the engine.
const BATCH_LEN_MAX: usize = 500;
/// Users that may wait. Beyond this a request waits for its turn to wait.
const WAITING_MAX: usize = 10_000;

type Waiting = (UserId, oneshot::Sender<Result<()>>);

pub struct Loader(mpsc::Sender<Waiting>);

impl Loader {
    /// The task that loads must be given the receiver.
    pub fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Returns once the user's likes are in the engine.
    pub async fn load(&self, user: &UserId) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let stopping = || AppError::Unavailable { reason: "the server is stopping".into(), retry_after_ms: 1_000 };
        self.0.send((user.clone(), sender)).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }
}

/// Loads whoever waits, until the app stops.
pub async fn run(app: Arc<App>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
    while app.stop.run_until_cancelled(waiting.recv_many(&mut batch, BATCH_LEN_MAX)).await.is_some() {
        let mut users: BTreeMap<UserId, Vec<_>> = BTreeMap::new();
        for (user, sender) in batch.drain(..) {
            users.entry(user).or_default().push(sender);
        }
        let ids: Vec<_> = users.keys().cloned().collect();
        let outcome = load(&app, &ids).await;
        for sender in users.into_values().flatten() {
            // Whoever gave up waiting has dropped the other end.
            sender.send(outcome.clone()).ok();
        }
    }
}

async fn load(app: &App, users: &[UserId]) -> Result<()> {
    let epoch = app.epoch()?;
    let now = app.now();
    let since = now.minus_ms(app.engine.limits().answers_idle_ms);
    let likes = app.ledger.user_likes(users, since).await?;
    app.engine.load_likes(epoch, &likes, now).await.map_err(|error| app.engine_error(epoch, error))
}
