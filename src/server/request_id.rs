//! Names every request, so that an answer and the log can be put together, and counts the answer. A client's own name for
//! it is not taken over: it could forge lines of the log. Every answer also says what browsers shall not do with it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::Site;
use crate::graphql::new_request_id;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What is no page is none whatever is made of its bytes, nothing here is shown within another's page, and an address, which
/// may hold a query, is told nobody.
static FOR_BROWSERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    // For browsers older than frame-ancestors.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Puts the id into the request for whoever answers it, and into the answer.
pub async fn assign(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let id = new_request_id();
    let value = HeaderValue::from_str(&id).expect("an id is hexadecimal");
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(HEADER, value);
    for (name, value) in &FOR_BROWSERS {
        // The page has a policy of its own.
        headers.entry(name).or_insert_with(|| value.clone());
    }
    site.api.metrics().responded(response.status().as_u16());
    response
}
