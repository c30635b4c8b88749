//! What an earlier version has left in Redis, under names that this one does not use. Tags were the bare names of partitions and
//! boards then, so that a board could be named like a partition.
//!
//! Recovery closes it, drains its journals into the ledger, takes over what is remembered of users' keys and producers' events,
//! removes the rest and begins an epoch here. Users' likes and boards come from the ledger, as after any recovery.

use futures_util::future::try_join_all;
use redis::Value;

use super::RedisEngine;
use super::keys::Key;
use super::link::{BULK_LIMIT, refusal};
use super::reply::unexpected;
use crate::engine::Result;

impl RedisEngine {
    /// What an earlier version has left, as an engine whose journals can be surveyed, closed and read.
    pub(super) async fn find_former(&self) -> Result<Option<Self>> {
        let former = Self { keys: self.keys.former(), ..self.clone() };
        let mut exists = redis::cmd("EXISTS");
        exists.arg(former.journals());
        match self.link.call(&exists, BULK_LIMIT).await? {
            Value::Int(0) => Ok(None),
            Value::Int(_) => Ok(Some(former)),
            other => Err(unexpected(&other)),
        }
    }

    /// Journals last: as long as one is there, all that was left is found again.
    pub(super) async fn do_take_over_former(&self, keeps_remembered: bool) -> Result<()> {
        let former = Self { keys: self.keys.former(), ..self.clone() };
        let (journals, pattern) = (former.journals(), former.keys.all_pattern());
        let mut cursor = 0;
        loop {
            let (names, next) = self.scan(cursor, &pattern).await?;
            let found = names.into_iter().filter(|name| !journals.contains(name));
            let found = found.filter_map(|name| former.keys.read(&name).map(|key| (name, key)));
            let (remembered, rest): (Vec<_>, Vec<_>) = found.partition(|(_, key)| {
                keeps_remembered && matches!(key, Key::Answers(..) | Key::Rate(..) | Key::Event(..))
            });
            try_join_all(remembered.iter().map(|(name, key)| self.rename(name, key))).await?;
            if !rest.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                rest.iter().for_each(|(name, _)| {
                    unlink.arg(name);
                });
                self.link.call(&unlink, BULK_LIMIT).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        self.link.call(redis::cmd("UNLINK").arg(journals), BULK_LIMIT).await.map(drop)
    }

    /// Gives a key its present name, if it has not expired meanwhile.
    async fn rename(&self, name: &str, key: &Key) -> Result<()> {
        let mut rename = redis::cmd("RENAME");
        rename.arg(name).arg(self.keys.name(key));
        match self.link.try_call(&rename, BULK_LIMIT).await? {
            Err(error) if error.detail().is_some_and(|text| text.contains("no such key")) => Ok(()),
            answer => answer.map(drop).map_err(refusal),
        }
    }

    /// Names of what partitions' journals consist of.
    fn journals(&self) -> Vec<String> {
        let of_partition = |partition| [Key::Meta(partition), Key::Journal(partition)];
        self.partitions().flat_map(of_partition).map(|key| self.keys.name(&key)).collect()
    }
}
