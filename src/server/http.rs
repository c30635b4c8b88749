//! GraphQL over HTTP: `GET` and `POST /graphql`, after the GraphQL-over-HTTP draft.
//!
//! The status says how the request fared, the body what the operation did: a client that accepts
//! `application/graphql-response+json` gets 400 for a document that can't be run, any other 200. A POST must be
//! `application/json`, which no page of another origin can send without asking first. Every answer is JSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::parser::types::OperationType;
use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Site;
use super::accept::Format;
use super::request::{Asked, Refusal, read};
use super::request_id::RequestId;
use crate::graphql::errors::{self, Failure};
use crate::graphql::{Answer, Operation};
use crate::pipeline::AppError;

/// The header that says what an operation has cost, in units of 10 µs.
pub const COST: HeaderName = HeaderName::from_static("acclaim-cost");
/// What has taken this long is seldom mended at once.
const LATE_RETRY_MS: u64 = 1_000;

pub async fn graphql(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Some(format) = Format::wanted(request.headers()) else {
        let failure = Failure::bad("accept", "answers are application/graphql-response+json or application/json");
        return refuse(Refusal::new(StatusCode::NOT_ACCEPTABLE, failure), Format::Json, &id.0);
    };
    let writes = Writes::default();
    let answer = async {
        let address = site.address(peer.ip(), request.headers());
        let Asked { identity, operation, _room } = read(&site, address, request).await?;
        // A slow sender takes nobody's place.
        let _place = site.capacity.request().map_err(Refusal::limited)?;
        writes.look_at(&operation);
        let cost = operation.cost();
        Ok((site.api.run(operation, identity.caller, &id.0).await, cost))
    };
    match tokio::time::timeout(site.limits.request_timeout, answer).await {
        Ok(Ok((answer, cost))) => {
            let mut response = render(StatusCode::OK, answer, format);
            response.headers_mut().insert(COST, cost.into());
            response
        }
        Ok(Err(refusal)) => refuse(refusal, format, &id.0),
        Err(_) => refuse_late(&site, &writes, format, &id.0),
    }
}

/// Whether a request has begun something that writes: cut off then, it may have been written, or be later.
#[derive(Default)]
pub struct Writes(AtomicBool);

impl Writes {
    /// Notes what the operation does that is about to be run.
    pub fn look_at(&self, operation: &Operation) {
        self.0.store(operation.kind() == Some(OperationType::Mutation), Ordering::Relaxed);
    }
}

/// The response to an operation that took too long.
pub fn late(site: &Site, writes: &Writes, id: &str) -> Answer {
    let reason = format!("no answer in {} s", site.limits.request_timeout.as_secs());
    let failure = if writes.0.load(Ordering::Relaxed) {
        AppError::Unknown { reason, retry_after_ms: LATE_RETRY_MS, key: None }
    } else {
        AppError::Unavailable { reason, retry_after_ms: LATE_RETRY_MS }
    };
    errors::failed(failure, id).into()
}

pub fn refuse_late(site: &Site, writes: &Writes, format: Format, id: &str) -> Response {
    let mut response = render(StatusCode::SERVICE_UNAVAILABLE, late(site, writes, id), format);
    response.headers_mut().insert(header::RETRY_AFTER, (LATE_RETRY_MS / 1_000).into());
    response
}

/// The answer to a request that is refused.
pub fn refuse(refusal: Refusal, format: Format, id: &str) -> Response {
    let retry_after_ms = match refusal.failure {
        Failure::OverBudget { retry_after_ms } => Some(retry_after_ms),
        Failure::Overloaded { .. } => Some(LATE_RETRY_MS),
        _ => None,
    };
    let mut response = render(refusal.status, errors::failed(refusal.failure, id).into(), format);
    let headers = response.headers_mut();
    if let Some(allow) = refusal.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(after_ms) = retry_after_ms {
        headers.insert(header::RETRY_AFTER, after_ms.div_ceil(1_000).into());
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn render(status: StatusCode, answer: Answer, format: Format) -> Response {
    let mut rendered = Response::new(Body::from(answer.payload));
    *rendered.status_mut() = match format {
        Format::Response if status == StatusCode::OK && answer.refusal.is_some() => StatusCode::BAD_REQUEST,
        _ => status,
    };
    rendered.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    rendered
}
