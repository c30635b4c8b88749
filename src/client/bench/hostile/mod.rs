//! An attacker beside a bystander: the dearest documents that can be found, sent over one connection and over many, while
//! somebody reads pages and somebody likes.
//!
//! The search has an address of its own for each document, the attack one for all, as a proxy would tell them: the server
//! must trust this machine to (`--trusted-proxy 127.0.0.1`), or nobody's budget holds.

mod grammar;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::grammar::{Document, Grammar};
use super::board::{self, Recorder};
use super::local::Process;
use super::meter;
use super::table::{Latencies, Table, number};
use super::{Outcome, Target};
use crate::client::{Client, ClientError};

/// Places of a board that are known to the search.
const PLACES: usize = 100;
/// Documents that the attack sends.
const DEAREST: usize = 20;
/// What the headers of a request have beside its document.
const HEADERS_LEN: f64 = 200.0;
/// How long a document is repeated to see what CPU it takes, which is told in hundredths of a second.
const REPEATED_FOR: Duration = Duration::from_millis(400);
/// CPU that no document may take.
const DOCUMENT_TIME_MAX: Duration = Duration::from_millis(100);
/// Between two pages of the bystander, and two likes.
const PAGE_EVERY: Duration = Duration::from_millis(50);
const LIKE_EVERY: Duration = Duration::from_millis(200);
/// A bystander's slowest pages may take so many times as long as at rest, and so long in any case.
const SLOWER_MAX: u32 = 3;
const SLOW: Duration = Duration::from_millis(20);

const PAGE: &str = "{ ranking(first: 20) { nodes { rank score productId product { name } } } }";
const LIKE: &str = "mutation($id: ID!) { toggleLike(input: { productId: $id }) { durability } }";

pub struct Settings {
    /// Connections of the second attack.
    pub clients: usize,
    pub search: Duration,
}

/// A document and what it took.
#[derive(Clone)]
struct Found {
    document: Document,
    text: String,
    took: Duration,
}

impl Found {
    fn per_byte(&self) -> f64 {
        self.took.as_secs_f64() / (self.text.len() as f64 + HEADERS_LEN)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Liked {
    toggle_like: Like,
}

#[derive(Deserialize)]
struct Like {
    durability: Option<String>,
}

/// Searches, then attacks. Stopped, it tells what it knows so far.
pub async fn run(target: &Target, settings: &Settings, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let server = target.look().await?;
    let products = board::products(target, 1, PLACES).await?;
    if target.products.is_some() {
        board::lift(target, &Recorder::new(&target.client), &products, PLACES).await?;
    }
    let grammar = Arc::new(Grammar::read(&target.client).await?);
    let rest = Bystander::default();
    rest.beside(target, &products, "at rest", stop, async |_| {}).await;
    let (tried, found) = search(&target.client, &grammar, settings.search, stop).await?;
    let mut faults = Vec::new();
    let mut table = Table::new(format!("hostile: {} documents tried, {} taken", number(tried as f64), found.len()));
    let dearest = dearest(&target.client, &grammar, server, &found).await;
    table.row("at rest", &rest.pages);
    let attacks = [("one connection", 1), ("many connections", settings.clients)];
    for (name, connections) in attacks {
        let (bystander, answers) = (Bystander::default(), Arc::new(Answers::default()));
        let attack = async |stop: CancellationToken| {
            attack(&target.client, &grammar, &dearest, connections, &answers, stop).await;
        };
        bystander.beside(target, &products, name, stop, attack).await;
        table.row(name, format!("{}; {answers}", bystander.pages));
        let allowed = SLOW.max(rest.pages.p99() * SLOWER_MAX);
        if bystander.pages.p99() > allowed {
            faults.push(format!("{name}: a bystander's slowest pages take over {allowed:?}"));
        }
        if let Some(fault) = bystander.fault() {
            faults.push(format!("{name}: {fault}"));
        }
    }
    if let Some(worst) = dearest.iter().max_by_key(|found| found.took) {
        table.row("dearest", format!("{:.1} ms of CPU, {} bytes", worst.took.as_secs_f64() * 1e3, worst.text.len()));
        table.row("its text", &worst.text);
        if worst.took > DOCUMENT_TIME_MAX {
            faults.push(format!("a document takes over {DOCUMENT_TIME_MAX:?} of CPU"));
        }
    }
    if let Some(worst) = dearest.iter().max_by(|one, other| one.per_byte().total_cmp(&other.per_byte())) {
        table.row("dearest byte", format!("{:.1} µs; {}", worst.per_byte() * 1e6, worst.text));
    }
    Ok(Outcome { table, faults })
}

/// Another address for each call, so that no budget ends the search.
fn somewhere(rng: &mut StdRng) -> String {
    format!("2001:db8:{:x}:{:x}::1", rng.random::<u16>(), rng.random::<u16>())
}

/// Changes documents for as long as it may, and keeps the dearest of them: by what they take, and by what each byte of them
/// does. Returns how many were tried.
async fn search(
    client: &Client,
    grammar: &Grammar,
    time: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<(u64, Vec<Found>)> {
    let (mut rng, began) = (StdRng::from_os_rng(), Instant::now());
    let (mut found, mut tried): (Vec<Found>, u64) = (Vec::new(), 0);
    let bar = meter::bar(time);
    while began.elapsed() < time && !stop.is_cancelled() {
        bar.set_position(began.elapsed().as_millis() as u64);
        bar.set_message(format!("{tried} documents tried"));
        let document = match found.choose(&mut rng) {
            Some(known) if rng.random_bool(0.8) => grammar.changed(&known.document, &mut rng),
            _ => grammar.document(&mut rng),
        };
        let text = grammar.write(&document, &mut rng);
        tried += 1;
        let caller = client.anonymous().seen_from(somewhere(&mut rng));
        let sent = Instant::now();
        match caller.call::<IgnoredAny>(&text, &json!({})).await {
            Ok(_) => {}
            Err(error @ ClientError::Unreachable { .. }) => bail!("{error}, after {text}"),
            Err(_) => continue,
        }
        found.push(Found { document, text, took: sent.elapsed() });
        if found.len() > 4 * DEAREST {
            found = best(found);
        }
    }
    bar.finish_and_clear();
    Ok((tried, best(found)))
}

/// Half of them by what they take, half by what their bytes do.
fn best(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|found| std::cmp::Reverse(found.took));
    let mut rest = found.split_off(found.len().min(DEAREST / 2));
    rest.sort_by(|one, other| other.per_byte().total_cmp(&one.per_byte()));
    rest.truncate(DEAREST - found.len());
    found.extend(rest);
    found
}

/// The same documents, with what they take of the server's CPU where that can be read.
async fn dearest(client: &Client, grammar: &Grammar, server: Option<Process>, found: &[Found]) -> Vec<Found> {
    let mut rng = StdRng::from_os_rng();
    let mut measured = Vec::new();
    for known in found {
        let (before, began, mut calls) = (server.and_then(Process::cpu), Instant::now(), 0);
        while began.elapsed() < REPEATED_FOR {
            let caller = client.anonymous().seen_from(somewhere(&mut rng));
            let _ = caller.call::<IgnoredAny>(&grammar.write(&known.document, &mut rng), &json!({})).await;
            calls += 1;
        }
        let cpu = server.and_then(Process::cpu).zip(before).map(|(after, before)| (after - before) / calls);
        measured.push(Found { took: cpu.unwrap_or(known.took), ..known.clone() });
    }
    measured
}

/// What the attacker was answered: how often, by code.
#[derive(Default)]
struct Answers(Mutex<BTreeMap<String, u64>>);

impl Answers {
    fn add(&self, answer: Result<IgnoredAny, ClientError>) {
        let code = match answer {
            Ok(_) => "OK".to_owned(),
            Err(ClientError::Refused { code, .. }) => code,
            Err(ClientError::Unreachable { reason, .. } | ClientError::Foreign { reason, .. }) => reason,
        };
        *self.0.lock().expect("nothing panics while it holds the lock").entry(code).or_default() += 1;
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = self.0.lock().expect("as above");
        let told: Vec<_> = told.iter().map(|(code, count)| format!("{code} {}", number(*count as f64))).collect();
        write!(f, "answered {}", told.join(", "))
    }
}

/// Sends the documents from one address, over so many connections, until it is stopped.
async fn attack(
    client: &Client,
    grammar: &Arc<Grammar>,
    dearest: &[Found],
    connections: usize,
    answers: &Arc<Answers>,
    stop: CancellationToken,
) {
    let mut attackers = JoinSet::new();
    for _ in 0..connections {
        let client = client.anonymous().seen_from("198.51.100.7".to_owned());
        let (grammar, dearest, answers) = (grammar.clone(), dearest.to_vec(), answers.clone());
        attackers.spawn(async move {
            let mut rng = StdRng::from_os_rng();
            while let Some(found) = dearest.choose(&mut rng) {
                let text = grammar.write(&found.document, &mut rng);
                answers.add(client.call(&text, &json!({})).await);
            }
        });
    }
    stop.cancelled().await;
    attackers.shutdown().await;
}

/// Somebody who reads a page now and then, and somebody who likes.
#[derive(Default)]
struct Bystander {
    pages: Latencies,
    refused: AtomicU64,
    likes: AtomicU64,
    committed: AtomicU64,
}

impl Bystander {
    /// Reads and likes for the run's time while something else goes on.
    async fn beside(
        &self,
        target: &Target,
        products: &[String],
        what: &str,
        stop: &CancellationToken,
        other: impl AsyncFnOnce(CancellationToken),
    ) {
        let ends = stop.child_token();
        let reader = target.client.anonymous().seen_from("192.0.2.1".to_owned());
        let reading = async {
            while !ends.is_cancelled() {
                let sent = Instant::now();
                if reader.call::<IgnoredAny>(PAGE, &json!({})).await.is_err() {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                self.pages.record(sent.elapsed());
                tokio::time::sleep(PAGE_EVERY).await;
            }
        };
        let liking = async {
            for product in products.iter().cycle().take_while(|_| !ends.is_cancelled()) {
                let liked = target.client.call::<Liked>(LIKE, &json!({ "id": product })).await;
                self.likes.fetch_add(1, Ordering::Relaxed);
                if liked.is_ok_and(|liked| liked.toggle_like.durability.as_deref() == Some("COMMITTED")) {
                    self.committed.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(LIKE_EVERY).await;
            }
        };
        let passing = async {
            meter::pass(target.duration, stop, || format!("{what}: {}", self.pages)).await;
            ends.cancel();
        };
        tokio::join!(reading, liking, passing, other(ends.clone()));
    }

    fn fault(&self) -> Option<String> {
        let [refused, likes, committed] =
            [&self.refused, &self.likes, &self.committed].map(|count| count.load(Ordering::Relaxed));
        match (refused, likes - committed) {
            (0, 0) => None,
            (0, missing) => Some(format!("{missing} of {likes} likes are not COMMITTED")),
            (refused, _) => Some(format!("{refused} pages of a bystander are refused")),
        }
    }
}
