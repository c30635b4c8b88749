//! A whole Acclaim as a process of its own, on each set-up: what a user starts, and what a test may kill.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acclaim::domain::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::redis::RedisServer;
use super::{postgres, until};

/// Where engine and ledger live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Memory and SQLite: nothing to install.
    Embedded,
    /// Redis and Postgres.
    Servers,
}

/// Engine and ledger of one test; outlives the servers started on it.
pub struct Stack {
    dir: TempDir,
    pub redis: Option<RedisServer>,
    /// Where servers find Redis, if not at its own address.
    pub redis_url: Option<String>,
    /// URL of a Postgres database of its own.
    pub postgres: Option<String>,
    /// Long, since tests say what is answered, and not how soon on a machine that does other things.
    pub ack_timeout_ms: u64,
    /// More arguments for every server.
    pub arguments: Vec<String>,
}

impl Stack {
    pub async fn new(setup: Setup) -> Self {
        let (redis, postgres) = match setup {
            Setup::Embedded => (None, None),
            Setup::Servers => {
                let redis = RedisServer::start_with(&["--save", "", "--appendonly", "yes"]);
                (Some(redis), Some(postgres::database().await))
            }
        };
        let dir = TempDir::new().unwrap();
        Self { dir, redis, redis_url: None, postgres, ack_timeout_ms: 10_000, arguments: Vec::new() }
    }

    pub fn sqlite_file(&self) -> PathBuf {
        self.dir.path().join("acclaim.db")
    }

    pub fn ledger_url(&self) -> String {
        match &self.postgres {
            Some(url) => url.clone(),
            None => format!("sqlite://{}", self.sqlite_file().display()),
        }
    }

    /// `acclaim` with the addresses of this stack in its environment and nothing else from ours.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acclaim"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("DATABASE_URL", self.ledger_url());
        if let Some(redis) = &self.redis {
            command.env("REDIS_URL", self.redis_url.clone().unwrap_or_else(|| redis.url()));
        }
        command.current_dir(self.dir.path());
        command
    }

    /// Starts a server and waits until it is ready.
    pub async fn serve(&self) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = self.dir.path().join(format!("server-{port}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let child = self
            .command()
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--ack-timeout-ms", &self.ack_timeout_ms.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut server = Server { child, url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new(), log };
        let ready = format!("{}/readyz", server.url);
        until("the server is ready", Duration::from_secs(30), async || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", server.log());
            }
            server.http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        server
    }
}

/// A running `acclaim serve`; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub http: reqwest::Client,
    log: PathBuf,
}

impl Server {
    /// What the server has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One operation; the whole answer, or what kept it from coming.
    pub async fn try_graphql(
        &self,
        user: Option<&str>,
        query: &str,
        variables: Value,
    ) -> Result<Value, reqwest::Error> {
        let mut request = self.http.post(format!("{}/graphql", self.url));
        if let Some(user) = user {
            request = request.header("x-acclaim-user", user);
        }
        request.json(&json!({ "query": query, "variables": variables })).send().await?.json().await
    }

    /// One operation that must succeed; its `data`.
    pub async fn graphql(&self, user: &str, query: &str, variables: Value) -> Value {
        let answer = self.try_graphql(Some(user), query, variables).await.unwrap();
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"].clone()
    }

    /// Puts products `p0` to `p<count - 1>` into the catalogue.
    pub async fn with_products(&self, count: usize) {
        let products: Vec<_> =
            (0..count).map(|n| json!({ "id": format!("p{n}"), "name": format!("Product {n}") })).collect();
        for chunk in products.chunks(500) {
            let upserted = self
                .graphql(
                    "shop",
                    "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted userErrors { message } } }",
                    json!({ "products": chunk }),
                )
                .await;
            assert_eq!(upserted["upsertProducts"]["upserted"], chunk.len());
        }
    }

    pub async fn toggle(&self, user: &str, product: &str, key: Option<&str>) -> Value {
        self.graphql(user, TOGGLE, json!({ "product": product, "key": key })).await["toggleLike"].clone()
    }

    /// The first places of the daily board as (product, score).
    pub async fn ranking(&self, first: usize) -> Vec<(String, f64)> {
        let ranking = self
            .graphql(
                "reader",
                "query($first: Int!) { ranking(first: $first) { nodes { productId score } } }",
                json!({ "first": first }),
            )
            .await;
        let nodes = ranking["ranking"]["nodes"].as_array().unwrap();
        nodes
            .iter()
            .map(|node| (node["productId"].as_str().unwrap().to_owned(), node["score"].as_f64().unwrap()))
            .collect()
    }

    /// A line of `/metrics`; `None` where there is none.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.http.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        super::metric(&text, name)
    }

    /// Asserts that everything served equals the ledger.
    pub async fn assert_verified(&self) {
        let report = self.verify().await;
        assert_eq!(report["differing"], 0, "{report:#}");
        assert!(report["checked"].as_u64().unwrap() > 0, "nothing was checked");
    }

    pub async fn verify(&self) -> Value {
        let mut report = Value::Null;
        until("verification answers", Duration::from_secs(30), async || {
            let query =
                "{ admin { verify { checked differing rows { target board productId userId expected actual } } } }";
            let answer = self.try_graphql(Some("admin"), query, json!({})).await.unwrap();
            report = answer["data"]["admin"]["verify"].clone();
            !report.is_null()
        })
        .await;
        report
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, by the name that `kill` knows it by.
    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM; returns how it ended and how long that took.
    pub async fn terminate(self) -> (std::process::ExitStatus, Duration) {
        self.ask_to_stop();
        self.ended().await
    }

    /// Waits for its end; returns how it ended and how long that took.
    pub async fn ended(mut self) -> (std::process::ExitStatus, Duration) {
        let began = std::time::Instant::now();
        let mut status = None;
        until("the server ends", Duration::from_secs(15), async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap(), began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub const TOGGLE: &str = "mutation($product: ID!, $key: String) { toggleLike(input: { productId: $product, idempotencyKey: $key }) { liked likeCount changed at durability userErrors { code message path } } }";

pub const RECORD: &str = "mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { recorded duplicates rejected durability results { eventId status error { code message path } } } }";

#[derive(diesel::QueryableByName)]
struct Value1 {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

/// The ledger, looked at from outside.
impl Stack {
    /// Runs a statement.
    pub async fn sql(&self, statement: &str) {
        match &self.postgres {
            Some(url) => postgres::execute(url, statement).await,
            None => {
                diesel::connection::SimpleConnection::batch_execute(&mut self.sqlite(), statement).unwrap();
            }
        }
    }

    /// The texts of a query's only column, which it must name `value`.
    pub async fn column(&self, query: &str) -> Vec<String> {
        match &self.postgres {
            Some(url) => postgres::column(url, query).await,
            None => {
                let rows: Vec<Value1> =
                    diesel::RunQueryDsl::load(diesel::sql_query(query), &mut self.sqlite()).unwrap();
                rows.into_iter().map(|row| row.value).collect()
            }
        }
    }

    /// The number that a query gives.
    pub async fn count(&self, query: &str) -> u64 {
        self.column(&format!("SELECT CAST(({query}) AS TEXT) AS value")).await[0].parse().unwrap()
    }

    /// Takes back a board's results from the period on that begins at an instant, and has the chain begin there.
    pub async fn reopen(&self, board: &str, from: Timestamp) {
        let from = match self.postgres {
            Some(_) => format!("TIMESTAMPTZ '{from}'"),
            None => (from.as_ms() * 1_000).to_string(),
        };
        let later = format!("board = '{board}' AND starts_at >= {from}");
        self.sql(&format!(
            "BEGIN;
             DELETE FROM period_results WHERE board = '{board}'
                 AND period IN (SELECT period FROM closed_periods WHERE {later});
             DELETE FROM closed_periods WHERE {later};
             UPDATE boards SET closed_from = {from}, revision = revision + 1 WHERE id = '{board}';
             COMMIT"
        ))
        .await;
    }

    fn sqlite(&self) -> diesel::SqliteConnection {
        let mut connection: diesel::SqliteConnection =
            diesel::Connection::establish(self.sqlite_file().to_str().unwrap()).unwrap();
        diesel::connection::SimpleConnection::batch_execute(&mut connection, "PRAGMA busy_timeout = 10000").unwrap();
        connection
    }
}
