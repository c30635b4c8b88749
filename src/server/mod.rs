//! The HTTP server: routes, and how they start and stop.
//!
//! | route | |
//! |---|---|
//! | `GET`, `POST /graphql` | [`http`]: queries and mutations |
//! | `GET`, `POST /graphql/stream` | [`sse`]: the same and subscriptions, as server-sent events |
//! | `GET /graphql/ws` | [`socket`]: the same, over WebSocket |
//! | `GET /graphiql` | [`graphiql`]: a page to try the API with; `/` leads there |
//! | `GET /healthz`, `/readyz` | [`health`] |
//! | `GET /metrics` | [`metrics`]: what Prometheus reads |
//!
//! [`connections`] brings requests here; [`request`] reads them, [`accept`] says in which form they are answered. Who calls
//! is found out in [`auth`], which pages may call in [`origins`], how many live connections one may hold in [`admission`].
//! Settings come from outside as plain values.

mod accept;
mod admission;
pub mod auth;
mod connections;
mod graphiql;
mod health;
mod http;
mod limits;
mod metrics;
mod origins;
mod persisted;
mod request;
mod request_id;
mod socket;
mod sse;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::graphql::Api;
use crate::live::Hub;
use crate::pipeline::App;
use admission::Admission;
use auth::Auth;
pub use limits::Limits;
pub use metrics::Readers;
use metrics::Scrapes;
use origins::Origins;
use persisted::Persisted;

/// How long requests in flight and closing sockets are waited for. The caller then still has to sync what is in the
/// journal, and all of it must fit into the 10 s that process supervisors give.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(4);

/// What the server needs to know.
pub struct ServerConfig {
    pub auth: Auth,
    /// Origins of the web pages that may call, besides this server's own.
    pub allow_origin: Vec<String>,
    /// Names of hosts by which a server without auth may be called, besides this machine's own.
    pub allow_host: Vec<String>,
    /// A folder with GraphiQL's files, to be served instead of the CDN's.
    pub graphiql_assets: Option<PathBuf>,
    pub limits: Limits,
    /// Who may read the metrics.
    pub metrics: Readers,
}

/// What every route shares.
struct Site {
    api: Api,
    auth: Auth,
    origins: Origins,
    limits: Limits,
    persisted: Persisted,
    metrics: Scrapes,
    admission: Arc<Admission>,
    /// The open connections, and the sockets that some of them have become.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Site {
    fn new(
        api: Api,
        auth: Auth,
        origins: Origins,
        limits: Limits,
        metrics: Readers,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let admission = match auth {
            Auth::Open => Admission::unlimited(),
            Auth::Tokens(_) => Admission::new(&limits),
        };
        let tasks = TaskTracker::new();
        let (persisted, metrics) = (Persisted::new(), Scrapes::for_readers(metrics));
        Arc::new(Self { api, auth, origins, limits, persisted, metrics, admission, tasks, shutdown })
    }
}

/// Serves until `shutdown`; then stops accepting, answers what is in flight and closes the sockets, for at most
/// [`DRAIN_TIME_MAX`].
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    hub: Arc<Hub>,
    config: ServerConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pages = graphiql::routes(config.graphiql_assets, &config.auth)?;
    let api = Api::new(hub, config.limits.documents);
    let origins = Origins::new(&config.allow_origin)?.answering_to(config.allow_host);
    let site = Site::new(api, config.auth, origins, config.limits, config.metrics, shutdown);
    let health =
        Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz)).with_state(app);
    run(listener, routes(site.clone()).merge(pages).merge(health), site).await;
    Ok(())
}

/// The API's routes.
fn routes(site: Arc<Site>) -> Router {
    let cors = site.origins.cors();
    Router::new()
        .route("/graphql", any(http::graphql))
        .route("/graphql/stream", any(sse::stream))
        .layer(cors)
        .layer(middleware::from_fn_with_state(site.clone(), origins::only_known_pages))
        .route("/graphql/ws", get(socket::upgrade))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(async || Redirect::temporary("/graphiql")))
        .with_state(site)
}

async fn run(listener: TcpListener, routes: Router, site: Arc<Site>) {
    let routes = match site.auth {
        Auth::Open => routes.layer(middleware::from_fn_with_state(site.clone(), origins::only_own_names)),
        Auth::Tokens(_) => routes,
    };
    let routes = routes.layer(middleware::from_fn_with_state(site.clone(), request_id::assign));
    let cut_off = CancellationToken::new();
    let Site { limits, tasks, shutdown, .. } = &*site;
    connections::accept(listener, routes, limits.header_timeout, tasks, shutdown, &cut_off).await;
    tasks.close();
    if tokio::time::timeout(DRAIN_TIME_MAX, tasks.wait()).await.is_err() {
        tracing::warn!("requests were still open {} s after the stop; they are cut off", DRAIN_TIME_MAX.as_secs());
        cut_off.cancel();
    }
}

#[cfg(test)]
mod tests;
