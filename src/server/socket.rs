//! GraphQL over WebSocket: `GET /graphql/ws`, for the protocol graphql-transport-ws and the older graphql-ws.
//!
//! Invariant: a socket ends by itself. It closes when the node stops (1001), when nobody signs in properly (4403) or at
//! all (4408), and when its client takes nothing for [`SEND_TIME_MAX`].

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_graphql as gql;
use async_graphql::http::{ALL_WEBSOCKET_PROTOCOLS, WebSocket as Protocol, WebSocketProtocols, WsMessage};
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, Stream, StreamExt, future};
use serde_json::Value;
use tokio::sync::watch;

use super::Site;
use crate::graphql::guards::Caller;

/// A client that takes nothing for so long is gone, or too slow for a live board.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
/// What the reference client allows between opening a socket and connection_init.
const INIT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client has to answer a close, so that it reads the reason before the connection goes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// Close codes: RFC 6455 for the first, graphql-transport-ws for the rest.
const GOING_AWAY: u16 = 1001;
const BAD_REQUEST: u16 = 4400;
const UNAUTHORIZED: u16 = 4401;
const FORBIDDEN: u16 = 4403;
const INIT_TIMEOUT: u16 = 4408;

pub async fn upgrade(State(site): State<Arc<Site>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !site.origins.admit(&headers) {
        return (StatusCode::FORBIDDEN, "this origin is not allowed; see --allow-origin\n").into_response();
    }
    let caller = match site.auth.of_headers(&headers) {
        Ok(caller) => caller,
        Err(failure) => return (StatusCode::UNAUTHORIZED, format!("{failure}\n")).into_response(),
    };
    let upgrade = upgrade.protocols(ALL_WEBSOCKET_PROTOCOLS).max_message_size(site.limits.message_len);
    let protocol = upgrade.selected_protocol().and_then(|name| WebSocketProtocols::from_str(name.to_str().ok()?).ok());
    let Some(protocol) = protocol else {
        let message = format!("offer one of the protocols {}\n", ALL_WEBSOCKET_PROTOCOLS.join(", "));
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let task = site.tasks.token();
    upgrade.on_upgrade(move |socket| async move {
        serve(site, socket, protocol, caller).await;
        drop(task);
    })
}

/// Whether connection_init has come, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Init {
    Awaited,
    Done,
    Refused,
}

/// What the protocol sends, until it ends by itself or by us: then the close code and its reason, unless the client is
/// gone and there is nobody to tell.
async fn relay(
    site: &Site,
    output: impl Stream<Item = WsMessage>,
    sink: &mut SplitSink<WebSocket, Message>,
    init: watch::Receiver<Init>,
) -> Option<(u16, String)> {
    let init_deadline = tokio::time::sleep(INIT_TIME_MAX);
    futures_util::pin_mut!(output, init_deadline);
    loop {
        let message = tokio::select! {
            biased;
            () = site.shutdown.cancelled() => return Some((GOING_AWAY, "the server is stopping".to_owned())),
            () = &mut init_deadline, if *init.borrow() == Init::Awaited => {
                return Some((INIT_TIMEOUT, "Connection initialisation timeout".to_owned()));
            }
            message = output.next() => message,
        };
        match message {
            Some(WsMessage::Text(text)) => {
                let sent = tokio::time::timeout(SEND_TIME_MAX, sink.send(Message::Text(text.into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return None;
                }
            }
            // async-graphql knows fewer codes than the protocol has.
            Some(WsMessage::Close(code, reason)) => {
                let code = match (*init.borrow(), code) {
                    (Init::Refused, _) => FORBIDDEN,
                    (Init::Awaited, 1011) => UNAUTHORIZED,
                    (_, 1002) => BAD_REQUEST,
                    (_, code) => code,
                };
                return Some((code, reason));
            }
            None if *init.borrow() == Init::Refused => return Some((FORBIDDEN, "Forbidden".to_owned())),
            None => return None,
        }
    }
}

async fn serve(site: Arc<Site>, socket: WebSocket, protocol: WebSocketProtocols, from_headers: Caller) {
    let (mut sink, mut source) = socket.split();
    let (init, init_seen) = watch::channel(Init::Awaited);
    let ended = {
        let input = (&mut source)
            .take_while(|message| future::ready(!matches!(message, Err(_) | Ok(Message::Close(_)))))
            .filter_map(|message| match message {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => future::ready(Some(message.into_data())),
                _ => future::ready(None),
            });
        let node = site.clone();
        let sign_in = move |payload: Value| async move {
            let caller = node.auth.of_connection_init(&payload);
            init.send_replace(if caller.is_ok() { Init::Done } else { Init::Refused });
            let mut session = gql::Data::default();
            session.insert(caller?.unwrap_or(from_headers));
            Ok(session)
        };
        let output = Protocol::new(site.api.clone(), input, protocol).on_connection_init(sign_in);
        relay(&site, output, &mut sink, init_seen).await
    };
    if let Some((code, mut reason)) = ended {
        // A close frame holds 123 bytes of reason.
        reason.truncate(reason.floor_char_boundary(123));
        let frame = CloseFrame { code, reason: reason.into() };
        let close = async {
            if sink.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = source.next().await {}
            }
        };
        // A client that does not answer the close has lost its right to read the reason.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, close).await;
    }
}
