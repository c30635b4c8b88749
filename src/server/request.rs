//! Reads a GraphQL operation from an HTTP request: the body of a POST, or the address of a GET.

use async_graphql as gql;
use async_graphql::parser::types::OperationType;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Site;
use super::auth::Identity;
use crate::graphql::{self, errors::Failure};

/// A request that is refused before any operation runs.
pub struct Refusal {
    pub status: StatusCode,
    pub failure: Failure,
    /// The header Allow, which a 405 must have.
    pub allow: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: StatusCode, failure: Failure) -> Self {
        Self { status, failure, allow: None }
    }

    fn bad(argument: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Failure::bad(argument, message))
    }

    fn method(allow: &'static str, message: &str) -> Self {
        let failure = Failure::bad("method", message);
        Self { status: StatusCode::METHOD_NOT_ALLOWED, failure, allow: Some(allow) }
    }
}

/// What a client asks for, by either way. Null is as good as nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    query: Option<String>,
    operation_name: Option<String>,
    variables: Option<gql::Variables>,
    extensions: Option<Map<String, Value>>,
}

/// As they stand in an address: the last two are JSON. What is empty there is as good as nothing (GraphQL over HTTP, 6.2); in
/// a body an empty name is one, which no operation has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    query: Option<String>,
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
}

/// Who calls, and the operation. A GET only reads: browsers send one for whatever page asks them to.
pub async fn read(site: &Site, request: Request) -> Result<(Identity, graphql::Request), Refusal> {
    let unauthenticated = |failure| Refusal::new(StatusCode::UNAUTHORIZED, failure);
    let identity = site.auth.of_headers(request.headers()).map_err(unauthenticated)?;
    let only_reads = match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::POST => false,
        _ => return Err(Refusal::method("GET, POST", "operations are sent by POST, or by GET")),
    };
    let parameters = if only_reads { in_address(request.uri())? } else { in_body(site, request).await? };
    let document = site.persisted.document(parameters.query, parameters.extensions.as_ref());
    let document = document.map_err(|failure| match failure {
        // What follows is part of the protocol, as the answer to an operation is.
        Failure::PersistedQueryNotFound => Refusal::new(StatusCode::OK, failure),
        failure => Refusal::new(StatusCode::BAD_REQUEST, failure),
    })?;
    let mut request = graphql::Request::new(document);
    request.variables = parameters.variables.unwrap_or_default();
    request.operation_name = parameters.operation_name;
    // One that can't be parsed or is too large is refused as on any other way.
    if only_reads && site.api.kind(&mut request) == Some(OperationType::Mutation) {
        return Err(Refusal::method("POST", "a mutation is sent by POST"));
    }
    Ok((identity, request))
}

fn in_address(uri: &Uri) -> Result<Parameters, Refusal> {
    let Query(written) =
        Query::<Written>::try_from_uri(uri).map_err(|error| Refusal::bad("address", error.body_text()))?;
    Ok(Parameters {
        query: written.query,
        operation_name: written.operation_name.filter(|name| !name.is_empty()),
        variables: json("variables", written.variables)?,
        extensions: json("extensions", written.extensions)?,
    })
}

fn json<T: for<'a> Deserialize<'a>>(argument: &'static str, text: Option<String>) -> Result<Option<T>, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    serde_json::from_str::<Option<T>>(&text).map_err(|error| Refusal::bad(argument, error))
}

async fn in_body(site: &Site, request: Request) -> Result<Parameters, Refusal> {
    if !is_json(request.headers()) {
        let failure = Failure::bad("content-type", "send application/json, in UTF-8");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure));
    }
    let most = site.limits.body_len;
    let body = whole(request.into_body(), most).await?;
    // Serde would take a list for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::bad("body", "send one operation in a request: batches are not taken"));
    }
    serde_json::from_slice(&body).map_err(|error| Refusal::bad("body", error))
}

/// Bytes beyond the limit that are still taken and dropped: most clients read no answer before all is sent, and would see a
/// broken connection instead of the refusal.
const DROPPED_MAX: usize = 4 << 20;

async fn whole(body: Body, most: usize) -> Result<Vec<u8>, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut held, mut len) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refusal::bad("body", error))?;
        len += chunk.len();
        if len <= most {
            held.extend_from_slice(&chunk);
        } else if len > most + DROPPED_MAX {
            break;
        }
    }
    if len <= most {
        return Ok(held);
    }
    let failure = Failure::too_many("body", most, "the body has too many bytes");
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, failure))
}

/// `application/json`, and no other encoding than UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = text.split(';').map(str::trim);
    let charset = |(name, value): (&str, &str)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
        && parts.filter_map(|part| part.split_once('=')).all(charset)
}
