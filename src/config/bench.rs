//! The settings of `acclaim bench`.

use std::time::Duration;

use acclaim::client::Client;
use acclaim::client::bench::{self, fanout, hostile, rankings};
use acclaim::domain::BoardId;
use clap::{Args, Subcommand};

use super::{Jwt, Remote, checks};

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Subscribe a crowd to a board, make the board move, and measure what arrives
    ///
    /// Each subscriber's chain of deltas is followed; of some, every frame is applied, and in the end their views must
    /// equal the ranking. Recording events needs the role INGEST; with --idle no role is needed.
    #[command(after_help = "Examples:\n  \
        acclaim bench fanout --products 10\n  \
        acclaim bench fanout --idle --subscribers 5000 --seconds 10")]
    Fanout(Fanout),

    /// Attack with the dearest documents that can be found, beside somebody who reads and somebody who likes
    ///
    /// The search makes and changes documents that the schema allows, and keeps those that take the most time, and the most
    /// for each of their bytes. The attack sends them over one connection, then over many. Meanwhile the slowest pages of a
    /// bystander may take three times as long as at rest, or 20 ms; likes must be COMMITTED; no document may take over
    /// 100 ms of CPU. The server must take this machine for a proxy, so that attacker and bystander have budgets of their
    /// own: start it with --trusted-proxy 127.0.0.1.
    #[command(after_help = "Example:\n  acclaim bench hostile --seconds 10")]
    Hostile(Hostile),

    /// Have many users toggle likes, and measure the answers
    ///
    /// In the end, what some users were told must be what they find. Users sign in by name, or, where the server has
    /// auth settings, with tokens that are signed with its secret.
    #[command(after_help = "Example:\n  acclaim bench likes --products 100 --clients 256")]
    Likes(Likes),

    /// Page through a ranking with its products, and measure the answers
    ///
    /// The ranks of every page must follow each other, and its scores must never rise.
    #[command(after_help = "Example:\n  acclaim bench rankings --products 100")]
    Rankings(Rankings),
}

/// What every kind of load has.
#[derive(Debug, Args)]
pub struct Load {
    #[command(flatten)]
    pub remote: Remote,

    /// The board to load
    #[arg(long, env = "ACCLAIM_BENCH_BOARD", default_value = "daily", value_parser = checks::board)]
    pub board: BoardId,

    /// Put so many products of the bench's own (bench-00001 and on) into the catalogue and use those. Where it is not
    /// set, the products that the board shows. Needs the role INGEST
    #[arg(long, env = "ACCLAIM_BENCH_PRODUCTS", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub products: Option<u32>,

    /// How long to measure, in seconds; Ctrl-C ends it earlier and prints the table so far
    #[arg(long, env = "ACCLAIM_BENCH_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// The server's process on this machine, whose memory and CPU are measured. Found by its port where it is not set
    #[arg(long, env = "ACCLAIM_BENCH_SERVER_PID", value_name = "PID")]
    pub server_pid: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Fanout {
    #[command(flatten)]
    pub load: Load,

    /// Subscribers; each is a WebSocket of its own. One address has ports for some 28,000
    #[arg(long, env = "ACCLAIM_BENCH_SUBSCRIBERS", default_value_t = 1_000, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=28_000))]
    pub subscribers: u32,

    /// Subscribers whose every frame is read in full and applied. The rest only have their chains followed, so that
    /// reading costs little beside the server
    #[arg(long, env = "ACCLAIM_BENCH_CHECKED", default_value_t = 50, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub checked: u32,

    /// Places that a subscriber is shown
    #[arg(long, env = "ACCLAIM_BENCH_TOP", default_value_t = 10, value_name = "PLACES")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    pub top: u16,

    /// Events to record in a second. The default moves ten products between any two published states
    #[arg(long, env = "ACCLAIM_BENCH_EVENTS_PER_SECOND", default_value_t = 100, value_name = "EVENTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub events_per_second: u32,

    /// Messages a second that each subscriber wishes at most. Not sent where it is not set: the server's default holds
    #[arg(long, env = "ACCLAIM_BENCH_MAX_RATE", value_name = "MESSAGES")]
    pub max_rate: Option<f64>,

    /// Record nothing: open the subscribers, wait, and measure the server's memory
    #[arg(long, env = "ACCLAIM_BENCH_IDLE")]
    pub idle: bool,
}

#[derive(Debug, Args)]
pub struct Hostile {
    #[command(flatten)]
    pub load: Load,

    /// Connections of the second attack
    #[arg(long, env = "ACCLAIM_BENCH_CLIENTS", default_value_t = 100, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,

    /// How long to look for dear documents, in seconds
    #[arg(long, env = "ACCLAIM_BENCH_SEARCH_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub search_seconds: u64,
}

#[derive(Debug, Args)]
pub struct Likes {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub jwt: Jwt,

    /// Likes that wait for an answer at any time
    #[arg(long, env = "ACCLAIM_BENCH_CLIENTS", default_value_t = 64, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,

    /// Users who like. With fewer than a thousand, a server's limit on a user's likes may be met
    #[arg(long, env = "ACCLAIM_BENCH_USERS", default_value_t = 10_000, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: u32,
}

#[derive(Debug, Args)]
pub struct Rankings {
    #[command(flatten)]
    pub load: Load,

    /// Requests that wait for an answer at any time
    #[arg(long, env = "ACCLAIM_BENCH_CLIENTS", default_value_t = 64, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,

    /// Places on a page
    #[arg(long, env = "ACCLAIM_BENCH_FIRST", default_value_t = 20, value_name = "PLACES")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    pub first: u16,
}

impl Bench {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Fanout(fanout) => {
                fanout.load.remote.check()?;
                match fanout.max_rate {
                    Some(rate) if !(0.01..=1_000.0).contains(&rate) => {
                        Err("--max-rate (ACCLAIM_BENCH_MAX_RATE) must be from 0.01 to 1000".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            Self::Likes(likes) => {
                likes.load.remote.check()?;
                likes.jwt.check()?;
                if likes.users < likes.clients {
                    return Err(format!(
                        "--users (ACCLAIM_BENCH_USERS) {} is less than --clients (ACCLAIM_BENCH_CLIENTS) {}, and each \
                         client likes for users of its own",
                        likes.users, likes.clients
                    ));
                }
                if likes.load.remote.token.is_some() && likes.jwt.jwt_secret.is_none() {
                    return Err("--token (ACCLAIM_TOKEN) speaks for one user, and likes come from many: set \
                                --jwt-secret (ACCLAIM_JWT_SECRET) to the server's, to sign a token for each"
                        .to_owned());
                }
                Ok(())
            }
            Self::Hostile(hostile) => hostile.load.remote.check(),
            Self::Rankings(rankings) => rankings.load.remote.check(),
        }
    }
}

impl Load {
    /// `client` is whoever calls the server at `remote`.
    pub fn target(&self, client: Client) -> bench::Target {
        bench::Target {
            client,
            board: self.board.clone(),
            products: self.products,
            duration: Duration::from_secs(self.seconds),
            server_pid: self.server_pid,
        }
    }
}

impl Fanout {
    pub fn settings(&self) -> fanout::Settings {
        fanout::Settings {
            top: self.top.into(),
            subscribers: self.subscribers as usize,
            checked: self.checked as usize,
            events_per_second: self.events_per_second,
            max_rate: self.max_rate,
            idle: self.idle,
        }
    }
}

impl Hostile {
    pub fn settings(&self) -> hostile::Settings {
        hostile::Settings { clients: self.clients as usize, search: Duration::from_secs(self.search_seconds) }
    }
}

impl Rankings {
    pub fn settings(&self) -> rankings::Settings {
        rankings::Settings { clients: self.clients as usize, first: self.first.into() }
    }
}
