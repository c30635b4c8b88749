//! `/metrics`: what the node counts, and what it finds when it looks, for Prometheus (OpenMetrics text, version 1.0).
//!
//! Invariant: looking costs some calls of engine and ledger, no matter how much they hold, and happens once a second at
//! most, whoever asks how often.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Site;
use super::accept::Format;
use super::auth::Identity;
use super::capacity::Taken;
use super::http::refuse;
use super::recent::Recent;
use super::request::Refusal;
use super::request_id::RequestId;
use crate::engine::EngineLimits;
use crate::graphql::errors::Failure;
use crate::graphql::guards::Role;
use crate::pipeline::Gauges;

/// Who may read them: rates and lags are the shop's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readers {
    /// Whoever has the role METRICS or ADMIN.
    #[default]
    Admins,
    /// Whoever reaches the server.
    Anyone,
    Nobody,
}

pub struct Scrapes {
    readers: Readers,
    found: Recent<String>,
}

impl Scrapes {
    pub fn for_readers(readers: Readers) -> Self {
        Self { readers, found: Recent::default() }
    }
}

pub async fn metrics(
    State(site): State<Arc<Site>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&site, &headers).await {
        return refuse(refusal, Format::Json, &id.0);
    }
    let text = site.metrics.found.or_look(text_of(site.clone())).await;
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn admit(site: &Site, headers: &HeaderMap) -> Result<(), Refusal> {
    let admitted = match site.metrics.readers {
        Readers::Anyone => return Ok(()),
        Readers::Nobody => {
            let failure = Failure::bad("path", "metrics are turned off; see --metrics");
            return Err(Refusal::new(StatusCode::NOT_FOUND, failure));
        }
        Readers::Admins => site
            .auth
            .of_headers(headers)
            .await
            .and_then(|Identity { caller, .. }| if caller.is_admin() { Ok(()) } else { caller.has(Role::Metrics) }),
    };
    admitted.map_err(|failure| {
        let status = match failure {
            Failure::Forbidden(_) => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        Refusal::new(status, failure)
    })
}

async fn text_of(site: Arc<Site>) -> String {
    let api = &site.api;
    let app = api.app();
    let found = Found {
        gauges: app.gauges().await,
        limits: *app.engine().limits(),
        subscriptions: api.subscriptions() as u64,
        taken: site.capacity.taken(),
        budgets: site.budgets.callers() as u64,
        process: Process::read(),
    };
    let mut text = app.metrics().text();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(found));
    text::encode_registry(&mut text, &registry).expect("a string takes all that is written to it");
    text::encode_eof(&mut text).expect("as above");
    text
}

/// What was found by looking.
#[derive(Debug)]
struct Found {
    gauges: Gauges,
    limits: EngineLimits,
    subscriptions: u64,
    taken: Taken,
    budgets: u64,
    process: Process,
}

/// What Linux says of this process (nothing elsewhere), and what the runtime says.
#[derive(Debug)]
struct Process {
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    tasks: usize,
}

impl Process {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident_bytes = resident.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib << 10);
        // The folder itself is open while it is read.
        let open_files = std::fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1));
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Self { resident_bytes, open_files, tasks }
    }
}

/// Writes gauges under their names.
struct Telling<'a>(DescriptorEncoder<'a>);

impl Telling<'_> {
    fn metric(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: &impl EncodeMetric) -> std::fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, unit.as_ref(), metric.metric_type())?)
    }

    fn gauge<T: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: T) -> std::fmt::Result {
        self.metric(name, help, None, &ConstGauge::new(value))
    }

    fn bytes(&mut self, name: &str, help: &str, value: Option<u64>) -> std::fmt::Result {
        value.map_or(Ok(()), |value| self.metric(name, help, Some(Unit::Bytes), &ConstGauge::new(value)))
    }

    fn age(&mut self, name: &str, help: &str, ms: u64) -> std::fmt::Result {
        self.metric(name, help, Some(Unit::Seconds), &ConstGauge::new(ms as f64 / 1_000.0))
    }

    /// One gauge for each value of a label.
    fn each<T: EncodeGaugeValue>(
        &mut self,
        (name, label): (&str, &str),
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (String, T)>,
    ) -> std::fmt::Result {
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (value, number) in values {
            ConstGauge::new(number).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}

impl Collector for Found {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut tell = Telling(encoder);
        let Gauges { engine, ledger, lags, dead_letters, clocks } = &self.gauges;
        let build =
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("engine", engine.kind), ("ledger", ledger.kind)]);
        tell.metric("acclaim_build", "What this node is, and what it works on", None, &build)?;
        tell.gauge("acclaim_engine_up", "Whether the engine answers and is not being recovered", u64::from(engine.up))?;
        tell.gauge("acclaim_ledger_up", "Whether the ledger answers", u64::from(ledger.up))?;
        tell.gauge(
            "acclaim_epoch",
            "The epoch that this node works in, or the ledger's while it recovers",
            engine.epoch,
        )?;
        if let Some(memory) = engine.memory {
            tell.bytes("acclaim_engine_used", "Memory that Redis uses", Some(memory.used_bytes))?;
            let most = memory.max_bytes.or(Some(0));
            tell.bytes("acclaim_engine_max", "Memory that Redis may use; 0 for no limit of its own", most)?;
            let help = "Whether Redis refuses likes and events for want of memory";
            tell.gauge("acclaim_engine_full", help, u64::from(memory.is_full))?;
        }
        if let Some(lags) = lags {
            let held = lags.held.iter().enumerate().map(|(partition, held)| (partition.to_string(), *held));
            tell.each(
                ("acclaim_journal_entries", "partition"),
                "Entries that a partition's journal holds",
                None,
                held,
            )?;
            let limit = self.limits.journal_len_max;
            tell.gauge("acclaim_journal_limit_entries", "Of these a partition may hold so many", limit)?;
            tell.gauge("acclaim_commit_lag_entries", "Journal entries not in the ledger", lags.uncommitted)?;
            tell.gauge(
                "acclaim_projection_lag_entries",
                "Journal entries that some board does not show",
                lags.unshown,
            )?;
            if let Some([uncommitted, unshown]) = lags.ages_ms {
                tell.age("acclaim_commit_lag", "Age of the oldest journal entry not in the ledger", uncommitted)?;
                tell.age("acclaim_projection_lag", "Age of the oldest entry that some board does not show", unshown)?;
            }
        }
        if let Some(kinds) = dead_letters {
            let kinds = [("stranded", kinds.stranded), ("lost", kinds.lost), ("unstorable", kinds.unstorable)];
            let kinds = kinds.map(|(kind, count)| (kind.to_owned(), count));
            let help = "Dead letters in the ledger, by kind; 1,000 are looked at";
            tell.each(("acclaim_dead_letters", "kind"), help, None, kinds)?;
        }
        let clocks = [("ledger", clocks.ledger_ms), ("redis", clocks.redis_ms)];
        let clocks = clocks.into_iter().filter_map(|(clock, ms)| Some((clock.to_owned(), ms? as f64 / 1_000.0)));
        let help = "How far other clocks are ahead of this server's";
        tell.each(("acclaim_clock_offset", "clock"), help, Some(Unit::Seconds), clocks)?;
        tell.gauge("acclaim_subscriptions", "Subscriptions that are open", self.subscriptions)?;
        let Taken { in_flight, bodies_len, connections } = self.taken;
        tell.gauge("acclaim_connections", "Connections that are open, live ones among them", connections as u64)?;
        tell.gauge("acclaim_requests_in_flight", "Queries and mutations that are under way", in_flight as u64)?;
        tell.bytes("acclaim_bodies", "Large bodies of requests that are under way", Some(bodies_len as u64))?;
        tell.gauge("acclaim_budgets", "Callers whose budgets are not full", self.budgets)?;
        tell.gauge("acclaim_tasks", "Tasks of this node that are under way", self.process.tasks as u64)?;
        tell.bytes("process_resident_memory", "Resident memory of this process", self.process.resident_bytes)?;
        let files = self.process.open_files;
        files.map_or(Ok(()), |files| tell.gauge("process_open_fds", "Open files and sockets of this process", files))
    }
}
