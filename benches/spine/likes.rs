//! Likes over HTTP until the ledger has them, one in five by a user not loaded yet, on both set-ups: rate, latency, and
//! the CPU of each process. Server, databases and this generator share the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Client;
use crate::support::postgres;
use crate::support::redis::RedisServer;
use crate::support::stack::{Setup, Stack, TOGGLE};
use crate::{number, row, table};

const PRODUCTS: u64 = 1_000;
const WARM_UP: Duration = Duration::from_secs(2);
const RUN: Duration = Duration::from_secs(10);

pub async fn run() {
    let mut rows =
        vec![row!["", "clients", "likes/s", "COMMITTED", "p50 ms", "p99 ms", "server µs", "Redis µs", "Postgres µs"]];
    for (name, setup) in [("Redis with AOF, Postgres", Setup::Servers), ("memory, SQLite", Setup::Embedded)] {
        for clients in [64, 256] {
            rows.push(measure(name, setup, clients).await);
        }
    }
    table("Likes over HTTP, one in five a first load; CPU per like by process", &rows);
}

/// What the clients count between the marks.
#[derive(Default)]
struct Counts {
    next: AtomicU64,
    done: AtomicU64,
    committed: AtomicU64,
}

async fn measure(name: &str, setup: Setup, clients: usize) -> Vec<String> {
    let mut stack = Stack::new(setup).await;
    stack.ack_timeout_ms = 250;
    stack.arguments = vec!["--like-rate".into(), "0".into()];
    let server = stack.serve().await;
    server.with_products(PRODUCTS as usize).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let counts = Arc::new(Counts::default());
    let (began, ends) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + RUN);
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (address, counts) = (address.clone(), counts.clone());
            tokio::spawn(async move { client(&address, &counts, began, ends).await })
        })
        .collect();
    tokio::time::sleep_until(began.into()).await;
    let pids = Pids::of(&stack, server.pid()).await;
    let before = pids.cpu();
    tokio::time::sleep_until(ends.into()).await;
    let after = pids.cpu();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort();
    let done = counts.done.load(Ordering::Relaxed) as f64;
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let per_like = |index: usize| {
        before[index].zip(after[index]).map_or("-".into(), |(b, a)| format!("{:.0}", (a - b) * 1e6 / done))
    };
    row![
        name,
        clients,
        number(done / RUN.as_secs_f64()),
        format!("{:.1} %", 100.0 * counts.committed.load(Ordering::Relaxed) as f64 / done),
        format!("{:.1}", percentile(0.5)),
        format!("{:.1}", percentile(0.99)),
        per_like(0),
        per_like(1),
        per_like(2),
    ]
}

async fn client(address: &str, counts: &Counts, began: Instant, ends: Instant) -> Vec<Duration> {
    let mut client = Client::connect(address).await;
    let mut latencies = Vec::new();
    loop {
        let n = counts.next.fetch_add(1, Ordering::Relaxed);
        // Every fifth like is a new user's; the four that follow it are of users who came before.
        let user = if n.is_multiple_of(5) { n / 5 } else { rand::random_range(0..=n / 5) };
        let body =
            json!({ "query": TOGGLE, "variables": { "product": format!("p{}", rand::random_range(0..PRODUCTS)) } })
                .to_string();
        let sent = Instant::now();
        let answer = client.post(&format!("user-{user}"), &body).await;
        let now = Instant::now();
        assert!(answer.contains("\"liked\":"), "{answer}");
        if now >= ends {
            return latencies;
        }
        if sent >= began {
            counts.done.fetch_add(1, Ordering::Relaxed);
            counts.committed.fetch_add(u64::from(answer.contains("COMMITTED")), Ordering::Relaxed);
            latencies.push(now - sent);
        }
    }
}

/// Whose CPU is counted.
struct Pids {
    server: u32,
    redis: Option<u32>,
    postmaster: Option<u32>,
}

impl Pids {
    async fn of(stack: &Stack, server: u32) -> Self {
        let postmaster = match &stack.postgres {
            Some(url) => {
                let query = "SELECT CAST(pid AS TEXT) FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
                Some(parent(postgres::column(url, query).await[0].parse().unwrap()))
            }
            None => None,
        };
        Self { server, redis: stack.redis.as_ref().map(RedisServer::pid), postmaster }
    }

    /// CPU seconds so far of server, Redis and Postgres.
    fn cpu(&self) -> [Option<f64>; 3] {
        let postgres = self.postmaster.map(|postmaster| family(postmaster).into_iter().map(seconds).sum());
        [Some(seconds(self.server)), self.redis.map(seconds), postgres]
    }
}

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A process and its children.
fn family(parent: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    std::iter::once(parent).chain(children.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
}

/// User and system time of one process, from /proc, in ticks of 10 ms.
fn seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return 0.0 };
    let fields: Vec<f64> = fields.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields[11] + fields[12]) / 100.0
}
