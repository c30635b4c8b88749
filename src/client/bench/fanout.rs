//! A crowd of subscribers on one board, and events that make it move: deliveries, their latency, and what they cost.
//!
//! Every subscriber's chain is followed (each delta must continue what that subscriber holds). Of some, every frame is
//! applied, and at the end, after quiet, their views must equal the ranking that a query shows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Plan, Tallies};
use super::drive::{Driver, MARK_TIMEOUT};
use super::local::{self, Process};
use super::meter::{self, Meter, NOT_LOCAL, Spent};
use super::probe::Probe;
use super::socket::Door;
use super::table::{Table, bytes, number, rate};
use super::{Faults, Outcome, Target, board, frame};

/// What the generator opens besides its sockets: its standard files, HTTP connections, /proc.
const OTHER_FILES: u64 = 64;
/// Views that bring a product of the bench among the first, whatever the others had meanwhile.
const LAST_COUNT: u32 = 100_000;
/// After the last event, how long views may take to equal the ranking: twice a heartbeat's silence.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Settings {
    pub top: usize,
    pub subscribers: usize,
    /// How many of them are read in full.
    pub checked: usize,
    pub events_per_second: u32,
    /// Messages a second for each subscriber; the server's default where it is not given.
    pub max_rate: Option<f64>,
    /// Only open the subscribers and wait.
    pub idle: bool,
}

/// Loads the target until its time is over or `stop` is cancelled.
pub async fn run(target: &Target, settings: &Settings, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let server = target.look().await?;
    let files = settings.subscribers as u64 + OTHER_FILES;
    if let Some(max) = local::open_files_max().filter(|max| *max < files) {
        anyhow::bail!("{files} files must be open at a time, and {max} are allowed: set `ulimit -n {files}`");
    }
    let driver = match settings.idle {
        true => None,
        false => Some(Driver::new(target, settings.top, settings.events_per_second).await?),
    };
    let places = board::ranking(&target.client, &target.board, settings.top).await?;
    let probe = driver.as_ref().map(|driver| Arc::new(Probe::new(driver.best(&places))));
    let faults = Arc::new(Faults::default());
    let plan = Plan {
        door: Door::find(&target.client).await?,
        subscribe: frame::subscribe(&target.board, settings.top, settings.max_rate),
        top: settings.top,
        subscribers: settings.subscribers,
        watchers: settings.checked.clamp(1, settings.subscribers),
        probe: probe.clone(),
    };
    let mut crowd = Crowd::open(plan, faults.clone()).await?;
    // What a server sets up for its first subscriber is no part of what each of them holds.
    let memory_before = server.and_then(Process::memory_bytes);
    let opening = Instant::now();
    crowd.fill().await?;
    let opened = opening.elapsed();
    let memory_opened = server.and_then(Process::memory_bytes);

    let before = Counts::of(&crowd.tallies, &crowd);
    let meter = Meter::start(server);
    let load = async {
        match (&driver, &probe) {
            (Some(driver), Some(probe)) => {
                tokio::try_join!(driver.drive(probe), driver.mark_now_and_then(&crowd, probe)).map(|(never, _)| never)
            }
            _ => std::future::pending().await,
        }
    };
    let state = || format!("{} deliveries", number(Counts::of(&crowd.tallies, &crowd).deliveries as f64));
    tokio::select! {
        ended = load => match ended? {},
        () = meter::pass(target.duration, stop, state) => {}
    }
    let (spent, done) = (meter.stop(), Counts::of(&crowd.tallies, &crowd).since(before));
    let memory_at_end = server.and_then(Process::memory_bytes);

    let checked = check(target, settings, &crowd, driver.as_ref().zip(probe.as_deref()), &faults).await?;
    let mut table = Table::new(format!(
        "fanout: board {}, {} subscribers to the first {}, {:.0} s",
        target.board,
        number(crowd.len() as f64),
        settings.top,
        spent.time.as_secs_f64()
    ));
    table.row("opened in", format!("{:.1} s", opened.as_secs_f64()));
    if let (Some(driver), Some(probe)) = (&driver, &probe) {
        table.row("events recorded", rate(driver.recorded.load(Ordering::Relaxed), spent.time));
        done.rows(&mut table, &spent);
        let (marks, unseen) = (driver.marks.load(Ordering::Relaxed), driver.marks_unseen.load(Ordering::Relaxed));
        table.row("event to frame", &probe.latencies);
        table.row("marked events", format!("{marks}, {unseen} of them not shown in {} s", MARK_TIMEOUT.as_secs()));
    }
    table.row("gaps", number(crowd.tallies.gaps.load(Ordering::Relaxed) as f64));
    table.row("snapshots", crowd.tallies.snapshots());
    table.row("heartbeats", number(crowd.tallies.heartbeats.load(Ordering::Relaxed) as f64));
    let said = |memory: Option<u64>| memory.map_or(NOT_LOCAL.to_owned(), |held| bytes(held as f64));
    table.row("server memory, 1 subscriber", said(memory_before));
    let more = (crowd.len() - 1).max(1);
    for (name, memory) in [("server memory, all opened", memory_opened), ("server memory, at the end", memory_at_end)] {
        let each = memory.zip(memory_before).map(|(now, before)| (now as f64 - before as f64) / more as f64);
        let each = each.map_or(String::new(), |each| format!(", {} for each subscriber", bytes(each)));
        table.row(name, format!("{}{each}", said(memory)));
    }
    spent.rows(&mut table, done.deliveries, "delivery");
    table.row("checked", checked);
    Ok(Outcome { table, faults: faults.told() })
}

/// What subscribers were sent.
#[derive(Clone, Copy)]
struct Counts {
    deliveries: u64,
    bytes: u64,
    updates: u64,
}

impl Counts {
    fn of(tallies: &Tallies, crowd: &Crowd) -> Self {
        Self {
            deliveries: tallies.deliveries.load(Ordering::Relaxed),
            bytes: tallies.bytes.load(Ordering::Relaxed),
            updates: crowd.updates(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            deliveries: self.deliveries - before.deliveries,
            bytes: self.bytes - before.bytes,
            updates: self.updates - before.updates,
        }
    }

    fn rows(&self, table: &mut Table, spent: &Spent) {
        let seconds = spent.time.as_secs_f64().max(f64::EPSILON);
        table.row("updates", rate(self.updates, spent.time));
        table.row("deliveries", rate(self.deliveries, spent.time));
        table.row("bytes", format!("{}, {}/s", bytes(self.bytes as f64), bytes(self.bytes as f64 / seconds)));
        table.row("frame", bytes(self.bytes as f64 / self.deliveries.max(1) as f64));
        let Some(cpu) = spent.server.map(|cpu| cpu.as_secs_f64()).filter(|cpu| *cpu > 0.0) else { return };
        table.row("deliveries per core", format!("{} in a second of server CPU", number(self.deliveries as f64 / cpu)));
        let ms = |done: f64| format!("{:.2} ms of server CPU", cpu * 1e3 / done);
        table.row("for each update", ms(self.updates.max(1) as f64));
        table.row("for each MB", ms((self.bytes as f64 / 1e6).max(f64::EPSILON)));
    }
}

/// After quiet: views equal the ranking, and a last event reaches every subscriber. Says what was checked.
async fn check(
    target: &Target,
    settings: &Settings,
    crowd: &Crowd,
    moved_by: Option<(&Driver, &Probe)>,
    faults: &Faults,
) -> anyhow::Result<String> {
    // A slowed subscriber is sent the last state only when its turn comes.
    let limit = QUIET_TIMEOUT + Duration::from_secs_f64(settings.max_rate.map_or(0.0, |rate| 2.0 / rate));
    views_equal_the_ranking(target, settings, crowd, limit, faults).await?;
    let mut said = format!("{} views against the ranking", crowd.watching().count());
    if let Some((driver, probe)) = moved_by {
        // Where its product is below what is shown, it comes up by it.
        let is_shown = crowd.places().iter().any(|place| place.product_id == probe.product());
        driver.mark(crowd, probe, if is_shown { 1 } else { LAST_COUNT }).await?;
        if probe.all_show_it(limit).await {
            if let Some(seq) = crowd.seq_of_watchers() {
                all_hold(crowd, seq, limit, faults).await;
                said = format!("{said}, a last event at all {} subscribers", number(crowd.len() as f64));
            }
        } else {
            faults.add(format!("the last event is not shown everywhere within {} s", limit.as_secs()));
        }
        views_equal_the_ranking(target, settings, crowd, limit, faults).await?;
    }
    Ok(said)
}

/// Every subscriber, read in full or not, comes to hold `seq`.
async fn all_hold(crowd: &Crowd, seq: u64, limit: Duration, faults: &Faults) {
    let deadline = Instant::now() + limit;
    while let Some(late) = crowd.behind(seq) {
        if Instant::now() > deadline {
            let held = crowd.seq(late);
            return faults.add(format!("subscriber {late} holds seq {held}, and the last change has seq {seq}"));
        }
        tokio::time::sleep(board::LOOK_EVERY).await;
    }
}

async fn views_equal_the_ranking(
    target: &Target,
    settings: &Settings,
    crowd: &Crowd,
    limit: Duration,
    faults: &Faults,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let ranking = board::ranking(&target.client, &target.board, settings.top).await?;
        let Some(difference) = crowd.difference(&ranking) else { return Ok(()) };
        if Instant::now() > deadline {
            faults.add(format!("{} s after the last event, {difference}", limit.as_secs()));
            return Ok(());
        }
        tokio::time::sleep(board::LOOK_EVERY).await;
    }
}
