//! GraphQL over server-sent events: `GET` and `POST /graphql/stream`, for the protocol graphql-sse in its "distinct
//! connections mode": one request, one operation, one stream of `next` events and a `complete` at its end.
//!
//! Clients connect again by themselves when a stream ends without `complete`, and never after it: so it stands only at the end
//! of an operation that is over. An EventSource then names the last `id` that it has seen in the header `Last-Event-ID`.
//!
//! Invariant: a stream ends by itself. It completes when its operation does, and breaks off when its token expires and when the
//! node stops; one whose client takes nothing is cut off with its connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_graphql as gql;
use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt, future};
use tokio_util::sync::CancellationToken;

use super::Site;
use super::accept::{Format, takes_events};
use super::admission::{Admitted, Following};
use super::http::{Writes, refuse, refuse_late};
use super::request::{Asked, Refusal, read};
use super::request_id::RequestId;
use crate::domain::FeedPosition;
use crate::graphql::errors::{self, Failure};
use crate::graphql::{Answer, LiveEvent, Member, Outcome, Payload};
use crate::pipeline::Counted;

/// Silence after which a comment is sent: the protocol's own pace, below what proxies wait for (30 s and more).
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// How long, in milliseconds, an EventSource waits until it connects again: the browsers' own 3 s and less, scattered so that
/// those whom a stopping server has left don't come back in one moment.
const RETRY_MS: std::ops::Range<u64> = 1_000..3_000;

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
        Ok(Ok((answers, admitted))) => events(answers, (admitted, site.api.metrics().connected("sse"))),
        Ok(Err(refusal)) => refuse(refusal, Format::Json, &id.0),
        Err(_) => refuse_late(&site, &writes, Format::Json, &id.0),
    }
}

/// What a client is told.
enum Told {
    Next(LiveEvent),
    Complete,
}

/// What a client is told; without `Complete` at its end where it breaks off.
type Answers = BoxStream<'static, Told>;

/// The answer to a query or mutation, or to what can't be run.
fn one(payload: Payload) -> Answers {
    let event = LiveEvent { payload, position: None };
    stream::iter([Told::Next(event), Told::Complete]).boxed()
}

/// The events of a subscription. It breaks off where the node stops, or it has failed.
fn live(member: Member, following: Following) -> Answers {
    let told = stream::unfold(Some((member, following)), async |open| {
        let (mut member, following) = open?;
        match member.next().await {
            Some(event) => Some((Told::Next(event), Some((member, following)))),
            None => member.is_complete().then_some((Told::Complete, None)),
        }
    });
    told.boxed()
}

/// The answers of an operation, and the connection's place. An operation that can't be run is answered in a payload
/// too, so that a browser's EventSource, which shows nobody the body of another status, can say why.
async fn open(
    site: &Site,
    peer: SocketAddr,
    request: Request,
    writes: &Writes,
    id: &str,
) -> Result<(Answers, Admitted), Refusal> {
    if !takes_events(request.headers()) {
        let failure = Failure::bad("accept", "answers here are text/event-stream");
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, failure));
    }
    let too_many = |failure| Refusal::new(StatusCode::TOO_MANY_REQUESTS, failure);
    let held = last_event(request.headers());
    let address = site.address(peer.ip(), request.headers());
    let mut admitted = site.admission.admit(address).map_err(too_many)?;
    let Asked { identity, operation, _room } =
        read(site, address, request).await.map_err(|refusal| match refusal.status {
            // 200 would promise a stream.
            StatusCode::OK => Refusal { status: StatusCode::BAD_REQUEST, ..refusal },
            _ => refusal,
        })?;
    // Until the stream begins.
    let _place = site.capacity.request().map_err(Refusal::limited)?;
    if let Some(user) = &identity.caller.user {
        admitted.sign_in(user).map_err(too_many)?;
    }
    writes.look_at(&operation);
    let toll = site.toll(site.payer(&identity, address).as_ref());
    let (expires_at, revoked) = (identity.expires_at, site.auth.until_revoked(&identity));
    let answers = match site.api.operate(operation, identity.caller, toll, id).await {
        Outcome::Answered(answer) => one(answer.payload),
        Outcome::Subscribed(member) => match begun(member, held, &admitted, id).await {
            Ok((member, following)) => {
                let ended = ended(site.shutdown.clone(), expires_at, revoked).boxed();
                live(member, following).take_until(ended).boxed()
            }
            Err(refused) => one(Answer::from(refused).payload),
        },
    };
    Ok((answers, admitted))
}

/// Where an EventSource that comes back stands. What is no position of ours says nothing.
fn last_event(headers: &HeaderMap) -> Option<FeedPosition> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

/// A subscription that its caller may follow. An EventSource has kept its rows, so that changes lead it on.
async fn begun(
    mut member: Member,
    held: Option<FeedPosition>,
    admitted: &Admitted,
    id: &str,
) -> Result<(Member, Following), gql::Response> {
    let following = admitted.follows().more(member.followed()).map_err(|failure| errors::failed(failure, id))?;
    if let Some(held) = held {
        member.resume_from(held).await?;
    }
    Ok((member, following))
}

/// When a stream has to end before its operation does: the node stops, or the token expires or is taken back.
async fn ended(shutdown: CancellationToken, expires_at: Option<SystemTime>, revoked: impl Future<Output = ()>) {
    let expired = async {
        match expires_at {
            Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = expired => {}
        () = revoked => {}
    }
}

fn events(answers: Answers, place: (Admitted, Counted)) -> Response {
    let chunks = chunks(answers).map(move |chunk| {
        // The place is held for as long as the stream is.
        let _ = &place;
        Ok::<_, Infallible>(chunk)
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        // A proxy that compresses would collect events until there is enough of them.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        // nginx would collect events until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// What is written, in the pieces in which it is there: a payload is JSON without line breaks, and is not copied.
fn chunks(answers: Answers) -> impl Stream<Item = Bytes> {
    let events = stream::unfold(answers, async |mut answers| {
        let told = tokio::select! {
            biased;
            told = answers.next() => told?,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some((vec![COMMENT], answers)),
        };
        let pieces = match told {
            Told::Next(LiveEvent { payload, position }) => {
                let start = position.map_or(Bytes::from_static(b"event: next\ndata: "), |position| {
                    format!("event: next\nid: {position}\ndata: ").into()
                });
                vec![start, payload, Bytes::from_static(b"\n\n")]
            }
            Told::Complete => vec![COMPLETE],
        };
        Some((pieces, answers))
    });
    let retry_ms = rand::random_range(RETRY_MS);
    // Some browsers take a stream for open only once there is something in it.
    let start = Bytes::from(format!("retry: {retry_ms}\n:\n\n"));
    stream::once(future::ready(start)).chain(events.flat_map(stream::iter))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn text(chunks: impl Stream<Item = Bytes>) -> String {
        let all: Vec<u8> = chunks.map(|chunk| chunk.to_vec()).concat().await;
        String::from_utf8(all).unwrap()
    }

    fn next(position: Option<&str>) -> Told {
        let position = position.map(|position| position.parse().unwrap());
        Told::Next(LiveEvent { payload: Bytes::from_static(b"{}"), position })
    }

    #[tokio::test]
    async fn answers_become_events_and_an_end() {
        let answers = stream::iter([next(None), next(Some("1-7")), Told::Complete]);
        let written = text(chunks(answers.boxed())).await;
        let (retry, events) = written.split_once("\n:\n\n").unwrap();
        let retry_ms = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!(RETRY_MS.contains(&retry_ms));
        assert_eq!(events, "event: next\ndata: {}\n\nevent: next\nid: 1-7\ndata: {}\n\nevent: complete\ndata:\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_comments_until_the_node_stops() {
        let (began, shutdown) = (Instant::now(), CancellationToken::new());
        let silent = stream::pending().take_until(ended(shutdown.clone(), None, future::pending()).boxed());
        let mut chunks = Box::pin(chunks(silent.boxed()));
        assert!(chunks.next().await.unwrap().starts_with(b"retry: "));
        for comment in 1..=3 {
            assert_eq!(chunks.next().await, Some(COMMENT));
            assert_eq!(began.elapsed().as_secs(), comment * 12);
        }
        shutdown.cancel();
        assert_eq!(chunks.next().await, None, "and not complete");
        assert_eq!(began.elapsed().as_secs(), 36);
    }

    #[tokio::test]
    async fn a_stream_lives_as_long_as_its_token() {
        let expires_at = SystemTime::now() + Duration::from_millis(50);
        let silent =
            stream::pending().take_until(ended(CancellationToken::new(), Some(expires_at), future::pending()).boxed());
        assert!(text(chunks(silent.boxed())).await.ends_with(":\n\n"), "it is not complete");
        assert!(SystemTime::now() >= expires_at);
    }

    #[test]
    fn only_a_position_is_gone_on_from() {
        let held = |text: &'static str| {
            let headers = [(header::HeaderName::from_static("last-event-id"), HeaderValue::from_static(text))];
            last_event(&HeaderMap::from_iter(headers)).map(|held| held.to_string())
        };
        assert_eq!(held("1.a-7").as_deref(), Some("1.a-7"));
        assert_eq!((held(""), held("yesterday"), last_event(&HeaderMap::new())), (None, None, None));
    }
}
