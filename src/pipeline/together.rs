//! Asking together: all who wait when a question is put share it, so a crowd costs batches, not a call each.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::fault::{before_write, in_time};
use super::{App, AppError, Result};
use crate::domain::{Cursors, ProductId, Timestamp, UserId, partition_of};
use crate::engine::{EngineLimits, UserLikes};

/// Asked for in one question: bounds its query, and the step that answers it.
pub const BATCH_LEN_MAX: usize = 500;
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

/// Answers whoever waits, at most so many in one question, until the app stops. `ask` gives an answer for each key, in their
/// order.
pub async fn answer<K, V, F>(
    app: Arc<App>,
    mut asked: Asked<K, V>,
    batch_len_max: usize,
    ask: impl Fn(Arc<App>, Vec<K>) -> F,
) where
    K: Ord + Clone,
    V: Clone,
    F: Future<Output = Result<Vec<V>>>,
{
    let mut batch = Vec::with_capacity(batch_len_max);
    while app.stop.run_until_cancelled(asked.recv_many(&mut batch, batch_len_max)).await.is_some() {
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

/// Whether a user who was to be loaded is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    Done,
    /// The user likes more than [`LIGHT_LIKES_MAX`] products, and is left for a question of its own.
    Heavy,
}

/// Likes, and unlikes of late, of a user who is loaded with others: nearly everybody has fewer. One who has 100,000 takes half a second, for which
/// the others must not wait.
const LIGHT_LIKES_MAX: usize = 1_000;

/// More than anybody may like, and more than anybody can unlike within a day without being slowed down.
const HEAVY_LIKES_MAX: usize = 10 * EngineLimits::LIKES_MAX as usize;

impl App {
    /// Since when the engine knows what users have done, beside what they like.
    fn remembers_since(&self, now: Timestamp) -> Timestamp {
        let limits = self.engine.limits();
        now.minus_ms(limits.answers_idle_ms.max(limits.like_again_ms))
    }

    /// Makes what was read of a user ready for the engine; `as_of` was known before that.
    fn prepare(&self, known: &mut UserLikes, as_of: &Cursors, now: Timestamp) {
        let limits = self.engine.limits();
        let since = now.minus_ms(limits.answers_idle_ms);
        known.answers.retain(|(.., answer)| answer.at >= since);
        known.as_of = as_of[&partition_of(known.user.as_str(), limits.partitions)];
    }

    /// Loads a user's likes into the engine.
    pub(super) async fn load(&self, user: &UserId) -> Result<()> {
        match self.loads.ask(user.clone()).await? {
            Loaded::Done => Ok(()),
            Loaded::Heavy => self.heavy_loads.ask(user.clone()).await,
        }
    }
}

/// Loads users' likes from the ledger into the engine, but for those of whom there are too many.
pub async fn load_users(app: Arc<App>, users: Vec<UserId>) -> Result<Vec<Loaded>> {
    let epoch = app.epoch()?;
    let now = app.now();
    let as_of = app.known_in_ledger();
    let known = app.ledger.first_user_likes(&users, app.remembers_since(now), LIGHT_LIKES_MAX + 1);
    let mut known = before_write(&app, known).await?;
    known.iter_mut().for_each(|known| app.prepare(known, &as_of, now));
    let is_light = |known: &UserLikes| known.likes.len().max(known.unliked.len()) <= LIGHT_LIKES_MAX;
    let loaded = known.iter().map(|known| if is_light(known) { Loaded::Done } else { Loaded::Heavy }).collect();
    let light: Vec<_> = known.into_iter().filter(is_light).collect();
    app.engine.load_likes(epoch, &light, now).await.map_err(|error| app.engine_error(epoch, error))?;
    Ok(loaded)
}

/// Loads users of whom there is much to load, one after the other.
pub async fn load_heavy_users(app: Arc<App>, users: Vec<UserId>) -> Result<Vec<()>> {
    for user in &users {
        let (epoch, now) = (app.epoch()?, app.now());
        let known = app.engine.viewer_likes(epoch, user, &[], now).await;
        // Whoever asked before for the same user has had it loaded.
        if known.map_err(|error| app.engine_error(epoch, error))?.is_none() {
            let (since, as_of) = (app.remembers_since(now), app.known_in_ledger());
            let likes = app.ledger.first_user_likes(std::slice::from_ref(user), since, HEAVY_LIKES_MAX);
            let mut likes = in_time(likes).await?;
            likes.iter_mut().for_each(|known| app.prepare(known, &as_of, now));
            app.engine.load_likes(epoch, &likes, now).await.map_err(|error| app.engine_error(epoch, error))?;
        }
    }
    Ok(vec![(); users.len()])
}

/// How many people like each product.
pub async fn count_likes(app: Arc<App>, products: Vec<ProductId>) -> Result<Vec<u64>> {
    app.like_counts(&products).await
}
