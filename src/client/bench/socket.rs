//! Opening a WebSocket that speaks graphql-transport-ws, and why one ends.
//!
//! Thousands of these live beside the server that is measured, so their buffers are small.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::frame::Frame;
use crate::client::{Caller, Client, TopLevelError};

const PROTOCOL: &str = "graphql-transport-ws";
/// Room for the usual frame of ten places; a larger one grows the buffer for as long as it is there.
const READ_BUFFER_LEN: usize = 2 * 1024;
/// A snapshot of 100 places is some 12 KB; nothing that a board sends comes near this.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// Connecting, upgrading and signing in. A server under a crowd that arrives at once is slow, and not away.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a socket gives nothing more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("the server closes with {code}: {reason}")]
    Closed { code: u16, reason: String },
    #[error("the server is gone")]
    Gone,
    #[error("the connection broke: {0}")]
    Broken(#[from] tungstenite::Error),
    #[error("the server answers {code}: {message}")]
    Refused { code: String, message: String },
    #[error("the server completes the subscription")]
    Completed,
    #[error("the server sends what is not of the protocol: {0}")]
    Foreign(String),
}

impl From<TopLevelError> for Lost {
    fn from(error: TopLevelError) -> Self {
        let code = error.extensions.code.unwrap_or_else(|| "BAD_USER_INPUT".to_owned());
        Self::Refused { code, message: error.message }
    }
}

/// A subscriber's end of a connection.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// The next text.
    pub async fn receive(&mut self) -> Result<Utf8Bytes, Lost> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Lost::Closed { code: frame.code.into(), reason: frame.reason.to_string() });
                }
                Some(Ok(Message::Close(None))) | None => return Err(Lost::Gone),
                // Pings of the WebSocket itself are answered below this.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Lost> {
        Ok(self.0.send(Message::Text(text.into())).await?)
    }

    /// Answers the protocol's own ping.
    pub async fn pong(&mut self) -> Result<(), Lost> {
        self.send(r#"{"type":"pong"}"#).await
    }

    /// Parses what is not read by its head alone.
    pub fn parse(text: &str) -> Result<Frame, Lost> {
        const EXCERPT_LEN: usize = 200;
        serde_json::from_str(text).map_err(|error| {
            let excerpt = &text[..text.floor_char_boundary(EXCERPT_LEN)];
            Lost::Foreign(format!("{error}: {excerpt}"))
        })
    }
}

/// Where sockets are opened, and who opens them.
pub struct Door {
    addresses: Vec<SocketAddr>,
    request: Request,
    init: String,
}

impl Door {
    pub async fn find(client: &Client) -> anyhow::Result<Self> {
        let Some(rest) = client.url().strip_prefix("http://") else {
            bail!("{}: subscribers connect without TLS; give the server's own http:// address", client.url());
        };
        let mut request = format!("ws://{rest}/graphql/ws").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse()?);
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = request.uri().port_u16().unwrap_or(80);
        let addresses = tokio::net::lookup_host((host.as_str(), port)).await.with_context(|| host.clone())?.collect();
        let init = match &client.caller {
            Caller::Token(token) => json!({ "Authorization": format!("Bearer {token}") }),
            Caller::Name(name) => json!({ "x-acclaim-user": name }),
            Caller::Anonymous => json!({}),
        };
        let init = json!({ "type": "connection_init", "payload": init }).to_string();
        Ok(Self { addresses, request, init })
    }

    /// Connects and signs in.
    pub async fn open(&self) -> anyhow::Result<Socket> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.try_open()).await;
        opened.unwrap_or_else(|_| bail!("the server opens no WebSocket within {} s", OPEN_TIMEOUT.as_secs()))
    }

    async fn try_open(&self) -> anyhow::Result<Socket> {
        let stream = TcpStream::connect(self.addresses.as_slice()).await.context("can't connect")?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_LEN)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_LEN_MAX))
            .max_frame_size(Some(MESSAGE_LEN_MAX));
        let (stream, _) = client_async_with_config(self.request.clone(), stream, Some(config))
            .await
            .context("the server opens no WebSocket")?;
        let mut socket = Socket(stream);
        socket.send(self.init.as_str()).await?;
        loop {
            match Socket::parse(&socket.receive().await?)? {
                Frame::ConnectionAck => return Ok(socket),
                Frame::Ping => socket.pong().await?,
                other => bail!("the server answers connection_init with {other:?}"),
            }
        }
    }
}
