//! Looking through what is held: users' likes, by SCAN and without touching them, for verification; and answers and events,
//! which are forgotten when the ledger does not have what they say.

use std::collections::BTreeMap;

use redis::Value;

use super::keys::Key;
use super::link::{Args, BULK_LIMIT};
use super::reply::{list, parse, text, tuple, unexpected};
use super::{RedisEngine, lost_epoch, script};
use crate::domain::{ProductId, UserId};
use crate::engine::Result;

/// Keys that one SCAN looks at: some 0.3 ms of Redis' time.
const SCAN_COUNT: usize = 1_000;
/// Users in one call, and products in its reply: some 10 ms of Redis' time. A user who has more has a call alone.
const USERS_MAX: usize = 100;
const PRODUCTS_MAX: usize = 10_000;

impl RedisEngine {
    pub(super) async fn do_loaded_users(&self, cursor: u64) -> Result<(Vec<UserId>, u64)> {
        let (names, next) = self.scan(cursor, &self.keys.partitions_pattern("likes:")).await?;
        // A key that is none of ours may match.
        let user_of = |name: &String| match self.keys.read(name)? {
            Key::Likes(partition, user) => (self.partition_of_user(&user) == partition).then_some(user),
            _ => None,
        };
        Ok((names.iter().filter_map(user_of).collect(), next))
    }

    /// Names of keys that match, and where to go on.
    pub(super) async fn scan(&self, cursor: u64, pattern: &str) -> Result<(Vec<String>, u64)> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
        let [next, names] = tuple(self.link.call(&scan, BULK_LIMIT).await?)?;
        // A name that is not UTF-8 is none of ours.
        let names = list(names)?.iter().filter_map(|name| text(name).ok().map(str::to_owned)).collect();
        Ok((names, parse(&next)?))
    }

    pub(super) async fn do_forget_remembered(&self) -> Result<()> {
        let mut cursor = 0;
        loop {
            let (names, next) = self.scan(cursor, &self.keys.partitions_pattern("")).await?;
            let mut by_partition: BTreeMap<u16, Vec<String>> = BTreeMap::new();
            for name in names {
                if let Some(Key::Answers(partition, _) | Key::Event(partition, _)) = self.keys.read(&name) {
                    by_partition.entry(partition).or_default().push(name);
                }
            }
            for names in by_partition.into_values() {
                let mut cmd = redis::cmd("UNLINK");
                cmd.arg(names);
                self.link.call(&cmd, BULK_LIMIT).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    pub(super) async fn do_held_likes(&self, epoch: u64, users: &[UserId]) -> Result<Vec<Option<Vec<ProductId>>>> {
        let mut by_partition: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, user) in users.iter().enumerate() {
            by_partition.entry(self.partition_of_user(user)).or_default().push(index);
        }
        let mut held = vec![None; users.len()];
        for (partition, indexes) in by_partition {
            let mut rest = indexes.as_slice();
            while !rest.is_empty() {
                let asked = &rest[..rest.len().min(USERS_MAX)];
                let asked_users = asked.iter().map(|index| &users[*index]);
                let told = self.held_by_some(epoch, partition, asked_users).await?;
                if told.is_empty() || told.len() > asked.len() {
                    return Err(unexpected(&Value::Int(told.len() as i64)));
                }
                rest = &rest[told.len()..];
                asked.iter().zip(told).for_each(|(index, likes)| held[*index] = likes);
            }
        }
        Ok(held)
    }

    /// Of the first users; of one at least.
    async fn held_by_some(
        &self,
        epoch: u64,
        partition: u16,
        users: impl Iterator<Item = &UserId>,
    ) -> Result<Vec<Option<Vec<ProductId>>>> {
        let mut keys = vec![self.keys.name(&Key::Meta(partition))];
        keys.extend(users.map(|user| self.keys.name(&Key::Likes(partition, user.clone()))));
        let mut args = Args::default();
        args.push(epoch).push(PRODUCTS_MAX);
        let mut reply = list(self.link.eval(&script::HELD_LIKES, &keys, &args, BULK_LIMIT).await?)?.into_iter();
        match reply.next().as_ref().map(text).transpose()? {
            Some("LIKES") => reply.map(products).collect(),
            Some("EPOCH") => Err(lost_epoch(epoch)),
            _ => Err(unexpected(&Value::Nil)),
        }
    }
}

/// The member "" only says that the user is loaded.
fn products(reply: Value) -> Result<Option<Vec<ProductId>>> {
    if reply == Value::Nil {
        return Ok(None);
    }
    let mut products = Vec::new();
    for product in list(reply)? {
        match text(&product)? {
            "" => {}
            id => products.push(ProductId::new(id).map_err(|_| unexpected(&product))?),
        }
    }
    Ok(Some(products))
}
