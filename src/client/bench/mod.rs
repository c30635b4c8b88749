//! A load generator: a client of a running server that measures it, and checks what it receives.
//!
//! Each kind of load has its file. They share what stands here: whom they load and for how long, and how a run ends,
//! with a table of figures and a list of what the server got wrong. The generator often shares a machine with the
//! server, so its own CPU is printed beside the server's, and every frame costs it as little as a check allows.

mod board;
mod crowd;
mod drive;
pub mod fanout;
mod frame;
pub mod hostile;
pub mod likes;
mod local;
mod meter;
mod probe;
pub mod rankings;
mod reader;
mod socket;
mod table;
mod view;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde_json::json;

use self::local::Process;
use self::table::Table;
use super::{Client, ClientError};
use crate::domain::BoardId;

/// Faults told in full; whoever mends the first sees the others next time.
const FAULTS_MAX: usize = 5;

/// Whom a run loads, and for how long.
pub struct Target {
    pub client: Client,
    pub board: BoardId,
    /// How many products of its own the run puts into the catalogue; what the board shows where it is not given.
    pub products: Option<u32>,
    pub duration: Duration,
    /// The server's process; found by the port it listens on where it is not given.
    pub server_pid: Option<u32>,
}

impl Target {
    /// Fails in one sentence when the server is away, refuses the caller, or has no such board. Returns the server's
    /// process, if that is of this machine.
    async fn look(&self) -> anyhow::Result<Option<Process>> {
        #[derive(Deserialize)]
        struct Answer {
            board: Option<serde::de::IgnoredAny>,
        }
        let query = "query Look($board: ID!) { board(id: $board) { id } }";
        let answer: Answer = self.client.call(query, &json!({ "board": self.board.as_str() })).await?;
        if answer.board.is_none() {
            bail!("{} has no board {}; the query {{ boards {{ id }} }} lists them", self.client.url(), self.board);
        }
        match self.server_pid {
            Some(id) => match Process::with_id(id) {
                None => bail!("--server-pid {id}: there is no such process on this machine"),
                process => Ok(process),
            },
            None => Ok(Process::listening(self.client.url()).await),
        }
    }
}

/// What a run came to.
pub struct Outcome {
    table: Table,
    /// What the server got wrong, one sentence each; empty when all checks held.
    pub faults: Vec<String>,
}

impl Outcome {
    /// One figure of the table as it is printed, by the name of its row.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.table.value(name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

/// What is found to be wrong while a run goes on.
#[derive(Default)]
struct Faults(Mutex<(Vec<String>, u64)>);

impl Faults {
    fn add(&self, fault: impl fmt::Display) {
        let mut faults = self.0.lock().expect("nothing panics while it holds the lock");
        faults.1 += 1;
        if faults.0.len() < FAULTS_MAX {
            faults.0.push(fault.to_string());
        }
    }

    fn told(&self) -> Vec<String> {
        let faults = self.0.lock().expect("as above");
        let mut told = faults.0.clone();
        let untold = faults.1 - told.len() as u64;
        if untold > 0 {
            told.push(format!("… and {untold} more faults"));
        }
        told
    }
}

/// What a call's failure means for a run: some the caller can mend.
fn explained(error: ClientError, role: &str) -> anyhow::Error {
    match &error {
        ClientError::Refused { code, .. } if matches!(code.as_str(), "FORBIDDEN" | "UNAUTHENTICATED") => {
            anyhow::anyhow!(
                "{error}; set --token to what `acclaim token --user bench --role {}` prints",
                role.to_lowercase()
            )
        }
        _ => error.into(),
    }
}
