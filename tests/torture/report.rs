//! What is said while a run goes on, and at its end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::check::Tally;
use crate::world::World;

#[derive(Clone, Copy)]
pub struct Resources {
    pub memory: u64,
    pub files: usize,
    pub tasks: u64,
}

pub struct Run {
    pub began: Instant,
    pub drains: Vec<Duration>,
    pub baseline: Vec<Resources>,
    pub end: Vec<Resources>,
    pub faults: u64,
    pub tally: Tally,
}

impl World {
    /// A line of its own, with the time.
    pub fn say(&self, line: &str) {
        let line = format!("{:7.1} s  {line}", self.began.elapsed().as_secs_f64());
        self.progress.suspend(|| println!("{line}"));
    }

    pub async fn resources(&self) -> Vec<Resources> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let tasks = node.tasks().await;
            let process = node.process.lock().await;
            let (memory, files) = process.as_ref().map_or((0, 0), |process| (process.memory(), process.files()));
            all.push(Resources { memory, files, tasks });
        }
        all
    }
}

/// A bar for a terminal; nothing where nobody looks at one.
pub fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {msg}").expect("the template is sound");
    ProgressBar::new(1_000).with_style(style)
}

/// Keeps the bar up to date, for ever.
pub async fn show_progress(world: Arc<World>, until: Instant) {
    let whole = until.duration_since(world.began);
    loop {
        let part = world.began.elapsed().as_secs_f64() / whole.as_secs_f64();
        world.progress.set_position((part * 1_000.0) as u64);
        let acknowledged = world.record.acknowledged.load(Ordering::Relaxed);
        world.progress.set_message(format!("{acknowledged} acknowledged, {} violations", world.record.violations().0));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// p50, p95 and the longest, in seconds.
fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |quantile: f64| match times.len() {
        0 => 0.0,
        len => times[((len - 1) as f64 * quantile).round() as usize].as_secs_f64(),
    };
    format!("p50 {:.2} s, p95 {:.2} s, longest {:.2} s", at(0.5), at(0.95), at(1.0))
}

/// Prints all figures; whether nothing was wrong.
pub fn verdict(world: &World, run: &Run) -> bool {
    world.progress.finish_and_clear();
    let record = &world.record;
    println!("\nseed {}, {:.1} minutes", world.options.seed, run.began.elapsed().as_secs_f64() / 60.0);
    println!("\noperations by outcome");
    for (outcome, count) in record.outcomes() {
        println!("  {count:>9}  {outcome}");
    }
    if !world.options.has_own_mounts {
        println!("\nNo disk was full: mounts are not permitted here.");
    }
    let recoveries = record.recoveries();
    println!("\nfaults by kind, and how soon likes were answered again by both nodes");
    for (kind, times) in &recoveries {
        println!("  {:>4}  {kind}: {}", times.len(), quantiles(times.clone()));
    }
    let all: Vec<_> = recoveries.values().flatten().copied().collect();
    println!("\nanswered again: {}", quantiles(all));
    println!("COMMITTED again: {}", quantiles(record.to_commit()));
    println!("drained: {}", quantiles(run.drains.clone()));
    for (outcome, times) in record.refusals() {
        let [half, most, longest] = [0.5, 0.99, 1.0].map(|quantile| times.value_at_quantile(quantile));
        let in_time = times.percentile_below(250);
        println!(
            "UNAVAILABLE{} was said after: p50 {half} ms, p99 {most} ms, longest {longest} ms; {in_time:.1} % of {} \
             within 250 ms",
            if outcome.is_empty() { String::new() } else { format!(", outcome {outcome},") },
            times.len()
        );
    }
    let [answered, reads] = [0, 1].map(|n| world.reads[n].load(Ordering::Relaxed));
    println!("reads answered by nodes that were up: {answered} of {reads}");
    for ((node, before), now) in world.nodes.iter().zip(&run.baseline).zip(&run.end) {
        let (had, has) = (before.memory >> 20, now.memory >> 20);
        println!(
            "{}: {had} MB, {} files and {} tasks at the beginning, {has} MB, {} and {} at the end",
            node.name, before.files, before.tasks, now.files, now.tasks
        );
    }
    println!(
        "the ledger: {} events, {} dead letters ({} of them written to a Redis that others had left)",
        run.tally.events, run.tally.dead_letters, run.tally.stranded
    );
    println!("ACCEPTED and lost with the engine: {} (it was lost {} times)", run.tally.lost_accepted, record.losses());
    println!("ACCEPTED, and kept out of the ledger by a rule of the torture's: {}", run.tally.kept_out);
    println!("without an answer, and found in the ledger: {}", run.tally.unknown_found);
    let (violations, texts) = record.violations();
    for text in &texts {
        println!("VIOLATION {text}");
    }
    let acknowledged = record.acknowledged.load(Ordering::Relaxed);
    let verdict = if violations == 0 { "PASS" } else { "FAIL" };
    println!(
        "\n{verdict}: seed {}, {acknowledged} acknowledged, {} faults of {} kinds, {violations} violations",
        world.options.seed,
        run.faults,
        recoveries.len()
    );
    violations == 0
}
