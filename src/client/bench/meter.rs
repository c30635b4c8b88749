//! What a stretch of a run cost and how it is shown while it lasts.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::local::Process;
use super::table::{Table, bytes};

/// On a terminal: often enough to see that it moves.
const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// Without one: seldom enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// CPU of the server and of this generator from here on.
pub struct Meter {
    server: Option<Process>,
    began: Instant,
    before: [Option<Duration>; 2],
}

/// What a [`Meter`] has measured.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    pub time: Duration,
    /// CPU time; `None` where the server is not local.
    pub server: Option<Duration>,
    pub generator: Option<Duration>,
}

impl Meter {
    pub fn start(server: Option<Process>) -> Self {
        Self { server, began: Instant::now(), before: Self::cpu(server) }
    }

    fn cpu(server: Option<Process>) -> [Option<Duration>; 2] {
        [server.and_then(Process::cpu), Process::own().cpu()]
    }

    pub fn stop(&self) -> Spent {
        let after = Self::cpu(self.server);
        let spent = |of: usize| Some(after[of]?.saturating_sub(self.before[of]?));
        Spent { time: self.began.elapsed(), server: spent(0), generator: spent(1) }
    }
}

impl Spent {
    /// Adds how much CPU server and generator took, and how much of it went into each of the `done` things.
    pub fn rows(&self, table: &mut Table, done: u64, thing: &str) {
        let said = |cpu: Option<Duration>, absent: &str| match cpu {
            None => absent.to_owned(),
            Some(cpu) => {
                let (cpu, time) = (cpu.as_secs_f64(), self.time.as_secs_f64());
                let each = match done {
                    0 => String::new(),
                    done => format!(", {:.1} µs for each {thing}", cpu / done as f64 * 1e6),
                };
                format!("{cpu:.2} s, {:.0} % of a core{each}", cpu / time.max(f64::EPSILON) * 100.0)
            }
        };
        table.row("server CPU", said(self.server, NOT_LOCAL));
        table.row("generator CPU", said(self.generator, "can't be read here"));
    }
}

/// Instead of figures about a server's process that can't be looked at.
pub const NOT_LOCAL: &str = "not local";

pub fn memory(server: Option<Process>) -> String {
    server.and_then(Process::memory_bytes).map_or(NOT_LOCAL.to_owned(), |held| bytes(held as f64))
}

/// A bar of so many milliseconds; hidden where there is no terminal.
pub fn bar(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    let style = ProgressStyle::with_template("{bar:30} {msg}  [{elapsed}]");
    bar.set_style(style.expect("the template is correct"));
    bar
}

/// Lets the run go on for `duration`, or until it is stopped, and shows how far it is on standard error: a bar on a
/// terminal, a line now and then anywhere else. `state` says what has been done so far.
pub async fn pass(duration: Duration, stop: &CancellationToken, state: impl Fn() -> String) {
    let began = Instant::now();
    let bar = bar(duration);
    let every = if bar.is_hidden() { LINE_EVERY } else { REDRAW_EVERY };
    let mut ticks = tokio::time::interval_at((began + every).into(), every);
    let end = tokio::time::sleep(duration);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if bar.is_hidden() {
            eprintln!("{:.0} s: {}", began.elapsed().as_secs_f64(), state());
        } else {
            bar.set_position(began.elapsed().as_millis() as u64);
            bar.set_message(state());
        }
    }
    bar.finish_and_clear();
}
