//! `acclaim doctor`: looks at the engine and the ledger that the settings name, and at this machine, without a server.

use std::time::Duration;

use acclaim::domain::{Finding, Verdict};
use acclaim::engine::EngineLimits;
use acclaim::engine::redis::RedisEngine;
use acclaim::ledger::{Ledger, missing_file};
use acclaim::pipeline::{examine_lag, examine_owner};
use acclaim::server::is_public;

use crate::config;

/// A part that has not answered by then is as good as away.
const LIMIT: Duration = Duration::from_secs(20);
/// Each live connection is an open file. A dashboard's worth of them, and what a server needs besides.
const FILES_WARN: u64 = 4_096;
const FILES_MIN: u64 = 256;

/// Everything that was found, in the order in which it should be mended.
pub async fn examine(settings: &config::Doctor) -> Vec<Finding> {
    let mut findings = vec![open_files(), callers(settings)];
    let ledger = in_time("ledger", ledger(settings, &mut findings)).await;
    let ledger = ledger.unwrap_or_else(|finding| {
        findings.push(finding);
        None
    });
    let (ledger, begun_with) = match ledger {
        Some(ledger) => match ledger.begun_with().await {
            Ok(begun_with) => (Some(ledger), begun_with),
            Err(error) => {
                findings.push(Finding::fail("ledger", error.to_string()));
                (None, None)
            }
        },
        None => (None, None),
    };
    let partitions = begun_with.as_ref().map(|(partitions, _)| *partitions);
    let engine = in_time("Redis", engine(settings, partitions, &mut findings)).await;
    let engine = engine.unwrap_or_else(|finding| {
        findings.push(finding);
        None
    });
    let Some(engine) = engine else { return findings };
    // A ledger that can't be read may be anybody's; one that is yet to be made has no engine of its own.
    if ledger.is_none() && missing_file(settings.database.database_url.reveal()).is_none() {
        return findings;
    }
    let id = begun_with.and_then(|(_, id)| id);
    let owner = in_time("Redis's ledger", async {
        let owner = examine_owner(&engine, id.as_deref()).await;
        owner.map_err(|fault| Finding::fail("Redis's ledger", format!("it can't be told: {fault}")))
    });
    let owner = owner.await.unwrap_or_else(|finding| finding);
    let is_ours = owner.verdict == Verdict::Ok;
    findings.push(owner);
    // A ledger without partitions has never been worked on.
    if let Some(ledger) = ledger.filter(|_| is_ours && partitions.is_some()) {
        let lag = in_time("lag", async { Ok(examine_lag(&engine, &ledger).await) }).await;
        findings.push(match lag {
            Ok(Ok(finding)) | Err(finding) => finding,
            Ok(Err(fault)) => Finding::fail("lag", format!("it can't be told: {fault}")),
        });
    }
    findings
}

/// How the findings end.
pub fn summary(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    format!("{} ok, {} to look at, {} to mend", count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail))
}

async fn in_time<T>(subject: &'static str, look: impl Future<Output = Result<T, Finding>>) -> Result<T, Finding> {
    let late = || Finding::fail(subject, format!("no answer within {} s; see that it is well", LIMIT.as_secs()));
    tokio::time::timeout(LIMIT, look).await.unwrap_or_else(|_| Err(late()))
}

async fn ledger(settings: &config::Doctor, findings: &mut Vec<Finding>) -> Result<Option<Ledger>, Finding> {
    let fail = |error: acclaim::ledger::LedgerError| Finding::fail("ledger", error.to_string());
    let (url, ca_file) = (settings.database.database_url.reveal(), settings.database.database_ca_file.as_deref());
    if let Some(file) = missing_file(url) {
        let advice =
            "acclaim migrate makes it, and so does a server's start; where there should be one, see DATABASE_URL";
        findings.push(Finding::warn("SQLite file", format!("there is no {}: {advice}", file.display())));
        return Ok(None);
    }
    let ledger = Ledger::connect_trusting(url, ca_file).await.map_err(fail)?;
    findings.extend(ledger.examine().await.map_err(fail)?);
    Ok(Some(ledger))
}

async fn engine(
    settings: &config::Doctor,
    partitions: Option<u16>,
    findings: &mut Vec<Finding>,
) -> Result<Option<RedisEngine>, Finding> {
    let Some(url) = &settings.redis.redis_url else {
        findings.push(Finding::ok("engine", "in the server's own memory, since REDIS_URL is not set: for one server"));
        return Ok(None);
    };
    let mut limits = EngineLimits::default();
    limits.partitions = partitions.unwrap_or(limits.partitions);
    let ca_file = settings.redis.redis_ca_file.as_deref();
    let engine = RedisEngine::connect_trusting(url.reveal(), ca_file, &settings.redis.redis_prefix, limits).await;
    let engine = engine.map_err(|error| Finding::fail("Redis", error.to_string()))?;
    let examined = engine.examine().await;
    findings.extend(examined.map_err(|error| Finding::fail("Redis", error.to_string()))?);
    Ok(Some(engine))
}

/// Whether a server can tell its callers apart, by whom it can hear from where it listens.
fn callers(settings: &config::Doctor) -> Finding {
    let (subject, address) = ("callers", settings.listen.listen.ip());
    if !settings.auth.trusted_proxy.is_empty() {
        return Finding::ok(subject, "those behind the proxies of --trusted-proxy have the addresses that these name");
    }
    if !settings.auth.is_set() {
        return Finding::ok(subject, "without auth settings, only those on this machine, who have no budgets");
    }
    if is_public(address) || address.is_unspecified() {
        return Finding::ok(subject, "each public address has a budget; behind a proxy, set --trusted-proxy");
    }
    let advice = "name the proxies in front of it with --trusted-proxy (ACCLAIM_TRUSTED_PROXY)";
    let why = "is private, so callers come through a proxy, and who is not signed in has no budget";
    Finding::warn(subject, format!("{address} {why}: {advice}"))
}

fn open_files() -> Finding {
    let subject = "open files";
    let may = "this process may hold";
    match rlimit::Resource::NOFILE.get() {
        Ok((FILES_WARN.., _)) => Finding::ok(subject, format!("{may} at least {FILES_WARN}")),
        Ok((files @ FILES_MIN.., _)) => {
            let advice = "raise it with ulimit -n, or LimitNOFILE of systemd";
            Finding::warn(subject, format!("{may} {files}, and each live connection is one: {advice}"))
        }
        Ok((files, _)) => {
            Finding::fail(subject, format!("{may} {files}, too few for a server: raise it with ulimit -n"))
        }
        Err(error) => Finding::warn(subject, format!("their limit can't be read: {error}")),
    }
}
