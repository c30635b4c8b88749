//! GraphQL over WebSocket: `GET /graphql/ws`, by the protocol graphql-transport-ws
//! (<https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>).
//!
//! One task a connection reads, runs operations and writes, so that a client that takes nothing holds up nobody but
//! itself, and nothing queues for it: while a message is being sent, neither is another one read nor an event taken. Only
//! what a group tells while there is room and nothing is being sent is written without that task ([`straight`]).
//!
//! Invariant: a socket ends by itself. It closes when the node stops, when nobody signs in properly or in time, when its
//! token expires, when its client breaks the protocol, and when it takes or says nothing for too long.

mod connection;
mod protocol;
mod straight;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;

use super::Site;
use super::accept::Format;
use super::admission::Admitted;
use super::auth::Identity;
use super::budget;
use super::http::refuse;
use super::origins;
use super::request::{Refusal, identify};
use super::request_id::RequestId;
use super::wire::Wire;
use crate::graphql::errors::Failure;
use connection::{Connection, End};

const PROTOCOL: &str = "graphql-transport-ws";
/// Enough for most messages at one go; the library's own 128 KiB would be most of what an idle subscriber costs.
const READ_BUFFER_LEN: usize = 1 << 10;
/// How long a client has to answer a close, so that it reads the reason before the connection goes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

pub async fn upgrade(
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(id): Extension<RequestId>,
    Extension(wire): Extension<Arc<Wire>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => {
            let refusal = Refusal::new(why.status(), Failure::bad("upgrade", why.body_text()));
            return refuse(refusal, Format::Json, &id.0);
        }
    };
    let most = site.limits.message_len;
    // Without the limit on frames, one that announces 16 MiB would be collected before its length is looked at.
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(most).max_frame_size(most);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_LEN).write_buffer_size(0);
    let address = site.address(peer.ip(), &headers);
    let (identity, admitted) = match admit(&site, address, &headers, &upgrade).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(refusal, Format::Json, &id.0),
    };
    let task = site.tasks.token();
    upgrade.on_upgrade(async move |socket| {
        serve(site, socket, wire, address, identity, admitted).await;
        drop(task);
    })
}

/// Who comes, and the connection's place.
async fn admit(
    site: &Site,
    address: IpAddr,
    headers: &HeaderMap,
    upgrade: &WebSocketUpgrade,
) -> Result<(Identity, Admitted), Refusal> {
    if !site.origins.admit(headers) {
        return Err(origins::foreign());
    }
    let identity = identify(site, address, headers).await?;
    site.charge(site.payer(&identity, address).as_ref(), budget::REQUEST).map_err(Refusal::limited)?;
    if upgrade.selected_protocol().is_none() {
        let failure = Failure::bad("sec-websocket-protocol", format!("offer {PROTOCOL}"));
        return Err(Refusal::new(StatusCode::BAD_REQUEST, failure));
    }
    let too_many = |failure| Refusal::new(StatusCode::TOO_MANY_REQUESTS, failure);
    Ok((identity, site.admission.admit(address).map_err(too_many)?))
}

async fn serve(
    site: Arc<Site>,
    socket: WebSocket,
    wire: Arc<Wire>,
    address: IpAddr,
    from_headers: Identity,
    admitted: Admitted,
) {
    let metrics = site.api.metrics().clone();
    let _open = metrics.connected("websocket");
    let mut connection = Connection::new(site, socket, wire, address, from_headers, admitted);
    let end = connection.run().await;
    metrics.closed(end.reason());
    let mut socket = connection.into_socket();
    let End::Closing(frame) = end else { return };
    let close = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that does not answer the close has lost its right to read the reason.
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, close).await;
}
