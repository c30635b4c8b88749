//! Waits of a start, told in the log: a start that hangs in silence can't be helped.

use std::time::Duration;

/// How long a wait goes on before the log names it: longer than a sound start takes for any of its steps.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// Awaits a step of a start. The log says what it waits for once that has taken 2 s.
pub async fn name_long_wait<T>(what: &str, step: impl Future<Output = T>) -> T {
    tokio::pin!(step);
    match tokio::time::timeout(NAMED_AFTER, &mut step).await {
        Ok(done) => done,
        Err(_) => {
            tracing::warn!("waiting for {what}");
            step.await
        }
    }
}
