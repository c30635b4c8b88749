//! The order of a run: a quiet start for a baseline, then phases of load and faults, each followed by quiet and a check.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::Options;
use crate::check::{self, Tally};
use crate::faults::{Kind, strike};
use crate::producers::{PRODUCERS, Producer};
use crate::report::{self, Run};
use crate::subscribers::{BOARDS, STALLING, Subscriber, View, compare, read_rankings};
use crate::world::{PARTITIONS, World};
use crate::writers::{Writer, note_failure};

/// Load without faults at the beginning, after which memory and files are measured.
const WARM_UP: Duration = Duration::from_secs(10);
/// Everything is to be in the ledger and on the boards so long after the last fault.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// A fault every 5 to 8 s.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 5_000..=8_000;
/// An admin changes weights that often.
const WEIGHTS_EVERY: Duration = Duration::from_secs(7);

/// Runs it all; whether nothing was wrong.
pub async fn run(options: Options, acclaim: std::path::PathBuf) -> anyhow::Result<bool> {
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(options.minutes * 60.0);
    let mut random = StdRng::seed_from_u64(options.seed);
    let phase_len = Duration::from_secs(options.phase_seconds);
    let world = World::start(options, acclaim).await?;
    world.say(&format!("seed {}: two nodes, a Redis with a replica and a Postgres are up", world.options.seed));

    let mut tasks = Vec::new();
    let mut spawn = |task| tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
    let mut views: Vec<Arc<Mutex<View>>> = Vec::new();
    let subscribers = (0..world.options.subscribers).map(|n| Subscriber::new(n, &world));
    for subscriber in subscribers.chain((0..STALLING).map(|n| Subscriber::stalling(n, &world))) {
        views.extend(subscriber.views());
        spawn(boxed(subscriber.run()));
    }
    (0..world.options.writers).for_each(|n| spawn(boxed(Writer::new(n, &world).run())));
    (0..PRODUCERS).for_each(|n| spawn(boxed(Producer::new(n, &world).run())));
    (0..world.nodes.len()).for_each(|n| spawn(boxed(read_rankings(world.clone(), n))));
    spawn(boxed(adjust_weights(world.clone(), StdRng::from_rng(&mut random))));
    // As long as it lives it shows how things are.
    let _progress = AbortOnDropHandle::new(tokio::spawn(report::show_progress(world.clone(), until)));

    let mut run =
        Run { began, drains: Vec::new(), baseline: Vec::new(), end: Vec::new(), faults: 0, tally: Tally::default() };
    world.set_load(true);
    sleep(WARM_UP).await;
    let mut kinds = Vec::new();
    let mut is_first = true;
    loop {
        let quiet = quiet(&world, &views).await?;
        run.drains.push(quiet.drained);
        run.tally = quiet.tally;
        run.end = world.resources().await;
        if is_first {
            run.baseline = run.end.clone();
            is_first = false;
        }
        // What a check and the quiet before it take belongs to the time that was asked for.
        let has_time = Instant::now() + Duration::from_secs(5) + quiet.took < until;
        if !has_time || world.record.violations().0 > 0 {
            break;
        }
        world.set_load(true);
        let phase_ends = (Instant::now() + phase_len).min(until - quiet.took);
        run.faults += faults_until(&world, phase_ends, &mut kinds, &mut random).await?;
    }
    world.end_load();
    check_resources(&world, &run);
    Ok(report::verdict(&world, &run))
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn boxed(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(task)
}

/// Lets faults happen; how many. All kinds come before any comes again.
async fn faults_until(
    world: &World,
    until: Instant,
    kinds: &mut Vec<Kind>,
    random: &mut StdRng,
) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut next = |random: &mut StdRng| {
        if kinds.is_empty() {
            kinds.extend(world.options.kinds());
            kinds.shuffle(random);
        }
        kinds.pop().expect("there are kinds")
    };
    loop {
        let pause = Duration::from_millis(random.random_range(PAUSE_MS));
        let begins = Instant::now();
        if begins + pause > until {
            sleep(until.saturating_duration_since(begins)).await;
            return Ok(count);
        }
        let kind = next(random);
        // Now and then two things go wrong at once.
        if random.random_ratio(1, 6) {
            let (other, mut of_other) = (next(random), StdRng::from_rng(random));
            let (one, other) = tokio::join!(strike(world, kind, random), strike(world, other, &mut of_other));
            one.and(other)?;
            count += 2;
        } else {
            strike(world, kind, random).await?;
            count += 1;
        }
        check_processes(world).await;
        sleep(pause.saturating_sub(begins.elapsed())).await;
    }
}

/// A node may not end by itself.
async fn check_processes(world: &World) {
    for node in &world.nodes {
        let has_ended = node.process.lock().await.as_ref().is_some_and(|process| !process.is_running());
        if has_ended {
            world.record.violation(format!("{} has ended by itself:\n{}", node.name, node.last_words()));
        }
    }
}

struct Quiet {
    drained: Duration,
    took: Duration,
    tally: Tally,
}

/// Stops the load, waits until everything is where it belongs, and checks.
async fn quiet(world: &World, views: &[Arc<Mutex<View>>]) -> anyhow::Result<Quiet> {
    let began = Instant::now();
    world.set_load(false);
    world.until_idle().await;
    let idle = Instant::now();
    let drained = loop {
        let is_drained = is_drained(world).await;
        if is_drained.as_ref().is_ok_and(|is_drained| *is_drained) {
            break idle.elapsed();
        }
        if idle.elapsed() > DRAIN_LIMIT {
            world.record.violation(format!("not drained {DRAIN_LIMIT:?} after the load: {is_drained:?}"));
            break idle.elapsed();
        }
        sleep(Duration::from_millis(50)).await;
    };
    let tally = check::check(world).await?;
    verify(world).await;
    let shown = compare(world, views, DRAIN_LIMIT).await;
    world.say(&format!(
        "quiet: drained in {:.2} s, {} events checked, views right after {:.2} s, {} violations",
        drained.as_secs_f64(),
        tally.events,
        shown.as_secs_f64(),
        world.record.violations().0
    ));
    Ok(Quiet { drained, took: began.elapsed(), tally })
}

/// Whether the ledger has everything that the journals have written.
async fn is_drained(world: &World) -> anyhow::Result<bool> {
    let client = world.postgres.lock().await.client().await?;
    for row in client.query("SELECT partition, epoch, seq FROM cursors", &[]).await? {
        let cursor = (row.get::<_, i64>(1) as u64, row.get::<_, i64>(2) as u64);
        let partition = row.get::<_, i16>(0) as u16;
        if partition < PARTITIONS && world.redis.lock().await.last_written(partition).await? > cursor {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has every node compare what it serves with the ledger.
async fn verify(world: &World) {
    const VERIFY: &str =
        "{ admin { verify { checked differing rows { target board productId userId expected actual } } } }";
    let of_nodes = world.nodes.iter().map(async |node| {
        let began = Instant::now();
        loop {
            let answer = node.graphql("admin", VERIFY, json!({})).await;
            let report = answer.as_ref().map_or(Value::Null, |data| data["admin"]["verify"].clone());
            if report["differing"] == 0 {
                break;
            }
            // A board that was re-weighed or corrected a moment ago is still being rebuilt.
            if began.elapsed() > DRAIN_LIMIT {
                world.record.violation(format!("{}: verify says {answer:?}", node.name));
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    });
    join_all(of_nodes).await;
}

/// An admin who keeps changing weights, and takes half of the changes back. What became of a change that was not answered
/// is of no interest: the boards must be right either way.
async fn adjust_weights(world: Arc<World>, mut random: StdRng) {
    const ADJUST: &str = "mutation($board: ID, $weights: [WeightInput!]!) { change: adjustWeights(input: { board: $board, weights: $weights, note: \"torture\" }) { rule { id } userErrors { message } } }";
    const CANCEL: &str = "mutation($id: ID!) { change: cancelWeights(input: { id: $id, note: \"torture\" }) { rule { id } userErrors { message } } }";
    let mut last: Option<Value> = None;
    while world.load_is_on().await {
        let running = world.running();
        let node = &world.nodes[random.random_range(0..world.nodes.len())];
        let cancelled = last.take().filter(|_| random.random_bool(0.5));
        let answer = match &cancelled {
            Some(id) => node.graphql("admin", CANCEL, json!({ "id": id })).await,
            None => {
                let board = match random.random_range(0..BOARDS.len() + 2) {
                    n if n < BOARDS.len() => json!(BOARDS[n]),
                    _ => Value::Null,
                };
                let weight = |signal: &str, weight: f64| json!({ "signal": signal, "weight": weight });
                let weights = [weight("VIEW", f64::from(random.random_range(1..9)) / 10.0), weight("ORDER", 0.6)];
                node.graphql("admin", ADJUST, json!({ "board": board, "weights": weights })).await
            }
        };
        match answer {
            Ok(data) => {
                let kind = if cancelled.is_some() { "changes of weights taken back" } else { "changes of weights" };
                world.record.count(kind, 1);
                last = Some(data["change"]["rule"]["id"].clone()).filter(|id| id.is_string() && cancelled.is_none());
            }
            Err(failed) => {
                note_failure(&world.record, "changes of weights", Instant::now(), failed);
            }
        }
        drop(running);
        timeout(WEIGHTS_EVERY, world.load_is_off()).await.ok();
    }
}

/// Memory and files are to be near where they were before any fault.
fn check_resources(world: &World, run: &Run) {
    /// Queues, caches and a heap that has been used: what a node may have more than at the beginning.
    const MEMORY_MORE: u64 = 200 << 20;
    /// Connections of clients that come and go.
    const FILES_MORE: usize = 200;
    /// Those of these connections, and what is under way at any moment.
    const TASKS_MORE: u64 = 1_000;
    for ((node, before), now) in world.nodes.iter().zip(&run.baseline).zip(&run.end) {
        if now.memory > before.memory + MEMORY_MORE {
            world.record.violation(format!(
                "{} has {} MB, and had {}",
                node.name,
                now.memory >> 20,
                before.memory >> 20
            ));
        }
        if now.files > before.files + FILES_MORE {
            world.record.violation(format!("{} has {} files open, and had {}", node.name, now.files, before.files));
        }
        if now.tasks > before.tasks + TASKS_MORE {
            world.record.violation(format!("{} has {} tasks, and had {}", node.name, now.tasks, before.tasks));
        }
    }
    let [answered, all] = [0, 1].map(|n| world.reads[n].load(Ordering::Relaxed));
    if all > 1_000 && answered * 1_000 < all * 999 {
        world.record.violation(format!("{answered} of {all} reads were answered by nodes that were up"));
    }
}
