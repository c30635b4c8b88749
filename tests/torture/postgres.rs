//! A Postgres server of the torture's own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::process::{Process, free_port, last_lines};

const START_LIMIT: Duration = Duration::from_secs(60);
/// A statement of the torture's own: longer than any fault, and than the look at a whole ledger.
const STATEMENT_LIMIT: Duration = Duration::from_secs(120);

pub struct PostgresServer {
    port: u16,
    binaries: PathBuf,
    /// Whom it runs as: Postgres refuses root.
    user: Option<(u32, u32)>,
    process: Option<Process>,
    pub clock: Clock,
    pub disk: Disk,
    dir: TempDir,
}

impl PostgresServer {
    /// Starts it, with the database `torture`, and with the clock that the nodes have.
    pub async fn start(may_mount: bool, ahead: Duration) -> anyhow::Result<Self> {
        let asked = Command::new("pg_config").arg("--bindir").output();
        let asked = asked.context("pg_config runs; Debian has it in the packages postgresql and libpq-dev")?;
        let binaries = PathBuf::from(String::from_utf8(asked.stdout)?.trim());
        let dir = tempfile::Builder::new().prefix("torture-pg-").tempdir()?;
        let disk = Disk::new(&dir, may_mount)?;
        let user = other_user()?;
        if let Some((user, group)) = user {
            chown(dir.path(), Some(user), Some(group))?;
            chown(disk.folder(), Some(user), Some(group))?;
        }
        let clock = Clock::new(dir.path(), ahead)?;
        let mut server = Self { port: free_port()?, binaries, user, process: None, clock, disk, dir };
        let mut initdb = Command::new(server.binaries.join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"]);
        initdb.arg(server.disk.folder().join("data")).current_dir(server.dir.path());
        server.as_user(&mut initdb);
        let made = initdb.output().context("initdb runs")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.start_again().await?;
        server.execute_in("postgres", "CREATE DATABASE torture").await?;
        Ok(server)
    }

    fn as_user(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("Postgres runs")
    }

    /// SIGKILL to the postmaster; its children end when they notice.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it on what it has on disk, and waits until it takes connections.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let dir = self.dir.path().display().to_string();
        let data = self.disk.folder().join("data").display().to_string();
        let program = self.binaries.join("postgres").display().to_string();
        let port = self.port.to_string();
        let words = [&program, "-D", &data, "-k", &dir, "-h", "127.0.0.1", "-p", &port];
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        loop {
            // While children of the one before still end, it refuses to start.
            if !self.process.as_ref().is_some_and(Process::is_running) {
                self.process = None;
                let log = self.dir.path().join("log");
                let prepare = |command: &mut Command| {
                    self.as_user(command);
                    self.clock.prepare(command);
                };
                self.process = Some(Process::start(&log, &words, prepare)?);
            }
            if self.execute_in("postgres", "SELECT 1").await.is_ok() {
                return Ok(());
            }
            let said = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "Postgres does not start:\n{}", last_lines(&said()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A connection of its own, which ends when the client is dropped.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_of("torture").await
    }

    async fn client_of(&self, database: &str) -> anyhow::Result<Client> {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}?connect_timeout=5", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.execute_in("torture", sql).await
    }

    /// Dumps the database, in place of an earlier dump.
    pub async fn dump(&self) -> anyhow::Result<()> {
        self.run("pg_dump", "torture", &["--file", &self.dump_file()]).await
    }

    /// Puts the dump in place of the database. Whoever uses that loses its connections, and finds the restored one.
    pub async fn restore(&self) -> anyhow::Result<()> {
        self.execute_in("postgres", "DROP DATABASE IF EXISTS aside").await?;
        self.execute_in("postgres", "CREATE DATABASE restored").await?;
        self.run("psql", "restored", &["--quiet", "--set", "ON_ERROR_STOP=1", "--file", &self.dump_file()]).await?;
        for statement in [
            "ALTER DATABASE torture ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'torture'",
            "ALTER DATABASE torture RENAME TO aside",
            "ALTER DATABASE restored RENAME TO torture",
        ] {
            self.execute_in("postgres", statement).await?;
        }
        Ok(())
    }

    fn dump_file(&self) -> String {
        self.dir.path().join("dump.sql").display().to_string()
    }

    /// A program of Postgres on a database.
    async fn run(&self, program: &str, database: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let mut command = Command::new(self.binaries.join(program));
        command.args(["--dbname", &url]).args(arguments);
        self.as_user(&mut command);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn execute_in(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let run = async { anyhow::Ok(self.client_of(database).await?.batch_execute(sql).await?) };
        timeout(STATEMENT_LIMIT, run).await.with_context(|| format!("no answer to {sql}"))??;
        Ok(())
    }
}

/// `postgres`, for a torture run by root.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    let id = |words: &[&str]| {
        let said = Command::new("id").args(words).output()?.stdout;
        anyhow::Ok(String::from_utf8(said)?.trim().parse::<u32>()?)
    };
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    let of_postgres = |flag: &str| id(&[flag, "postgres"]).context("there is a user postgres");
    Ok(Some((of_postgres("-u")?, of_postgres("-g")?)))
}
