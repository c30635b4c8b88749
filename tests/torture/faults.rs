//! What goes wrong, and how it is set right again. Each kind leaves everything running, reachable and with room.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::ledgers;
use crate::poison;
use crate::postgres_faults;
use crate::proxy::Mode;
use crate::world::{Side, World};

macro_rules! kinds {
    ($($kind:ident $name:literal),+ $(,)?) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind { $($kind),+ }

        pub const ALL: &[Kind] = &[$(Kind::$kind),+];

        impl Kind {
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }
        }
    };
}

kinds! {
    NodeKill "node-kill",
    NodeStop "node-stop",
    NodeRestart "node-restart",
    NodePartition "node-partition",
    ClockAhead "clock-ahead",
    ClockBehind "clock-behind",
    RedisKill "redis-kill",
    RedisStop "redis-stop",
    RedisBusy "redis-busy",
    RedisClockForward "redis-clock-forward",
    RedisClockBack "redis-clock-back",
    RedisFlushall "redis-flushall",
    RedisEmpty "redis-empty",
    RedisOldCopy "redis-old-copy",
    RedisPromote "redis-promote",
    RedisPromoteSplit "redis-promote-split",
    RedisScriptFlush "redis-script-flush",
    RedisFull "redis-full",
    RedisOutOfMemory "redis-out-of-memory",
    RedisReadOnly "redis-read-only",
    RedisNoReplicas "redis-no-replicas",
    RedisClientKill "redis-client-kill",
    RedisCutBefore "redis-cut-before",
    RedisCutAfter "redis-cut-after",
    RedisDelay "redis-delay",
    RedisSlice "redis-slice",
    RedisBlackHole "redis-black-hole",
    RedisLostPushes "redis-lost-pushes",
    JournalPoison "journal-poison",
    PostgresKill "postgres-kill",
    PostgresStop "postgres-stop",
    PostgresRestart "postgres-restart",
    PostgresClockForward "postgres-clock-forward",
    PostgresClockBack "postgres-clock-back",
    PostgresTerminate "postgres-terminate",
    PostgresLock "postgres-lock",
    PostgresFull "postgres-full",
    PostgresRefuses "postgres-refuses",
    PostgresRejects "postgres-rejects",
    PostgresReadOnly "postgres-read-only",
    PostgresCutBefore "postgres-cut-before",
    PostgresCutAfter "postgres-cut-after",
    PostgresDelay "postgres-delay",
    PostgresSlice "postgres-slice",
    PostgresBlackHole "postgres-black-hole",
    StalledReaders "stalled-readers",
    Stranger "stranger",
    ForeignMessages "foreign-messages",
    OlderDump "older-dump",
}

impl Kind {
    pub fn from_name(name: &str) -> Result<Self, String> {
        let names = || ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" ");
        ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| format!("the kinds are: {}", names()))
    }

    /// Whether a disk must be full, which takes one that the torture may mount.
    pub fn needs_a_disk(self) -> bool {
        matches!(self, Self::RedisFull | Self::PostgresFull)
    }

    /// Whether what the engine had acknowledged may be gone afterwards. Redis that is only killed has everything in its
    /// AOF: what was written survives the process.
    fn loses_the_engine(self) -> bool {
        use Kind::{OlderDump, RedisEmpty, RedisFlushall, RedisOldCopy, RedisPromote, RedisPromoteSplit};
        matches!(self, RedisFlushall | RedisEmpty | RedisOldCopy | RedisPromote | RedisPromoteSplit | OlderDump)
    }
}

fn between(random: &mut StdRng, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(random.random_range(from_ms..=to_ms))
}

/// Redis tries a failed write again every 100 ms, and writes some MB anew in a second.
const AOF_LIMIT: Duration = Duration::from_secs(10);

/// One of the nodes, or both.
fn some_nodes(random: &mut StdRng) -> &'static [usize] {
    [&[0][..], &[1], &[0, 1], &[0, 1]][random.random_range(0..4)]
}

/// Lets a fault happen, sets it right, and waits until every node works again.
pub async fn strike(world: &World, kind: Kind, random: &mut StdRng) -> anyhow::Result<()> {
    let began = Instant::now();
    world.faults_under_way.fetch_add(1, Ordering::Relaxed);
    happen(world, kind, random).await.with_context(|| kind.name())?;
    let lasted = began.elapsed();
    let recovered = world.probe().await;
    world.faults_under_way.fetch_sub(1, Ordering::Relaxed);
    if kind == Kind::OlderDump {
        world.record.ledger_went_back(began, Instant::now());
    }
    // What Redis was to keep for 10 minutes while its clock was behind by more is gone when that is right again.
    if matches!(kind, Kind::RedisClockForward | Kind::RedisClockBack) {
        world.record.lapsed(began, Instant::now());
    }
    if kind.loses_the_engine() {
        world.record.engine_lost(began, Instant::now());
    }
    let kind = kind.name();
    match recovered {
        Some([answered, committed]) => {
            world.record.recovered(kind, answered, committed);
            world.say(&format!(
                "{kind}: {:.1} s; likes answered {:.2} s later, COMMITTED {:.2} s later",
                lasted.as_secs_f64(),
                answered.as_secs_f64(),
                committed.as_secs_f64()
            ));
        }
        None => world.record.violation(format!("{kind}: likes are not taken again")),
    }
    Ok(())
}

async fn happen(world: &World, kind: Kind, random: &mut StdRng) -> anyhow::Result<()> {
    use Kind::*;
    let node = random.random_range(0..world.nodes.len());
    let short = between(random, 500, 4_000);
    if let Some((side, mode)) = network_of(kind, random) {
        network(world, side, some_nodes(random), mode, short, random).await;
        return Ok(());
    }
    match kind {
        NodeKill => node_kill(world, node, short).await,
        NodeStop => node_stop(world, node, short).await,
        NodeRestart => node_restart(world, node).await,
        NodePartition => {
            world.set_mode(Side::Postgres, &[node], Mode::Hold);
            network(world, Side::Redis, &[node], Mode::Hold, short, random).await;
            world.set_mode(Side::Postgres, &[node], Mode::Pass);
            Ok(())
        }
        ClockAhead => clock_step(&world.nodes[node].clock, random.random_range(1..40), short).await,
        ClockBehind => clock_step(&world.nodes[node].clock, -random.random_range(1..40), short).await,
        JournalPoison => poison::poison(world, random).await,
        Stranger => ledgers::stranger(world, node, random).await,
        ForeignMessages => ledgers::foreign_messages(world, short).await,
        OlderDump => ledgers::older_dump(world, short).await,
        StalledReaders => {
            world.stalled.send_replace(true);
            // Beyond 10 s a reader's connection is closed.
            sleep(between(random, 3_000, 13_000)).await;
            world.stalled.send_replace(false);
            Ok(())
        }
        PostgresKill | PostgresStop | PostgresRestart | PostgresClockForward | PostgresClockBack
        | PostgresTerminate | PostgresLock | PostgresFull | PostgresRefuses | PostgresRejects | PostgresReadOnly => {
            postgres_faults::strike(world, kind, short, random).await
        }
        _ => redis(world, kind, short, random).await,
    }
}

/// What the network does, where it is the network that fails.
fn network_of(kind: Kind, random: &mut StdRng) -> Option<(Side, Mode)> {
    use Kind::*;
    let rarely = random.random_range(3..20);
    let delay = between(random, 5, 300);
    let fault = match kind {
        RedisCutBefore => (Side::Redis, Mode::CutBefore(rarely)),
        RedisCutAfter => (Side::Redis, Mode::CutAfter(rarely)),
        RedisDelay => (Side::Redis, Mode::Delay(delay)),
        RedisSlice => (Side::Redis, Mode::Slice),
        RedisBlackHole => (Side::Redis, Mode::Hold),
        RedisLostPushes => (Side::Redis, Mode::LosePushes(2)),
        PostgresCutBefore => (Side::Postgres, Mode::CutBefore(rarely)),
        PostgresCutAfter => (Side::Postgres, Mode::CutAfter(rarely)),
        PostgresDelay => (Side::Postgres, Mode::Delay(delay)),
        PostgresSlice => (Side::Postgres, Mode::Slice),
        PostgresBlackHole => (Side::Postgres, Mode::Hold),
        _ => return None,
    };
    Some(fault)
}

/// A black hole ends in one of two ways: all that was sent comes after all, or the connections break.
async fn network(world: &World, side: Side, nodes: &[usize], mode: Mode, lasts: Duration, random: &mut StdRng) {
    world.set_mode(side, nodes, mode);
    sleep(lasts).await;
    if mode == Mode::Hold && random.random() {
        nodes.iter().for_each(|&n| world.proxy(side, n).cut());
    }
    world.set_mode(side, nodes, Mode::Pass);
}

// ------------------------------------------------------------ nodes

async fn node_kill(world: &World, n: usize, away: Duration) -> anyhow::Result<()> {
    let node = &world.nodes[n];
    node.set_up(false);
    *node.process.lock().await = None;
    sleep(away).await;
    node.start(&world.acclaim).await
}

async fn node_stop(world: &World, n: usize, away: Duration) -> anyhow::Result<()> {
    let node = &world.nodes[n];
    node.set_up(false);
    let signal = async |signal: &str| {
        if let Some(process) = &*node.process.lock().await {
            process.signal(signal);
        }
    };
    signal("STOP").await;
    sleep(away).await;
    signal("CONT").await;
    node.set_up(true);
    Ok(())
}

/// As an orchestrator does it: SIGTERM, and a new one when it has ended.
async fn node_restart(world: &World, n: usize) -> anyhow::Result<()> {
    // The server says that it stops within 10 s, whatever is under way.
    const STOP_LIMIT: Duration = Duration::from_secs(15);
    let node = &world.nodes[n];
    node.set_up(false);
    {
        let mut process = node.process.lock().await;
        if let Some(process) = &*process {
            process.signal("TERM");
            if !process.has_ended_within(STOP_LIMIT).await {
                world.record.violation(format!("{} did not end within {STOP_LIMIT:?} when asked to", node.name));
            }
        }
        *process = None;
    }
    node.start(&world.acclaim).await
}

/// A clock jumps, and some time later back.
pub async fn clock_step(clock: &Clock, seconds: i64, lasts: Duration) -> anyhow::Result<()> {
    clock.step(seconds)?;
    // The process notices within a second.
    sleep(lasts + Duration::from_secs(1)).await;
    clock.step(0)
}

/// How far a server's clock jumps: some minutes, beyond the 10 for which Redis remembers keys and events half of the time.
pub fn server_step(random: &mut StdRng) -> i64 {
    random.random_range(60..20 * 60)
}

// ------------------------------------------------------------ Redis

async fn redis(world: &World, kind: Kind, lasts: Duration, random: &mut StdRng) -> anyhow::Result<()> {
    let mut pair = world.redis.lock().await;
    let primary = pair.primary();
    match kind {
        Kind::RedisKill => {
            primary.kill();
            sleep(lasts).await;
            primary.start(None).await?;
        }
        Kind::RedisStop => {
            primary.process()?.signal("STOP");
            sleep(lasts).await;
            primary.process()?.signal("CONT");
        }
        Kind::RedisBusy => {
            primary.command(&["DEBUG", "SLEEP", &format!("{:.1}", lasts.as_secs_f64())]).await?;
        }
        Kind::RedisClockForward | Kind::RedisClockBack => {
            let step = server_step(random);
            clock_step(&primary.clock, if kind == Kind::RedisClockBack { -step } else { step }, lasts).await?;
            primary.until_on_time().await?;
        }
        Kind::RedisFlushall => {
            primary.command(&["FLUSHALL"]).await?;
        }
        Kind::RedisEmpty => {
            primary.kill();
            primary.keep_copy_only(None)?;
            primary.start(None).await?;
        }
        Kind::RedisOldCopy => {
            // Half of the time one of long ago, from before the epochs since.
            let old = if random.random_bool(0.5) { pair.kept.clone().filter(|kept| kept.exists()) } else { None };
            let primary = pair.primary();
            let copy = match old {
                Some(old) => old,
                None => {
                    let copy = primary.save_copy().await?;
                    // Likes go on, so that the copy is older than what the ledger has.
                    sleep(lasts).await;
                    copy
                }
            };
            primary.kill();
            primary.keep_copy_only(Some(&copy))?;
            primary.start(None).await?;
            pair.kept = Some(copy);
        }
        Kind::RedisPromote => {
            pair.until_followed().await?;
            pair.primary().kill();
            let port = pair.promote().await?;
            world.nodes.iter().for_each(|node| node.redis.lead_to(port));
            sleep(lasts).await;
            pair.follow().await?;
        }
        Kind::RedisPromoteSplit => {
            pair.until_followed().await?;
            let port = pair.promote().await?;
            let first = random.random_range(0..world.nodes.len());
            world.nodes[first].redis.lead_to(port);
            // The other one goes on with what was the primary.
            sleep(lasts).await;
            world.nodes.iter().for_each(|node| node.redis.lead_to(port));
            pair.follow().await?;
        }
        Kind::RedisScriptFlush => {
            primary.command(&["SCRIPT", "FLUSH"]).await?;
        }
        // Redis answers what it could not write to its AOF once, and then refuses writes with MISCONF until it could.
        Kind::RedisFull => {
            primary.disk.be_full(lasts).await?;
            primary.write_anew(AOF_LIMIT).await?;
        }
        Kind::RedisOutOfMemory => {
            primary.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await?;
            sleep(lasts).await;
            primary.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        }
        Kind::RedisReadOnly => {
            // A replica of nobody refuses writes and keeps what it has.
            primary.command(&["REPLICAOF", "127.0.0.1", "1"]).await?;
            sleep(lasts).await;
            primary.command(&["REPLICAOF", "NO", "ONE"]).await?;
        }
        Kind::RedisNoReplicas => {
            primary.command(&["CONFIG", "SET", "min-replicas-to-write", "9"]).await?;
            sleep(lasts).await;
            primary.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await?;
        }
        Kind::RedisClientKill => {
            for _ in 0..3 {
                for kind in ["normal", "pubsub"] {
                    primary.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await?;
                }
                sleep(lasts / 3).await;
            }
        }
        other => anyhow::bail!("{} is not one of Redis", other.name()),
    }
    Ok(())
}
