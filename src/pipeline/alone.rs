//! Sole use of the ledger where the engine is this process's memory: nobody else may work on that ledger.
//!
//! Invariant: likes are taken only in an epoch that began under the lease. Who loses the lease leaves the epoch, and begins a
//! new one only under a lease of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::error::RETRY_AFTER_MS;
use super::{App, AppError, Result};
use crate::engine::{Engine, EngineError};
use crate::ledger::{Lease, Ledger, LedgerError, RENEW_EVERY, name_long_wait};

/// How long a stopping server tries to hand the lease on. The next one waits for its end otherwise.
const RELEASE_WAIT: Duration = Duration::from_secs(1);

/// Takes the lease for an engine in memory. Servers on one Redis take it for a moment: so they learn whether a server with a
/// memory of its own is at work, and one that has lost its lease can't go on beside them.
pub async fn take(engine: &dyn Engine, ledger: &Ledger) -> Result<Option<Lease>> {
    let needed = async {
        Ok::<_, LedgerError>(match engine.kind() {
            "memory" => ledger.take_lease().await?.map(Some),
            _ => ledger.is_lease_free().await?.then_some(None),
        })
    };
    let waits_for = "the ledger's lease to end: the server that had this ledger for itself did not give it back";
    let taken = name_long_wait(waits_for, needed).await?;
    taken.ok_or_else(|| AppError::Unavailable {
        reason:
            "another process works on this ledger with an engine in its memory; stop it, or give both the same REDIS_URL"
                .into(),
        retry_after_ms: RETRY_AFTER_MS,
    })
}

/// Gives the lease back, so that the next server need not wait for its end.
pub async fn release(ledger: &Ledger, lease: Option<&Lease>) {
    if lease.is_some()
        && let Ok(Err(error)) = timeout(RELEASE_WAIT, ledger.release_lease()).await
    {
        tracing::debug!("the lease could not be given back: {error}");
    }
}

/// Renews the lease, if there is one, while a step of the start takes its time.
pub async fn renewing<T>(ledger: &Ledger, lease: Option<&Lease>, step: impl Future<Output = T>) -> T {
    let renewals = async {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            // Where it was lost, the epoch can't begin.
            if lease.is_some()
                && let Err(error) = ledger.renew_lease().await
            {
                tracing::debug!("the lease could not be renewed: {error}");
            }
        }
    };
    tokio::select! {
        done = step => done,
        () = renewals => unreachable!("renewals never end"),
    }
}

/// Renews the lease. Once another server has it, this node takes no likes, and waits until that one has stopped.
pub async fn keep(app: Arc<App>) {
    while app.stop.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await.is_some() {
        // A ledger that hangs is asked again: an answer that comes late says nothing about now.
        match timeout(RENEW_EVERY * 2, app.ledger.renew_lease()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                if let Ok(epoch) = app.epoch() {
                    app.engine_error(
                        epoch,
                        EngineError::Lost("another server has taken this ledger for itself".into()),
                    );
                }
                if let Some(Ok(Some(_))) = app.stop.run_until_cancelled(app.ledger.take_lease()).await {
                    tracing::info!("this server has the ledger for itself again");
                }
            }
            Ok(Err(error)) => tracing::debug!("the lease could not be renewed: {error}"),
            Err(_) => tracing::debug!("the lease could not be renewed in time"),
        }
    }
}
