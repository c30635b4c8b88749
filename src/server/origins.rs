//! Which web pages may call: those of this server, and those that the operator lists.
//!
//! Browsers enforce the answer for `fetch`, but never for WebSockets, so those are refused here.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use super::auth::USER_HEADER;
use super::request_id;

/// A day without asking again: what Firefox allows at most, and more than other browsers do.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Default)]
pub struct Origins(Vec<HeaderValue>);

/// An origin that can't stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an origin such as https://shop.example")]
pub struct InvalidOrigin(String);

impl Origins {
    /// Takes origins: scheme, host and port, without a path.
    pub fn new(origins: &[String]) -> Result<Self, InvalidOrigin> {
        let parse = |origin: &String| {
            let host = origin.split_once("://").map(|(_, host)| host).filter(|host| !host.is_empty());
            let whole = host.is_some_and(|host| !host.contains('/'));
            HeaderValue::from_str(origin).ok().filter(|_| whole).ok_or_else(|| InvalidOrigin(origin.clone()))
        };
        origins.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    pub fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(self.0.clone())
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, HeaderName::from_static(USER_HEADER)])
            .expose_headers([request_id::HEADER])
            .max_age(PREFLIGHT_AGE_MAX)
    }

    /// Whether a WebSocket may be opened. Programs other than browsers send no origin.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let own = || {
            let host = headers.get(header::HOST)?.to_str().ok()?;
            Some(origin.to_str().ok()?.split_once("://")?.1 == host)
        };
        self.0.contains(origin) || own() == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(allowed: &[&str], origin: Option<&str>) -> bool {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        Origins::new(&allowed).unwrap().admit(&headers)
    }

    #[test]
    fn foreign_pages_open_no_socket() {
        assert!(admitted(&[], None));
        assert!(admitted(&[], Some("http://127.0.0.1:8080")));
        assert!(!admitted(&[], Some("https://evil.example")));
        assert!(!admitted(&[], Some("null")));
        assert!(admitted(&["https://shop.example"], Some("https://shop.example")));
        assert!(!admitted(&["https://shop.example"], Some("http://shop.example")));
        assert!(admitted(&["https://shop.example"], Some("http://127.0.0.1:8080")));
    }

    #[test]
    fn only_origins_are_taken() {
        for bad in ["shop.example", "https://shop.example/", "https://", "*", "https://a\nb"] {
            assert!(Origins::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
