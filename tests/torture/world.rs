//! All that a run consists of: servers, nodes, what was recorded, and whether the load is on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use crate::node::Node;
use crate::postgres::PostgresServer;
use crate::proxy::Mode;
use crate::record::{Durability, Like, Record, Wish};
use crate::redis::RedisPair;
use crate::writers::{Attempt, attempt};
use crate::{Options, clock, report};

/// How many partitions the journal has where nothing else is set.
pub const PARTITIONS: u16 = 4;
/// A service that is not back by then is taken for dead.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    On,
    Off,
    End,
}

pub struct World {
    pub options: Options,
    pub record: Record,
    pub acclaim: PathBuf,
    pub nodes: Vec<Node>,
    /// How far the nodes' clocks are ahead of the machine's.
    pub ahead: Duration,
    pub redis: Mutex<RedisPair>,
    pub postgres: Mutex<PostgresServer>,
    load: watch::Sender<Load>,
    /// Operations under way.
    running: AtomicUsize,
    /// Whether readers that can stall take nothing.
    pub stalled: watch::Sender<bool>,
    /// Reads of rankings at nodes that are up: answered, and all.
    pub reads: [AtomicU64; 2],
    probes: AtomicU64,
    /// Faults that have begun and are not set right yet.
    pub faults_under_way: AtomicUsize,
    pub began: Instant,
    pub progress: ProgressBar,
}

impl World {
    pub async fn start(options: Options, acclaim: PathBuf) -> anyhow::Result<Arc<Self>> {
        let ahead = clock::ahead()?;
        let mut redis = RedisPair::start(options.has_own_mounts).await.context("Redis")?;
        let postgres = PostgresServer::start(options.has_own_mounts, ahead).await.context("Postgres")?;
        let mut arguments = Vec::new();
        if let Some(bug) = &options.planted_bug {
            arguments.extend(["--planted-bug".to_owned(), bug.clone()]);
        }
        let mut nodes = Vec::new();
        for n in 1..=2 {
            let redis = redis.primary().port();
            nodes.push(Node::new(n, &options, redis, postgres.port(), arguments.clone(), ahead).await?);
        }
        let world = Self {
            options,
            record: Record::default(),
            acclaim,
            nodes,
            ahead,
            redis: Mutex::new(redis),
            postgres: Mutex::new(postgres),
            load: watch::Sender::new(Load::Off),
            running: AtomicUsize::new(0),
            stalled: watch::Sender::new(false),
            reads: Default::default(),
            probes: AtomicU64::new(0),
            faults_under_way: AtomicUsize::new(0),
            began: Instant::now(),
            progress: report::bar(),
        };
        for node in &world.nodes {
            node.start(&world.acclaim).await?;
        }
        world.fill_catalogue().await?;
        Ok(Arc::new(world))
    }

    async fn fill_catalogue(&self) -> anyhow::Result<()> {
        const UPSERT: &str = "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted userErrors { message } } }";
        let products: Vec<_> = (0..self.options.products)
            .map(|n| json!({ "id": format!("p{n}"), "name": format!("Product {n}") }))
            .collect();
        for chunk in products.chunks(500) {
            let data = self.nodes[0].graphql("shop", UPSERT, json!({ "products": chunk })).await;
            let data = data.map_err(|failed| anyhow::anyhow!("{failed:?}"))?;
            ensure!(data["upsertProducts"]["upserted"] == chunk.len(), "{data}");
        }
        // Beside the day that ends early in a run, this board comes to its end every 45 minutes.
        const QUICK: &str = "mutation { saveBoard(input: { id: \"quick\", title: \"Quick\", window: HALF_LIFE, halfLife: \"PT5M\" }) { board { id } userErrors { message } } }";
        let saved = self.nodes[0].graphql("admin", QUICK, json!({})).await;
        let saved = saved.map_err(|failed| anyhow::anyhow!("{failed:?}"))?;
        ensure!(saved["saveBoard"]["board"]["id"] == "quick", "{saved}");
        Ok(())
    }

    // ------------------------------------------------------------ load

    pub fn set_load(&self, is_on: bool) {
        self.load.send_replace(if is_on { Load::On } else { Load::Off });
    }

    pub fn end_load(&self) {
        self.load.send_replace(Load::End);
    }

    /// Waits until there is to be load; false at the end.
    pub async fn load_is_on(&self) -> bool {
        let mut load = self.load.subscribe();
        let load = load.wait_for(|load| *load != Load::Off).await;
        load.is_ok_and(|load| *load == Load::On)
    }

    /// Ends once the load is off.
    pub async fn load_is_off(&self) {
        let mut load = self.load.subscribe();
        load.wait_for(|load| *load != Load::On).await.ok();
    }

    /// Counts an operation as under way for as long as what it returns lives.
    pub fn running(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(&self.running)
    }

    /// Waits until no operation is under way.
    pub async fn until_idle(&self) {
        while self.running.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    // ------------------------------------------------------------ what faults do to the network

    /// Sets what the network to Redis, or to Postgres, of some nodes does.
    pub fn set_mode(&self, to: Side, nodes: &[usize], mode: Mode) {
        for &n in nodes {
            self.proxy(to, n).set_mode(mode);
        }
    }

    pub fn proxy(&self, to: Side, n: usize) -> &crate::proxy::Proxy {
        match to {
            Side::Redis => &self.nodes[n].redis,
            Side::Postgres => &self.nodes[n].postgres,
        }
    }

    // ------------------------------------------------------------ recovery

    /// Sends likes to every node until each has answered one, and until each has answered one COMMITTED; how long both
    /// took.
    pub async fn probe(&self) -> Option<[Duration; 2]> {
        let began = Instant::now();
        let of_nodes = self.nodes.iter().map(|node| self.probe_one(node, began));
        let times = futures_util::future::join_all(of_nodes).await;
        let times: Vec<[Duration; 2]> = times.into_iter().collect::<Option<_>>()?;
        let worst = |of: usize| times.iter().map(|times| times[of]).max();
        Some([worst(0)?, worst(1)?])
    }

    async fn probe_one(&self, node: &Node, began: Instant) -> Option<[Duration; 2]> {
        let mut answered = None;
        while began.elapsed() < RECOVERY_LIMIT {
            let n = self.probes.fetch_add(1, Ordering::Relaxed);
            let mut like = Like {
                user: format!("probe-{n}"),
                product: "p0".to_owned(),
                key: "probe".to_owned(),
                wish: Wish::Toggle,
                sent_at: Instant::now(),
                answers: Vec::new(),
                unanswered: 0,
                is_dead_lettered: false,
            };
            // A hung node is asked again before a client would give it up.
            let done = tokio::time::timeout(Duration::from_secs(1), attempt(node, &self.record, &like)).await;
            like.note(done.unwrap_or(Attempt::Unanswered));
            let answer = like.answers.first().copied();
            self.record.add_like(like);
            if let Some(answer) = answer {
                let answered = *answered.get_or_insert(began.elapsed());
                if answer.durability == Durability::Committed {
                    return Some([answered, began.elapsed()]);
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

/// What a node talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Redis,
    Postgres,
}

pub struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
