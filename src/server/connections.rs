//! Connections, from the accepted socket to the routes: what bounds one that sends or takes nothing.
//!
//! hyper is driven here, since `axum::serve` has no time limit for headers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::serve::{Listener, ListenerExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::capacity::Capacity;
use super::wire::Socket;

/// A client that takes nothing for so long is gone, or too slow for whatever it asked for.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a connection's buffers: headers with a token and, in a GET, a document of usual length.
const BUFFER_LEN_MAX: usize = 32 << 10;

/// Accepts connections until `shutdown`; then the present ones finish what they are doing. `tasks` has one for each;
/// `cut_off` ends those that are left.
pub async fn accept(
    listener: TcpListener,
    routes: Router,
    header_timeout: Duration,
    capacity: &Arc<Capacity>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    cut_off: &CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(BUFFER_LEN_MAX);
    // Answers and events are small, and each is written at once: waiting for more to send would only delay it.
    let mut listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection went before it was served");
        }
    });
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // Refused at once: whoever waits to be accepted is not served either, and keeps others waiting.
        let Some(place) = capacity.connection(peer.ip()) else { continue };
        let socket = Socket::new(socket).in_place(place);
        let wire = socket.wire();
        let mut socket = TimeoutWriter::new(socket);
        socket.set_timeout(Some(WRITE_TIME_MAX));
        let routes = routes.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(wire.clone());
            routes.clone().call(request)
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(socket)), answer).with_upgrades();
        let (shutdown, cut_off) = (shutdown.clone(), cut_off.clone());
        tasks.spawn(async move {
            let mut connection = pin!(connection);
            let served = async {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
                    ended = connection.as_mut() => return ended,
                }
                connection.await
            };
            tokio::select! {
                biased;
                () = cut_off.cancelled() => {}
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "a connection broke");
                },
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::{StreamExt, stream};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::super::limits::Limits;
    use super::super::peers::Proxies;
    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The body ends with its connection, and then drops what tells us so.
        let (alive, mut gone) = mpsc::channel::<()>(1);
        let endless = move || {
            let alive = alive.clone();
            let chunks = stream::repeat(Bytes::from_static(&[b'x'; 16_384])).map(move |chunk| {
                let _ = &alive;
                Ok::<_, std::convert::Infallible>(chunk)
            });
            std::future::ready(Body::from_stream(chunks))
        };
        let routes = Router::new().route("/", get(endless));
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let capacity = Capacity::new(&Limits::default(), Proxies::default(), Arc::default());
        let accepting = tokio::spawn({
            let (tasks, shutdown, cut_off) = (tasks.clone(), shutdown.clone(), CancellationToken::new());
            async move { accept(listener, routes, WRITE_TIME_MAX, &capacity, &tasks, &shutdown, &cut_off).await }
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        shutdown.cancel();
        accepting.await.unwrap();
        tasks.close();
        timeout(WRITE_TIME_MAX * 2, tasks.wait()).await.expect("the connection ends by itself");
        assert!(began.elapsed() >= WRITE_TIME_MAX);
        assert!(gone.recv().await.is_none(), "and what it was sent with it");
    }
}
