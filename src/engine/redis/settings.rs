//! What a Redis says of itself: whether it is set up so that Acclaim's promises hold, and how much memory it uses.

use std::collections::HashMap;

use super::RedisEngine;
use super::link::{BULK_LIMIT, STEP_LIMIT};
use super::reply::text;
use crate::engine::{EngineError, EngineMemory};

/// Why Acclaim does not start on a Redis; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "Redis has maxmemory-policy {0}, under which it may throw away likes that are not in the ledger yet; set it to \
         noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
    )]
    Evicts(String),
    #[error("Redis is version {0}; Acclaim needs 7.0 or newer")]
    TooOld(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

const NO_AOF: &str = "Redis keeps no append-only file: should it stop, likes and events that were answered ACCEPTED and \
                      have not reached the ledger since its last snapshot are lost (those answered COMMITTED are not); \
                      set appendonly to yes";

impl RedisEngine {
    /// Looks for settings that would lose or evict what Acclaim keeps: an error where it must not start, sentences to
    /// warn with where it may. Reads INFO, which managed Redis allows where CONFIG is forbidden.
    pub async fn check_settings(&self) -> Result<Vec<String>, SettingsError> {
        let reply = self.link.call(&redis::cmd("INFO"), BULK_LIMIT).await?;
        check(text(&reply)?)
    }

    pub(super) async fn do_memory(&self) -> Result<Option<EngineMemory>, EngineError> {
        let reply = self.link.call(redis::cmd("INFO").arg("memory"), STEP_LIMIT).await?;
        Ok(memory(text(&reply)?))
    }
}

/// What INFO says of its memory.
pub(super) fn memory(info: &str) -> Option<EngineMemory> {
    let info = fields(info);
    let number = |name: &str| info.get(name).and_then(|value| value.parse::<u64>().ok());
    let used_bytes = number("used_memory")?;
    let max_bytes = number("maxmemory").filter(|most| *most > 0);
    // The buffers of its replicas and of its append-only file do not count for the limit.
    let counted = used_bytes.saturating_sub(number("mem_not_counted_for_evict").unwrap_or(0));
    Some(EngineMemory { used_bytes, max_bytes, is_full: max_bytes.is_some_and(|most| counted >= most) })
}

fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

fn check(info: &str) -> Result<Vec<String>, SettingsError> {
    let info = fields(info);
    let field = |name: &str| info.get(name).copied();
    let version = field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        return Err(SettingsError::TooOld(version.to_owned()));
    }
    let mut warnings = Vec::new();
    match field("maxmemory_policy") {
        Some("noeviction") => {}
        Some(policy) => return Err(SettingsError::Evicts(policy.to_owned())),
        None => warnings.push(
            "Redis does not say its maxmemory-policy; make sure that it is noeviction, or likes may be thrown away"
                .to_owned(),
        ),
    }
    if field("aof_enabled") != Some("1") {
        warnings.push(NO_AOF.to_owned());
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(version: &str, policy: &str, aof: &str) -> Result<Vec<String>, SettingsError> {
        check(&format!(
            "# Server\r\nredis_version:{version}\r\n\r\n# Memory\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n"
        ))
    }

    #[test]
    fn memory_is_full_at_its_limit() {
        let of = |used: u64, aside: u64, most: u64| {
            let info = format!("used_memory:{used}\r\nmem_not_counted_for_evict:{aside}\r\nmaxmemory:{most}\r\n");
            let memory = memory(&info).unwrap();
            (memory.used_bytes, memory.max_bytes, memory.is_full)
        };
        assert_eq!(of(100, 0, 0), (100, None, false));
        assert_eq!(of(99, 0, 100), (99, Some(100), false));
        assert_eq!(of(101, 0, 100), (101, Some(100), true));
        assert_eq!(of(101, 2, 100), (101, Some(100), false));
        assert_eq!(super::memory("maxmemory:100"), None);
    }

    #[test]
    fn says_what_to_set() {
        assert_eq!(check_with("7.0.15", "noeviction", "1"), Ok(vec![]));
        assert_eq!(check_with("7.2.4", "noeviction", "0").unwrap(), [NO_AOF]);
        let evicts = check_with("8.0.0", "allkeys-lru", "1").unwrap_err();
        assert!(evicts.to_string().contains("allkeys-lru") && evicts.to_string().contains("noeviction"));
        assert_eq!(check_with("6.2.7", "noeviction", "1"), Err(SettingsError::TooOld("6.2.7".to_owned())));
        assert!(check("").is_err());
        assert_eq!(check("redis_version:7.0.0\naof_enabled:1").unwrap().len(), 1);
    }
}
