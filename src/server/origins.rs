//! Which web pages may call: those of this server, and those that the operator lists.
//!
//! Browsers keep answers from other pages, but send some of their requests all the same, and let them open WebSockets: so
//! whatever names a foreign origin is refused here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, CorsLayer};

use super::Site;
use super::accept::Format;
use super::http::{self, refuse};
use super::request::Refusal;
use super::request_id::{self, RequestId};
use crate::graphql::errors::Failure;

/// A day without asking again: what Firefox allows at most, and more than other browsers do.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Default)]
pub struct Origins {
    allowed: Vec<HeaderValue>,
    /// Names of hosts by which an open server may be called, besides its own.
    names: Vec<String>,
}

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
        Ok(Self { allowed: origins.iter().map(parse).collect::<Result<_, _>>()?, names: Vec::new() })
    }

    /// Adds names of hosts, with any port.
    pub fn answering_to(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    pub fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(self.allowed.clone())
            .allow_methods([Method::GET, Method::POST])
            // Clients and tracers send headers of their own (apollographql-client-name, traceparent), and no header gives a page
            // more than its reader has.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([request_id::HEADER, header::RETRY_AFTER, http::COST])
            .max_age(PREFLIGHT_AGE_MAX)
    }

    /// Whether whoever sends this may call. Programs other than browsers name no origin.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let own = || {
            let host = headers.get(header::HOST)?.to_str().ok()?;
            Some(origin.to_str().ok()?.split_once("://")?.1 == host)
        };
        // What the browser itself says, which no page can: a proxy may have changed the host.
        let same = || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        self.allowed.contains(origin) || own() == Some(true) || same()
    }
}

/// Refuses what a foreign page sends, whether or not it could read the answer.
pub async fn only_known_pages(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    if site.origins.admit(request.headers()) {
        return next.run(request).await;
    }
    refuse(foreign(), Format::Json, &id.0)
}

/// The refusal of a foreign page.
pub fn foreign() -> Refusal {
    let failure = Failure::bad("origin", "pages of this origin may not call; --allow-origin lists those that may");
    Refusal::new(StatusCode::FORBIDDEN, failure)
}

/// Lets requests pass that call this machine by a name of its own, and are not sent by pages of other sites. A server without
/// auth takes no others. A page could give its own name the address 127.0.0.1 (DNS rebinding), and would then be of one origin
/// with the server; and what a page has an image or a script fetched from names no origin.
pub async fn only_near(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    if !site.origins.is_called_by_own_name(request.headers()) {
        let message =
            "without auth settings this server answers to localhost, 127.x.x.x, [::1] and the names of --allow-host";
        return refuse(Refusal::new(StatusCode::FORBIDDEN, Failure::bad("host", message)), Format::Json, &id.0);
    }
    if site.origins.is_from_another_site(&request) {
        return refuse(foreign(), Format::Json, &id.0);
    }
    next.run(request).await
}

/// Refuses what names two hosts (RFC 9112, section 3.2): a proxy may have looked at the other one.
pub async fn one_host(Extension(id): Extension<RequestId>, request: Request, next: Next) -> Response {
    if request.headers().get_all(header::HOST).iter().nth(1).is_none() {
        return next.run(request).await;
    }
    let failure = Failure::bad("host", "a request names one host");
    refuse(Refusal::new(StatusCode::BAD_REQUEST, failure), Format::Json, &id.0)
}

impl Origins {
    /// Whether a browser says that a page of another site sends this (<https://www.w3.org/TR/fetch-metadata/>). A link to one of
    /// our pages is nobody's doing but the reader's.
    fn is_from_another_site(&self, request: &Request) -> bool {
        let says = |name: &str, value: &str| request.headers().get(name).is_some_and(|here| here == value);
        let is_allowed = request.headers().get(header::ORIGIN).is_some_and(|origin| self.allowed.contains(origin));
        let is_link = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
        let is_page = matches!(request.uri().path(), "/" | "/graphiql") && request.method() == Method::GET;
        says("sec-fetch-site", "cross-site") && !is_allowed && !(is_link && is_page)
    }

    fn is_called_by_own_name(&self, headers: &HeaderMap) -> bool {
        // Only programs leave it out.
        let Some(host) = headers.get(header::HOST) else { return true };
        let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
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

    #[test]
    fn pages_of_other_sites_may_link_and_no_more() {
        let origins = Origins::new(&["https://shop.example".to_owned()]).unwrap();
        let is_refused = |path: &str, headers: &[(&str, &str)]| {
            let request = headers.iter().fold(axum::http::Request::get(path), |request, (name, value)| {
                request.header(format!("sec-fetch-{name}").replace("sec-fetch-origin", "origin"), *value)
            });
            origins.is_from_another_site(&request.body(axum::body::Body::empty()).unwrap())
        };
        let image = [("site", "cross-site"), ("mode", "no-cors"), ("dest", "image")];
        let link = [("site", "cross-site"), ("mode", "navigate"), ("dest", "document")];
        let frame = [("site", "cross-site"), ("mode", "navigate"), ("dest", "iframe")];
        for (path, headers) in [("/graphql?query={x}", &image), ("/graphql?query={x}", &link), ("/graphiql", &frame)] {
            assert!(is_refused(path, headers), "{path}: {headers:?}");
        }
        assert!(!is_refused("/graphiql", &link) && !is_refused("/", &link));
        assert!(!is_refused("/graphql", &[("site", "same-origin")]) && !is_refused("/graphql", &[]));
        assert!(!is_refused("/graphql", &[("site", "none"), ("mode", "navigate")]), "somebody has typed it");
        assert!(!is_refused("/graphql", &[("site", "cross-site"), ("origin", "https://shop.example")]));
        assert!(is_refused("/graphql", &[("site", "cross-site"), ("origin", "https://evil.example")]));
    }

    #[test]
    fn a_name_of_another_s_is_not_this_machine() {
        let origins = Origins::default().answering_to(vec!["acclaim.test".to_owned()]);
        let called =
            |host: &str| origins.is_called_by_own_name(&HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for own in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]", "acclaim.test:1"]
        {
            assert!(called(own), "{own}");
        }
        for other in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", ""]
        {
            assert!(!called(other), "{other}");
        }
        assert!(origins.is_called_by_own_name(&HeaderMap::new()));
    }
}
