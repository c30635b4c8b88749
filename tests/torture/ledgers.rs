//! Faults about whose state it is: a server that comes with another engine, messages of another ledger, and a ledger that
//! goes back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acclaim::domain::BoardId;
use acclaim::engine::redis::keys::{BoardKey, Key};
use anyhow::{Context, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::process::{Process, free_port};
use crate::redis::{named, text};
use crate::world::{PARTITIONS, World};

/// A server that is refused watches for 8 s first.
const REFUSED_WITHIN: Duration = Duration::from_secs(40);
/// How often messages of another ledger are sent.
const FOREIGN_EVERY: Duration = Duration::from_millis(50);

/// A third server has the nodes' ledger and an empty Redis, or none; it must stop by itself, and begin nothing.
pub async fn stranger(world: &World, n: usize, random: &mut StdRng) -> anyhow::Result<()> {
    let node = &world.nodes[n];
    let dir = tempfile::Builder::new().prefix("torture-stranger-").tempdir()?;
    let log = dir.path().join("log");
    let listen = format!("127.0.0.1:{}", free_port()?);
    let words = [world.acclaim.display().to_string(), "serve".into(), "--listen".into(), listen];
    let has_redis = random.random_bool(0.5);
    let prepare = |command: &mut std::process::Command| {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if has_redis {
            // Another database of the nodes' Redis is as good as another Redis, and empty.
            command.env("REDIS_URL", format!("redis://127.0.0.1:{}/9", node.redis.port()));
        }
        let port = node.postgres.port();
        command.env("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{port}/torture"));
        command.current_dir(dir.path());
    };
    let process = Process::start(&log, &words, prepare)?;
    let has_ended = process.has_ended_within(REFUSED_WITHIN).await;
    drop(process);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    // With two faults at once there may be nobody left to be taken over from.
    let has_taken_over = !has_ended || said.contains("an epoch begins");
    if has_taken_over && world.faults_under_way.load(Ordering::Relaxed) == 1 {
        world.record.violation(format!("a server with an empty engine has taken the ledger over:\n{said}"));
    }
    Ok(())
}

/// What another ledger on another database of the same Redis may send, were it heard: commits far beyond ours, and boards that
/// are not ours. `forge_messages` has them name our ledger, which shows that this would be found.
pub async fn foreign_messages(world: &World, lasts: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < lasts {
        let mut pair = world.redis.lock().await;
        let primary = pair.primary();
        let of_meta = async |field: &str| primary.command(&["HGET", &named(Key::Meta(0)), field]).await;
        let (ledger, epoch) = (text(&of_meta("ledger").await?), text(&of_meta("epoch").await?));
        let published = text(&primary.command(&["GET", &named(Key::Board(BoardId::daily(), BoardKey::Top))]).await?);
        // Closed, while it is recovered; or emptied.
        if let (false, false, Ok(mut state)) =
            (ledger.is_empty(), epoch.is_empty(), serde_json::from_str::<serde_json::Value>(&published))
        {
            let name = if world.options.forge_messages { ledger.as_str() } else { "another" };
            let commits: Vec<_> =
                (0..PARTITIONS).map(|partition| format!("ledger {partition} {epoch}-9000000 {epoch}-0")).collect();
            state["seq"] = (state["seq"].as_u64().unwrap_or_default() + 1_000_000).into();
            state["places"] = serde_json::json!([]);
            for (kind, message) in [("progress", commits.join("\n")), ("feed", state.to_string())] {
                // Forged commits would only begin new epochs, which set views right again.
                if world.options.forge_messages && kind == "progress" {
                    continue;
                }
                // As it is named now, and as it was when channels named no ledger.
                for channel in [format!("acc:0:{ledger}:{kind}"), format!("acc:{kind}")] {
                    primary.command(&["PUBLISH", &channel, &format!("{name}\n{message}")]).await?;
                }
            }
        }
        drop(pair);
        sleep(FOREIGN_EVERY).await;
    }
    Ok(())
}

/// A dump is restored while the load goes on: what was committed since is gone, and told to be.
pub async fn older_dump(world: &World, lasts: Duration) -> anyhow::Result<()> {
    let server = world.postgres.lock().await;
    server.dump().await.context("a dump")?;
    sleep(lasts).await;
    server.restore().await.context("restoring it")?;
    ensure!(server.client().await.is_ok(), "the ledger that was restored takes no connections");
    Ok(())
}
