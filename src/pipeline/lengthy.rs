//! Work that takes longer than a request may: begun by the first who asks, and asked for until it is done.
//!
//! Invariant: of each kind of work there is one at a time; whoever asks meanwhile waits for the same.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{App, AppError, Result};

/// How long a request waits for it; less than any request may take.
const WAIT: Duration = Duration::from_secs(10);
/// How long a result waits to be asked for: whoever wants it asks again after a second.
const KEPT: Duration = Duration::from_secs(60);

pub struct Lengthy<K, T>(Arc<Mutex<HashMap<K, Running<T>>>>);

struct Running<T> {
    result: watch::Receiver<Option<(Result<T>, Instant)>>,
}

impl<T> Running<T> {
    fn is_forgotten(&self) -> bool {
        self.result.borrow().as_ref().is_some_and(|(_, done_at)| done_at.elapsed() > KEPT)
    }
}

impl<K, T> Default for Lengthy<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq, T: Clone + Send + Sync + 'static> Lengthy<K, T> {
    /// The result, if it comes in time; else `Unavailable`, and the work goes on.
    pub async fn ask<F>(&self, app: &App, key: K, work: impl FnOnce() -> F) -> Result<T>
    where
        K: Clone,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut result = {
            let mut all = self.0.lock().expect("nothing panics while it holds the lock");
            all.retain(|_, running| !running.is_forgotten());
            let running = all.entry(key.clone()).or_insert_with(|| {
                let (sender, result) = watch::channel(None);
                let (work, stop) = (work(), app.stopping());
                app.spawn(async move {
                    if let Some(done) = stop.run_until_cancelled(work).await {
                        sender.send_replace(Some((done, Instant::now())));
                    }
                });
                Running { result }
            });
            running.result.clone()
        };
        let done = match timeout(WAIT, result.wait_for(Option::is_some)).await {
            Ok(Ok(done)) => done.as_ref().map(|(done, _)| done.clone()).expect("this was waited for"),
            Ok(Err(_)) => Err(AppError::Internal("it has panicked, or the server is stopping".to_owned())),
            Err(_) => {
                return Err(AppError::Unavailable {
                    reason: "it is still going on; ask again for its result".to_owned(),
                    retry_after_ms: 1_000,
                });
            }
        };
        let mut all = self.0.lock().expect("as above");
        // Somebody else may have taken the result already, and a third have begun anew.
        if all.get(&key).is_some_and(|running| running.result.same_channel(&result)) {
            all.remove(&key);
        }
        done
    }
}
