//! Reads a GraphQL operation from an HTTP request: the body of a POST, or the address of a GET.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_graphql as gql;
use async_graphql::parser::types::OperationType;
use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Site;
use super::accept::Format;
use super::auth::Identity;
use super::budget::{self, Payer};
use super::capacity::BodyRoom;
use super::http::refuse;
use super::request_id::RequestId;
use crate::graphql::errors::Failure;
use crate::graphql::{self, Operation};

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

    /// A caller, or all of them, have taken what they may.
    pub fn limited(failure: Failure) -> Self {
        let status = match failure {
            Failure::OverBudget { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, failure)
    }

    fn bad(argument: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Failure::bad(argument, message))
    }

    fn method(allow: &'static str, message: &str) -> Self {
        let failure = Failure::bad("method", message);
        Self { status: StatusCode::METHOD_NOT_ALLOWED, failure, allow: Some(allow) }
    }
}

/// What a request asks for, and by whom.
pub struct Asked {
    pub identity: Identity,
    pub operation: Operation,
    /// The variables, which came with the body, are held until the answer is there.
    pub _room: BodyRoom,
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

/// Who calls from an address, and the operation. A GET only reads: browsers send one for whatever page asks them to.
pub async fn read(site: &Site, address: IpAddr, request: Request) -> Result<Asked, Refusal> {
    let identity = identify(site, address, request.headers()).await?;
    let payer = site.payer(&identity, address);
    pay(site, payer.as_ref(), budget::REQUEST).await?;
    let mut room = site.capacity.body(identity.caller.roles.is_empty());
    let only_reads = match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::POST => false,
        _ => return Err(Refusal::method("GET, POST", "operations are sent by POST, or by GET")),
    };
    let parameters = match only_reads {
        true => {
            let len = request.uri().query().map_or(0, str::len);
            site.budgets.owe(payer.as_ref(), budget::of_bytes(len));
            in_address(request.uri())?
        }
        false => in_body(site, request, payer.as_ref(), &mut room).await?,
    };
    let document = site.persisted.document(parameters.query, parameters.extensions.as_ref());
    let document = document.map_err(|failure| match failure {
        // What follows is part of the protocol, as the answer to an operation is.
        Failure::PersistedQueryNotFound => Refusal::new(StatusCode::OK, failure),
        failure => Refusal::new(StatusCode::BAD_REQUEST, failure),
    })?;
    let mut operation = graphql::Request::new(document);
    operation.variables = parameters.variables.unwrap_or_default();
    operation.operation_name = parameters.operation_name;
    let operation = site.api.prepare(operation);
    // What has been done is charged whether there is enough for it or not.
    site.budgets.owe(payer.as_ref(), operation.read());
    if let Err(failure) = site.charge(payer.as_ref(), operation.cost()) {
        drop(room);
        return Err(refused(failure).await);
    }
    // One that can't be run is refused as on any other way.
    if only_reads && operation.kind() == Some(OperationType::Mutation) {
        return Err(Refusal::method("POST", "a mutation is sent by POST"));
    }
    Ok(Asked { identity, operation, _room: room })
}

/// The longest pause before a caller is told that a budget is spent. Without a pause a connection that is kept would ask and be
/// refused as fast as both sides can write.
pub const REFUSED_PAUSE: Duration = Duration::from_millis(250);

async fn pay(site: &Site, payer: Option<&Payer>, units: u64) -> Result<(), Refusal> {
    match site.charge(payer, units) {
        Ok(()) => Ok(()),
        Err(failure) => Err(refused(failure).await),
    }
}

async fn refused(failure: Failure) -> Refusal {
    if let Failure::OverBudget { retry_after_ms } = failure {
        tokio::time::sleep(Duration::from_millis(retry_after_ms).min(REFUSED_PAUSE)).await;
    }
    Refusal::limited(failure)
}

/// Charges what is no operation: a page costs as much as a request does.
pub async fn charge_pages(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if !request.uri().path().starts_with("/graphql") {
        let payer = site.payer(&Identity::default(), site.address(peer.ip(), request.headers()));
        if let Err(refusal) = pay(&site, payer.as_ref(), budget::REQUEST).await {
            return refuse(refusal, Format::Json, &id.0);
        }
    }
    next.run(request).await
}

/// Who calls. To find out that a token is none is paid for by whoever brings it.
pub async fn identify(site: &Site, address: IpAddr, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let failure = match site.auth.of_headers(headers).await.and_then(Identity::may_operate) {
        Ok(identity) => return Ok(identity),
        Err(failure) => failure,
    };
    pay(site, site.payer(&Identity::default(), address).as_ref(), budget::REQUEST).await?;
    let status = match failure {
        Failure::Forbidden(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    Err(Refusal::new(status, failure))
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

/// A body of more bytes takes over a millisecond to be read.
const LONG_LEN: usize = 64 << 10;

async fn in_body(
    site: &Site,
    request: Request,
    payer: Option<&Payer>,
    room: &mut BodyRoom,
) -> Result<Parameters, Refusal> {
    if !is_json(request.headers()) {
        let failure = Failure::bad("content-type", "send application/json, in UTF-8");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure));
    }
    let stated = request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let body = whole(request.into_body(), stated.unwrap_or(0), site.limits.body_len, room).await?;
    // Whatever it turns out to be, reading it takes as long.
    site.budgets.owe(payer, budget::of_bytes(body.len()));
    // Serde would take a list for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::bad("body", "send one operation in a request: batches are not taken"));
    }
    let read = || serde_json::from_slice(&body).map_err(|error| Refusal::bad("body", error));
    if body.len() > LONG_LEN { graphql::apart(read) } else { read() }
}

/// Bytes beyond the limit that are still taken and dropped: most clients read no answer before all is sent, and would see a
/// broken connection instead of the refusal.
const DROPPED_MAX: usize = 4 << 20;

async fn whole(body: Body, stated: usize, most: usize, room: &mut BodyRoom) -> Result<Vec<u8>, Refusal> {
    let mut chunks = body.into_data_stream();
    // Memory that grows by itself is twice what is needed; what is set aside costs nothing until it is written to.
    let (mut held, mut len) = (Vec::with_capacity(stated.min(most)), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refusal::bad("body", error))?;
        len += chunk.len();
        if len <= most {
            room.grow_to(len).map_err(Refusal::limited)?;
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
