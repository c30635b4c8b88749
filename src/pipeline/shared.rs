//! Answers that are dear to compute: once for all who ask for the same at the same time, and kept for a moment.
//!
//! Invariant: no more are computed at a time than there are turns, however many different ones are asked for.

use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Answers kept: what a page and those around it ask for. A large one has some MB.
const KEPT: usize = 16;
/// How long one is told again: who pages back and forth asks within it, and nobody takes it for old.
const TOLD_AGAIN_FOR: Duration = Duration::from_secs(2);

pub struct Shared<K, T> {
    known: Cache<K, (Instant, T)>,
    turns: Semaphore,
}

impl<K: Hash + Eq + Clone, T: Clone> Shared<K, T> {
    pub fn new(turns: usize) -> Self {
        Self { known: Cache::new(KEPT), turns: Semaphore::new(turns) }
    }

    /// What is known under a key, or is computed now. A failure is told to who has met it; the next one tries anew.
    pub async fn get<E>(&self, key: K, compute: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.known.remove_if(&key, |(at, _)| at.elapsed() > TOLD_AGAIN_FOR);
        let compute = async {
            let _turn = self.turns.acquire().await.expect("nobody closes it");
            let answer = compute.await?;
            Ok((Instant::now(), answer))
        };
        // Apart, so that whoever asks for it is not as large as what computes it.
        Box::pin(self.known.get_or_insert_async(&key, compute)).await.map(|(_, answer)| answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_computed_once_and_others_take_turns() {
        let (shared, computed, at_once) = (Shared::new(2), AtomicU32::new(0), AtomicU32::new(0));
        let ask = |key: u32| {
            let work = async {
                assert!(at_once.fetch_add(1, Ordering::Relaxed) < 2);
                tokio::time::sleep(Duration::from_millis(100)).await;
                at_once.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, ()>(computed.fetch_add(1, Ordering::Relaxed))
            };
            shared.get(key, work)
        };
        assert_eq!(join_all([ask(1), ask(1), ask(1)]).await, [Ok(0); 3]);
        join_all([ask(2), ask(3), ask(4), ask(5)]).await;
        assert_eq!(ask(1).await, Ok(0));
        tokio::time::advance(TOLD_AGAIN_FOR).await;
        assert_eq!(ask(1).await, Ok(5));
    }
}
