//! What was found by looking, told again for a moment: engine and ledger are asked no more often, however many ask here.
//!
//! Invariant: one look at a time, and at most one a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Those who look ask every few seconds at most.
const TOLD_AGAIN_FOR: Duration = Duration::from_secs(1);

pub struct Recent<T>(Arc<Mutex<Option<(Instant, T)>>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> Recent<T> {
    /// What was found a moment ago, or is found now. Whoever comes while somebody looks is told the same.
    pub async fn or_look(&self, look: impl Future<Output = T> + Send + 'static) -> T {
        let last = self.0.clone();
        // By itself: whoever began it may hang up, and would have the next one begin another.
        let looking = tokio::spawn(async move {
            let mut last = last.lock().await;
            match &*last {
                Some((at, found)) if at.elapsed() < TOLD_AGAIN_FOR => found.clone(),
                _ => {
                    let found = look.await;
                    *last = Some((Instant::now(), found.clone()));
                    found
                }
            }
        });
        match looking.await {
            Ok(found) => found,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_look_is_for_all_who_ask_within_its_time() {
        let (recent, looks) = (Recent::default(), Arc::new(AtomicU32::new(0)));
        let look = || {
            let looks = looks.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(700)).await;
                looks.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        assert_eq!(join_all((0..1_000).map(|_| recent.or_look(look()))).await, vec![1; 1_000]);
        tokio::time::advance(TOLD_AGAIN_FOR - Duration::from_millis(1)).await;
        assert_eq!(recent.or_look(look()).await, 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        // Whoever hangs up has looked for those who come next.
        assert_eq!(recent.or_look(look()).now_or_never(), None);
        assert_eq!(recent.or_look(look()).await, 2);
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }
}
