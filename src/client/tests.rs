//! The client against answers that a healthy server never gives, so that no real one can give them on cue.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use serde_json::json;

use super::*;

/// What a scripted server says to one call.
pub(super) type Reply = (StatusCode, String);

pub(super) fn data(data: Value) -> Reply {
    (StatusCode::OK, json!({ "data": data }).to_string())
}

pub(super) fn refusal(code: &str, message: &str) -> Reply {
    let error = json!({ "message": message, "extensions": { "code": code, "retryAfterMs": 10 } });
    (StatusCode::OK, json!({ "data": null, "errors": [error] }).to_string())
}

/// Answers every call with what `reply` makes of it, until the test's runtime ends: `query`, `variables` and `caller`.
pub(super) fn serve_on<F, Fut>(listener: std::net::TcpListener, reply: F) -> String
where
    F: Fn(Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reply = Arc::new(reply);
    let answer = move |headers: HeaderMap, Json(mut call): Json<Value>| {
        let reply = reply.clone();
        async move {
            let caller = headers.get("authorization").or_else(|| headers.get("x-acclaim-user"));
            call["caller"] = json!(caller.map(|value| value.to_str().unwrap()));
            reply(call).await
        }
    };
    let app = axum::Router::new().route("/graphql", axum::routing::post(answer));
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

pub(super) fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

fn client(url: &str) -> Client {
    Client::new(url, Caller::Name("ann".to_owned())).unwrap()
}

async fn answer_to(reply: Reply) -> Result<Value, ClientError> {
    let url = serve_on(listener(), move |_| std::future::ready(reply.clone()));
    client(&url).call("{ a }", &json!({})).await
}

#[tokio::test]
async fn a_call_carries_its_caller_and_variables() {
    let url = serve_on(listener(), |call| std::future::ready(data(call)));
    let ann = client(&format!("{url}/"));
    let echo: Value = ann.call("query Q { a }", &json!({ "n": 1 })).await.unwrap();
    assert_eq!(echo, json!({ "query": "query Q { a }", "variables": { "n": 1 }, "caller": "ann" }));
    let token = Client::new(&format!("{url}/graphql"), Caller::Token("t0".to_owned())).unwrap();
    assert_eq!(token.call::<Value>("{ a }", &json!({})).await.unwrap()["caller"], "Bearer t0");
}

#[tokio::test]
async fn failures_say_whether_they_pass() {
    for (code, passes) in [("UNAVAILABLE", true), ("BUSY", true), ("RATE_LIMITED", true), ("FORBIDDEN", false)] {
        let error = answer_to(refusal(code, "because")).await.unwrap_err();
        assert_eq!(error.is_passing(), passes, "{error}");
        assert_eq!(error.to_string(), format!("the server answers {code}: because"));
    }
    let proxy = answer_to((StatusCode::BAD_GATEWAY, "<h1>Bad gateway</h1>".to_owned())).await.unwrap_err();
    assert!(proxy.is_passing() && proxy.to_string().contains("502"), "{proxy}");
    let other = answer_to((StatusCode::NOT_FOUND, "<h1>Not found</h1>".to_owned())).await.unwrap_err();
    assert!(!other.is_passing() && other.to_string().contains("Not found"), "{other}");
    let nobody = listener().local_addr().unwrap();
    let nobody = client(&format!("http://{nobody}")).call::<Value>("{ a }", &json!({})).await.unwrap_err();
    assert!(nobody.is_passing() && nobody.to_string().to_lowercase().contains("refused"), "{nobody}");
    assert!(Client::new("localhost:8080", Caller::Name("ann".to_owned())).is_err());
}

#[tokio::test]
async fn patience_has_an_end() {
    let url = serve_on(listener(), |_| std::future::ready(refusal("UNAVAILABLE", "away")));
    let told = std::sync::atomic::AtomicU32::new(0);
    let waiting = |_: &ClientError| _ = told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let patience = Duration::from_millis(300);
    let answer = client(&url).call_patiently::<Value>("{ a }", &json!({}), patience, waiting).await;
    assert!(matches!(answer, Err(ClientError::Refused { code, .. }) if code == "UNAVAILABLE"));
    assert_eq!(told.into_inner(), 2, "asked at once, after 250 ms, and after 750 ms");
}
