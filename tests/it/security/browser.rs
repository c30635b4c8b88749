//! What a page of another origin can do with a server that asks nobody who they are, tried in Chromium: nothing.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::support::stack::{Server, Setup, Stack};

/// A browser's first start on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(90);
const PAGE: &str = include_str!("page.html");

/// What each attempt came to, as far as the page could see.
type Report = BTreeMap<String, String>;

/// A site of somebody else's, by a name of its own, whose page attacks a server and reports what it saw.
struct Site {
    port: u16,
    reports: mpsc::Receiver<Report>,
    _task: AbortOnDropHandle<()>,
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, reports) = mpsc::channel(1);
        let report = async |State(told): State<Arc<mpsc::Sender<Report>>>, body: String| {
            told.send(serde_json::from_str(&body).unwrap()).await.unwrap();
        };
        let routes = Router::new().route("/", get(async || Html(PAGE))).route("/report", post(report));
        let serving = axum::serve(listener, routes.with_state(Arc::new(told)));
        let task = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.unwrap() }));
        Self { port, reports, _task: task }
    }

    fn origin(&self) -> String {
        format!("http://shop.example:{}", self.port)
    }

    /// What the page saw of the server.
    async fn visited(&mut self, server: &Server) -> Report {
        let _browser = Browser::open(&format!("{}/#{}", self.origin(), server.url));
        let report = tokio::time::timeout(LIMIT, self.reports.recv()).await;
        report.expect("the page reports in time").expect("the site is up")
    }
}

/// Chromium, with all its processes in a group of their own.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Another site, and not only another port of this one.
            .arg("--host-resolver-rules=MAP *.example 127.0.0.1")
            .args(["--remote-debugging-port=0", url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium runs; scripts/test installs it");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // SAFETY: a signal to the group that was made for this child, which has not been waited for.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        self.child.wait().ok();
    }
}

/// The notes of all weight rules: each attack has its own.
async fn changed(server: &Server) -> Vec<String> {
    let data = server
        .graphql("boss", "{ admin { weightRules { nodes { note } } auditLog { nodes { note } } } }", json!({}))
        .await;
    let notes = |list: &Value| -> Vec<String> {
        list["nodes"].as_array().unwrap().iter().map(|node| node["note"].as_str().unwrap().to_owned()).collect()
    };
    let (rules, log) = (notes(&data["admin"]["weightRules"]), notes(&data["admin"]["auditLog"]));
    assert_eq!(rules.len(), log.len());
    rules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_others_change_nothing_and_read_nothing() {
    let mut site = Site::start().await;
    let mut stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let saw = site.visited(&server).await;
    // A form or an opaque request tells its page nothing: that is for the server's state to prove.
    for (attempt, expected) in [
        ("form urlencoded", "sent"),
        ("form text/plain", "sent"),
        ("form multipart", "sent"),
        ("form get", "sent"),
        ("fetch text/plain, opaque", "opaque"),
        ("fetch without a type, opaque", "opaque"),
        ("fetch get, opaque", "opaque"),
        ("fetch text/plain", "blocked"),
        ("fetch application/json", "blocked"),
        ("fetch graphql", "blocked"),
        ("fetch with a name", "blocked"),
        ("fetch get", "blocked"),
        ("fetch events", "blocked"),
        ("fetch events text/plain, opaque", "opaque"),
        ("beacon", "sent"),
        ("beacon json", "sent"),
        ("image", "error"),
        ("script", "error"),
        ("EventSource", "error"),
        ("EventSource mutation", "error"),
        ("WebSocket", "closed"),
        ("WebSocket without a protocol", "closed"),
        ("another name", "blocked"),
    ] {
        let saw_it = saw.get(attempt).map(String::as_str);
        // A form says nothing of what became of it but that a page came; on a slow machine not in time.
        let is_late = attempt.starts_with("form") && saw_it == Some("late");
        assert!(is_late || saw_it == Some(expected), "{attempt}: {saw:#?}");
    }
    assert_eq!(saw.len(), 23, "{saw:#?}");
    assert_eq!(changed(&server).await, [""; 0]);
    drop(server);

    // The page can do all that: where its origin is allowed, whatever asks properly succeeds, and nothing else.
    stack.arguments = vec!["--allow-origin".to_owned(), site.origin()];
    let server = stack.serve().await;
    let saw = site.visited(&server).await;
    for (attempt, expected) in [
        ("fetch application/json", "200"),
        ("fetch get", "405"),
        ("fetch text/plain", "415"),
        ("EventSource", "event"),
        ("WebSocket", "ack"),
        ("another name", "blocked"),
    ] {
        assert_eq!(saw.get(attempt).map(String::as_str), Some(expected), "{attempt}: {saw:#?}");
    }
    let mut notes = changed(&server).await;
    notes.sort();
    assert_eq!(notes, ["WebSocket", "fetch application/json", "fetch events", "fetch with a name"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_server_answers_to_its_own_names_alone() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = ["--allow-host", "acclaim.test,Other.Test"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let answered = async |host: &str, path: &str| {
        let request = server.http.post(format!("{}/{path}", server.url)).header("host", host);
        let answer = request.json(&json!({ "query": "{ __typename }" })).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for own in ["localhost", "LocalHost:1", "127.0.0.1", "[::1]:80", "acclaim.test", "other.test:8080", "ACCLAIM.TEST"]
    {
        assert_eq!(answered(own, "graphql").await.0, 200, "{own}");
    }
    for other in
        ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "sub.acclaim.test", "192.168.0.1"]
    {
        let host = format!("{other}:{port}");
        for path in ["graphql", "graphql/stream", "graphql/ws", "graphiql", "metrics", "healthz", "readyz", ""] {
            let (status, said) = answered(&host, path).await;
            assert!(status == 403 && said.contains("--allow-host"), "{host} /{path}: {status} {said}");
        }
    }
}
