//! The clocks of the nodes, of Redis and of Postgres, which faults move; those of the nodes and of Postgres, which they follow,
//! are ahead of the machine's, so that midnight comes early in a run. libfaketime tells a process another time of day; what it measures spans with stays
//! as it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

/// So long after the start of a run it is midnight in UTC, where boards' days end: with the load on, among the first faults.
const MIDNIGHT_AFTER: Duration = Duration::from_secs(40);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where libfaketime is; the program that comes with it knows.
fn library(options: &[&str]) -> anyhow::Result<String> {
    // What it shares bears its process's number, and may be there still of one that was killed: the next has another.
    for _ in 0..5 {
        let asked = Command::new("faketime").args(options).args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let asked = asked.context("faketime does not start; install it (Debian: faketime)")?;
        if asked.status.success() {
            return Ok(String::from_utf8(asked.stdout)?.trim().to_owned());
        }
    }
    bail!("faketime does not say where its library is; see /dev/shm for what others left of it")
}

/// Where this program has libc from.
fn libc() -> anyhow::Result<String> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let mut of_libc = paths.filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("libc.so")));
    Ok(of_libc.next().context("this program has a libc.so of its own")?.to_owned())
}

/// How far the nodes and Postgres are ahead of the machine.
pub fn ahead() -> anyhow::Result<Duration> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let until_midnight = DAY.as_secs() - since_1970.as_secs() % DAY.as_secs();
    Ok(Duration::from_secs((until_midnight + DAY.as_secs() - MIDNIGHT_AFTER.as_secs()) % DAY.as_secs()))
}

/// A clock of one process.
pub struct Clock {
    file: PathBuf,
    library: String,
    ahead: Duration,
}

impl Clock {
    /// In a file of its own in `dir`.
    pub fn new(dir: &Path, ahead: Duration) -> anyhow::Result<Self> {
        let clock = Self { file: dir.join("clock"), library: library(&[])?, ahead };
        clock.step(0)?;
        Ok(clock)
    }

    /// For a program with many threads: in the plain library one may find the time that another is just about to read, and tell
    /// the machine's for a second.
    pub fn for_threads(mut self) -> anyhow::Result<Self> {
        self.library = library(&["-m"])?;
        Ok(self)
    }

    /// For a program with an allocator that asks for the time itself, as Redis has jemalloc: libfaketime, still looking for
    /// libc's functions, would call itself without end, unless libc comes right behind it.
    pub fn before_allocator(mut self) -> anyhow::Result<Self> {
        self.library = format!("{}:{}", self.library, libc()?);
        Ok(self)
    }

    /// Lets a program that is about to start have this clock.
    pub fn prepare(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        // The file is read once a second.
        command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Moves it to so many seconds from what it should tell.
    pub fn step(&self, seconds: i64) -> anyhow::Result<()> {
        // Renamed, so that no process reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{:+}\n", self.ahead.as_secs() as i64 + seconds))?;
        Ok(std::fs::rename(new, &self.file)?)
    }
}
