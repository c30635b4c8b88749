//! What the client is told when something fails: the one place where failures become codes.
//!
//! Resolvers return [`Failure`] or [`AppError`] with `?`, which async-graphql keeps as the error's source; [`told`] reads
//! it back once the whole operation has its request id. What a client can mend is no failure but a [`UserError`] within
//! a payload. Invariant: every top-level error carries a code and the request's id, and no inner
//! detail leaves the node.

use std::borrow::Cow;

use async_graphql::{Enum, Error, ErrorExtensionValues, PathSegment, Pos, Response, ServerError, SimpleObject};

use super::guards::Role;
use crate::pipeline::AppError;

/// Why a resolver can't answer, for reasons that lie in the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Unauthenticated(String),
    #[error("this needs the role {}", .0.name())]
    Forbidden(Role),
    #[error("{argument}: {message}")]
    BadInput { argument: Cow<'static, str>, message: String },
    #[error("{message} (limit {limit}: {value})")]
    LimitExceeded { limit: &'static str, value: usize, message: String },
    #[error("this is more than one caller may take; try again in {retry_after_ms} ms")]
    OverBudget { retry_after_ms: u64 },
    /// All callers together have taken what there is.
    #[error("the server is busy (limit {limit}: {value}); try again in a moment")]
    Overloaded { limit: &'static str, value: usize },
    /// What Apollo's clients wait for before they send the document itself.
    #[error("PersistedQueryNotFound")]
    PersistedQueryNotFound,
}

impl Failure {
    /// `argument` is dotted where it is part of an input: `input.weights.0.weight`.
    pub fn bad(argument: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self::BadInput { argument: argument.into(), message: message.to_string() }
    }

    /// More than `value` of something; `limit` is its name.
    pub fn too_many(limit: &'static str, value: usize, message: impl ToString) -> Self {
        Self::LimitExceeded { limit, value, message: message.to_string() }
    }
}

/// Codes of top-level errors, as `extensions.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Unauthenticated,
    Forbidden,
    RateLimited,
    Unavailable,
    BadUserInput,
    LimitExceeded,
    PersistedQueryNotFound,
    Internal,
}

impl Code {
    const fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::Unavailable => "UNAVAILABLE",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A response that is nothing but one failure.
pub fn failed(failure: impl Into<Error>, request_id: &str) -> Response {
    let mut error = failure.into().into_server_error(Pos::default());
    error.locations.clear();
    told(Response::from_errors(vec![error]), request_id)
}

/// The response to a subscription whose one field can't be executed.
pub fn failed_at(failure: Failure, pos: Pos, key: &str, request_id: &str) -> Response {
    let mut error = Error::from(failure).into_server_error(pos);
    error.path = vec![PathSegment::Field(key.to_owned())];
    told(Response::from_errors(vec![error]), request_id)
}

/// The code of a response's first error, or `OK`.
pub fn outcome(response: &Response) -> &'static str {
    response.errors.first().map_or("OK", code_name)
}

/// The code of an error.
pub fn code_name(error: &ServerError) -> &'static str {
    code_of(error).name()
}

/// Bytes of an error's message: a parser repeats the line it stumbled over, however long it is.
const MESSAGE_LEN_MAX: usize = 500;

/// Gives every error of a response its code, and hides what is not the client's business.
pub fn told(mut response: Response, request_id: &str) -> Response {
    response.errors.iter_mut().for_each(|error| name(error, request_id));
    response
}

/// Gives an error its code, and hides what is not the client's business.
pub fn name(error: &mut ServerError, request_id: &str) {
    if error.message.len() > MESSAGE_LEN_MAX {
        let end = error.message.floor_char_boundary(MESSAGE_LEN_MAX);
        error.message.truncate(end);
        error.message.push('…');
    }
    let code = code_of(error);
    if code == Code::Unavailable {
        // Whatever is away has been logged once by whoever found it; in an outage this comes a thousand times a second.
        tracing::debug!(request_id, path = ?error.path, error = error.message, "a request could not be served");
        error.message = match error.source::<AppError>() {
            Some(AppError::Unknown { .. }) => {
                "whether this took effect is not known; send it again after retryAfterMs with the same idempotencyKey or \
                 ids, and look first where it has neither"
            }
            Some(AppError::Full { .. }) => {
                "this can't be taken now: the journal or the engine's memory is full; try again after retryAfterMs, with the \
                 same key or ids"
            }
            _ => "this can't be answered now; try again after retryAfterMs, with the same key or ids",
        }
        .to_owned();
    }
    if code == Code::Internal {
        tracing::error!(request_id, path = ?error.path, error = error.message, "a request failed inside");
        error.message = "something went wrong inside; the log has the details under this requestId".to_owned();
    }
    set(error, "code", code.name().into());
    set(error, "requestId", request_id.into());
    match error.source::<AppError>().cloned() {
        Some(AppError::RateLimited { retry_after_ms }) => set(error, "retryAfterMs", retry_after_ms.into()),
        Some(AppError::Full { retry_after_ms, .. }) => {
            set(error, "retryAfterMs", scattered(retry_after_ms).into());
            set(error, "reason", "FULL".into());
        }
        Some(AppError::Unavailable { retry_after_ms, .. }) => {
            set(error, "retryAfterMs", scattered(retry_after_ms).into());
        }
        Some(AppError::Unknown { retry_after_ms, key, .. }) => {
            set(error, "retryAfterMs", scattered(retry_after_ms).into());
            set(error, "outcome", "UNKNOWN".into());
            if let Some(key) = key {
                set(error, "idempotencyKey", key.as_str().into());
            }
        }
        _ => {}
    }
    if let Some(AppError::TooMuch { limit, value, .. }) = error.source::<AppError>().cloned() {
        set(error, "limit", limit.into());
        set(error, "value", value.into());
    }
    match error.source::<Failure>().cloned() {
        Some(Failure::BadInput { argument, .. }) => set(error, "argument", argument.into_owned().into()),
        Some(Failure::LimitExceeded { limit, value, .. }) => {
            set(error, "limit", limit.into());
            set(error, "value", value.into());
        }
        Some(Failure::OverBudget { retry_after_ms }) => set(error, "retryAfterMs", retry_after_ms.into()),
        Some(Failure::Overloaded { limit, value }) => {
            set(error, "retryAfterMs", scattered(OVERLOADED_RETRY_MS).into());
            set(error, "limit", limit.into());
            set(error, "value", value.into());
        }
        _ => {}
    }
}

/// What a crowd has taken is given back within the time of a request or two.
const OVERLOADED_RETRY_MS: u64 = 1_000;

/// By chance between half and one and a half of it: all who heard at once that something is away shall not come back at
/// once.
fn scattered(retry_after_ms: u64) -> u64 {
    rand::random_range(retry_after_ms / 2..=retry_after_ms.saturating_add(retry_after_ms / 2)).max(1)
}

/// The code of an error. One without a source comes from async-graphql itself: syntax, validation, or an argument that
/// can't be read.
fn code_of(error: &ServerError) -> Code {
    if let Some(failure) = error.source::<Failure>() {
        return match failure {
            Failure::Unauthenticated(_) => Code::Unauthenticated,
            Failure::Forbidden(_) => Code::Forbidden,
            Failure::BadInput { .. } => Code::BadUserInput,
            Failure::LimitExceeded { .. } => Code::LimitExceeded,
            Failure::OverBudget { .. } => Code::RateLimited,
            Failure::Overloaded { .. } => Code::Unavailable,
            Failure::PersistedQueryNotFound => Code::PersistedQueryNotFound,
        };
    }
    match error.source::<AppError>() {
        Some(AppError::Unavailable { .. } | AppError::Full { .. } | AppError::Unknown { .. }) => Code::Unavailable,
        Some(AppError::RateLimited { .. }) => Code::RateLimited,
        Some(AppError::TooMuch { .. }) => Code::LimitExceeded,
        Some(AppError::Internal(_)) => Code::Internal,
        None if error.source.is_some() => Code::Internal,
        None => Code::BadUserInput,
    }
}

fn set(error: &mut ServerError, name: &str, value: async_graphql::Value) {
    error.extensions.get_or_insert_with(ErrorExtensionValues::default).set(name, value);
}

#[derive(Enum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserErrorCode {
    Invalid,
    NotFound,
    Conflict,
}

/// What a caller can mend is answered here. Everything else is a top-level error whose
/// extensions.code is UNAUTHENTICATED, FORBIDDEN, RATE_LIMITED (with retryAfterMs),
/// UNAVAILABLE (with retryAfterMs, and reason FULL where there is no room; of a like or events nothing was written, unless outcome
/// is UNKNOWN: then send them again with the same idempotencyKey or ids, and look before
/// anything that has neither is sent again), BAD_USER_INPUT, LIMIT_EXCEEDED or INTERNAL.
/// Each has a requestId, which finds it in the log.
#[derive(SimpleObject, Clone, PartialEq, Eq, Debug)]
pub struct UserError {
    pub code: UserErrorCode,
    pub message: String,
    pub path: Option<Vec<String>>,
}

impl UserError {
    /// `path` is dotted, from the input down: `events.3.count`.
    pub fn invalid(path: &str, message: impl ToString) -> Self {
        Self::new(UserErrorCode::Invalid, path, message)
    }

    pub fn not_found(path: &str, message: impl ToString) -> Self {
        Self::new(UserErrorCode::NotFound, path, message)
    }

    pub fn conflict(path: &str, message: impl ToString) -> Self {
        Self::new(UserErrorCode::Conflict, path, message)
    }

    /// Of a like or an event that the ledger's database can't store.
    pub fn dead_lettered(path: &str, what: &str) -> Self {
        Self::invalid(
            path,
            format!("the ledger can't store this {what}: it is not counted, and stands among the dead letters"),
        )
    }

    fn new(code: UserErrorCode, path: &str, message: impl ToString) -> Self {
        let path = path.split('.').map(str::to_owned).collect();
        Self { code, message: message.to_string(), path: Some(path) }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::Value;

    use super::*;

    fn told_of(error: impl Into<Error>) -> ServerError {
        let error = error.into().into_server_error(Pos::default());
        told(Response::from_errors(vec![error]), "id7").errors.remove(0)
    }

    fn extension(error: &ServerError, name: &str) -> Option<Value> {
        error.extensions.as_ref()?.get(name).cloned()
    }

    #[test]
    fn every_failure_has_its_code() {
        let away = AppError::Unavailable { reason: "no Redis".into(), retry_after_ms: 250 };
        let far = AppError::TooMuch { limit: "periods", value: 1_000, message: "too far".into() };
        let cases: [(Error, &str); 11] = [
            (Failure::OverBudget { retry_after_ms: 80 }.into(), "RATE_LIMITED"),
            (Failure::Overloaded { limit: "requestsInFlight", value: 9 }.into(), "UNAVAILABLE"),
            (far.into(), "LIMIT_EXCEEDED"),
            (Failure::Unauthenticated("who?".into()).into(), "UNAUTHENTICATED"),
            (Failure::Forbidden(Role::Admin).into(), "FORBIDDEN"),
            (Failure::bad("first", "1 to 100").into(), "BAD_USER_INPUT"),
            (Failure::too_many("ids", 100, "too many ids").into(), "LIMIT_EXCEEDED"),
            (away.into(), "UNAVAILABLE"),
            (AppError::RateLimited { retry_after_ms: 80 }.into(), "RATE_LIMITED"),
            (AppError::Internal("secret".into()).into(), "INTERNAL"),
            (Error::new("Unknown field"), "BAD_USER_INPUT"),
        ];
        for (error, code) in cases {
            assert_eq!(extension(&told_of(error), "code"), Some(code.into()));
        }
    }

    #[test]
    fn retries_are_told_when_and_arguments_by_name() {
        let limited = told_of(AppError::RateLimited { retry_after_ms: 80 });
        assert_eq!(extension(&limited, "retryAfterMs"), Some(80.into()));
        let over = told_of(Failure::OverBudget { retry_after_ms: 70 });
        assert_eq!(extension(&over, "retryAfterMs"), Some(70.into()));
        let busy = told_of(Failure::Overloaded { limit: "requestsInFlight", value: 9 });
        assert_eq!(extension(&busy, "limit"), Some("requestsInFlight".into()));
        assert!(extension(&busy, "retryAfterMs").is_some());
        assert_eq!(extension(&told_of(Failure::bad("first", "…")), "argument"), Some("first".into()));
    }

    #[test]
    fn an_unknown_outcome_is_told_with_the_key_to_retry_with() {
        let key = crate::domain::IdempotencyKey::new("k1").ok();
        let lost = AppError::Unknown { reason: "no reply".into(), retry_after_ms: 500, key };
        let error = told_of(lost);
        assert_eq!(extension(&error, "code"), Some("UNAVAILABLE".into()));
        assert_eq!(extension(&error, "outcome"), Some("UNKNOWN".into()));
        assert_eq!(extension(&error, "idempotencyKey"), Some("k1".into()));
        let full = told_of(AppError::Full { reason: "no room".into(), retry_after_ms: 500 });
        assert_eq!(extension(&full, "code"), Some("UNAVAILABLE".into()));
        assert_eq!(extension(&full, "reason"), Some("FULL".into()));
        let away = told_of(AppError::Unavailable { reason: "no Redis".into(), retry_after_ms: 500 });
        assert_eq!((extension(&away, "outcome"), extension(&away, "idempotencyKey")), (None, None));
        let Some(Value::Number(retry)) = extension(&away, "retryAfterMs") else { panic!() };
        assert!((250..=750).contains(&retry.as_u64().unwrap()));
    }

    #[test]
    fn limits_are_named_with_their_value() {
        let error = told_of(Failure::too_many("ids", 100, "there are too many ids"));
        assert_eq!(error.message, "there are too many ids (limit ids: 100)");
        assert_eq!(extension(&error, "limit"), Some("ids".into()));
        assert_eq!(extension(&error, "value"), Some(100.into()));
    }

    #[test]
    fn details_stay_inside() {
        let error = told_of(AppError::Internal("password=hunter2".into()));
        assert!(!error.message.contains("hunter2"));
        assert_eq!(extension(&error, "requestId"), Some("id7".into()));
        let foreign = told_of(std::io::Error::other("/etc/secret"));
        assert_eq!(extension(&foreign, "code"), Some("INTERNAL".into()));
        assert!(!foreign.message.contains("secret"));
    }
}
