//! What a node counts and times, for Prometheus. Names, help and buckets are here, once; who does the work calls the
//! method that says what has happened.
//!
//! Counters start at zero with the process. What can be looked at (how much waits, how far behind boards are) is not
//! counted but read when somebody asks, see [`super::App::gauges`]. Invariant: every label has few values, all of them
//! known here or in an enum; nothing that a client sends becomes one.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::domain::SnapshotReason;

/// The one label of a metric, and the values that are told from the start: of what begins with its first event, nobody could
/// see that it was 0 before.
macro_rules! labels {
    ($($set:ident, $name:ident: $value:ty;)*) => {$(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $set {
            $name: $value,
        }

        impl From<$value> for $set {
            fn from($name: $value) -> Self {
                Self { $name }
            }
        }
    )*};
}
labels! {
    Outcome, outcome: &'static str;
    Reason, reason: &'static str;
    Code, code: &'static str;
    Status, status: u16;
    Transport, transport: &'static str;
    Limit, limit: &'static str;
}

const FAILURES: [&str; 5] = ["unavailable", "full", "unknown", "rate_limited", "internal"];
const CODES: [&str; 9] = [
    "OK",
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "RATE_LIMITED",
    "UNAVAILABLE",
    "BAD_USER_INPUT",
    "LIMIT_EXCEEDED",
    "PERSISTED_QUERY_NOT_FOUND",
    "INTERNAL",
];
const SNAPSHOTS: [SnapshotReason; 7] = [
    SnapshotReason::Initial,
    SnapshotReason::Resumed,
    SnapshotReason::Gap,
    SnapshotReason::Lagged,
    SnapshotReason::Rolled,
    SnapshotReason::Reweighted,
    SnapshotReason::Recovered,
];

/// From 1 ms to 16 s, each twice the one before: a like takes some 10 ms, the longest wait is 15 s.
#[derive(Clone)]
struct Times;

impl MetricConstructor<Histogram> for Times {
    fn new_metric(&self) -> Histogram {
        Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
    }
}

/// A node's counters. Recording is an atomic addition or two, and a look-up where there is a label.
pub struct Metrics {
    registry: Registry,
    responses: Family<Status, Counter>,
    operations: Family<Code, Counter>,
    operation_times: Histogram,
    likes: Family<Outcome, Counter>,
    like_times: Histogram,
    events: Family<Outcome, Counter>,
    committed: Counter,
    refused: Counter,
    dead_lettered: Counter,
    commit_times: Histogram,
    commit_failures: Counter,
    losses: Counter,
    leading: Gauge,
    rebuild_times: Family<Reason, Histogram, Times>,
    published: Counter,
    gaps: Counter,
    interruptions: Counter,
    foreign: Counter,
    snapshots: Family<Reason, Counter>,
    resumes: Family<Outcome, Counter>,
    lagged: Counter,
    executions: Counter,
    deliveries: Counter,
    connections: Family<Transport, Gauge>,
    closed: Family<Reason, Counter>,
    limited: Family<Limit, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Naming(Registry::with_prefix("acclaim"));
        let known = Self {
            responses: all.of("http_responses", "Answers over HTTP, by status"),
            operations: all.of("operations", "GraphQL operations answered, by the code of their first error, or OK"),
            operation_times: all.times("operation_duration", "From a parsed operation to its answer"),
            likes: all.of("likes", "Likes and unlikes asked for, by what became of them"),
            like_times: all.times("like_duration", "From a like that was done to its answer"),
            events: all.of("events", "Producers' events, by what became of them"),
            committed: all.of("committed_entries", "Journal entries that this node committed to the ledger"),
            refused: all.of("refused_entries", "Of these, entries that the ledger had, or that changed nothing there"),
            dead_lettered: all.of("dead_lettered_entries", "Of these, events that the ledger could not store"),
            commit_times: all.times("commit_duration", "A commit into the ledger"),
            commit_failures: all.of("commit_failures", "Commits that failed and were tried again"),
            losses: all.of("engine_losses", "Times that this node found the engine's state lost"),
            leading: all.of("leading", "1 while this node does the background work of all"),
            rebuild_times: all.add(
                "rebuild_duration",
                "A board's computation from the ledger, by why",
                Some(Unit::Seconds),
                Family::new_with_constructor(Times),
            ),
            published: all.of("published_states", "States of boards that this node published"),
            gaps: all.of("feed_gaps", "Times that published states did not reach this node, before a newer one did"),
            interruptions: all.of("feed_interruptions", "Times that this node's link to the feeds broke"),
            foreign: all
                .of("foreign_messages", "Messages of another ledger that this node heard from Redis, and dropped"),
            snapshots: all.of("snapshots", "Whole boards executed for subscribers, by why"),
            resumes: all.of("resumes", "Subscriptions resumed, by what led on from what the client held"),
            lagged: all.of("lagged_subscribers", "Times that a subscriber had missed steps and was given the whole"),
            executions: all.of("executions", "Subscription events executed, each once for all who ask the same"),
            deliveries: all.of("deliveries", "Subscription events handed to connections"),
            connections: all.of("live_connections", "WebSockets and event streams that are open"),
            closed: all.of("closed_sockets", "WebSockets that ended, by close code, or who ended them without one"),
            limited: all.of("limited", "Requests and connections refused for what callers may take, by the limit"),
            registry: all.0,
        };
        let also_failures = |outcomes: &[&'static str]| [outcomes, FAILURES.as_slice()].concat();
        begin(&known.responses, [200]);
        begin(&known.operations, CODES);
        begin(
            &known.likes,
            also_failures(&["committed", "accepted", "unknown_product", "key_conflict", "dead_lettered"]),
        );
        begin(&known.events, also_failures(&["recorded", "duplicate", "rejected", "dead_lettered"]));
        begin(&known.rebuild_times, SNAPSHOTS[3..].iter().map(|reason| reason.name()));
        begin(&known.snapshots, SNAPSHOTS.iter().map(|reason| reason.name()));
        begin(&known.resumes, ["nothing", "delta", "snapshot", "unavailable"]);
        begin(&known.connections, ["websocket", "sse"]);
        begin(&known.closed, ["left", "silent", "stalled", "going_away"]);
        begin(&known.limited, ["budget", "in_flight", "bodies", "connections"]);
        known
    }
}

fn begin<L, T, M, C>(family: &Family<L, M, C>, values: impl IntoIterator<Item = T>)
where
    L: From<T> + Clone + std::hash::Hash + Eq,
    C: MetricConstructor<M>,
{
    for value in values {
        drop(family.get_or_create(&value.into()));
    }
}

struct Naming(Registry);

impl Naming {
    fn of<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, None, M::default())
    }

    fn times(&mut self, name: &str, help: &str) -> Histogram {
        self.add(name, help, Some(Unit::Seconds), Times.new_metric())
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric.clone()),
            None => self.0.register(name, help, metric.clone()),
        }
        metric
    }
}

impl Metrics {
    /// In the OpenMetrics text format 1.0, without its end.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.registry).expect("a string takes all that is written to it");
        text
    }

    pub fn responded(&self, status: u16) {
        self.responses.get_or_create(&Status { status }).inc();
    }

    /// `code` is that of the first error, or `OK`.
    pub fn operation(&self, code: &'static str, took: Duration) {
        self.operations.get_or_create(&Code { code }).inc();
        self.operation_times.observe(took.as_secs_f64());
    }

    /// `took` where the like was done.
    pub fn like(&self, outcome: &'static str, took: Option<Duration>) {
        self.likes.get_or_create(&Outcome { outcome }).inc();
        if let Some(took) = took {
            self.like_times.observe(took.as_secs_f64());
        }
    }

    pub fn events(&self, outcome: &'static str, count: usize) {
        self.events.get_or_create(&Outcome { outcome }).inc_by(count as u64);
    }

    pub fn commit(&self, entries: usize, refused: usize, dead_lettered: usize, took: Duration) {
        self.committed.inc_by(entries as u64);
        self.refused.inc_by(refused as u64);
        self.dead_lettered.inc_by(dead_lettered as u64);
        self.commit_times.observe(took.as_secs_f64());
    }

    pub fn commit_failed(&self) {
        self.commit_failures.inc();
    }

    pub fn engine_lost(&self) {
        self.losses.inc();
    }

    /// The node leads until the answer is dropped.
    pub fn leads(&self) -> Counted {
        Counted::in_gauge(&self.leading)
    }

    pub fn is_leading(&self) -> bool {
        self.leading.get() > 0
    }

    pub fn rebuilt(&self, reason: &'static str, took: Duration) {
        self.rebuild_times.get_or_create(&Reason { reason }).observe(took.as_secs_f64());
    }

    pub fn published(&self) {
        self.published.inc();
    }

    pub fn feed_gap(&self) {
        self.gaps.inc();
    }

    pub fn feed_interrupted(&self) {
        self.interruptions.inc();
    }

    pub fn foreign_messages(&self, count: u64) {
        self.foreign.inc_by(count);
    }

    pub fn snapshot(&self, reason: &'static str) {
        self.snapshots.get_or_create(&Reason { reason }).inc();
    }

    pub fn resumed(&self, outcome: &'static str) {
        self.resumes.get_or_create(&Outcome { outcome }).inc();
    }

    pub fn lagged(&self) {
        self.lagged.inc();
    }

    pub fn executed(&self) {
        self.executions.inc();
    }

    /// How often an event was executed for subscribers.
    pub fn executions(&self) -> u64 {
        self.executions.get()
    }

    pub fn delivered(&self, count: usize) {
        self.deliveries.inc_by(count as u64);
    }

    /// A live connection is open until the answer is dropped.
    pub fn connected(&self, transport: &'static str) -> Counted {
        Counted::in_gauge(&self.connections.get_or_create(&Transport { transport }))
    }

    pub fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&Reason { reason }).inc();
    }

    /// A request or connection was refused: its caller, or all of them, had taken what they may.
    pub fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&Limit { limit }).inc();
    }
}

/// One in a gauge, until it is dropped.
pub struct Counted(Gauge);

impl Counted {
    fn in_gauge(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_in_the_text() {
        let metrics = Metrics::default();
        metrics.like("committed", Some(Duration::from_millis(3)));
        metrics.like("rate_limited", None);
        metrics.commit(5, 1, 0, Duration::from_millis(2));
        let open = metrics.connected("websocket");
        let text = metrics.text();
        for line in [
            "acclaim_likes_total{outcome=\"committed\"} 1",
            "acclaim_likes_total{outcome=\"rate_limited\"} 1",
            "acclaim_like_duration_seconds_bucket{le=\"0.004\"} 1",
            "acclaim_like_duration_seconds_count 1",
            "acclaim_committed_entries_total 5",
            "acclaim_live_connections{transport=\"websocket\"} 1",
        ] {
            assert!(text.lines().any(|here| here == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert!(metrics.text().contains("acclaim_live_connections{transport=\"websocket\"} 0\n"));
    }
}
