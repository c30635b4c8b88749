//! The HTTP server: routes, and how they start and stop.
//!
//! | route | |
//! |---|---|
//! | `POST /graphql` | [`http`]: queries and mutations |
//! | `GET /graphql/ws` | [`socket`]: the same and subscriptions, over WebSocket |
//! | `GET /graphiql` | [`graphiql`]: a page to try the API with; `/` leads there |
//! | `GET /healthz`, `/readyz` | [`health`] |
//!
//! Who calls is found out in [`auth`], which pages may call in [`origins`]. Settings come from outside as plain values.

pub mod auth;
mod graphiql;
mod health;
mod http;
mod origins;
mod request_id;
mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::graphql::{self, Api, DocumentLimits};
use crate::live::Hub;
use crate::pipeline::App;
use auth::Auth;
use origins::Origins;

/// How long requests in flight and closing sockets are waited for. The caller then still has to sync what is in the
/// journal, and all of it must fit into the 10 s that process supervisors give.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(4);

/// What the server needs to know.
pub struct ServerConfig {
    pub auth: Auth,
    /// Origins of the web pages that may call, besides this server's own.
    pub allow_origin: Vec<String>,
    /// A folder with GraphiQL's files, to be served instead of the CDN's.
    pub graphiql_assets: Option<PathBuf>,
}

/// What every route shares.
struct Site {
    api: Api,
    auth: Auth,
    origins: Origins,
    /// The open sockets: axum does not wait for them.
    tasks: TaskTracker,
    shutdown: CancellationToken,
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
    let site = Arc::new(Site {
        api: Api::new(graphql::schema(app.clone(), hub, &DocumentLimits::default()), DocumentLimits::default()),
        auth: config.auth,
        origins: Origins::new(&config.allow_origin)?,
        tasks: TaskTracker::new(),
        shutdown,
    });
    let health =
        Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz)).with_state(app);
    run(listener, routes(site.clone()).merge(pages).merge(health), site).await
}

/// The API's routes.
fn routes(site: Arc<Site>) -> Router {
    let cors = site.origins.cors();
    Router::new()
        .route("/graphql", post(http::graphql))
        .layer(cors)
        .route("/graphql/ws", get(socket::upgrade))
        .route("/", get(async || Redirect::temporary("/graphiql")))
        .with_state(site)
}

async fn run(listener: TcpListener, routes: Router, site: Arc<Site>) -> anyhow::Result<()> {
    let routes = routes.layer(middleware::from_fn(request_id::assign));
    let stopped = site.shutdown.clone().cancelled_owned();
    let server = axum::serve(listener, routes).with_graceful_shutdown(stopped);
    let drained = async {
        server.await.context("the server failed")?;
        site.tasks.close();
        site.tasks.wait().await;
        anyhow::Ok(())
    };
    let too_late = async {
        site.shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        result = drained => result,
        () = too_late => {
            tracing::warn!("requests were still open {} s after the stop; they are cut off", DRAIN_TIME_MAX.as_secs());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
