//! `/graphiql`: the GraphiQL app, with tabs that show what Acclaim does.
//!
//! GraphiQL 3.9.0 is the last one whose npm package holds a build for plain script tags; from 4 on it needs a bundler or
//! an import map of dozens of modules without integrity. The browser loads its four files from unpkg.com, each pinned by
//! version and SHA-384, or, with `--graphiql-assets DIR`, from a folder that `scripts/graphiql-assets DIR` fills.
//!
//! Invariant: nothing runs on the page but these files and its own script, and no token stays in the browser.

use std::future::{Ready, ready};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use super::auth::{Auth, USER_HEADER};

const PAGE: &str = include_str!("graphiql.html");
const SCRIPT: &str = include_str!("graphiql.js");
const PAGE_STYLE: &str = "body { margin: 0; overflow: hidden; }
#graphiql { height: 100dvh; }
#graphiql > p { font: 16px system-ui, sans-serif; padding: 2rem; }
";
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

    fn media_type(&self) -> &'static str {
        if self.path.ends_with(".css") { CSS } else { JAVASCRIPT }
    }

    /// What the operator has put there, as it is now.
    fn read(&self, folder: &Path) -> anyhow::Result<Bytes> {
        let (file, shown) = (folder.join(self.name()), folder.display());
        let advice =
            || format!("--graphiql-assets: {shown} has no file {}; run scripts/graphiql-assets {shown}", self.name());
        // A link may lead anywhere, and all that is read is shown to everybody.
        let found = std::fs::symlink_metadata(&file).with_context(advice)?;
        ensure!(found.is_file(), advice());
        Ok(std::fs::read(&file).with_context(advice)?.into())
    }

    fn url(&self, local: bool) -> String {
        if local { format!("{ASSETS_PATH}{}", self.name()) } else { format!("{CDN}{}", self.path) }
    }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page, and the folder's files where there is one. Fails when the folder lacks one of them.
pub fn routes(assets: Option<PathBuf>, auth: &Auth) -> anyhow::Result<Router> {
    let page = page(assets.is_some(), auth);
    let policy = HeaderValue::from_str(&policy(assets.is_some())).expect("it is made of addresses");
    let shown = async move || {
        let headers: [(HeaderName, HeaderValue); 3] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(HTML)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        (headers, page).into_response()
    };
    let mut routes = Router::new()
        .route("/", get(async || Redirect::temporary("/graphiql")))
        .route("/graphiql", get(shown))
        .route("/graphiql/page.js", get(served(JAVASCRIPT, Bytes::from_static(SCRIPT.as_bytes()))))
        .route("/graphiql/page.css", get(served(CSS, Bytes::from_static(PAGE_STYLE.as_bytes()))));
    for asset in SCRIPTS.iter().chain([&STYLE]).filter(|_| assets.is_some()) {
        let file = assets.as_deref().map(|folder| asset.read(folder)).transpose()?.unwrap_or_default();
        routes = routes.route(&asset.url(true), get(served(asset.media_type(), file)));
    }
    Ok(routes)
}

type Served = ([(HeaderName, &'static str); 2], Bytes);

/// Answers with the same bytes each time.
fn served(media_type: &'static str, bytes: Bytes) -> impl Fn() -> Ready<Served> + Clone + Send + Sync {
    move || ready(([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], bytes.clone()))
}

/// What the page may load and whom it may call (<https://www.w3.org/TR/CSP3/>). GraphiQL's own styles are partly made by its
/// script, and its fonts stand in its style sheet.
fn policy(local: bool) -> String {
    let from = |asset: &Asset| if local { String::new() } else { format!(" {}", asset.url(false)) };
    let scripts: String = SCRIPTS.iter().map(from).collect();
    let style = from(&STYLE);
    format!(
        "default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'{style}; img-src 'self' data:; \
         font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
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
        .replace("<headers>", &headers.to_string().replace('<', "\\u003c").replace('"', "&quot;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_pinned() {
        let page = page(false, &Auth::Open);
        assert_eq!(page.matches("https://unpkg.com/").count(), 4);
        assert_eq!(page.matches("integrity=\"sha384-").count(), 4);
        assert!(page.contains(r#"data-headers="{&quot;x-acclaim-user&quot;:&quot;ann&quot;}""#));
        assert!(!page.contains("<!-- s") && !page.contains("<headers>"));
    }

    #[test]
    fn no_script_or_style_stands_in_the_page() {
        let page = page(false, &Auth::Open);
        assert_eq!(
            page.matches("<script ").count(),
            page.matches("<script ").count().min(page.matches(" src=").count())
        );
        assert!(!page.contains("<script>") && !page.contains("<style") && !page.contains(" on"));
        assert!(!policy(true).contains("http") && !policy(false).contains("script-src 'self' 'unsafe-inline'"));
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
