//! A client of a running server: what imports, checks, benches and shops in the demo talk through.
//!
//! It knows GraphQL over HTTP (the bench over WebSocket, too) and nothing of how the server works inside. Every call has a time limit, and every way in
//! which a call can fail is a [`ClientError`], which says whether the same call may work later.

pub mod bench;
pub mod demo;
pub mod import;
mod progress;
pub mod rebuild;
mod rows;
mod text;
pub mod verify;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A call that has not been answered by then never will be: the server answers everything well within.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that does not take a connection by then is away, or behind something that drops packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before a call is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// A server that is back is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How much of an answer that is not GraphQL is shown: enough to recognise a proxy's error page.
const EXCERPT_LEN: usize = 200;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection, none in time, or it broke: whether the call took effect is unknown.
    #[error("{url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    /// The server refused the whole call; `code` is the GraphQL error's `extensions.code`.
    #[error("the server answers {code}: {message}")]
    Refused { code: String, message: String, retry_after: Option<Duration> },
    /// What answers is no Acclaim server, or another version of it.
    #[error("{url} does not answer as an Acclaim server does: {reason}")]
    Foreign { url: String, reason: String },
}

impl ClientError {
    /// Whether the same call may work later. Callers repeat only calls that are harmless to repeat.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => matches!(code.as_str(), "UNAVAILABLE" | "BUSY" | "RATE_LIMITED"),
            Self::Foreign { .. } => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Who calls.
#[derive(Clone)]
pub enum Caller {
    /// The holder of a bearer token.
    Token(String),
    /// A name, believed by a server that runs without auth settings.
    Name(String),
    /// Nobody who is signed in.
    Anonymous,
}

/// A client of one server. Cheap to clone; connections are shared.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    caller: Caller,
    timeout: Duration,
    /// From where the call comes, as a proxy says it.
    seen_from: Option<String>,
}

impl Client {
    /// `url` is the server's address, as it prints it at start: `http://127.0.0.1:8080`.
    pub fn new(url: &str, caller: Caller) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/graphql").unwrap_or(base);
        let parsed = reqwest::Url::parse(base)
            .map_err(|error| anyhow::anyhow!("{url:?} is not an address such as http://127.0.0.1:8080: {error}"))?;
        let host = match (parsed.scheme(), parsed.host_str()) {
            ("http" | "https", Some(host)) => host,
            _ => anyhow::bail!("{url:?} is not an address such as http://127.0.0.1:8080"),
        };
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
        // A proxy named in the environment can not reach this machine's own loopback addresses.
        if host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        {
            http = http.no_proxy();
        }
        Ok(Self { http: http.build()?, base: base.to_owned(), caller, timeout: CALL_TIMEOUT, seen_from: None })
    }

    /// The same server and connections, another caller.
    pub fn called_by(&self, caller: Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// The same server and connections, and nobody who is signed in.
    pub fn anonymous(&self) -> Self {
        self.called_by(Caller::Anonymous)
    }

    /// The same, as if this machine were the proxy of somebody at an address.
    pub fn seen_from(self, address: String) -> Self {
        Self { seen_from: Some(address), ..self }
    }

    /// The same, with another limit on how long a call may take.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    pub fn url(&self) -> &str {
        &self.base
    }

    /// Runs one operation and takes `data` from its answer. An answer with errors is an error, whatever else it holds.
    pub async fn call<T: DeserializeOwned>(&self, operation: &str, variables: &Value) -> Result<T, ClientError> {
        let request = self.http.post(format!("{}/graphql", self.base)).timeout(self.timeout);
        let request = match &self.caller {
            Caller::Token(token) => request.bearer_auth(token),
            Caller::Name(name) => request.header("x-acclaim-user", name),
            Caller::Anonymous => request,
        };
        let request = self.seen_from.iter().fold(request, |request, from| request.header("x-forwarded-for", from));
        let body = serde_json::json!({ "query": operation, "variables": variables });
        let response = request.json(&body).send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(error))?;
        match serde_json::from_slice::<Answer>(&bytes) {
            Ok(Answer { errors, .. }) if !errors.is_empty() => Err(refused(errors)),
            Ok(Answer { data: Some(data), .. }) => serde_json::from_value(data).map_err(|error| self.foreign(error)),
            // What stands between here and a server that is away answers in its own words.
            _ if matches!(status.as_u16(), 429 | 502..=504) => {
                Err(ClientError::Unreachable { url: self.base.clone(), reason: format!("HTTP {status}") })
            }
            _ => {
                let text = String::from_utf8_lossy(&bytes);
                let excerpt: String = text.chars().take(EXCERPT_LEN).collect();
                Err(self.foreign(format!("HTTP {status}: {}", excerpt.trim())))
            }
        }
    }

    /// As [`Self::call`], but a failure that may pass is waited out, for up to `patience` without an answer. Only for
    /// calls that are harmless to repeat. `waiting` is told each time.
    pub async fn call_patiently<T: DeserializeOwned>(
        &self,
        operation: &str,
        variables: &Value,
        patience: Duration,
        waiting: impl Fn(&ClientError),
    ) -> Result<T, ClientError> {
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            match self.call(operation, variables).await {
                Err(error) if error.is_passing() && began.elapsed() < patience => {
                    waiting(&error);
                    // A server that names a longer time than PAUSE_MAX is asked again earlier, which does no harm.
                    let wanted = error.retry_after().map_or(pause, |named| named.max(pause).min(PAUSE_MAX));
                    tokio::time::sleep(wanted).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                answer => return answer,
            }
        }
    }

    /// Whether the server says that it is ready to work.
    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base)).timeout(CONNECT_TIMEOUT).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        // The address stands in the message already; the innermost cause is what helps.
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            reason = inner.to_string();
            source = inner.source();
        }
        if error.is_timeout() {
            reason = "no answer in time".to_owned();
        }
        ClientError::Unreachable { url: self.base.clone(), reason }
    }

    fn foreign(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::Foreign { url: self.base.clone(), reason: reason.to_string() }
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Value>,
    #[serde(default)]
    errors: Vec<TopLevelError>,
}

#[derive(Deserialize, Debug)]
struct TopLevelError {
    message: String,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    code: Option<String>,
    retry_after_ms: Option<u64>,
}

fn refused(errors: Vec<TopLevelError>) -> ClientError {
    let error = errors.into_iter().next().expect("called only with errors");
    ClientError::Refused {
        // An operation that does not fit the schema is refused before anything that could name a code.
        code: error.extensions.code.unwrap_or_else(|| "BAD_USER_INPUT".to_owned()),
        message: error.message,
        retry_after: error.extensions.retry_after_ms.map(Duration::from_millis),
    }
}

/// What a caller can mend, as mutations answer it.
#[derive(Deserialize, Debug, Clone)]
struct UserError {
    message: String,
    path: Option<Vec<String>>,
}

#[cfg(test)]
mod tests;
