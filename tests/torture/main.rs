//! Torture: two nodes on a Redis with a replica and a Postgres, under load, while everything around them fails, and a
//! checker that compares what clients were answered with what is there afterwards.
//!
//! In reading order: [`world`] is what a run consists of ([`process`], [`redis`], [`postgres`], [`node`], each with a bad
//! network, [`proxy`], a bad [`clock`] or a small [`disk`]); [`writers`], [`producers`] and [`subscribers`] are the load, and [`record`] what they were
//! answered; [`faults`] and [`ledgers`] are what goes wrong; [`phases`] is the order of it all; [`check`] and [`report`] are the verdict.
//!
//! The seed decides what is done, in which order, to whom; when a process answers it can't decide, so two runs with one
//! seed are alike and not the same.

mod check;
mod clock;
mod disk;
mod faults;
mod ledgers;
mod node;
mod phases;
mod poison;
mod postgres;
mod postgres_faults;
mod process;
mod producers;
mod proxy;
mod record;
mod redis;
mod report;
mod subscribers;
mod world;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;

use crate::faults::Kind;
use crate::process::acclaim;

/// Tortures two Acclaim nodes, and says whether anything was lost, doubled or shown wrong.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// What is done, in which order, to whom
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// How long it takes, the checks included
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,

    /// Kinds of faults, with commas; all where not given
    #[arg(long, value_delimiter = ',', value_parser = Kind::from_name)]
    pub faults: Vec<Kind>,

    /// Clients that like, each with users of its own
    #[arg(long, default_value_t = 64)]
    pub writers: usize,

    /// Subscribers of boards
    #[arg(long, default_value_t = 200)]
    pub subscribers: usize,

    #[arg(long, default_value_t = 100)]
    pub products: usize,

    #[arg(long, default_value_t = 10_000)]
    pub users: usize,

    /// Operations a second that are tried: two thirds likes, one third calls that record events
    #[arg(long, default_value_t = 250)]
    pub rate: u32,

    /// Seconds of load and faults between two checks
    #[arg(long, default_value_t = 45)]
    pub phase_seconds: u64,

    /// A folder for the nodes' logs, which are thrown away otherwise
    #[arg(long)]
    pub logs: Option<PathBuf>,

    /// A bug that the nodes are to have, to see whether it is found; they must be built with the feature `planted-bugs`
    #[arg(long, hide = true)]
    pub planted_bug: Option<String>,

    /// Has what `foreign-messages` sends name our own ledger, to see whether it is found
    #[arg(long, hide = true)]
    pub forge_messages: bool,

    /// Has no node hear from others which entries the ledger refused, to see whether that is found
    #[arg(long, hide = true)]
    pub deaf: bool,

    /// Said by the torture to itself, where mounts are its own and permitted
    #[arg(long, hide = true)]
    pub has_own_mounts: bool,
}

impl Options {
    /// The kinds that were asked for, without those that are not possible here.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        let asked = if self.faults.is_empty() { faults::ALL } else { &self.faults };
        asked.iter().copied().filter(|kind| self.has_own_mounts || !kind.needs_a_disk())
    }
}

/// 0 where nothing was wrong, 1 where something was, 2 where the torture could not be carried out.
fn main() -> ExitCode {
    match torture(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn torture(options: Options) -> anyhow::Result<bool> {
    if !options.has_own_mounts {
        disk::enter_namespace()?;
    }
    ensure!(options.kinds().next().is_some(), "mounts are not permitted here, so no disk can be full");
    ensure!(options.writers > 0 && options.products > 0 && options.users >= options.writers, "there is nothing to do");
    // Some hundred sockets on both sides of the proxies.
    rlimit::increase_nofile_limit(u64::MAX).ok();
    let acclaim = acclaim()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            verdict = phases::run(options, acclaim) => verdict,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped before the end")),
        }
    })
}
