//! A node of Acclaim as a process, with a bad network of its own to Redis and to Postgres.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::Options;
use crate::clock::Clock;
use crate::process::{Process, free_port, last_lines};
use crate::proxy::Proxy;

/// A node that is not ready by then, with everything there that it needs, never will be.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What a client waits for one answer: longer than a node should ever take.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub struct Node {
    pub name: String,
    pub url: String,
    pub redis: Proxy,
    pub postgres: Proxy,
    pub clock: Clock,
    pub process: Mutex<Option<Process>>,
    /// Whether it is meant to answer: false while a fault has it down.
    is_up: AtomicBool,
    http: reqwest::Client,
    arguments: Vec<String>,
    log: PathBuf,
    dir: TempDir,
}

/// Why an operation has no data.
#[derive(Debug)]
pub enum Failed {
    /// No answer, or none that can be read.
    Transport,
    /// The first error's code, what it says of the outcome, and how long the client is told to wait.
    Error { code: String, outcome: String, retry_after_ms: u64, text: String },
}

impl Node {
    /// Not running yet. `arguments` go to `acclaim serve`; its clock is `ahead` of the machine's.
    pub async fn new(
        n: u64,
        options: &Options,
        redis: u16,
        postgres: u16,
        arguments: Vec<String>,
        ahead: Duration,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("torture-node-").tempdir()?;
        let logs = options.logs.as_deref().unwrap_or(dir.path());
        std::fs::create_dir_all(logs)?;
        let (log, seed) = (logs.canonicalize()?.join(format!("node-{n}.log")), options.seed);
        Ok(Self {
            log,
            name: format!("node {n}"),
            url: format!("http://127.0.0.1:{}", free_port()?),
            redis: Proxy::start(redis, seed ^ (n << 8), options.deaf).await?,
            postgres: Proxy::start(postgres, seed ^ (n << 8) ^ 1, false).await?,
            clock: Clock::new(dir.path(), ahead)?.for_threads()?,
            process: Mutex::default(),
            is_up: AtomicBool::new(false),
            http: reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?,
            arguments,
            dir,
        })
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    /// Starts it, again where it ends before it is ready, and waits until it is.
    pub async fn start(&self, acclaim: &Path) -> anyhow::Result<()> {
        let mut words = vec![acclaim.display().to_string(), "serve".to_owned()];
        words.extend(["--listen".to_owned(), self.url.trim_start_matches("http://").to_owned()]);
        words.extend(self.arguments.iter().cloned());
        let prepare = |command: &mut std::process::Command| {
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("REDIS_URL", format!("redis://127.0.0.1:{}/", self.redis.port()));
            let port = self.postgres.port();
            command.env("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{port}/torture"));
            // Why calls were refused, which is no news in an outage.
            command.env("ACCLAIM_LOG", "info,tokio_postgres=warn,acclaim::graphql::errors=debug");
            self.clock.prepare(command);
            command.current_dir(self.dir.path());
        };
        let deadline = Instant::now() + START_LIMIT;
        let mut process = self.process.lock().await;
        loop {
            if !process.as_ref().is_some_and(Process::is_running) {
                *process = None;
                *process = Some(Process::start(&self.log, &words, prepare)?);
            }
            let ready = self.http.get(format!("{}/readyz", self.url)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                self.set_up(true);
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} does not start:\n{}", self.name, self.last_words());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// How many tasks are under way in it, as its metrics say.
    pub async fn tasks(&self) -> u64 {
        let answer = self.http.get(format!("{}/metrics", self.url)).send().await;
        let text = match answer {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let line = text.lines().find_map(|line| line.strip_prefix("acclaim_tasks "));
        line.and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        last_lines(&log)
    }

    /// One operation; its `data`.
    pub async fn graphql(&self, user: &str, query: &str, variables: Value) -> Result<Value, Failed> {
        let request = self.http.post(format!("{}/graphql", self.url)).header("x-acclaim-user", user);
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await;
        let answer = answer.map_err(|_| Failed::Transport)?.json::<Value>().await.map_err(|_| Failed::Transport)?;
        let Some(error) = answer["errors"].get(0) else { return Ok(answer["data"].clone()) };
        Err(Failed::Error {
            code: error["extensions"]["code"].as_str().unwrap_or_default().to_owned(),
            outcome: error["extensions"]["outcome"].as_str().unwrap_or_default().to_owned(),
            retry_after_ms: error["extensions"]["retryAfterMs"].as_u64().unwrap_or_default(),
            text: error.to_string(),
        })
    }

    /// The first places of a board as (product, score).
    pub async fn ranking(&self, board: &str, first: usize) -> anyhow::Result<Vec<(String, f64)>> {
        const RANKING: &str =
            "query($board: ID!, $first: Int!) { ranking(board: $board, first: $first) { nodes { productId score } } }";
        let data = self.graphql("reader", RANKING, json!({ "board": board, "first": first })).await;
        let data = data.map_err(|failed| anyhow::anyhow!("{failed:?}"))?;
        places(&data["ranking"]["nodes"]).context("a list of places")
    }
}

/// Places with `productId` and `score`, as (product, score).
pub fn places(list: &Value) -> Option<Vec<(String, f64)>> {
    list.as_array()?
        .iter()
        .map(|place| Some((place["productId"].as_str()?.to_owned(), place["score"].as_f64()?)))
        .collect()
}
