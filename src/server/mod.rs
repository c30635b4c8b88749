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
//! is found out in [`auth`] and [`peers`], which pages may call in [`origins`], how many live connections one may hold in
//! [`admission`], how much work one may cause in [`budget`], and how much all together in [`capacity`]. Settings come from
//! outside as plain values.

mod accept;
mod admission;
pub mod auth;
mod budget;
mod capacity;
mod connections;
mod graphiql;
mod health;
mod http;
mod limits;
mod metrics;
mod origins;
mod peers;
mod persisted;
mod recent;
mod request;
mod request_id;
mod socket;
mod sse;
mod wire;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::middleware;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::graphql::errors::Failure;
use crate::graphql::{Api, Toll};
use crate::live::Hub;
use crate::pipeline::App;
use admission::Admission;
use auth::{Auth, Identity};
use budget::{Budgets, Payer};
use capacity::Capacity;
use health::Health;
pub use limits::Limits;
pub use metrics::Readers;
use metrics::Scrapes;
use origins::Origins;
pub use peers::{IpNet, Proxies, is_public};
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
    /// Whether there is a page to try the API with.
    pub graphiql: bool,
    /// A folder with GraphiQL's files, to be served instead of the CDN's.
    pub graphiql_assets: Option<PathBuf>,
    pub limits: Limits,
    /// The proxies in front of this server that say from where requests come.
    pub proxies: Proxies,
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
    proxies: Proxies,
    /// Whether it was said that a proxy is not named.
    lacks_proxies: Once,
    admission: Arc<Admission>,
    budgets: Arc<Budgets>,
    capacity: Arc<Capacity>,
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
        proxies: Proxies,
        metrics: Readers,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let admission = match auth {
            Auth::Open => Admission::unlimited(),
            Auth::Tokens(_) => Admission::new(&limits),
        };
        let capacity = Capacity::new(&limits, proxies.clone(), api.metrics().clone());
        let (persisted, metrics, budgets) =
            (Persisted::new(), Scrapes::for_readers(metrics), Arc::new(Budgets::new(&limits)));
        let tasks = TaskTracker::new();
        Arc::new(Self {
            api,
            auth,
            origins,
            limits,
            persisted,
            metrics,
            proxies,
            lacks_proxies: Once::new(),
            admission,
            budgets,
            capacity,
            tasks,
            shutdown,
        })
    }

    /// The address of a request's caller.
    fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if matches!(self.auth, Auth::Tokens(_)) && self.proxies.lack(peer, headers) {
            self.lacks_proxies.call_once(|| {
                tracing::warn!(
                    "a proxy stands in front of this server, and callers who are not signed in have no budgets: name it with \
                     --trusted-proxy (ACCLAIM_TRUSTED_PROXY)"
                );
            });
        }
        self.proxies.caller(peer, headers)
    }

    /// Whose budget a request is charged to.
    fn payer(&self, identity: &Identity, address: IpAddr) -> Option<Payer> {
        // In open mode a name proves nothing.
        let is_proved = matches!(self.auth, Auth::Tokens(_));
        Payer::of(identity, is_proved, address, &self.proxies)
    }

    /// Charges a caller for what goes on for it alone.
    fn toll(&self, payer: Option<&Payer>) -> Option<Toll> {
        let (budgets, payer) = (self.budgets.clone(), payer?.clone());
        Some(Arc::new(move |units| budgets.owe(Some(&payer), units)))
    }

    /// Takes units of 10 µs from a caller's budget.
    fn charge(&self, payer: Option<&Payer>, units: u64) -> Result<(), Failure> {
        self.budgets.take(payer, units).inspect_err(|_| self.api.metrics().limited("budget"))
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
    let pages = match config.graphiql {
        true => graphiql::routes(config.graphiql_assets, &config.auth)?,
        false => Router::new(),
    };
    let api = Api::new(hub, config.limits.documents);
    let origins = Origins::new(&config.allow_origin)?.answering_to(config.allow_host);
    let site = Site::new(api, config.auth, origins, config.limits, config.proxies, config.metrics, shutdown);
    let following = site.clone();
    site.tasks.spawn(async move { following.shutdown.run_until_cancelled(following.auth.keep_current()).await });
    let health = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz));
    let health = health.with_state(Health { app, found: Arc::default() });
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
        .with_state(site)
}

async fn run(listener: TcpListener, routes: Router, site: Arc<Site>) {
    let routes = match site.auth {
        Auth::Open => routes.layer(middleware::from_fn_with_state(site.clone(), origins::only_near)),
        Auth::Tokens(_) => routes,
    };
    let routes = routes
        .layer(middleware::from_fn_with_state(site.clone(), request::charge_pages))
        .layer(middleware::from_fn(origins::one_host))
        .layer(middleware::from_fn_with_state(site.clone(), request_id::assign));
    let cut_off = CancellationToken::new();
    let Site { limits, capacity, tasks, shutdown, .. } = &*site;
    connections::accept(listener, routes, limits.header_timeout, capacity, tasks, shutdown, &cut_off).await;
    tasks.close();
    if tokio::time::timeout(DRAIN_TIME_MAX, tasks.wait()).await.is_err() {
        tracing::warn!("requests were still open {} s after the stop; they are cut off", DRAIN_TIME_MAX.as_secs());
        cut_off.cancel();
    }
}

#[cfg(test)]
mod tests;
