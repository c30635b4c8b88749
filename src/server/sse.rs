//! GraphQL over server-sent events: `GET` and `POST /graphql/stream`, for the protocol graphql-sse in its "distinct
//! connections mode": one request, one operation, one stream of `next` events and a `complete` at its end.
//!
//! Invariant: a stream ends by itself. It completes when its operation does, when its token expires and when the node stops; one whose client
//! takes nothing is cut off with its connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt, future};
use tokio_util::sync::CancellationToken;

use super::Site;
use super::accept::{Format, takes_events};
use super::admission::Admitted;
use super::http::{Writes, refuse, refuse_late};
use super::request::{Refusal, read};
use super::request_id::RequestId;
use crate::graphql::errors::Failure;
use crate::graphql::{Outcome, Payload};
use crate::pipeline::Counted;

/// Silence after which a comment is sent: the protocol's own pace, below what proxies wait for (30 s and more).
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// A comment: nobody is told of it.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// The data is empty, and has to be there: without it a browser's EventSource keeps the event to itself.
const COMPLETE: Bytes = Bytes::from_static(b"event: complete\ndata:\n\n");

pub async fn stream(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let writes = Writes::default();
    match tokio::time::timeout(site.limits.request_timeout, open(&site, peer, request, &writes, &id.0)).await {
        Ok(Ok((payloads, admitted))) => events(payloads, (admitted, site.api.metrics().connected("sse"))),
        Ok(Err(refusal)) => refuse(refusal, Format::Json, &id.0),
        Err(_) => refuse_late(&site, &writes, Format::Json, &id.0),
    }
}

/// The payloads of an operation, and the connection's place. An operation that can't be run is answered in a payload
/// too, so that a browser's EventSource, which shows nobody the body of another status, can say why.
async fn open(
    site: &Site,
    peer: SocketAddr,
    request: Request,
    writes: &Writes,
    id: &str,
) -> Result<(BoxStream<'static, Payload>, Admitted), Refusal> {
    if !takes_events(request.headers()) {
        let failure = Failure::bad("accept", "answers here are text/event-stream");
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, failure));
    }
    let too_many = |failure| Refusal::new(StatusCode::TOO_MANY_REQUESTS, failure);
    let mut admitted = site.admission.admit(peer.ip()).map_err(too_many)?;
    let (identity, mut operation) = read(site, request).await.map_err(|refusal| match refusal.status {
        // 200 would promise a stream.
        StatusCode::OK => Refusal { status: StatusCode::BAD_REQUEST, ..refusal },
        _ => refusal,
    })?;
    if let Some(user) = &identity.caller.user {
        admitted.sign_in(user).map_err(too_many)?;
    }
    writes.look_at(site, &mut operation);
    let payloads = match site.api.operate(operation, identity.caller, id).await {
        Outcome::Answered(answer) => stream::once(future::ready(answer.payload)).boxed(),
        Outcome::Subscribed(member) => member.into_stream(),
    };
    let ends = ended(site.shutdown.clone(), identity.expires_at);
    Ok((payloads.take_until(ends.boxed()).boxed(), admitted))
}

/// When a stream has to end before its operation does: the node stops, or the token expires.
async fn ended(shutdown: CancellationToken, expires_at: Option<SystemTime>) {
    let expired = async {
        match expires_at {
            Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = expired => {}
    }
}

fn events(payloads: BoxStream<'static, Payload>, place: (Admitted, Counted)) -> Response {
    let chunks = chunks(payloads).map(move |chunk| {
        // The place is held for as long as the stream is.
        let _ = &place;
        Ok::<_, Infallible>(chunk)
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would collect events until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// What is written, in the pieces in which it is there: a payload is JSON without line breaks, and is not copied.
fn chunks(payloads: BoxStream<'static, Payload>) -> impl Stream<Item = Bytes> {
    let events = stream::unfold(Some(payloads), async |open| {
        let mut payloads = open?;
        let payload = tokio::select! {
            biased;
            payload = payloads.next() => payload,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some((vec![COMMENT], Some(payloads))),
        };
        match payload {
            Some(payload) => {
                let next = Bytes::from_static(b"event: next\ndata: ");
                Some((vec![next, payload, Bytes::from_static(b"\n\n")], Some(payloads)))
            }
            None => Some((vec![COMPLETE], None)),
        }
    });
    // Some browsers take a stream for open only once there is something in it.
    stream::once(future::ready(COMMENT)).chain(events.flat_map(stream::iter))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn text(chunks: impl Stream<Item = Bytes>) -> String {
        let all: Vec<u8> = chunks.map(|chunk| chunk.to_vec()).concat().await;
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn payloads_become_events_and_an_end() {
        let payloads = stream::iter([&b"{\"a\":1}"[..], b"{\"a\":2}"].map(Bytes::from_static)).boxed();
        let written = text(chunks(payloads)).await;
        assert_eq!(
            written,
            ":\n\nevent: next\ndata: {\"a\":1}\n\nevent: next\ndata: {\"a\":2}\n\nevent: complete\ndata:\n\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_comments_until_the_node_stops() {
        let (began, shutdown) = (Instant::now(), CancellationToken::new());
        let silent = stream::pending().take_until(ended(shutdown.clone(), None).boxed());
        let mut chunks = Box::pin(chunks(silent.boxed()));
        assert_eq!(chunks.next().await, Some(COMMENT));
        for comment in 1..=3 {
            assert_eq!(chunks.next().await, Some(COMMENT));
            assert_eq!(began.elapsed().as_secs(), comment * 12);
        }
        shutdown.cancel();
        assert_eq!((chunks.next().await, chunks.next().await), (Some(COMPLETE), None));
        assert_eq!(began.elapsed().as_secs(), 36);
    }

    #[tokio::test]
    async fn a_stream_lives_as_long_as_its_token() {
        let expires_at = SystemTime::now() + Duration::from_millis(50);
        let silent = stream::pending().take_until(ended(CancellationToken::new(), Some(expires_at)).boxed());
        assert!(text(chunks(silent.boxed())).await.ends_with("event: complete\ndata:\n\n"));
        assert!(SystemTime::now() >= expires_at);
    }
}
