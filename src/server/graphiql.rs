//! `/graphiql`: the GraphiQL app, with tabs that show what Acclaim does.
//!
//! GraphiQL 3.9.0 is the last one whose npm package holds a build for plain script tags; from 4 on it needs a bundler or
//! an import map of dozens of modules without integrity. The browser loads its four files from unpkg.com, each pinned by
//! version and SHA-384, or, with `--graphiql-assets DIR`, from a folder that `scripts/graphiql-assets DIR` fills.

use std::path::PathBuf;

use anyhow::ensure;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tower_http::services::ServeDir;

use super::auth::{Auth, USER_HEADER};

const PAGE: &str = include_str!("graphiql.html");
const CDN: &str = "https://unpkg.com/";
const ASSETS_PATH: &str = "/graphiql/assets/";

/// Where a file stands on the CDN, and its hash. Its name in a local folder is the last part. `scripts/graphiql-assets`
/// fetches the same versions.
struct Asset {
    path: &'static str,
    integrity: &'static str,
}

const STYLE: Asset = Asset {
    path: "graphiql@3.9.0/graphiql.min.css",
    integrity: "sha384-QMux00XgRtwRLSYIY3kw2rj1ovk5AuuliAchk+HSQbqdbGFnz9GYuqIlOqxhwCE2",
};
/// In the order in which they build on each other.
const SCRIPTS: [Asset; 3] = [
    Asset {
        path: "react@18.3.1/umd/react.production.min.js",
        integrity: "sha384-DGyLxAyjq0f9SPpVevD6IgztCFlnMF6oW/XQGmfe+IsZ8TqEiDrcHkMLKI6fiB/Z",
    },
    Asset {
        path: "react-dom@18.3.1/umd/react-dom.production.min.js",
        integrity: "sha384-gTGxhz21lVGYNMcdJOyq01Edg0jhn/c22nsx0kyqP0TxaV5WVdsSH1fSDUf5YJj1",
    },
    Asset {
        path: "graphiql@3.9.0/graphiql.min.js",
        integrity: "sha384-8NGfVj4CVlqHajlZj+bPJT4thxPMHMJYn7DWK2CvtopLd02E7qsPHazniBYvVjOO",
    },
];

impl Asset {
    fn name(&self) -> &'static str {
        self.path.rsplit('/').next().expect("a split has a last part")
    }

    fn url(&self, local: bool) -> String {
        if local { format!("{ASSETS_PATH}{}", self.name()) } else { format!("{CDN}{}", self.path) }
    }
}

/// The page, and the folder's files where there is one. Fails when the folder lacks one of them.
pub fn routes(assets: Option<PathBuf>, auth: &Auth) -> anyhow::Result<Router> {
    if let Some(folder) = &assets {
        for asset in SCRIPTS.iter().chain([&STYLE]) {
            let (name, shown) = (asset.name(), folder.display());
            ensure!(
                folder.join(name).is_file(),
                "--graphiql-assets: {shown} has no {name}; run scripts/graphiql-assets {shown}"
            );
        }
    }
    let page = page(assets.is_some(), auth);
    let shown = async move || {
        // Nobody else's page may put this one into a frame and guide the clicks of whoever is signed in.
        let headers: [(HeaderName, HeaderValue); 2] = [
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, Html(page)).into_response()
    };
    let routes = Router::new().route("/graphiql", get(shown));
    Ok(match assets {
        Some(folder) => routes.nest_service(ASSETS_PATH, ServeDir::new(folder)),
        None => routes,
    })
}

fn page(local: bool, auth: &Auth) -> String {
    let style = format!(
        r#"<link rel="stylesheet" href="{}" integrity="{}" crossorigin="anonymous">"#,
        STYLE.url(local),
        STYLE.integrity
    );
    let script = |asset: &Asset| {
        format!(
            r#"<script src="{}" integrity="{}" crossorigin="anonymous"></script>"#,
            asset.url(local),
            asset.integrity
        )
    };
    let headers = match auth {
        Auth::Open => serde_json::json!({ USER_HEADER: "ann" }),
        Auth::Tokens(_) => serde_json::json!({ "Authorization": "Bearer <what acclaim token prints>" }),
    };
    PAGE.replace("<!-- style -->", &style)
        .replace("<!-- scripts -->", &SCRIPTS.iter().map(script).collect::<Vec<_>>().join("\n    "))
        .replace("\"<headers>\"", &headers.to_string().replace('<', "\\u003c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_pinned() {
        let page = page(false, &Auth::Open);
        assert_eq!(page.matches("https://unpkg.com/").count(), 4);
        assert_eq!(page.matches("integrity=\"sha384-").count(), 4);
        assert!(page.contains(r#"{"x-acclaim-user":"ann"}"#));
        assert!(!page.contains("<!-- s") && !page.contains("\"<headers>\""));
    }

    #[test]
    fn a_local_copy_needs_no_internet() {
        let page = page(true, &Auth::Open);
        assert!(!page.contains("https://"));
        assert!(page.contains("/graphiql/assets/react-dom.production.min.js"));
    }

    #[test]
    fn a_folder_that_lacks_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = routes(Some(folder.path().to_owned()), &Auth::Open).unwrap_err().to_string();
        assert!(error.contains("scripts/graphiql-assets"), "{error}");
    }
}
