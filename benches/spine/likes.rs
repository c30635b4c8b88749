//! Likes over HTTP until the ledger has them, on both set-ups: rate, latency, and the CPU of each process. One like in five
//! is by a user not loaded yet; beside it the same with every user loaded before, as the prototype of the design was
//! measured. Server, databases and this generator share the machine.

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

/// Users where all are loaded before.
const LOADED_USERS: u64 = 2_000;

/// Who likes.
#[derive(Clone, Copy)]
enum Users {
    /// One like in five is by a user not loaded yet.
    Coming,
    /// [`LOADED_USERS`], all loaded before.
    Loaded,
}

pub async fn run() {
    for (title, users) in [("one in five a first load", Users::Coming), ("all users loaded before", Users::Loaded)] {
        let mut rows = vec![row![
            "",
            "clients",
            "likes/s",
            "COMMITTED",
            "p50 ms",
            "p99 ms",
            "server µs",
            "Redis µs",
            "Postgres µs",
            "generator µs"
        ]];
        for (name, setup) in [("Redis with AOF, Postgres", Setup::Servers), ("memory, SQLite", Setup::Embedded)] {
            for clients in [64, 256] {
                rows.push(measure(name, setup, clients, users).await);
            }
        }
        table(&format!("Likes over HTTP, {title}; CPU per like by process"), &rows);
    }
}

/// What the clients count between the marks.
#[derive(Default)]
struct Counts {
    next: AtomicU64,
    done: AtomicU64,
    committed: AtomicU64,
}

async fn measure(name: &str, setup: Setup, clients: usize, users: Users) -> Vec<String> {
    let mut stack = Stack::new(setup).await;
    stack.ack_timeout_ms = 250;
    stack.arguments = vec!["--like-rate".into(), "0".into()];
    let server = stack.serve().await;
    server.with_products(PRODUCTS as usize).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    if let Users::Loaded = users {
        load_all(&address).await;
    }
    let counts = Arc::new(Counts::default());
    let (began, ends) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + RUN);
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (address, counts) = (address.clone(), counts.clone());
            tokio::spawn(async move { client(&address, &counts, users, began, ends).await })
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
        per_like(3),
    ]
}

/// Has every user of [`Users::Loaded`] like something.
async fn load_all(address: &str) {
    let share = LOADED_USERS / 50;
    let tasks = (0..LOADED_USERS).step_by(share as usize).map(|first| async move {
        let mut client = Client::connect(address).await;
        for user in first..(first + share).min(LOADED_USERS) {
            like(&mut client, user).await;
        }
    });
    futures_util::future::join_all(tasks).await;
}

/// Toggles any product; whether the answer says COMMITTED.
async fn like(client: &mut Client, user: u64) -> bool {
    let product = rand::random_range(0..PRODUCTS);
    let body = json!({ "query": TOGGLE, "variables": { "product": format!("p{product}") } }).to_string();
    let answer = client.post(&format!("user-{user}"), &body).await;
    assert!(answer.contains("\"liked\":"), "{answer}");
    answer.contains("COMMITTED")
}

async fn client(address: &str, counts: &Counts, users: Users, began: Instant, ends: Instant) -> Vec<Duration> {
    let mut client = Client::connect(address).await;
    let mut latencies = Vec::new();
    loop {
        let n = counts.next.fetch_add(1, Ordering::Relaxed);
        let user = match users {
            // Every fifth like is a new user's; the four that follow it are of users who came before.
            Users::Coming if n.is_multiple_of(5) => n / 5,
            Users::Coming => rand::random_range(0..=n / 5),
            Users::Loaded => rand::random_range(0..LOADED_USERS),
        };
        let sent = Instant::now();
        let is_committed = like(&mut client, user).await;
        let now = Instant::now();
        if now >= ends {
            return latencies;
        }
        if sent >= began {
            counts.done.fetch_add(1, Ordering::Relaxed);
            counts.committed.fetch_add(u64::from(is_committed), Ordering::Relaxed);
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

    /// CPU seconds so far of server, Redis, Postgres and this generator.
    fn cpu(&self) -> [Option<f64>; 4] {
        let postgres = self.postmaster.map(|postmaster| family(postmaster).into_iter().map(seconds).sum());
        [Some(seconds(self.server)), self.redis.map(seconds), postgres, Some(seconds(std::process::id()))]
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
