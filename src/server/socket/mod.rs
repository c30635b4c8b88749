//! GraphQL over WebSocket: `GET /graphql/ws`, by the protocol graphql-transport-ws
//! (<https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>).
//!
//! One task a connection reads, runs operations and writes, so that a client that takes nothing holds up nobody but
//! itself, and nothing queues for it: while a message is being sent, neither is another one read nor an event taken.
//!
//! Invariant: a socket ends by itself. It closes when the node stops, when nobody signs in properly or in time, when its
//! token expires, when its client breaks the protocol, and when it takes or says nothing for too long.

mod connection;
mod protocol;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::Site;
use connection::Connection;

const PROTOCOL: &str = "graphql-transport-ws";
/// A subscribe message holds a document and its variables; events and products are sent over HTTP, a whole MiB at a time.
const MESSAGE_LEN_MAX: usize = 64 << 10;
/// Enough for most messages at one go; the library's own 128 KiB would be most of what an idle subscriber costs.
const READ_BUFFER_LEN: usize = 1 << 10;
/// How long a client has to answer a close, so that it reads the reason before the connection goes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

pub async fn upgrade(State(site): State<Arc<Site>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !site.origins.admit(&headers) {
        return (StatusCode::FORBIDDEN, "this origin is not allowed; see --allow-origin\n").into_response();
    }
    let caller = match site.auth.of_headers(&headers) {
        Ok(caller) => caller,
        Err(failure) => return (StatusCode::UNAUTHORIZED, format!("{failure}\n")).into_response(),
    };
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(MESSAGE_LEN_MAX)
        .read_buffer_size(READ_BUFFER_LEN)
        .write_buffer_size(0);
    if upgrade.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, format!("offer the protocol {PROTOCOL}\n")).into_response();
    }
    let task = site.tasks.token();
    upgrade.on_upgrade(async move |socket| {
        serve(site, socket, caller).await;
        drop(task);
    })
}

async fn serve(site: Arc<Site>, socket: WebSocket, from_headers: super::auth::Identity) {
    let mut connection = Connection::new(site, socket, from_headers);
    let end = connection.run().await;
    let mut socket = connection.into_socket();
    let Some(frame) = end else { return };
    let close = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that does not answer the close has lost its right to read the reason.
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, close).await;
}
