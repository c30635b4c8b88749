//! Names every request, so that an answer and the log can be put together, and counts the answer. A client's own name for
//! it is not taken over: it could forge lines of the log.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::Site;
use crate::graphql::new_request_id;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Puts the id into the request for whoever answers it, and into the answer.
pub async fn assign(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let id = new_request_id();
    let value = HeaderValue::from_str(&id).expect("an id is hexadecimal");
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, value);
    site.api.metrics().responded(response.status().as_u16());
    response
}
