//! What one caller may take of the API. The defaults leave several times what Acclaim's own pages and usual clients need.

use std::time::Duration;

use acclaim::graphql::{DocumentLimits, guards};
use acclaim::server;
use clap::{ArgAction, Args, ValueEnum};

/// Beyond that a number is a slip of the keyboard, and would turn its limit off.
const COUNT_MAX: u32 = 1_000_000;
const DEFAULT: server::Limits = server::Limits::DEFAULT;
const DOCUMENTS: DocumentLimits = DEFAULT.documents;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the API")]
pub struct Limits {
    /// Tokens of a document, counted before it is parsed. The introspection query of GraphiQL has some 300. It may have
    /// 32 bytes for each
    #[arg(long, env = "ACCLAIM_TOKENS_MAX", default_value_t = DOCUMENTS.tokens as u32, value_name = "TOKENS")]
    #[arg(value_parser = count(100))]
    pub tokens_max: u32,

    /// Fields and fragments of a document, each fragment counted wherever it is spread: fragments that spread each other
    /// twice would double at each level
    #[arg(long, env = "ACCLAIM_NODES_MAX", default_value_t = DOCUMENTS.nodes as u32, value_name = "NODES")]
    #[arg(value_parser = count(100))]
    pub nodes_max: u32,

    /// Fields within fields: a page of rankings with its products is 6 deep. Introspection may go 16 deep by itself
    #[arg(long, env = "ACCLAIM_DEPTH_MAX", default_value_t = DOCUMENTS.depth as u32, value_name = "LEVELS")]
    #[arg(value_parser = clap::value_parser!(u32).range(3..=30))]
    pub depth_max: u32,

    /// Fields under another name in a document, with which it can ask for the same thing again and again
    #[arg(long, env = "ACCLAIM_ALIASES_MAX", default_value_t = DOCUMENTS.aliases as u32, value_name = "ALIASES")]
    #[arg(value_parser = count(0))]
    pub aliases_max: u32,

    /// Directives in a document: each costs the server more than its text costs the sender
    #[arg(long, env = "ACCLAIM_DIRECTIVES_MAX", default_value_t = DOCUMENTS.directives as u32)]
    #[arg(value_name = "DIRECTIVES", value_parser = count(0))]
    pub directives_max: u32,

    /// What an operation may cost, in units of 10 µs of the time of server and stores: what its fields read and write, times
    /// the rows of the lists that they stand in. A page of 100 whole products with their likes costs some 200
    #[arg(long, env = "ACCLAIM_COST_MAX", default_value_t = DOCUMENTS.cost as u32, value_name = "COST")]
    #[arg(value_parser = count(10))]
    pub cost_max: u32,

    /// Whether the schema may be asked for with __schema and __type, as GraphiQL does. It is no secret: this only spares
    /// work
    #[arg(long, env = "ACCLAIM_INTROSPECTION", default_value_t = DOCUMENTS.introspection)]
    #[arg(value_name = "true|false", action = ArgAction::Set)]
    pub introspection: bool,

    /// Who may ask what scores are made of (`explanation`): the counts behind every rank may be a shop's secret. Admins where
    /// auth is set, anyone without
    #[arg(long, env = "ACCLAIM_EXPLANATIONS", value_enum, value_name = "WHO")]
    pub explanations: Option<Explanations>,

    /// Bytes of a request's body: 500 events or products at their usual longest are some 300 KB
    #[arg(long, env = "ACCLAIM_BODY_LEN_MAX", default_value_t = DEFAULT.body_len as u32, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=64 << 20))]
    pub body_len_max: u32,

    /// Bytes of a WebSocket message: one document with its variables. Floods of events go by POST
    #[arg(long, env = "ACCLAIM_MESSAGE_LEN_MAX", default_value_t = DEFAULT.message_len as u32, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=64 << 20))]
    pub message_len_max: u32,

    /// Subscriptions of one WebSocket: more than a dashboard shows
    #[arg(long, env = "ACCLAIM_SUBSCRIPTIONS_MAX", default_value_t = DEFAULT.subscriptions as u32)]
    #[arg(value_name = "COUNT", value_parser = count(1))]
    pub subscriptions_max: u32,

    /// Live connections (WebSockets and event streams) of one user: some tabs on some devices. 0 for no limit; none
    /// without auth settings
    #[arg(long, env = "ACCLAIM_CONNECTIONS_PER_USER", default_value_t = DEFAULT.connections_per_user as u32, value_name = "COUNT")]
    #[arg(value_parser = count(0))]
    pub connections_per_user: u32,

    /// Live connections from one address: an office behind one. 0 for no limit, as behind a proxy that --trusted-proxy does
    /// not name, which has but one address; none without auth settings
    #[arg(long, env = "ACCLAIM_CONNECTIONS_PER_ADDRESS", default_value_t = DEFAULT.connections_per_address as u32)]
    #[arg(value_name = "COUNT")]
    #[arg(value_parser = count(0))]
    pub connections_per_address: u32,

    /// What one caller may take of a server for long, in units of 10 µs of its time in a second; 0 for no limit. 10,000 are a
    /// tenth of a core, or 400 pages of rankings, which an office behind one address stays below. Who is signed in has a
    /// budget of his own, others that of their address (of a /64 in IPv6); ten times as much with the role INGEST or ADMIN.
    /// Private addresses have none unless --trusted-proxy is set
    #[arg(long, env = "ACCLAIM_BUDGET", default_value_t = DEFAULT.budget_rate as u32, value_name = "UNITS")]
    #[arg(value_parser = count(0))]
    pub budget: u32,

    /// What one caller may take at once, in the same units: half a second of a core, or 2,000 pages
    #[arg(long, env = "ACCLAIM_BUDGET_BURST", default_value_t = DEFAULT.budget_burst as u32, value_name = "UNITS")]
    #[arg(value_parser = count(100))]
    pub budget_burst: u32,

    /// Queries and mutations under way, of all callers: each holds memory, and what waits behind so many is answered too late
    /// for anybody
    #[arg(long, env = "ACCLAIM_IN_FLIGHT_MAX", default_value_t = DEFAULT.in_flight as u32, value_name = "COUNT")]
    #[arg(value_parser = count(1))]
    pub in_flight_max: u32,

    /// Bytes of all bodies over 16 KiB that are being read or worked on: 64 of the longest. Who is not signed in can hold a
    /// quarter of it
    #[arg(long, env = "ACCLAIM_BODIES_LEN_MAX", default_value_t = DEFAULT.bodies_len as u32, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000_000..=4_000_000_000))]
    pub bodies_len_max: u32,

    /// Connections of all callers: 8 KB each while they are idle. One public address can hold a quarter of them
    #[arg(long, env = "ACCLAIM_CONNECTIONS_MAX", default_value_t = DEFAULT.connections as u32, value_name = "COUNT")]
    #[arg(value_parser = count(1))]
    pub connections_max: u32,

    /// How long a connection may take to send a request's headers, and may stay idle between two requests, in seconds: one
    /// that trickles holds memory for nothing
    #[arg(long, env = "ACCLAIM_HEADER_TIMEOUT", default_value_t = DEFAULT.header_timeout.as_secs() as u32)]
    #[arg(value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub header_timeout: u32,

    /// How long a request may take, body and answer, in seconds: longer than anything waits inside, and shorter than the
    /// minute after which proxies give up
    #[arg(long, env = "ACCLAIM_REQUEST_TIMEOUT", default_value_t = DEFAULT.request_timeout.as_secs() as u32)]
    #[arg(value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub request_timeout: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Explanations {
    Anyone,
    /// Whoever is signed in
    Users,
    /// Whoever has the role ADMIN
    Admin,
}

impl Explanations {
    fn plain(self) -> guards::Explanations {
        match self {
            Self::Anyone => guards::Explanations::Anyone,
            Self::Users => guards::Explanations::Users,
            Self::Admin => guards::Explanations::Admins,
        }
    }
}

fn count(least: u32) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(least)..=i64::from(COUNT_MAX))
}

impl Limits {
    /// As the library takes them; some defaults depend on whether there are auth settings.
    pub fn plain(&self, has_auth: bool) -> server::Limits {
        let usual = if has_auth { Explanations::Admin } else { Explanations::Anyone };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        server::Limits {
            documents: DocumentLimits {
                tokens: self.tokens_max as usize,
                nodes: self.nodes_max as usize,
                depth: self.depth_max as usize,
                aliases: self.aliases_max as usize,
                directives: self.directives_max as usize,
                cost: self.cost_max as usize,
                introspection: self.introspection,
                explanations: self.explanations.unwrap_or(usual).plain(),
            },
            body_len: self.body_len_max as usize,
            message_len: self.message_len_max as usize,
            subscriptions: self.subscriptions_max as usize,
            connections_per_user: self.connections_per_user as usize,
            connections_per_address: self.connections_per_address as usize,
            budget_rate: self.budget.into(),
            budget_burst: self.budget_burst.into(),
            in_flight: self.in_flight_max as usize,
            bodies_len: self.bodies_len_max as usize,
            connections: self.connections_max as usize,
            header_timeout: seconds(self.header_timeout),
            request_timeout: seconds(self.request_timeout),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tokens_max: DOCUMENTS.tokens as u32,
            nodes_max: DOCUMENTS.nodes as u32,
            depth_max: DOCUMENTS.depth as u32,
            aliases_max: DOCUMENTS.aliases as u32,
            directives_max: DOCUMENTS.directives as u32,
            cost_max: DOCUMENTS.cost as u32,
            introspection: DOCUMENTS.introspection,
            explanations: None,
            body_len_max: DEFAULT.body_len as u32,
            message_len_max: DEFAULT.message_len as u32,
            subscriptions_max: DEFAULT.subscriptions as u32,
            connections_per_user: DEFAULT.connections_per_user as u32,
            connections_per_address: DEFAULT.connections_per_address as u32,
            budget: DEFAULT.budget_rate as u32,
            budget_burst: DEFAULT.budget_burst as u32,
            in_flight_max: DEFAULT.in_flight as u32,
            bodies_len_max: DEFAULT.bodies_len as u32,
            connections_max: DEFAULT.connections as u32,
            header_timeout: DEFAULT.header_timeout.as_secs() as u32,
            request_timeout: DEFAULT.request_timeout.as_secs() as u32,
        }
    }
}
