//! Asking again where an answer was lost.
//!
//! The step may have taken place or not; asked again with the same key or the same ids it has one effect all the same.
//!
//! Invariant: a caller hears `Unavailable` only where nothing was written, and `Unknown` where something may have been.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::AppError;
use crate::domain::IdempotencyKey;
use crate::engine::Backoff;

/// How long after the first asking it is asked again. As long as a step may hang, so that a caller hears within 250 ms
/// that the engine is away, whichever way it went.
const ASK_AGAIN_FOR: Duration = Duration::from_millis(200);

/// What is known of a call that writes.
pub struct Doubt {
    /// When it is asked for the last time.
    until: Instant,
    /// When it is answered without having waited for the ledger any longer; set when that wait begins.
    answer_by: Option<Instant>,
    may_have_written: bool,
    backoff: Backoff,
}

impl Doubt {
    pub fn new() -> Self {
        let until = Instant::now() + ASK_AGAIN_FOR;
        Self { until, answer_by: None, may_have_written: false, backoff: Backoff::default() }
    }

    /// Something was written, so that whatever fails from here on fails in the middle.
    pub fn has_written(&mut self) {
        self.may_have_written = true;
    }

    pub fn may_have_written(&self) -> bool {
        self.may_have_written
    }

    /// Until when the ledger is waited for: counted from the first time that this is asked. The call may be asked again
    /// for as long.
    pub fn answer_by(&mut self, ack_timeout: Duration) -> Instant {
        let by = *self.answer_by.get_or_insert_with(|| Instant::now() + ack_timeout);
        self.until = self.until.max(by);
        by
    }

    /// Whether to ask again after this failure. Waits for a moment before that.
    pub async fn asks_again(&mut self, failure: &AppError) -> bool {
        match failure {
            AppError::Unknown { .. } => self.may_have_written = true,
            AppError::Unavailable { .. } | AppError::Full { .. } if self.may_have_written => {}
            _ => return false,
        }
        let next = Instant::now() + self.backoff.after_failure();
        if next >= self.until {
            return false;
        }
        sleep_until(next).await;
        true
    }

    /// The failure as the caller is told of it, with the key to ask again with.
    pub fn told(&self, failure: AppError, key: Option<&IdempotencyKey>) -> AppError {
        match failure {
            AppError::Unavailable { reason, retry_after_ms } | AppError::Full { reason, retry_after_ms }
                if self.may_have_written =>
            {
                AppError::Unknown { reason, retry_after_ms, key: key.cloned() }
            }
            AppError::Unknown { reason, retry_after_ms, .. } => {
                AppError::Unknown { reason, retry_after_ms, key: key.cloned() }
            }
            certain => certain,
        }
    }
}

/// A failure after something was written.
pub fn unknown(failure: AppError) -> AppError {
    match failure {
        AppError::Unavailable { reason, retry_after_ms } | AppError::Full { reason, retry_after_ms } => {
            AppError::Unknown { reason, retry_after_ms, key: None }
        }
        other => other,
    }
}
