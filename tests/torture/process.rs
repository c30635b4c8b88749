//! A process that does not outlive the torture, however that ends, and that can be killed, stopped and let go on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Starts a program and keeps it for as long as its own standard input is open: the pipe closes when the torture is gone,
/// even by SIGKILL, when no destructor runs.
const KEEPER: &str = r#"log=$1; shift
"$@" </dev/null >>"$log" 2>&1 & echo $!
cat >/dev/null
kill -9 $! 2>/dev/null; wait"#;

pub struct Process {
    pid: u32,
    keeper: Child,
}

impl Process {
    /// Starts a program with its output in `log`; `prepare` sets what else the program is to have.
    pub fn start(log: &Path, program: &[String], prepare: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        use std::io::{BufRead, BufReader};
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(log).args(program);
        // Out of reach of Ctrl-C, which the torture itself answers by ending.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut keeper = command.spawn().context("sh starts")?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("{program:?} does not start"))?;
        Ok(Self { pid, keeper })
    }

    /// Sends a signal such as `KILL` to the process itself.
    pub fn signal(&self, signal: &str) {
        send(signal, &[self.pid]);
    }

    /// Sends a signal to the process and to all that it has started.
    pub fn signal_all(&self, signal: &str) {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        send(signal, &std::iter::once(self.pid).chain(children).collect::<Vec<u32>>());
    }

    /// Whether it still runs; one that has ended stays as a zombie until its keeper is done.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// Waits for its end; whether it came in time.
    pub async fn has_ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    }

    /// Open files, sockets among them.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }
}

impl Drop for Process {
    /// SIGKILL, which a stopped process takes as well; gone when this returns.
    fn drop(&mut self) {
        send("KILL", &[self.pid]);
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// What is gone already needs no signal.
fn send(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    Command::new("kill").arg(format!("-{signal}")).args(pids).stderr(Stdio::null()).status().ok();
}

/// The end of a log.
pub fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Free now; nobody else is likely to ask for it in the moment until a server does.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The server beside this program. `cargo run` has built only this program, so it is asked to build the server as well.
pub fn acclaim() -> anyhow::Result<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--bin", "acclaim"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if cfg!(feature = "planted-bugs") {
            build.args(["--features", "planted-bugs"]);
        }
        ensure!(build.status()?.success(), "the server can't be built");
    }
    let acclaim = std::env::current_exe()?.with_file_name("acclaim");
    ensure!(acclaim.exists(), "there is no {}; build it with cargo build", acclaim.display());
    acclaim.canonicalize().context("the server's file")
}
