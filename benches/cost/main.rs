//! What operations cost by the table of prices, beside what they take of server and stores: each within a factor of three.
//!
//! `cargo bench --bench cost` measures all documents on both set-ups; `cargo bench --bench cost -- explanation` those whose
//! names contain a word.

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "benches use a part of what the tests stand on")]
mod support;
#[path = "../table.rs"]
mod table;

mod documents;
#[path = "../spine/http.rs"]
mod http;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use documents::{Document, documents};
use futures_util::future::join_all;
use http::Client;
use serde_json::json;
use support::stack::{Server, Setup, Stack};
use table::{number, row, table};

/// Long enough for CPU time, which is counted in hundredths of a second.
const TIME: Duration = Duration::from_millis(2_000);
/// Microseconds in a unit, and units of a request.
const UNIT: f64 = 10.0;
const REQUEST: f64 = 5.0;
/// How far from what it takes a cost may be.
const FACTOR: f64 = 3.0;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| name.contains(argument));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut rows =
            vec![row!["document", "bytes", "cost, µs", "memory, SQLite", "ratio", "Redis, Postgres", "ratio"]];
        let (embedded, servers) = (Shop::open(Setup::Embedded).await, Shop::open(Setup::Servers).await);
        let mut beyond = Vec::new();
        for document in documents().iter().filter(|document| is_wanted(document.name)) {
            let mut row = vec![document.name.to_owned()];
            for shop in [&embedded, &servers] {
                let (len, cost, taken) = shop.measure(document).await;
                if row.len() == 1 {
                    row.extend([number(len as f64), number(cost)]);
                }
                let ratio = cost / taken;
                row.extend([number(taken), format!("{ratio:.2}")]);
                if !(1.0 / FACTOR..=FACTOR).contains(&ratio) {
                    beyond.push(document.name);
                }
            }
            eprintln!("{}", row.join("  "));
            rows.push(row);
        }
        table("what an operation costs, and what it takes of server and stores (µs)", &rows);
        println!("  {} of {} beyond a factor of {FACTOR}: {}", beyond.len(), 2 * (rows.len() - 1), beyond.join(", "));
    });
}

/// A server with five days of a shop's events behind it.
struct Shop {
    stack: Stack,
    server: Server,
    sent: AtomicU64,
}

impl Shop {
    async fn open(setup: Setup) -> Self {
        let mut stack = Stack::new(setup).await;
        stack.arguments = vec!["--like-rate".to_owned(), "0".to_owned()];
        let server = stack.serve().await;
        server.with_products(2_000).await;
        documents::fill(&server).await;
        Self { stack, server, sent: AtomicU64::new(0) }
    }

    /// Bytes of the document, its cost, and what it takes, in microseconds.
    async fn measure(&self, document: &Document) -> (usize, f64, f64) {
        let address = self.server.url.trim_start_matches("http://");
        let idle_from = (Instant::now(), self.cpu());
        tokio::time::sleep(TIME / 4).await;
        let idle = (self.cpu() - idle_from.1) / idle_from.0.elapsed().as_secs_f64();
        let (began, before) = (Instant::now(), self.cpu());
        let askers = (0..document.clients).map(|asker| async move {
            let mut client = Client::connect(address).await;
            let (mut cost, mut answers) = (0.0, 0);
            while began.elapsed() < TIME {
                let number = self.sent.fetch_add(1, Ordering::Relaxed);
                let (query, variables) = document.operation(number);
                let body = json!({ "query": query, "variables": variables }).to_string();
                let answer = client.post(&format!("asker-{asker}-{}", number % 500), &body).await;
                assert!(!answer.contains("\"errors\":["), "{}: {answer}", document.name);
                let (_, told) = answer.split_once("acclaim-cost: ").expect("each answer says what it has cost");
                cost += told.split("\r\n").next().unwrap().trim().parse::<f64>().unwrap() + REQUEST;
                answers += 1;
            }
            (cost, answers)
        });
        let (costs, answers): (Vec<f64>, Vec<u64>) = join_all(askers).await.into_iter().unzip();
        let taken = self.cpu() - before - idle * began.elapsed().as_secs_f64();
        let answers = answers.iter().sum::<u64>() as f64;
        let len = document.operation(0).0.len();
        (len, costs.iter().sum::<f64>() / answers * UNIT, (taken / answers * 1e6).max(1.0))
    }

    /// Seconds that server and stores have computed.
    fn cpu(&self) -> f64 {
        let mut processes = vec![self.server.pid()];
        if let Some(redis) = &self.stack.redis {
            processes.push(redis.pid());
            let all = fs::read_dir("/proc").unwrap().flatten();
            let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            processes.extend(ids.filter(|id| is_of_our_postgres(*id).unwrap_or(false)));
        }
        let ticks = processes.iter().filter_map(|id| {
            let fields = stat(*id)?;
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        });
        ticks.sum::<f64>() / 100.0
    }
}

/// What /proc says of a process behind its name: its state, its parent and so on.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Whether a process is the Postgres server that this one has started, or a child of it.
fn is_of_our_postgres(id: u32) -> Option<bool> {
    if fs::read_to_string(format!("/proc/{id}/comm")).ok()?.trim() != "postgres" {
        return Some(false);
    }
    let parent = |id: u32| stat(id)?.get(1)?.parse::<u32>().ok();
    let own = Some(std::process::id());
    Some(parent(id) == own || parent(parent(id)?) == own)
}
