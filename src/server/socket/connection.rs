//! One connection: what it has said, what runs for it, and what it is owed.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use async_graphql::parser::types::OperationType;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::future::{BoxFuture, pending};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamMap;
use tokio_tungstenite::tungstenite;

use super::CLOSE_TIME_MAX;
use super::protocol::{self, ClientMessage, Close, Operation};
use crate::graphql::errors::{self, Failure};
use crate::graphql::guards::Caller;
use crate::graphql::{self, Answer, Member, Outcome, new_request_id};
use crate::pipeline::AppError;
use crate::server::Site;
use crate::server::admission::{Admitted, Following, Follows};
use crate::server::auth::Identity;
use crate::server::budget::{self, Payer};
use crate::server::http::{Writes, late};
use crate::server::request::REFUSED_PAUSE;
use crate::server::wire::Wire;

/// How long a client may take to say who it is.
const INIT_TIME_MAX: Duration = Duration::from_secs(3);
/// A client that takes nothing for so long is gone, or too slow for a live board.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is there: often enough for proxies that cut idle connections after 30 s or more.
const PING_EVERY: Duration = Duration::from_secs(12);

/// How long a client is not read from that has sent too much. It must still be heard to be alive.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An operation's id stands in front of each of its messages; a UUID has 36 bytes.
const ID_LEN_MAX: usize = 128;

pub struct Connection {
    site: Arc<Site>,
    socket: WebSocket,
    /// What the socket writes to, for what goes straight there.
    wire: Arc<Wire>,
    /// From where it comes, and whose budget its messages are charged to.
    address: IpAddr,
    payer: Option<Payer>,
    from_headers: Identity,
    admitted: Admitted,
    /// Who calls, once that was said.
    caller: Option<Caller>,
    operations: StreamMap<Arc<str>, BoxStream<'static, Message>>,
    /// When the next of the things that time brings is due.
    init_by: Instant,
    ping_at: Instant,
    expires_at: Option<Instant>,
    /// Comes when its token is taken back.
    revoked: BoxFuture<'static, ()>,
    /// When a client that has sent more than its budget pays for is read from again.
    reads_at: Option<Instant>,
    /// Whether anything has come since the last ping.
    is_alive: bool,
}

/// Why a connection ends.
pub enum End {
    /// With a frame that says why.
    Closing(CloseFrame),
    /// The client has closed it, or is gone.
    Left,
    /// Nothing came from the client for too long.
    Silent,
    /// The client took nothing for too long.
    Stalled,
    /// What was still to be written was cut off, because the server stops or the token has expired.
    CutOff,
}

impl End {
    /// As it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Closing(frame) => protocol::reason(frame.code),
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::CutOff => "cut_off",
        }
    }
}

impl Connection {
    pub fn new(
        site: Arc<Site>,
        socket: WebSocket,
        wire: Arc<Wire>,
        address: IpAddr,
        from_headers: Identity,
        admitted: Admitted,
    ) -> Self {
        let now = Instant::now();
        Self {
            payer: site.payer(&from_headers, address),
            site,
            socket,
            wire,
            address,
            from_headers,
            admitted,
            caller: None,
            operations: StreamMap::new(),
            init_by: now + INIT_TIME_MAX,
            ping_at: now + PING_EVERY,
            expires_at: None,
            revoked: pending().boxed(),
            reads_at: None,
            is_alive: true,
        }
    }

    pub fn into_socket(self) -> WebSocket {
        self.socket
    }

    /// Serves until the connection is to end.
    pub async fn run(&mut self) -> End {
        match self.serve().await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        let site = self.site.clone();
        let mut stopping = pin!(site.shutdown.cancelled());
        let mut clock = pin!(sleep_until(self.due_at()));
        loop {
            let due_at = self.due_at();
            if clock.deadline() != due_at {
                clock.as_mut().reset(due_at);
            }
            tokio::select! {
                // The stop and the time come first: a client that always has something to say must not keep them waiting.
                biased;
                () = &mut stopping => return Err(closed(Close::GoingAway)),
                () = &mut clock => self.on_time().await?,
                () = &mut self.revoked => return Err(closed(Close::Forbidden("the token was taken back".to_owned()))),
                Some((_, message)) = self.operations.next(), if !self.operations.is_empty() => self.send(message).await?,
                () = has_rest(&self.wire) => self.finish().await?,
                message = self.socket.next(), if self.reads_at.is_none() => match message {
                    Some(Ok(message)) => self.take(message).await?,
                    Some(Err(error)) => return Err(self.broken(error)),
                    None => return Err(End::Left),
                },
            }
        }
    }

    fn due_at(&self) -> Instant {
        let init_by = self.caller.is_none().then_some(self.init_by);
        [init_by, self.expires_at, self.reads_at].into_iter().flatten().fold(self.ping_at, Instant::min)
    }

    async fn on_time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.caller.is_none() && now >= self.init_by {
            return Err(closed(Close::InitTimeout));
        }
        self.check_token()?;
        self.reads_at = self.reads_at.filter(|at| now < *at);
        if now >= self.ping_at {
            if !std::mem::take(&mut self.is_alive) {
                return Err(End::Silent);
            }
            self.ping_at = now + PING_EVERY;
            self.send(Message::Ping(axum::body::Bytes::new())).await?;
        }
        Ok(())
    }

    fn check_token(&self) -> Result<(), End> {
        match self.expires_at {
            Some(at) if Instant::now() >= at => Err(closed(Close::Forbidden("the token has expired".to_owned()))),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let sent = self.socket.send(message);
        in_time(&self.site, self.expires_at, sent).await
    }

    /// Writes the rest of a message of which only a part could be put straight into the socket.
    async fn finish(&mut self) -> Result<(), End> {
        let flushed = self.socket.flush();
        in_time(&self.site, self.expires_at, flushed).await
    }

    /// What a failure to read means: what the client has sent is told, anything else has cut the connection.
    fn broken(&self, error: axum::Error) -> End {
        use tungstenite::Error::{Capacity, Protocol, Utf8};
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        match error.into_inner().downcast_ref() {
            Some(Capacity(_)) => closed(Close::TooLong(self.site.limits.message_len)),
            Some(Utf8(_)) => closed(Close::BadFrame(1007)),
            Some(Protocol(fault)) if *fault != ResetWithoutClosingHandshake => closed(Close::BadFrame(1002)),
            _ => End::Left,
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), End> {
        self.is_alive = true;
        let units = budget::MESSAGE + budget::of_bytes(len(&message));
        let pause = self.site.budgets.owe(self.payer.as_ref(), units);
        self.reads_at = pause.map(|pause| Instant::now() + pause.min(PAUSE_MAX));
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(closed(Close::BadMessage("messages are texts".to_owned()))),
            Message::Close(_) => return Err(self.part().await),
            // The library answers pings by itself.
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        match protocol::read(&text).map_err(closed)? {
            ClientMessage::ConnectionInit { payload } => self.sign_in(&payload).await,
            ClientMessage::Ping { payload } => self.send(protocol::pong(payload)).await,
            ClientMessage::Pong {} => Ok(()),
            ClientMessage::Subscribe { id, payload } => self.begin(id, *payload).await,
            ClientMessage::Complete { id } => {
                self.operations.remove(id.as_str());
                Ok(())
            }
        }
    }

    /// Ends as the client wishes. The library has made its answer, which goes out with the next flush; without it the client
    /// would take a proper end for a broken connection.
    async fn part(&mut self) -> End {
        // Nothing may follow a close.
        self.operations.clear();
        let _ = timeout(CLOSE_TIME_MAX, self.socket.flush()).await;
        End::Left
    }

    async fn sign_in(&mut self, payload: &serde_json::Value) -> Result<(), End> {
        if self.caller.is_some() {
            return Err(closed(Close::TooMany("Too many initialisation requests".to_owned())));
        }
        let refused = |failure: Failure| closed(Close::Forbidden(failure.to_string()));
        let named = self.site.auth.of_connection_init(payload).await.map_err(refused)?;
        let named = named.map(Identity::may_operate).transpose().map_err(refused)?;
        let identity = named.unwrap_or_else(|| self.from_headers.clone());
        if let Some(user) = &identity.caller.user {
            // graphql-transport-ws has no code for it; 4429 is the nearest that its clients do not retry.
            self.admitted.sign_in(user).map_err(|failure| closed(Close::TooMany(failure.to_string())))?;
        }
        self.expires_at = identity.expires_at.map(|at| {
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            Instant::now() + left
        });
        self.payer = self.site.payer(&identity, self.address);
        self.revoked = self.site.auth.until_revoked(&identity);
        self.caller = Some(identity.caller);
        self.send(protocol::acknowledged()).await
    }

    async fn refuse(&mut self, operation: &Operation, failure: Failure) -> Result<(), End> {
        let refused = errors::failed(failure, &new_request_id());
        self.send(operation.error(&refused.errors)).await
    }

    async fn begin(&mut self, id: String, request: graphql::Request) -> Result<(), End> {
        let Some(caller) = self.caller.clone() else { return Err(closed(Close::Unauthorized)) };
        // A timer comes a little late on a busy server.
        self.check_token()?;
        if id.len() > ID_LEN_MAX {
            return Err(closed(Close::BadMessage(format!("an id has at most {ID_LEN_MAX} bytes"))));
        }
        if self.operations.contains_key(id.as_str()) {
            return Err(closed(Close::DuplicateId(id)));
        }
        let operation = Operation::new(&id);
        let most = self.site.limits.subscriptions;
        if self.operations.len() >= most {
            let failure = Failure::too_many("subscriptions", most, "too many operations at once on a connection");
            return self.refuse(&operation, failure).await;
        }
        if let Err(failure) = self.site.charge(self.payer.as_ref(), budget::REQUEST) {
            return self.refuse(&operation, failure).await;
        }
        let prepared = self.site.api.prepare(request);
        self.site.budgets.owe(self.payer.as_ref(), prepared.read());
        if let Err(failure) = self.site.charge(self.payer.as_ref(), prepared.cost()) {
            self.reads_at = Some(Instant::now() + REFUSED_PAUSE);
            return self.refuse(&operation, failure).await;
        }
        let (site, toll) = (self.site.clone(), self.site.toll(self.payer.as_ref()));
        let outcome = async move {
            let (id, most, writes) = (new_request_id(), site.limits.request_timeout, Writes::default());
            writes.look_at(&prepared);
            let place = match prepared.kind() {
                // The connections bound these.
                Some(OperationType::Subscription) => Ok(None),
                _ => site.capacity.request().map(Some),
            };
            let _place = match place {
                Ok(place) => place,
                Err(failure) => return Outcome::Answered(errors::failed(failure, &id).into()),
            };
            let outcome = timeout(most, site.api.operate(prepared, caller, toll, &id)).await;
            outcome.unwrap_or_else(|_| Outcome::Answered(late(&site, &writes, &id)))
        };
        let begun = Running::Begun(outcome.boxed(), self.admitted.follows());
        self.operations.insert(id.into(), messages(self.site.clone(), self.wire.clone(), operation, begun));
        Ok(())
    }
}

/// Waits until something is written, for as long as the client may take for that.
async fn in_time(
    site: &Site,
    expires_at: Option<Instant>,
    writing: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), End> {
    // Nearly always there is room at once, and no timer is needed.
    let mut writing = pin!(writing);
    let written = match writing.as_mut().now_or_never() {
        Some(written) => written,
        None => {
            let token_ends = expires_at.unwrap_or_else(|| Instant::now() + SEND_TIME_MAX);
            let stopped = async {
                site.shutdown.cancelled().await;
                sleep(CLOSE_TIME_MAX).await;
            };
            tokio::select! {
                written = timeout(SEND_TIME_MAX, writing) => written.map_err(|_| End::Stalled)?,
                // A client that takes nothing holds up neither a stop nor the end of its token.
                () = stopped => return Err(End::CutOff),
                () = sleep_until(token_ends) => return Err(End::CutOff),
            }
        }
    };
    written.map_err(|_| End::Left)
}

/// Comes when there is the rest of a message to be written. Whoever has put only a part wakes the task.
async fn has_rest(wire: &Wire) {
    poll_fn(|_| if wire.has_rest() { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn len(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

fn closed(close: Close) -> End {
    End::Closing(close.frame())
}

/// How far an operation has come.
enum Running {
    Begun(BoxFuture<'static, Outcome>, Follows),
    Subscribed {
        member: Member,
        _following: Following,
    },
    /// All is said but that it is complete.
    Answered,
    Over,
}

/// What an operation says until it is over. One state machine instead of streams in streams: each layer would be another
/// piece of cold memory to touch for every message of every subscriber.
fn messages(site: Arc<Site>, wire: Arc<Wire>, operation: Operation, begun: Running) -> BoxStream<'static, Message> {
    let begun = (site, wire, operation, begun);
    let messages = stream::unfold(begun, async |(site, wire, operation, mut running)| {
        if let Running::Begun(outcome, follows) = running {
            running = match outcome.await {
                Outcome::Subscribed(member) => match follows.more(member.followed()) {
                    Ok(following) => {
                        member.put_into(Box::new(operation.straight(wire.clone())));
                        Running::Subscribed { member, _following: following }
                    }
                    Err(failure) => {
                        let refused = errors::failed(failure, &new_request_id());
                        return Some((operation.error(&refused.errors), (site, wire, operation, Running::Over)));
                    }
                },
                Outcome::Answered(Answer { refusal: Some(errors), .. }) => {
                    return Some((operation.error(&errors), (site, wire, operation, Running::Over)));
                }
                Outcome::Answered(answer) => {
                    return Some((operation.next(&answer.payload), (site, wire, operation, Running::Answered)));
                }
            };
        }
        let last = match &mut running {
            Running::Subscribed { member, .. } => match member.next().await {
                Some(event) => return Some((operation.next(&event.payload), (site, wire, operation, running))),
                None if member.is_complete() => operation.complete(),
                // The connection is about to be closed with 1001, after which clients come back; an operation that is told to be
                // complete would stay so.
                None if site.shutdown.is_cancelled() => return None,
                // To a client that is told of an end, all would be well.
                None => operation.error(&errors::failed(ended_by_itself(), &new_request_id()).errors),
            },
            Running::Begun(..) | Running::Answered => operation.complete(),
            Running::Over => return None,
        };
        Some((last, (site, wire, operation, Running::Over)))
    });
    messages.boxed()
}

fn ended_by_itself() -> AppError {
    AppError::Unavailable { reason: "a subscription has ended by itself".to_owned(), retry_after_ms: 1_000 }
}
