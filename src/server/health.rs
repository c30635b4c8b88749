//! `/healthz`: the process is alive. `/readyz`: engine and ledger answer, what this server commits is taken, and the engine is not full, so that a load balancer may send clients. All
//! who ask within a second share one look at them. Whoever asks learns which one does not, and the log why: addresses and names of users are nobody else's business.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::recent::Recent;
use crate::ledger::LedgerKind;
use crate::pipeline::{App, Readiness};

/// A part that needs longer is of no use to clients; probes usually wait for a second or more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

pub async fn healthz() -> &'static str {
    "ok\n"
}

/// What `/readyz` looks at, and found last.
#[derive(Clone)]
pub struct Health {
    pub app: Arc<App>,
    pub found: Arc<Recent<Readiness>>,
}

pub async fn readyz(State(Health { app, found }): State<Health>) -> (StatusCode, Json<Value>) {
    let looked_at = app.clone();
    let mut readiness = found.or_look(async move { looked_at.readiness(ANSWER_TIME_MAX).await }).await;
    // Known without a look.
    if readiness.ledger.is_ok() && !app.commits() {
        readiness.ledger = Err("what is committed is not taken".to_owned());
    }
    let ledger_kind = match app.ledger().kind() {
        LedgerKind::Sqlite => "sqlite",
        LedgerKind::Postgres => "postgres",
    };
    told(app.engine().kind(), ledger_kind, readiness)
}

fn told(engine_kind: &str, ledger_kind: &str, readiness: Readiness) -> (StatusCode, Json<Value>) {
    let ready = readiness.engine.is_ok() && readiness.ledger.is_ok();
    let part = |kind: &str, is_full: bool, state: Result<(), String>| {
        let up = is_full || state.is_ok();
        if let Err(error) = state {
            // At this level, since probes come every few seconds, and whoever met it first has said so.
            tracing::debug!(error, "{kind} is not ready");
        }
        let mut told = json!({ "kind": kind, "up": up });
        if is_full {
            told["full"] = true.into();
        }
        told
    };
    let is_full = readiness.is_full;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(json!({
            "engine": part(engine_kind, is_full, readiness.engine),
            "ledger": part(ledger_kind, false, readiness.ledger),
        })),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_down_or_full_is_not_ready() {
        let readiness = |engine: Result<(), &str>, is_full| Readiness {
            engine: engine.map_err(str::to_owned),
            is_full,
            ledger: Ok(()),
        };
        let (status, Json(body)) = told("redis", "postgres", readiness(Err("its memory is full"), true));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["engine"], json!({ "kind": "redis", "up": true, "full": true }));
        let (status, Json(body)) = told("redis", "postgres", readiness(Err("no route"), false));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["engine"], json!({ "kind": "redis", "up": false }));
        assert_eq!(body["ledger"]["up"], true);
        let (status, _) = told("memory", "sqlite", readiness(Ok(()), false));
        assert_eq!(status, StatusCode::OK);
    }
}
