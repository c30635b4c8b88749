//! A thread of its own for the sockets that are only counted.
//!
//! A server that writes to thousands of sockets would wake a reader for nearly every frame, and on a machine that both
//! share, the waking would cost more than the reading. This thread looks at its sockets in turns instead: clients on
//! other machines take none of the server's time either. What is measured by the clock is not read here.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Between two turns: at 50,000 frames a second a turn takes a hundred of them, and no socket's buffer is ever full.
const TURN_EVERY: Duration = Duration::from_millis(2);

/// Ends with this.
pub struct Reader {
    handle: Handle,
    stop: CancellationToken,
}

impl Reader {
    pub fn start() -> anyhow::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("can't start a thread to read with")?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let ends = stop.clone();
        let turns = async {
            loop {
                std::thread::sleep(TURN_EVERY);
                // Everything that is ready goes before this comes back.
                tokio::task::yield_now().await;
            }
        };
        handle.spawn(turns);
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || runtime.block_on(ends.cancelled()))?;
        Ok(Self { handle, stop })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
