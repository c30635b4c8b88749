//! Long work in small steps, beside which others are to get on.

use std::time::{Duration, Instant};

/// After so long gentle work pauses, for as long or up to a millisecond longer (timers tick in whole ones): half of the
/// time and more is left to others, and none of them waits for longer than this.
const SLICE: Duration = Duration::from_millis(1);

/// Paces one piece of work.
#[derive(Debug)]
pub struct Pace {
    is_gentle: bool,
    began: Instant,
}

impl Pace {
    /// Gentle work takes two to three times as long.
    pub fn new(is_gentle: bool) -> Self {
        Self { is_gentle, began: Instant::now() }
    }

    /// To be called after each step, which should take far less than a millisecond.
    pub async fn step(&mut self) {
        let took = self.began.elapsed();
        if self.is_gentle && took >= SLICE {
            tokio::time::sleep(took).await;
            self.began = Instant::now();
        } else {
            tokio::task::yield_now().await;
        }
    }
}
