//! What stops a background step, and how long a request waits for the ledger.

use std::time::Duration;

use tokio::time::timeout;

use super::App;
use crate::engine::{Engine, EngineError, Survey};
use crate::ledger::LedgerError;

/// A step failed for want of the engine or of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// This node's engine was left behind in an older epoch.
    #[error(
        "this Redis was left in epoch {here}, and other servers work in epoch {there} with another one: point REDIS_URL \
         to theirs"
    )]
    LeftBehind { here: u64, there: u64 },
    /// This node's engine has nothing of the ledger's epoch, in which others work with another one.
    #[error(
        "other servers work on this ledger with another engine, and {here} has nothing of theirs: set REDIS_URL and \
         --redis-prefix (ACCLAIM_REDIS_PREFIX) as they have them, or stop them first"
    )]
    WorkedElsewhere { here: &'static str },
    /// Servers of a version that keeps things elsewhere in the engine work on the ledger.
    #[error(
        "servers of an earlier version work on this ledger, and can not work beside this one: stop them first; what they leave in \
         Redis is taken over"
    )]
    EarlierVersion,
    /// Others work on this engine for another copy of the ledger.
    #[error(
        "other servers work on this Redis for another copy of this ledger: set REDIS_URL or --redis-prefix (ACCLAIM_REDIS_PREFIX) \
         to what no other copy uses, or DATABASE_URL to theirs"
    )]
    OtherCopy,
    /// The engine belongs to another ledger than this node's.
    #[error(
        "this Redis holds another ledger's likes and boards: set another --redis-prefix (ACCLAIM_REDIS_PREFIX) or REDIS_URL, or \
         that ledger's DATABASE_URL; if that ledger is gone for good, stop its servers and delete its keys with redis-cli \
         -u \"$REDIS_URL\" --scan --pattern '{pattern}' | xargs -r -d '\\n' redis-cli -u \"$REDIS_URL\" UNLINK"
    )]
    OtherLedger { pattern: String },
}

/// Fails where the engine belongs to another ledger. One that names none is taken for ours: it is empty, or was opened by a
/// version that did not say.
pub fn expect_ours(engine: &dyn Engine, survey: &Survey, ledger_id: Option<&str>) -> Result<(), Fault> {
    match survey.ledgers.iter().all(|named| Some(&**named) == ledger_id) {
        true => Ok(()),
        false => Err(Fault::OtherLedger { pattern: engine.key_pattern().unwrap_or_default() }),
    }
}

impl Fault {
    pub fn worked_elsewhere(engine: &dyn Engine) -> Self {
        let here = if engine.kind() == "memory" { "this server's memory" } else { "this Redis" };
        Self::WorkedElsewhere { here }
    }

    /// Whether the node must recover before anything works again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Lost(_)))
    }
}

/// How long a request waits for the answer to one question to the ledger: as long as for a connection to it. A table that
/// somebody has locked is as good as away.
const LEDGER_WAIT: Duration = Duration::from_secs(2);

/// The same for whoever is about to write, and hears within 250 ms that it can't be done now. A longer `ack_timeout` makes it
/// longer, less `ACK_MARGIN`, as long as the ledger is not known to be away.
const WRITE_WAIT: Duration = Duration::from_millis(200);
/// Time to answer within the `ack_timeout` after having waited in vain.
const ACK_MARGIN: Duration = Duration::from_millis(50);

/// The answer, if it comes in time.
pub async fn in_time<T>(question: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    within(LEDGER_WAIT, question).await
}

/// The answer, if it comes in time for somebody who is about to write.
pub async fn before_write<T>(
    app: &App,
    question: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    within(write_wait(app), question).await
}

/// How long somebody who is about to write waits for the ledger.
pub fn write_wait(app: &App) -> Duration {
    if app.is_ledger_away() {
        WRITE_WAIT
    } else {
        app.settings.ack_timeout.saturating_sub(ACK_MARGIN).clamp(WRITE_WAIT, LEDGER_WAIT)
    }
}

async fn within<T>(wait: Duration, question: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(wait, question).await.unwrap_or_else(|_| Err(LedgerError::late(wait)))
}
