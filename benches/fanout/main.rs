//! Fan-out beside async-graphql-axum's own WebSocket: the same node, the same documents and the same load, one after the
//! other, and what a delivery costs each of them.
//!
//! `cargo bench --bench fanout`. Ours is the real server, the stock one is this program started again ([`stock`]); both
//! have the memory engine, SQLite and the same allocator. The load is that of `acclaim bench fanout`, whose checks hold
//! for both. It fails when one of them sends what is wrong, when their frames differ in size, or when the ratio is lost.

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "benches use a part of what the tests stand on")]
mod support;
#[path = "../table.rs"]
mod table;

mod executions;
mod stock;

use std::process::ExitCode;
use std::time::Duration;

use acclaim::client::bench::{Outcome, Target, fanout};
use acclaim::client::{Caller, Client};
use acclaim::domain::BoardId;
use acclaim::pipeline;
use tokio_util::sync::CancellationToken;

use support::stack::{Setup, Stack};
use table::{number, table};

/// As in the server's own program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as the stock server can keep up with beside the load on two cores: each is sent every state.
const SUBSCRIBERS: usize = 1_000;
/// More than the stock server can keep up with there: it merges states and sends fewer. What the node does for the events
/// themselves, which is the same in both, counts for little here.
const MANY_SUBSCRIBERS: usize = 5_000;
/// Ten products of which all but one move between any two states: deltas of some 1.3 KB.
const PLACES: usize = 10;
const EVENTS_PER_SECOND: u32 = 100;
const LOADED: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);
/// Deliveries per core, ours to stock, while both send the same; below this, sharing has been lost.
const RATIO_MIN: f64 = 5.0;
/// How much longer one's frames may be: sequence numbers and scores differ in their digits.
const FRAME_DIFFERENCE_MAX: f64 = 0.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [flag, port, ledger_url] = arguments.as_slice()
        && flag == stock::FLAG
    {
        runtime.block_on(stock::serve(port.parse().unwrap(), ledger_url));
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let faults = runtime.block_on(compare());
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Clone, Copy)]
enum Kind {
    Ours,
    Stock,
}

/// What one kind of server was found to do for so many subscribers.
struct Column {
    kind: Kind,
    subscribers: usize,
    loaded: Outcome,
    /// Not of one subscriber alone, who has all that a server sets up.
    idle: Option<Outcome>,
}

impl Column {
    async fn measure(kind: Kind, subscribers: usize) -> Self {
        let idle = if subscribers > 1 { Some(on_a_new_server(kind, subscribers, true).await) } else { None };
        Self { kind, subscribers, idle, loaded: on_a_new_server(kind, subscribers, false).await }
    }

    fn faults(&self) -> impl Iterator<Item = String> {
        let outcomes = self.idle.iter().chain([&self.loaded]);
        outcomes.flat_map(|outcome| &outcome.faults).map(|fault| format!("{}: {fault}", self.name()))
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Ours => "ours",
            Kind::Stock => "async-graphql-axum",
        }
    }

    fn row(&self, row: &str) -> &str {
        self.loaded.value(row).unwrap_or_else(|| panic!("the load tells no {row}"))
    }

    /// The number that a row begins with.
    fn figure(&self, row: &str) -> f64 {
        let first = self.row(row).split(' ').next().unwrap_or_default().trim_end_matches(',').replace(',', "");
        first.parse().unwrap_or_else(|_| panic!("{row} is no number: {}", self.row(row)))
    }

    /// The `part`-th of a row's parts, which commas divide.
    fn part(&self, row: &str, part: usize) -> String {
        self.row(row).split(", ").nth(part).unwrap_or_default().to_owned()
    }

    fn idle_memory(&self) -> String {
        let memory = self.idle.as_ref().and_then(|idle| idle.value("server memory, at the end")?.split_once(", "));
        memory.map_or(String::new(), |(_, each)| each.trim_end_matches(" for each subscriber").to_owned())
    }
}

/// Each load has a server of its own, whose memory no other load has touched.
async fn on_a_new_server(kind: Kind, subscribers: usize, idle: bool) -> Outcome {
    match kind {
        Kind::Ours => {
            let mut stack = Stack::new(Setup::Embedded).await;
            stack.ack_timeout_ms = pipeline::Settings::default().ack_timeout.as_millis() as u64;
            let server = stack.serve().await;
            load(&server.url, server.pid(), subscribers, idle).await
        }
        Kind::Stock => {
            let server = stock::Server::start().await;
            load(&server.url, server.pid(), subscribers, idle).await
        }
    }
}

async fn load(url: &str, pid: u32, subscribers: usize, idle: bool) -> Outcome {
    let target = Target {
        client: Client::new(url, Caller::Name("bench".to_owned())).unwrap(),
        board: BoardId::daily(),
        products: Some(PLACES as u32),
        duration: if idle { IDLE } else { LOADED },
        server_pid: Some(pid),
    };
    let settings = fanout::Settings {
        top: PLACES,
        subscribers,
        checked: 50,
        events_per_second: EVENTS_PER_SECOND,
        max_rate: None,
        idle,
    };
    fanout::run(&target, &settings, &CancellationToken::new()).await.unwrap()
}

/// Runs and prints everything; what was wrong.
async fn compare() -> Vec<String> {
    let ours_alone = Column::measure(Kind::Ours, 1).await;
    let ours = Column::measure(Kind::Ours, SUBSCRIBERS).await;
    let stock = Column::measure(Kind::Stock, SUBSCRIBERS).await;
    let ours_many = Column::measure(Kind::Ours, MANY_SUBSCRIBERS).await;
    let stock_many = Column::measure(Kind::Stock, MANY_SUBSCRIBERS).await;
    let columns = [&ours_alone, &ours, &ours_many, &stock, &stock_many];
    let line = |name: &str, cell: &dyn Fn(&Column) -> String| {
        std::iter::once(name.to_owned()).chain(columns.iter().map(|column| cell(column))).collect()
    };
    table(
        &format!("The first {PLACES} places to all subscribers, {} s each", LOADED.as_secs()),
        &[
            line("", &|column| column.name().to_owned()),
            line("subscribers", &|column| number(column.subscribers as f64)),
            line("frame", &|column| column.part("frame", 0)),
            line("states sent to each", &|column| column.part("updates", 1)),
            line("deliveries", &|column| column.part("deliveries", 1)),
            line("deliveries in a second of server CPU", &|column| number(column.figure("deliveries per core"))),
            line("server CPU for each state", &|column| format!("{:.1} ms", column.figure("for each update"))),
            line("server CPU for each MB", &|column| format!("{:.1} ms", column.figure("for each MB"))),
            line("event to frame: p50", &|column| column.part("event to frame", 0).replace("p50 ", "")),
            line("p99", &|column| column.part("event to frame", 1).replace("p99 ", "")),
            line("resident memory for each idle subscriber", &Column::idle_memory),
        ],
    );
    let per_core = |ours: &Column, stock: &Column| {
        let deliveries = |column: &Column| column.figure("deliveries per core");
        deliveries(ours) / deliveries(stock)
    };
    let ratio = per_core(&ours, &stock);
    let own = |column: &Column| column.figure("for each update") - ours_alone.figure("for each update");
    println!(
        "\n  Deliveries per core, ours to async-graphql-axum's: {ratio:.1} times with {SUBSCRIBERS} subscribers, {:.1} \
         times with {MANY_SUBSCRIBERS}.\n  Without what a state costs a node with one subscriber: {:.1} times.",
        per_core(&ours_many, &stock_many),
        own(&stock) / own(&ours)
    );
    executions::run(&[SUBSCRIBERS, MANY_SUBSCRIBERS]).await;

    let mut faults: Vec<String> = columns.iter().flat_map(|column| column.faults()).collect();
    for (ours, stock) in [(&ours, &stock), (&ours_many, &stock_many)] {
        let longer = ours.figure("frame") / stock.figure("frame");
        if (longer - 1.0).abs() > FRAME_DIFFERENCE_MAX {
            faults.push("the two servers' frames are not of one size, so that their figures say nothing".to_owned());
        }
    }
    if ratio < RATIO_MIN {
        faults.push(format!("{ratio:.1} times the stock server's deliveries per core are less than {RATIO_MIN}"));
    }
    faults
}
