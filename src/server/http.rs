//! GraphQL over HTTP: `POST /graphql`, after the GraphQL-over-HTTP draft.
//!
//! The status says how the request fared, the body what the operation did: a client that accepts
//! `application/graphql-response+json` gets 400 for a document that can't be run, any other 200. Only
//! `application/json` is taken, which no page of another origin can send without asking first.

use std::sync::Arc;
use std::time::Duration;

use async_graphql as gql;
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::Site;
use super::request_id::RequestId;
use crate::graphql::errors::{self, Failure};
use crate::pipeline::AppError;

/// 500 events or products, the most a call may hold, are some 300 KB at their longest usual lengths.
pub const BODY_LEN_MAX: usize = 1 << 20;
/// Longer than anything waits inside, and shorter than the minute after which proxies give up.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

const RESPONSE_TYPE: &str = "application/graphql-response+json";

pub async fn graphql(State(site): State<Arc<Site>>, Extension(id): Extension<RequestId>, request: Request) -> Response {
    let wants_response_type = accepts_response_type(request.headers());
    let (status, response) = match tokio::time::timeout(ANSWER_TIME_MAX, answer(&site, request, &id.0)).await {
        Ok(Ok(response)) => (StatusCode::OK, response),
        Ok(Err((status, failure))) => (status, errors::failed(failure, &id.0)),
        Err(_) => {
            let seconds = ANSWER_TIME_MAX.as_secs();
            let late = AppError::Unavailable { reason: format!("no answer in {seconds} s"), retry_after_ms: 1_000 };
            (StatusCode::SERVICE_UNAVAILABLE, errors::failed(late, &id.0))
        }
    };
    render(status, response, wants_response_type)
}

async fn answer(site: &Site, request: Request, id: &str) -> Result<gql::Response, (StatusCode, Failure)> {
    let caller = site.auth.of_headers(request.headers()).map_err(|failure| (StatusCode::UNAUTHORIZED, failure))?;
    if !is_json(request.headers()) {
        let failure = Failure::bad("content-type", "send application/json");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, failure));
    }
    let body = to_bytes(request.into_body(), BODY_LEN_MAX).await.map_err(|_| {
        let failure = Failure::too_many("body", BODY_LEN_MAX, "the body has too many bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, failure)
    })?;
    let bad = |message: String| (StatusCode::BAD_REQUEST, Failure::bad("body", message));
    let request: gql::Request = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    if request.query.is_empty() {
        return Err(bad("there is no query".to_owned()));
    }
    Ok(site.api.run(request, caller, id).await)
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = |value: &HeaderValue| Some(value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase());
    headers.get(header::CONTENT_TYPE).and_then(media_type).is_some_and(|media_type| media_type == "application/json")
}

fn accepts_response_type(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|text| text.contains(RESPONSE_TYPE)))
}

/// A response as the draft has it: an operation that was not run has no `data`, not even null.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a gql::Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [gql::ServerError],
}

fn render(status: StatusCode, response: gql::Response, wants_response_type: bool) -> Response {
    let not_run = !response.errors.is_empty() && response.errors.iter().all(|error| error.path.is_empty());
    let answer = Answer { data: (!not_run).then_some(&response.data), errors: &response.errors };
    let body = serde_json::to_vec(&answer).expect("a response is made of strings, numbers and lists");
    let (status, media_type) = match wants_response_type {
        true if not_run && status == StatusCode::OK => (StatusCode::BAD_REQUEST, RESPONSE_TYPE),
        true => (status, RESPONSE_TYPE),
        false => (status, "application/json; charset=utf-8"),
    };
    let mut rendered = Response::new(Body::from(body));
    *rendered.status_mut() = status;
    rendered.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if status == StatusCode::UNAUTHORIZED {
        rendered.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    rendered
}
