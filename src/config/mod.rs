//! Every setting of Acclaim, once: its flag, its environment variable, its default, its unit and its reason.
//!
//! The comments on the fields are what `--help` prints. Only `main` reads this; everything else is handed values. No
//! secret, nor an address that may hold one, appears in `--help` or in an error.

mod auth;
mod bench;
mod checks;
mod limits;
mod stores;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use acclaim::domain::{BoardId, Producer};
use acclaim::engine::EngineLimits;
use acclaim::server::Readers;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::auth::{Auth, Jwt};
pub use self::bench::Bench;
pub use self::stores::{Database, Redis};
use limits::Limits;

/// Turns likes, views and orders into live leaderboards behind one GraphQL API.
#[derive(Debug, Parser)]
#[command(name = "acclaim", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Start with:\n  acclaim demo")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// What is logged, to standard error: a level (error, warn, info, debug, trace), or a tracing filter such as
    /// info,acclaim::pipeline=debug. `info` where it is not set, `warn` for the demo, whose screen it would disturb
    #[arg(long, global = true, env = "ACCLAIM_LOG", value_name = "FILTER", help_heading = "Logging")]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    ///
    /// With nothing set it listens on this machine alone, keeps hot state in memory and the ledger in the SQLite file
    /// acclaim.db. REDIS_URL and DATABASE_URL put Redis and Postgres in their place; then any number of servers can
    /// share them.
    #[command(after_help = "Examples:\n  \
        acclaim serve\n  \
        REDIS_URL=redis://localhost DATABASE_URL=postgres://acclaim@localhost/acclaim acclaim serve\n  \
        ACCLAIM_JWT_SECRET=$(openssl rand -hex 32) acclaim serve --listen 0.0.0.0:8080")]
    Serve(Serve),

    /// Show a shop's day on a board that moves, with nothing to install
    ///
    /// Starts a server with a memory engine and a SQLite file in a temporary folder, fills it with a real catalogue,
    /// and replays a real day of orders, moved to now and sped up. Views and likes come from simulated shoppers. All
    /// of it is gone when it ends.
    #[command(after_help = "Example:\n  acclaim demo --speed 120")]
    Demo(Demo),

    /// Load a CSV file into a running server
    ///
    /// Rows carry ids, so that a file can be loaded again without counting anything twice. A bad row is reported with
    /// its line, and the others are loaded. Exit code 1 when there were bad rows.
    #[command(subcommand)]
    Import(Import),

    /// Bring the ledger's tables up to date, and exit
    ///
    /// `serve` does the same at its start; this is for set-ups where only a deployment step may change tables.
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://acclaim@localhost/acclaim acclaim migrate")]
    Migrate(Database),

    /// Have a running server compare what it serves with its ledger
    ///
    /// Recomputes likes, activity and boards from the recorded events, and prints what differs. Exit code 1 on any
    /// difference. Needs the role ADMIN.
    #[command(
        after_help = "Examples:\n  acclaim verify\n  acclaim verify --repair\n  acclaim verify daily --url https://acclaim.example.com"
    )]
    Verify(Verify),

    /// Have a running server compute boards anew from its ledger
    ///
    /// What is shown follows the ledger by itself; this is for when it should be worked out once more, above all after
    /// events of past days were loaded: closed periods stand as they were, unless --from names where to begin again. Each
    /// period from there on is computed in order, with what it carries over from the one before. Boards go on as they are
    /// until that is done. Needs the role ADMIN.
    #[command(after_help = "Examples:\n  \
        acclaim rebuild\n  \
        acclaim rebuild --board daily --from 2010-12-01")]
    Rebuild(Rebuild),

    /// Check the engine and the ledger that the settings name, and this machine
    ///
    /// Looks at versions, persistence, eviction, clocks, tables, permissions, lag and limits, and prints a line for each: ok,
    /// warn (something is lost or slow when more goes wrong) or fail (it does not work, or a promise does not hold), with
    /// what to do. Needs no running server, and changes nothing but keys of its own in Redis, which it removes. Exit code 1
    /// on any fail.
    #[command(after_help = "Examples:\n  acclaim doctor\n  \
        REDIS_URL=redis://localhost DATABASE_URL=postgres://acclaim@localhost/acclaim acclaim doctor")]
    Doctor(Doctor),

    /// Load a running server, measure it, and check what it answers
    ///
    /// A client that prints rates, latencies and what they cost, and exits with 1 when an answer can't be right. It
    /// changes what it loads: don't point it at a board that people look at.
    #[command(subcommand, after_help = "Example:\n  acclaim bench fanout --products 10")]
    Bench(Bench),

    /// Print the GraphQL schema
    #[command(after_help = "Example:\n  acclaim schema > schema.graphql")]
    Schema,

    /// Print a bearer token, signed with the configured secret
    ///
    /// For scripts and first steps; people should get theirs from an identity provider.
    #[command(after_help = "Example:\n  acclaim token --user ann --role admin --valid-for 8h")]
    Token(Token),
}

/// The server's settings.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub auth: Auth,
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub redis: Redis,
    #[command(flatten)]
    pub pages: Pages,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub limits: Limits,

    #[cfg(feature = "planted-bugs")]
    #[arg(long, hide = true, value_parser = acclaim::domain::planted::Bug::from_name)]
    pub planted_bug: Option<acclaim::domain::planted::Bug>,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub pages: Pages,

    /// How many times faster than the clock the day passes. At 45, the day takes about ten minutes
    #[arg(long, env = "ACCLAIM_DEMO_SPEED", default_value_t = 45.0, value_name = "TIMES")]
    pub speed: f64,
}

#[derive(Debug, Subcommand)]
pub enum Import {
    /// Load products: columns id and name; category, brand, price, currency and image_url where there are any
    #[command(after_help = "Example:\n  acclaim import products demo/products.csv")]
    Products(ImportFile),

    /// Load events: columns id, signal and product_id; user_id, count, occurred_at and reverses where there are any
    #[command(after_help = "Example:\n  acclaim import events demo/orders.csv --shift-to-now")]
    Events {
        #[command(flatten)]
        file: ImportFile,

        /// Move all times by one constant, so that the last event of the file happens now
        #[arg(long)]
        shift_to_now: bool,
    },
}

#[derive(Debug, Args)]
pub struct ImportFile {
    /// The CSV file, with a header: in UTF-8, or UTF-16 with its mark, separated by commas, semicolons or tabs; - for standard
    /// input
    pub file: PathBuf,
    #[command(flatten)]
    pub remote: Remote,

    /// How long to wait for a server that does not answer, in seconds, before giving up
    #[arg(long, env = "ACCLAIM_WAIT_MAX", default_value_t = 300, value_name = "SECONDS")]
    pub wait_max: u64,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The board to check; likes, activity and every board where it is not given
    #[arg(value_parser = checks::board)]
    pub board: Option<BoardId>,

    /// Where anything differs: have likes, counts and every board rebuilt from the recorded events, and check again.
    /// Likes and events are taken meanwhile, and answered ACCEPTED where it takes long
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub remote: Remote,

    /// How long to wait for a server that can't check, because a part of it is down or a board is being computed, in seconds,
    /// before giving up. A check itself may take longer
    #[arg(long, env = "ACCLAIM_WAIT_MAX", default_value_t = 60, value_name = "SECONDS")]
    pub wait_max: u64,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    /// The board to compute anew; every board where it is not given
    #[arg(long, value_parser = checks::board)]
    pub board: Option<BoardId>,

    /// The first closed period to compute anew: its key, such as 2010-12-01 or 2010-W48, or a day, for boards whose periods
    /// are others. Only what is open where it is not given
    #[arg(long, value_name = "PERIOD")]
    pub from: Option<String>,
    #[command(flatten)]
    pub remote: Remote,

    /// How long to wait for a server that does not answer, in seconds, before giving up
    #[arg(long, env = "ACCLAIM_WAIT_MAX", default_value_t = 300, value_name = "SECONDS")]
    pub wait_max: u64,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub auth: Auth,
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub redis: Redis,
}

#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    pub jwt: Jwt,

    /// Who the token speaks for: the claim `sub`
    #[arg(long)]
    pub user: String,

    /// What the holder may do; can be given several times
    #[arg(long, required = true)]
    pub role: Vec<Role>,

    /// To whom the events belong that the holder records, where several tills share them: the claim `producer`. The user
    /// where it is not given
    #[arg(long, value_parser = checks::producer)]
    pub producer: Option<Producer>,

    /// How long it is valid: 30m, 8h, 1d
    #[arg(long, default_value = "1d", value_name = "DURATION", value_parser = checks::duration)]
    pub valid_for: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Like, and see one's own likes
    User,
    /// Record events and keep the catalogue
    Ingest,
    /// Change weights, boards and product rules, see who changed them, verify, rebuild
    Admin,
    /// Read /metrics; alone, nothing else
    Metrics,
}

/// A running server, and who calls it.
#[derive(Debug, Args)]
pub struct Remote {
    /// Address of the running server
    #[arg(long, env = "ACCLAIM_URL", default_value = "http://127.0.0.1:8080", help_heading = "Server")]
    pub url: String,

    /// Bearer token; `acclaim token` makes one. Not needed for a server without auth settings
    #[arg(long, env = "ACCLAIM_TOKEN", hide_env_values = true, help_heading = "Server")]
    pub token: Option<Secret>,
}

#[derive(Debug, Args)]
pub struct Listen {
    /// Address and port to listen on. Without auth settings only this machine's own (127.0.0.1, [::1]) are allowed,
    /// since everyone who can connect may then do everything
    #[arg(long, env = "ACCLAIM_LISTEN", default_value_t = Self::DEFAULT, value_parser = checks::listen)]
    #[arg(value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
}

impl Listen {
    const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Pages")]
pub struct Pages {
    /// Whether there is a page to try the API with, /graphiql. Whoever reaches it can do no more than without
    #[arg(long, env = "ACCLAIM_GRAPHIQL", value_enum, default_value_t = Graphiql::On)]
    pub graphiql: Graphiql,

    /// Folder with a copy of GraphiQL's files, for machines without internet. From its usual CDN where it is not set
    #[arg(long, env = "ACCLAIM_GRAPHIQL_ASSETS", value_name = "DIR")]
    pub graphiql_assets: Option<PathBuf>,

    /// Who may read /metrics, which Prometheus does. Without auth settings everyone here is an admin
    #[arg(long, env = "ACCLAIM_METRICS", value_enum, default_value_t = Metrics::Admin)]
    pub metrics: Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Graphiql {
    #[default]
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Metrics {
    /// Whoever has the role METRICS or ADMIN
    #[default]
    Admin,
    /// Whoever reaches the server: for one that nobody else can reach
    Anyone,
    /// Nobody
    Off,
}

impl Metrics {
    /// As the library takes it.
    pub fn plain(self) -> Readers {
        match self {
            Self::Admin => Readers::Admins,
            Self::Anyone => Readers::Anyone,
            Self::Off => Readers::Nobody,
        }
    }
}

/// Limits and pace. The defaults suit a shop with thousands of likes a second.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits and pace")]
pub struct Tuning {
    /// Likes a second that one user may send for long; 0 for no limit. People stay below; scripts do not
    #[arg(long, env = "ACCLAIM_LIKE_RATE", default_value_t = EngineLimits::default().like_rate, value_name = "LIKES")]
    pub like_rate: u32,

    /// Likes that one user may send at once before the rate counts: someone who clicks through a full page
    #[arg(long, env = "ACCLAIM_LIKE_BURST", default_value_t = EngineLimits::default().like_burst, value_name = "LIKES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub like_burst: u32,

    /// Within so many seconds after a like, another one of the same user and product counts at the time of the first: nobody
    /// refreshes a like by taking it back; 0 for never
    #[arg(long, env = "ACCLAIM_LIKE_AGAIN", default_value_t = Self::LIKE_AGAIN_S, value_name = "SECONDS")]
    pub like_again: u32,

    /// How long a like waits for the ledger, in milliseconds, before it is answered ACCEPTED instead of COMMITTED: as
    /// long as a click may take without feeling slow
    #[arg(long, env = "ACCLAIM_ACK_TIMEOUT_MS", default_value_t = Self::ACK_TIMEOUT_MS, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub ack_timeout_ms: u64,

    /// How often changed boards are published to subscribers, in milliseconds: quicker than the eye would cost without
    /// being seen
    #[arg(long, env = "ACCLAIM_TICK_MS", default_value_t = Self::TICK_MS, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub tick_ms: u64,

    /// Entries that each partition's journal may hold while the ledger is away, before likes and events are refused.
    /// It bounds memory: about 300 bytes an entry
    #[arg(long, env = "ACCLAIM_JOURNAL_LEN_MAX", default_value_t = EngineLimits::default().journal_len_max)]
    #[arg(value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1_000..))]
    pub journal_len_max: u64,

    /// How long the engine remembers an event's id, in seconds, so that a repeated one costs no look-up in the ledger.
    /// At 10,000 events a second, ten minutes are 6 million ids
    #[arg(long, env = "ACCLAIM_EVENT_MEMORY", default_value_t = Self::EVENT_MEMORY_S, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(60..=86_400))]
    pub event_memory: u32,

    /// Partitions of the journal, which are synced side by side. Fixed when a ledger is new; must be the same for all
    /// servers that share it
    #[arg(long, env = "ACCLAIM_PARTITIONS", default_value_t = EngineLimits::default().partitions)]
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: u16,
}

impl Tuning {
    const ACK_TIMEOUT_MS: u64 = 250;
    const TICK_MS: u64 = 100;
    const EVENT_MEMORY_S: u32 = 600;
    const LIKE_AGAIN_S: u32 = (EngineLimits::LIKE_AGAIN_MS / 1000) as u32;

    /// The engine's share of the settings.
    pub fn engine_limits(&self) -> EngineLimits {
        EngineLimits {
            partitions: self.partitions,
            like_rate: self.like_rate,
            like_burst: self.like_burst,
            like_again_ms: i64::from(self.like_again) * 1000,
            journal_len_max: self.journal_len_max,
            event_memory_ms: i64::from(self.event_memory) * 1000,
            ..EngineLimits::default()
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        let limits = EngineLimits::default();
        Self {
            like_rate: limits.like_rate,
            like_burst: limits.like_burst,
            like_again: Self::LIKE_AGAIN_S,
            ack_timeout_ms: Self::ACK_TIMEOUT_MS,
            tick_ms: Self::TICK_MS,
            journal_len_max: limits.journal_len_max,
            event_memory: Self::EVENT_MEMORY_S,
            partitions: limits.partitions,
        }
    }
}

impl Demo {
    /// The settings of the demo's server, whose ledger is the given file. Whatever the environment says about a real
    /// set-up has no part in it.
    pub fn serve(self, ledger: &std::path::Path) -> Serve {
        let database_url = Secret::from(format!("sqlite://{}", ledger.display()));
        Serve {
            listen: self.listen,
            auth: Auth::default(),
            database: Database { database_url, database_ca_file: None },
            redis: Redis::default(),
            pages: self.pages,
            tuning: Tuning::default(),
            limits: Limits::default(),
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        }
    }
}

/// A text that may hold a password: never printed, not even for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests;
