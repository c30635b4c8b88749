//! Asking together: all who wait when a question is put share it, so a crowd costs batches, not a call each.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::fault::before_write;
use super::{App, AppError, Result};
use crate::domain::{ProductId, UserId};

/// Asked for in one question: bounds its query, and the step that answers it.
const BATCH_LEN_MAX: usize = 500;
/// Requests that may wait. Beyond this one waits for its turn to wait.
const WAITING_MAX: usize = 10_000;

type Waiting<K, V> = (K, oneshot::Sender<Result<V>>);

pub struct Together<K, V>(mpsc::Sender<Waiting<K, V>>);

/// Who waits; for [`answer`].
pub type Asked<K, V> = mpsc::Receiver<Waiting<K, V>>;

impl<K, V> Together<K, V> {
    pub fn new() -> (Self, Asked<K, V>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// The answer for `key`, asked for after this call began.
    pub async fn ask(&self, key: K) -> Result<V> {
        let (sender, receiver) = oneshot::channel();
        let stopping = || AppError::Unavailable { reason: "the server is stopping".into(), retry_after_ms: 1_000 };
        self.0.send((key, sender)).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }
}

/// Answers whoever waits, until the app stops. `ask` gives an answer for each key, in their order.
pub async fn answer<K, V, F>(app: Arc<App>, mut asked: Asked<K, V>, ask: impl Fn(Arc<App>, Vec<K>) -> F)
where
    K: Ord + Clone,
    V: Clone,
    F: Future<Output = Result<Vec<V>>>,
{
    let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
    while app.stop.run_until_cancelled(asked.recv_many(&mut batch, BATCH_LEN_MAX)).await.is_some() {
        let mut waiting: BTreeMap<K, Vec<_>> = BTreeMap::new();
        for (key, sender) in batch.drain(..) {
            waiting.entry(key).or_default().push(sender);
        }
        let asking = AssertUnwindSafe(ask(app.clone(), waiting.keys().cloned().collect()));
        // One that panics must not end the asking of all who come later.
        let panicked = |_| Err(AppError::Internal("a question asked together has panicked".to_owned()));
        let answers = asking.catch_unwind().await.unwrap_or_else(panicked);
        for (index, senders) in waiting.into_values().enumerate() {
            for sender in senders {
                // Whoever gave up waiting has dropped the other end.
                sender.send(answers.as_ref().map(|answers| answers[index].clone()).map_err(Clone::clone)).ok();
            }
        }
    }
}

/// Loads users' likes from the ledger into the engine.
pub async fn load_users(app: Arc<App>, users: Vec<UserId>) -> Result<Vec<()>> {
    let epoch = app.epoch()?;
    let now = app.now();
    let since = now.minus_ms(app.engine.limits().answers_idle_ms);
    let likes = before_write(&app, app.ledger.user_likes(&users, since)).await?;
    app.engine.load_likes(epoch, &likes, now).await.map_err(|error| app.engine_error(epoch, error))?;
    Ok(vec![(); users.len()])
}

/// How many people like each product.
pub async fn count_likes(app: Arc<App>, products: Vec<ProductId>) -> Result<Vec<u64>> {
    app.like_counts(&products).await
}
