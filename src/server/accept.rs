//! Which media type an answer has, by the request's Accept header (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `application/json`: the status says whether there was a well-formed request, and no more.
    Json,
    /// `application/graphql-response+json`: the status also says whether the operation could be run.
    Response,
}

impl Format {
    /// What the client likes best; `None` where it takes neither. Whoever names no type gets plain JSON, as the
    /// GraphQL-over-HTTP draft asks for the sake of older clients.
    pub fn wanted(headers: &HeaderMap) -> Option<Self> {
        let json = preference(headers, "application", "json");
        let response = preference(headers, "application", "graphql-response+json");
        match (json.quality, response.quality) {
            (0, 0) => None,
            (json, response) if json > response => Some(Self::Json),
            (json, response) if json < response => Some(Self::Response),
            _ if response.is_named => Some(Self::Response),
            _ => Some(Self::Json),
        }
    }

    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Response => "application/graphql-response+json; charset=utf-8",
        }
    }
}

/// Whether the client takes `text/event-stream`.
pub fn takes_events(headers: &HeaderMap) -> bool {
    preference(headers, "text", "event-stream").quality > 0
}

#[derive(Clone, Copy)]
struct Preference {
    /// In thousandths; 0 for a type that is not wanted.
    quality: u16,
    /// Whether the type itself stands there, instead of a wildcard.
    is_named: bool,
}

/// The most exact range that fits decides. Without the header, or with nothing in it, everything is taken.
fn preference(headers: &HeaderMap, wanted_type: &str, wanted_subtype: &str) -> Preference {
    if headers.get_all(header::ACCEPT).iter().all(|value| value.as_bytes().trim_ascii().is_empty()) {
        return Preference { quality: 1_000, is_named: false };
    }
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let fitting = ranges.flat_map(|text| text.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (main, sub) = parts.next()?.split_once('/')?;
        let exactness = match (main, sub) {
            ("*", "*") => 0,
            (main, "*") if main.eq_ignore_ascii_case(wanted_type) => 1,
            _ if main.eq_ignore_ascii_case(wanted_type) && sub.eq_ignore_ascii_case(wanted_subtype) => 2,
            _ => return None,
        };
        let named = parts.filter_map(|part| part.split_once('='));
        let mut quality =
            named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")).map(|(_, value)| thousandths(value));
        Some((exactness, quality.next().unwrap_or(1_000)))
    });
    match fitting.max() {
        Some((exactness, quality)) => Preference { quality, is_named: exactness == 2 },
        None => Preference { quality: 0, is_named: false },
    }
}

/// `0.5` as 500. What is no number counts for nothing.
fn thousandths(text: &str) -> u16 {
    let number: f32 = text.trim().parse().unwrap_or(0.0);
    (number.clamp(0.0, 1.0) * 1_000.0).round() as u16
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).unwrap())])
    }

    #[test]
    fn the_better_liked_format_wins() {
        use Format::{Json, Response};
        assert_eq!(Format::wanted(&HeaderMap::new()), Some(Json));
        for (accept, wanted) in [
            ("*/*", Some(Json)),
            ("application/*", Some(Json)),
            ("application/json", Some(Json)),
            ("Application/GraphQL-Response+JSON", Some(Response)),
            ("application/graphql-response+json, application/json", Some(Response)),
            ("application/graphql-response+json;q=0.5, application/json;q=0.9", Some(Json)),
            ("application/graphql-response+json; charset=utf-8, application/json; q=0.9", Some(Response)),
            ("application/json, */*;q=0.1", Some(Json)),
            ("application/graphql-response+json, */*", Some(Response)),
            ("application/json;q=0, */*", Some(Response)),
            ("application/json;q=0", None),
            ("application/json;q=nonsense", None),
            ("text/html", None),
            ("text/event-stream, nonsense", None),
            ("", Some(Json)),
            (" ", Some(Json)),
        ] {
            assert_eq!(Format::wanted(&headers(accept)), wanted, "{accept}");
        }
        let mut two = headers("text/html");
        two.append(header::ACCEPT, HeaderValue::from_static("application/json"));
        assert_eq!(Format::wanted(&two), Some(Json));
    }

    #[test]
    fn events_are_taken_where_asked_for() {
        assert!(takes_events(&headers("text/event-stream")) && takes_events(&headers("*/*")));
        assert!(takes_events(&HeaderMap::new()));
        assert!(!takes_events(&headers("application/json")));
        assert!(!takes_events(&headers("text/event-stream;q=0, */*")));
    }
}
