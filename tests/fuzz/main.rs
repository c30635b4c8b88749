//! Fuzzing: documents through the HTTP entry point and frames over WebSockets, against a server of its own, and whether it
//! takes them as the README promises: every answer typed, no panic, nothing kept, nothing counted wrong.
//!
//! In reading order: [`grammar`] and [`values`] make operations, [`mutate`] spoils them, [`http`] and [`socket`] send them
//! and read what comes back, [`findings`] says what that may be. The seed decides what is sent; when the server answers it
//! can't decide.

mod findings;
mod grammar;
mod http;
mod mutate;
#[path = "../torture/process.rs"]
#[allow(dead_code, reason = "the torture does more with its processes")]
mod process;
mod socket;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acclaim::server::auth::{Claims, sign};
use anyhow::{Context, ensure};
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::findings::Findings;
use crate::grammar::Grammar;
use crate::process::{Process, acclaim, free_port};
use crate::values::{PRODUCTS, USERS};

/// Sends a server what clients should not, and says whether it stood it.
#[derive(Parser, Clone, Debug)]
struct Options {
    /// What is sent
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Documents over HTTP
    #[arg(long, default_value_t = 1_000_000)]
    documents: usize,

    /// WebSocket frames
    #[arg(long, default_value_t = 1_000_000)]
    frames: usize,

    /// Parts of the run, after each of which the server is looked at while it is at rest
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    parts: u32,

    /// Connections at once, of HTTP and of WebSockets each
    #[arg(long, default_value_t = 24)]
    connections: usize,

    /// The ledger, an empty one; SQLite in a folder of its own where it is not given
    #[arg(long)]
    database_url: Option<String>,

    /// The engine, an empty Redis; the server's memory where it is not given
    #[arg(long)]
    redis_url: Option<String>,

    /// The server's program; the one beside this program where it is not given
    #[arg(long)]
    acclaim: Option<PathBuf>,

    /// A file for the server's log, which is thrown away otherwise
    #[arg(long)]
    log: Option<PathBuf>,
}

/// What all who send share.
struct World {
    address: SocketAddr,
    grammar: Grammar,
    /// Of callers with various roles.
    tokens: Vec<String>,
    findings: Findings,
}

const SECRET: &str = "a-secret-that-only-the-fuzzing-knows";
/// What a server at rest may hold more after the last part than after the first: what it keeps by design (rules, boards,
/// answers of the last ten minutes), and what the allocator of each thread has not given back: variables of a megabyte are some
/// 20 MB while they are read.
const GROWTH_MAX: u64 = 256 << 20;
/// How long a server may take to come to rest.
const REST_TIME_MAX: Duration = Duration::from_secs(60);

/// 0 where nothing was wrong, 1 where something was, 2 where it could not be carried out.
fn main() -> ExitCode {
    let options = Options::parse();
    rlimit::increase_nofile_limit(u64::MAX).ok();
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(fuzz(options))
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn fuzz(options: Options) -> anyhow::Result<bool> {
    let program = match &options.acclaim {
        Some(program) => program.clone(),
        None => acclaim()?,
    };
    let folder = tempfile::Builder::new().prefix("acclaim-fuzz-").tempdir()?;
    let log = options.log.clone().unwrap_or_else(|| folder.path().join("server.log"));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let server = Process::start(&log, &serve(&program, address), |command| {
        // Nothing of whoever runs this: a server of theirs must not be met.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ACCLAIM_JWT_SECRET", SECRET);
        let file = || format!("sqlite://{}/fuzz.db", folder.path().display());
        command.env("DATABASE_URL", options.database_url.clone().unwrap_or_else(file));
        command.envs(options.redis_url.as_ref().map(|url| ("REDIS_URL", url)));
        command.envs(std::env::var_os("ACCLAIM_LOG").map(|filter| ("ACCLAIM_LOG", filter)));
    })?;
    let world = World {
        address,
        grammar: Grammar::new(
            include_str!("../../schema.graphql"),
            include_str!("../../src/graphql/document/introspection.graphql"),
        )?,
        tokens: tokens()?,
        findings: Findings::default(),
    };
    let caller = Caller::new(&world)?;
    caller.until_ready().await.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    caller.stock().await?;

    println!("seed {}: {} documents, {} frames", options.seed, options.documents, options.frames);
    println!("part   documents      frames   seconds   documents/s    frames/s   memory at rest   open files");
    let mut rests = Vec::new();
    let parts = options.parts as usize;
    for part in 0..parts {
        let began = Instant::now();
        send(&world, &options, part).await?;
        let seconds = began.elapsed().as_secs_f64();
        let is_alive = server.is_running();
        if !is_alive {
            world.findings.fault("the server has ended", &[]);
        } else if let Err(error) = caller.until_at_rest().await {
            world.findings.fault(format!("the server does not come to rest: {error:#}"), &[]);
        }
        rests.push((server.memory(), server.files()));
        let (documents, frames) =
            (world.findings.documents.load(Ordering::Relaxed), world.findings.frames.load(Ordering::Relaxed));
        println!(
            "{:>4}{documents:>12}{frames:>12}{seconds:>10.1}{:>14.0}{:>12.0}{:>13.1} MB{:>13}",
            part + 1,
            options.documents as f64 / parts as f64 / seconds,
            options.frames as f64 / parts as f64 / seconds,
            server.memory() as f64 / 1e6,
            server.files(),
        );
        if world.findings.has_failed() {
            break;
        }
    }
    if server.is_running() {
        caller.judge(&world).await?;
    }
    let (first, last) = (rests[0], rests[rests.len() - 1]);
    if last.0 > first.0 + GROWTH_MAX {
        world.findings.fault(format!("memory has grown from {} to {} bytes", first.0, last.0), &[]);
    }
    if last.1 > first.1 + 8 {
        world.findings.fault(format!("open files have grown from {} to {}", first.1, last.1), &[]);
    }
    for line in
        std::fs::read_to_string(&log)?.lines().filter(|line| line.contains("panicked") || line.contains(" ERROR "))
    {
        world.findings.fault(format!("in the server's log: {line}"), &[]);
    }
    world.findings.print_counts();
    println!("connections: {}", world.findings.connections.load(Ordering::Relaxed));
    let (count, faults) = world.findings.faults();
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("{}", if count == 0 { "verdict: nothing wrong".to_owned() } else { format!("verdict: {count} faults") });
    Ok(count == 0)
}

fn serve(program: &std::path::Path, address: SocketAddr) -> Vec<String> {
    let address = address.to_string();
    let program = program.display().to_string();
    // All come from one address, and a few users send all that a server can take.
    let arguments = [
        &program,
        "serve",
        "--listen",
        &address,
        "--connections-per-address",
        "0",
        "--connections-per-user",
        "0",
        "--budget",
        "0",
        "--event-memory",
        "60",
    ];
    arguments.map(ToString::to_string).to_vec()
}

/// A token that expires within two seconds.
pub fn short_token() -> anyhow::Result<String> {
    let now = u64::try_from(jiff::Timestamp::now().as_second())?;
    let claims = Claims {
        sub: "u1".to_owned(),
        iat: Some(now),
        exp: now + 2,
        roles: vec!["USER".to_owned()],
        ..Claims::default()
    };
    Ok(sign(SECRET, &claims)?)
}

fn tokens() -> anyhow::Result<Vec<String>> {
    let now = u64::try_from(jiff::Timestamp::now().as_second())?;
    let sign_one = |user: usize| {
        let roles: &[&str] = match user % 4 {
            0 => &["ADMIN", "INGEST", "USER"],
            1 => &["INGEST", "USER"],
            _ => &["USER"],
        };
        let roles = roles.iter().map(ToString::to_string).collect();
        let sub = format!("u{user}");
        let claims = Claims { sub, iat: Some(now), exp: now + 86_400, roles, ..Claims::default() };
        Ok(sign(SECRET, &claims)?)
    };
    (0..USERS).map(sign_one).collect()
}

/// Sends one part of it all, over all connections at once.
async fn send(world: &World, options: &Options, part: usize) -> anyhow::Result<()> {
    let share = |all: usize, connection: usize| {
        let of = options.parts as usize * options.connections;
        let index = part * options.connections + connection;
        all * (index + 1) / of - all * index / of
    };
    let rng = |kind: u64, connection: usize| {
        let number = ((part * options.connections + connection) as u64) * 2 + kind;
        StdRng::seed_from_u64(options.seed.wrapping_mul(1_000_003) ^ number)
    };
    let documents = (0..options.connections).map(|at| http::run(world, share(options.documents, at), rng(0, at)));
    let frames = (0..options.connections).map(|at| socket::run(world, share(options.frames, at), rng(1, at)));
    let (documents, frames) =
        (futures_util::future::try_join_all(documents), futures_util::future::try_join_all(frames));
    tokio::try_join!(documents, frames).map(|_| ())
}

/// An admin who asks nothing odd.
struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Caller {
    fn new(world: &World) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).pool_max_idle_per_host(0).build()?;
        Ok(Self { http, url: format!("http://{}", world.address), token: world.tokens[0].clone() })
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + REST_TIME_MAX;
        while !self
            .http
            .get(format!("{}/readyz", self.url))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            ensure!(Instant::now() < deadline, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn graphql(&self, query: &str, variables: Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}/graphql", self.url)).bearer_auth(&self.token);
        let answer: Value =
            request.json(&json!({ "query": query, "variables": variables })).send().await?.json().await?;
        ensure!(answer.get("errors").is_none(), "{query}: {answer}");
        Ok(answer["data"].clone())
    }

    async fn stock(&self) -> anyhow::Result<()> {
        let products: Vec<_> = (0..PRODUCTS)
            .map(|n| json!({ "id": format!("p{n}"), "name": format!("Product {n}"), "category": "Kitchen", "price": "1.50", "currency": "GBP" }))
            .collect();
        let mutation =
            "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }";
        let answer = self.graphql(mutation, json!({ "products": products })).await?;
        ensure!(answer["upsertProducts"]["upserted"] == PRODUCTS, "{answer}");
        Ok(())
    }

    /// Waits until the server holds no connection of ours and has nothing left to do.
    async fn until_at_rest(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + REST_TIME_MAX;
        loop {
            let request = self.http.get(format!("{}/metrics", self.url)).bearer_auth(&self.token);
            let text = request.send().await?.error_for_status()?.text().await?;
            let idle = [
                "acclaim_subscriptions 0",
                "acclaim_live_connections{transport=\"websocket\"} 0",
                "acclaim_live_connections{transport=\"sse\"} 0",
                "acclaim_commit_lag_entries 0",
                "acclaim_projection_lag_entries 0",
            ];
            let busy: Vec<_> = idle.iter().filter(|line| !text.lines().any(|here| here == **line)).collect();
            if busy.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not {busy:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Whether the server answers as ever, and has counted right what of it all was to be counted.
    async fn judge(&self, world: &World) -> anyhow::Result<()> {
        match self.graphql("{ boards { id } ranking(first: 3) { nodes { productId } } }", json!({})).await {
            Ok(answer) if answer["ranking"]["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()) => {}
            odd => world.findings.fault(format!("it does not answer as ever: {odd:?}"), &[]),
        }
        let deadline = Instant::now() + REST_TIME_MAX;
        let verify = "{ admin { verify { checked differing rows { target board productId expected actual } } } }";
        loop {
            match self.graphql(verify, json!({})).await {
                Ok(answer) => {
                    let report = &answer["admin"]["verify"];
                    println!("verify: {} checked, {} differ", report["checked"], report["differing"]);
                    if report["differing"] != 0 {
                        world.findings.fault(format!("verify: {report}"), &[]);
                    }
                    return Ok(());
                }
                // It takes long; the next call has the result.
                Err(_) if Instant::now() < deadline => {}
                Err(error) => {
                    world.findings.fault(format!("verify: {error:#}"), &[]);
                    return Ok(());
                }
            }
        }
    }
}
