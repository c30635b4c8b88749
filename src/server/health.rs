//! `/healthz`: the process is alive. `/readyz`: engine and ledger answer, so that a load balancer may send clients. Whoever
//! asks learns which one does not, and the log why: addresses and names of users are nobody else's business.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::ledger::LedgerKind;
use crate::pipeline::{App, Readiness};

/// A part that needs longer is of no use to clients; probes usually wait for a second or more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let readiness = app.readiness(ANSWER_TIME_MAX).await;
    let ledger_kind = match app.ledger().kind() {
        LedgerKind::Sqlite => "sqlite",
        LedgerKind::Postgres => "postgres",
    };
    told(app.engine().kind(), ledger_kind, readiness)
}

fn told(engine_kind: &str, ledger_kind: &str, readiness: Readiness) -> (StatusCode, Json<Value>) {
    let ready = readiness.engine.is_ok() && readiness.ledger.is_ok();
    let part = |kind: &str, state: Result<(), String>| {
        let up = state.is_ok();
        if let Err(error) = state {
            // At this level, since probes come every few seconds, and whoever met it first has said so.
            tracing::debug!(error, "{kind} is not ready");
        }
        json!({ "kind": kind, "up": up })
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(json!({ "engine": part(engine_kind, readiness.engine), "ledger": part(ledger_kind, readiness.ledger) })),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_down_is_not_ready() {
        let (status, Json(body)) =
            told("redis", "postgres", Readiness { engine: Err("no route".to_owned()), ledger: Ok(()) });
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["engine"], json!({ "kind": "redis", "up": false }));
        assert_eq!(body["ledger"]["up"], true);
        let (status, _) = told("memory", "sqlite", Readiness { engine: Ok(()), ledger: Ok(()) });
        assert_eq!(status, StatusCode::OK);
    }
}
