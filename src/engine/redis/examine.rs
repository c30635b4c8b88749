//! A check-up of a Redis: whether it is set up so that Acclaim works on it and its promises hold.

use std::collections::HashMap;

use redis::{ErrorKind, ServerErrorKind, Value};

use super::RedisEngine;
use super::keys::Key;
use super::link::{BULK_LIMIT, CONNECT_LIMIT};
use super::reply::{list, parse, text};
use crate::domain::{Finding, Timestamp, Verdict};
use crate::engine::{EngineError, Result};

/// A share of its memory, in percent, from which on it is nearly full: with `noeviction` a full one refuses likes.
const NEARLY_FULL: u64 = 80;

/// Every command that steps and scripts use, on keys of its own. A script's commands are looked at as if its caller had sent
/// them, so this is what the user must be allowed.
const COMMANDS: &[&str] = &[
    "HSET {key}:h f 1 epoch 1",
    "HGET {key}:h f",
    "HMGET {key}:h f g",
    "HGETALL {key}:h",
    "HINCRBY {key}:h f 1",
    "HDEL {key}:h f",
    "XADD {key}:s 1-* f v",
    "XLEN {key}:s",
    "XRANGE {key}:s - +",
    "XREAD COUNT 1 STREAMS {key}:s 0-0",
    "XINFO STREAM {key}:s",
    "XTRIM {key}:s MAXLEN 0",
    "ZADD {key}:z 1 m",
    "ZINCRBY {key}:z 1 m",
    "ZSCORE {key}:z m",
    "ZMSCORE {key}:z m n",
    "ZCARD {key}:z",
    "ZCOUNT {key}:z 0 1",
    "ZREVRANGE {key}:z 0 1",
    "ZREVRANK {key}:z m",
    "ZREM {key}:z m",
    "RPUSH {key}:l a",
    "LPUSH {key}:l a",
    "LRANGE {key}:l 0 -1",
    "LTRIM {key}:l 0 1",
    "SET {key}:v 1 PX 60000",
    "GET {key}:v",
    "EXISTS {key}:v",
    "PEXPIRE {key}:v 60000",
    "RENAME {key}:v {key}:w",
    "DEL {key}:w",
    "SCAN 0 COUNT 1",
    "SCRIPT EXISTS 0",
    "SCRIPT LOAD return",
    "EVALSHA 63143b6f8007b98c53ca2149822777b3566f9241 0",
    "PING",
];

impl RedisEngine {
    /// Looks at everything that can be told from outside. Writes to keys of its own, and removes them.
    pub async fn examine(&self) -> Result<Vec<Finding>> {
        let mut findings = match self.link.call(&redis::cmd("INFO"), BULK_LIMIT).await {
            Ok(info) => of_info(text(&info)?),
            Err(error) => {
                let sentence =
                    format!("it does not tell its settings ({error}); allow INFO, or look for noeviction and AOF");
                vec![Finding::warn("Redis settings", sentence)]
            }
        };
        findings.push(self.examine_clock().await?);
        findings.push(self.examine_permissions().await?);
        Ok(findings)
    }

    async fn examine_clock(&self) -> Result<Finding> {
        let asked_at = Timestamp::now();
        let there_ms = match self.read_clock().await? {
            Ok(there) => there.as_ms(),
            Err(error) => {
                return Ok(Finding::warn("Redis clock", format!("it does not tell the time ({error}); allow TIME")));
            }
        };
        // Half of the way there and back has passed.
        let here_ms = (asked_at.as_ms() + Timestamp::now().as_ms()) / 2;
        let consequence = "keys, events and users' likes are forgotten too early or too late";
        Ok(Finding::clock("Redis clock", Verdict::Warn, there_ms - here_ms, consequence))
    }

    /// The time that Redis has, or why it does not say.
    pub(super) async fn read_clock(&self) -> Result<Result<Timestamp, redis::RedisError>> {
        let reply = match self.link.try_call(&redis::cmd("TIME"), BULK_LIMIT).await? {
            Ok(reply) => list(reply)?,
            Err(error) => return Ok(Err(error)),
        };
        let [seconds, micros] = reply.as_slice() else { return Err(super::reply::unexpected(&Value::Array(reply))) };
        Ok(Ok(Timestamp::from_ms(parse::<i64>(seconds)? * 1_000 + parse::<i64>(micros)? / 1_000)))
    }

    async fn examine_permissions(&self) -> Result<Finding> {
        let subject = "Redis permissions";
        let key = self.keys.scratch();
        let mut refused = Vec::new();
        for command in COMMANDS {
            let mut words = command.split(' ').map(|word| word.replace("{key}", &key));
            let name = words.next().unwrap_or_default();
            let mut cmd = redis::cmd(&name);
            words.for_each(|word| {
                cmd.arg(word);
            });
            match self.link.try_call(&cmd, BULK_LIMIT).await? {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => refused.push(name),
                Err(error) if error.code() == Some("OOM") => {
                    return Ok(Finding::warn(subject, "they can't be tried, since its memory is full"));
                }
                // What an earlier command was not allowed to make is not there for a later one.
                Err(error) if refused.is_empty() && error.code() != Some("NOSCRIPT") => {
                    return Ok(Finding::fail(subject, format!("{name} on a key of its own fails: {error}")));
                }
                _ => {}
            }
        }
        let mut unlink = redis::cmd("UNLINK");
        ["h", "s", "z", "l", "v", "w"].iter().for_each(|kind| {
            unlink.arg(self.keys.name(&Key::Scratch(kind.to_string())));
        });
        if self.link.try_call(&unlink, BULK_LIMIT).await?.is_err() {
            refused.push("UNLINK".to_owned());
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.scratch()).arg("");
        if self.link.try_call(&publish, BULK_LIMIT).await?.is_err() {
            refused.push("PUBLISH".to_owned());
        }
        if !self.may_subscribe().await? {
            refused.push("SUBSCRIBE".to_owned());
        }
        refused.dedup();
        let pattern = self.keys.pattern();
        Ok(match refused.as_slice() {
            [] => Finding::ok(subject, format!("the user may use all {} commands on {pattern}", COMMANDS.len() + 3)),
            refused => {
                let refused = refused.join(", ");
                Finding::fail(
                    subject,
                    format!(
                        "the user may not use {refused} on {pattern}; allow it, with ACL SETUSER … ~{pattern} &{pattern}"
                    ),
                )
            }
        })
    }

    async fn may_subscribe(&self) -> Result<bool> {
        let lost = |error: redis::RedisError| EngineError::Unavailable(error.to_string());
        let subscribed = async {
            let mut connection = self.link.client().get_async_pubsub().await.map_err(lost)?;
            Ok(connection.subscribe(self.keys.scratch()).await.is_ok())
        };
        let late = |_| EngineError::Unavailable("no connection for listening in time".to_owned());
        tokio::time::timeout(CONNECT_LIMIT, subscribed).await.map_err(late)?
    }
}

fn of_info(info_text: &str) -> Vec<Finding> {
    let info: HashMap<&str, &str> = info_text.lines().filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| info.get(name).copied();
    let version = field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let mut findings = vec![match major {
        Some(7..) => Finding::ok("Redis version", version),
        _ => Finding::fail("Redis version", format!("{version}; Acclaim needs 7.0 or newer: install that")),
    }];
    findings.push(match field("role") {
        Some("slave") => Finding::fail(
            "Redis role",
            "it is a replica, and takes no writes; set REDIS_URL to the primary, or promote it",
        ),
        _ => Finding::ok("Redis role", "it takes writes"),
    });
    findings.push(match field("maxmemory_policy") {
        Some("noeviction") => Finding::ok("Redis eviction", "noeviction"),
        Some(policy) => Finding::fail(
            "Redis eviction",
            format!(
                "{policy} may throw away likes that are not in the ledger yet; CONFIG SET maxmemory-policy noeviction, and \
                 the same in redis.conf"
            ),
        ),
        None => Finding::warn("Redis eviction", "it does not say its maxmemory-policy; make sure that it is noeviction"),
    });
    let last_write = field("aof_last_write_status").unwrap_or("ok");
    findings.push(match field("aof_enabled") {
        Some("1") if last_write == "ok" => Finding::ok("Redis persistence", "it keeps an append-only file"),
        Some("1") => Finding::fail(
            "Redis persistence",
            format!("the append-only file can't be written ({last_write}), so likes are refused; see Redis's log and its disk"),
        ),
        _ => Finding::warn(
            "Redis persistence",
            "it keeps no append-only file: should it stop, what was ACCEPTED since its last snapshot is lost; CONFIG SET \
             appendonly yes, and the same in redis.conf",
        ),
    });
    let memory = super::settings::memory(info_text).unwrap_or_default();
    let (used, most) = (memory.used_bytes, memory.max_bytes.unwrap_or(0));
    let shown = |bytes: u64| format!("{} MiB", bytes >> 20);
    findings.push(match (used * 100).checked_div(most) {
        None => Finding::ok("Redis memory", format!("{} used, without a limit of its own", shown(used))),
        Some(_) if memory.is_full => Finding::fail(
            "Redis memory",
            format!(
                "it is full: all of its {} are used, so likes and events are refused; raise maxmemory (CONFIG SET maxmemory), or \
                 remove what does not belong to Acclaim",
                shown(most)
            ),
        ),
        Some(share) if share >= NEARLY_FULL => Finding::warn(
            "Redis memory",
            format!("{share} % of its {} are used; full, it refuses likes: raise maxmemory", shown(most)),
        ),
        Some(share) => Finding::ok("Redis memory", format!("{share} % of its {} are used", shown(most))),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(info: &str, subject: &str) -> Verdict {
        of_info(info).into_iter().find(|finding| finding.subject == subject).unwrap().verdict
    }

    #[test]
    fn settings_are_judged() {
        assert_eq!(verdict_of("redis_version:6.2.7", "Redis version"), Verdict::Fail);
        assert_eq!(verdict_of("redis_version:7.0.15", "Redis version"), Verdict::Ok);
        assert_eq!(verdict_of("", "Redis version"), Verdict::Fail);
        assert_eq!(verdict_of("role:slave", "Redis role"), Verdict::Fail);
        assert_eq!(verdict_of("aof_enabled:1\naof_last_write_status:err", "Redis persistence"), Verdict::Fail);
        assert_eq!(verdict_of("used_memory:81\nmaxmemory:100", "Redis memory"), Verdict::Warn);
        assert_eq!(verdict_of("used_memory:100\nmaxmemory:100", "Redis memory"), Verdict::Fail);
        assert_eq!(verdict_of("used_memory:79\nmaxmemory:100", "Redis memory"), Verdict::Ok);
    }
}
