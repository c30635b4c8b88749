//! Two Redis servers with AOF: a primary and its replica, which can change places.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acclaim::engine::redis::keys::{Key, Keys};
use anyhow::{Context, bail, ensure};
use redis::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::process::{Process, free_port, last_lines};
use crate::world::PARTITIONS;

/// A server that does not answer by then never will.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A command of the torture's own: longer than any fault.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

pub struct RedisServer {
    port: u16,
    process: Option<Process>,
    pub clock: Clock,
    pub disk: Disk,
    dir: TempDir,
}

impl RedisServer {
    /// Not running yet.
    pub fn new(may_mount: bool) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("torture-redis-").tempdir()?;
        let clock = Clock::new(dir.path(), Duration::ZERO)?.before_allocator()?;
        Ok(Self { port: free_port()?, process: None, clock, disk: Disk::new(&dir, may_mount)?, dir })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("Redis runs")
    }

    /// Starts it with what it has on disk: the AOF, or else a copy ([`RedisServer::keep_copy_only`]), or nothing.
    pub async fn start(&mut self, replica_of: Option<u16>) -> anyhow::Result<()> {
        // With the AOF on, Redis would not look at a copy; it is switched on afterwards.
        let has_copy_only = self.copy().exists() && !self.disk.folder().join("appendonlydir").exists();
        let appendonly = if has_copy_only { "no" } else { "yes" };
        let port = self.port.to_string();
        let dir = self.disk.folder().display().to_string();
        let mut words = vec!["redis-server", "--bind", "127.0.0.1", "--port", &port, "--dir", &dir, "--save", ""];
        words.extend(["--appendonly", appendonly, "--maxmemory-policy", "noeviction"]);
        // DEBUG SLEEP makes it busy; a replica takes over at once what there is.
        words.extend(["--enable-debug-command", "local", "--repl-diskless-sync-delay", "0"]);
        let primary = replica_of.map(|port| port.to_string()).unwrap_or_default();
        if !primary.is_empty() {
            words.extend(["--replicaof", "127.0.0.1", &primary]);
        }
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        let log = self.dir.path().join("log");
        let deadline = Instant::now() + START_LIMIT;
        // Somebody's connection may have been given its port meanwhile, and then it ends at once. While it loads its data it
        // answers -LOADING.
        loop {
            if !self.process.as_ref().is_some_and(Process::is_running) {
                self.process = None;
                self.process = Some(Process::start(&log, &words, |command| self.clock.prepare(command))?);
            }
            if self.command(&["PING"]).await.is_ok() {
                break;
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            ensure!(Instant::now() < deadline, "Redis does not start:\n{}", last_lines(&said()));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        if has_copy_only {
            self.command(&["CONFIG", "SET", "appendonly", "yes"]).await?;
        }
        Ok(())
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Waits until it can write again, and has its AOF written anew, as an operator should after a full disk: where the AOF
    /// had been rewritten since the start, Redis 7.0 takes a short write back at the wrong place, goes on, and refuses to load
    /// the file the next time it starts ("Bad file format").
    pub async fn write_anew(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut is_asked = false;
        loop {
            let info = text(&self.command(&["INFO", "persistence"]).await?);
            let says = |line: &str| info.contains(line);
            let is_idle = says("aof_rewrite_in_progress:0") && says("aof_rewrite_scheduled:0");
            if is_asked && is_idle && says("aof_last_bgrewrite_status:ok") {
                return Ok(());
            }
            if is_idle && says("aof_last_write_status:ok") {
                is_asked = self.command(&["BGREWRITEAOF"]).await.is_ok();
            }
            ensure!(Instant::now() < deadline, "Redis does not write its AOF anew:\n{info}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until its clock tells the machine's time.
    pub async fn until_on_time(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            let (told, _) = redis::from_redis_value::<(u64, u64)>(self.command(&["TIME"]).await?)?;
            if told.abs_diff(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()) <= 1 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "Redis's clock is not set right");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Makes a copy of all data, as a backup would.
    pub async fn save_copy(&self) -> anyhow::Result<PathBuf> {
        let deadline = Instant::now() + START_LIMIT;
        // Not while it saves by itself, as for a replica that has just come.
        while let Err(error) = self.command(&["SAVE"]).await {
            ensure!(Instant::now() < deadline && format!("{error:#}").contains("in progress"), error);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let kept = self.disk.folder().join("kept.rdb");
        std::fs::rename(self.copy(), &kept)?;
        Ok(kept)
    }

    /// While it is not running: takes away its data, and puts a copy in its place.
    pub fn keep_copy_only(&self, kept: Option<&PathBuf>) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.disk.folder().join("appendonlydir")).ok();
        std::fs::remove_file(self.copy()).ok();
        if let Some(kept) = kept {
            std::fs::copy(kept, self.copy())?;
        }
        Ok(())
    }

    fn copy(&self) -> PathBuf {
        self.disk.folder().join("dump.rdb")
    }

    /// One command over a connection of its own.
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        let config = redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let call = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd(words[0]).arg(&words[1..]).query_async::<Value>(&mut connection).await
        };
        let answer = timeout(COMMAND_LIMIT, call).await.with_context(|| format!("Redis does not answer {words:?}"))?;
        answer.with_context(|| format!("{words:?}"))
    }
}

/// The servers, and which one is the primary.
pub struct RedisPair {
    servers: [RedisServer; 2],
    primary: usize,
    /// The oldest copy that was kept of each server.
    pub kept: Option<PathBuf>,
}

impl RedisPair {
    pub async fn start(may_mount: bool) -> anyhow::Result<Self> {
        let mut servers = [RedisServer::new(may_mount)?, RedisServer::new(may_mount)?];
        servers[0].start(None).await?;
        let primary = servers[0].port();
        servers[1].start(Some(primary)).await?;
        Ok(Self { servers, primary: 0, kept: None })
    }

    pub fn primary(&mut self) -> &mut RedisServer {
        &mut self.servers[self.primary]
    }

    pub fn replica(&mut self) -> &mut RedisServer {
        &mut self.servers[1 - self.primary]
    }

    /// The replica is the primary from now on, and the other one is left as it is.
    pub async fn promote(&mut self) -> anyhow::Result<u16> {
        self.replica().command(&["REPLICAOF", "NO", "ONE"]).await?;
        self.primary = 1 - self.primary;
        Ok(self.primary().port())
    }

    /// The one that is no primary follows the primary, whatever it was before.
    pub async fn follow(&mut self) -> anyhow::Result<()> {
        let port = self.primary().port();
        let replica = self.replica();
        if replica.process.is_none() {
            return replica.start(Some(port)).await;
        }
        replica.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await.map(drop)
    }

    /// Waits until the replica has what the primary has.
    pub async fn until_followed(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let said = self.replica().command(&["INFO", "replication"]).await?;
            if text(&said).contains("master_link_status:up") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the replica does not follow");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last position that a partition's journal has written, as `<epoch>-<seq>`.
    pub async fn last_written(&mut self, partition: u16) -> anyhow::Result<(u64, u64)> {
        let stream = self.primary().command(&["XINFO", "STREAM", &named(Key::Journal(partition))]).await?;
        let Value::Array(fields) = stream else { bail!("{stream:?}") };
        let is_last = |pair: &&[Value]| text(&pair[0]) == "last-generated-id";
        let pair = fields.chunks(2).find(is_last).context("a stream has a last id")?;
        position(&text(&pair[1]))
    }
}

/// The name of a key of the nodes'.
pub fn named(key: Key) -> String {
    Keys::new("acc", 0, PARTITIONS).name(&key)
}

/// The two numbers of `<epoch>-<seq>`, or of a position that names its feed behind the epoch.
pub fn position(text: &str) -> anyhow::Result<(u64, u64)> {
    let (epoch, seq) = text.trim_end_matches('+').split_once('-').with_context(|| format!("{text:?}"))?;
    let (epoch, _) = epoch.split_once('.').unwrap_or((epoch, ""));
    Ok((epoch.parse()?, seq.parse()?))
}

pub fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}
