//! The steps of likes. A user's likes, answers and rate share the partition's hash slot, so each step is one script.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use redis::Value;

use super::keys::Key;
use super::link::{Args, STEP_LIMIT, limit_for};
use super::reply::{list, parse, text, unexpected};
use super::{RedisEngine, lost_epoch, script, ttl_ms};
use crate::domain::{EventId, ProductId, Timestamp, UserId};
use crate::engine::{Desired, EngineError, EngineLimits, LikeAnswer, LikeOutcome, LikeRequest, Result, UserLikes};

/// The rate is kept so much longer than it says anything: nodes' clocks differ, and a clock that was set back for
/// longer than this locks a user out for no more than this.
const RATE_KEEP_MS: i64 = 60_000;

/// Values (likes and answers) that one call brings: some 10 ms of Redis' time. A user who has more is staged.
const LOAD_VALUES_MAX: usize = 10_000;

/// How long a user's likes may be staged, so that nothing stays behind of a node that died over it.
const STAGED_MS: i64 = 60_000;

/// Interval and burst of the rate, in microseconds; 0 for no limit.
fn rate_us(limits: &EngineLimits) -> (i64, i64) {
    let interval_us = match limits.like_rate {
        0 => 0,
        rate => 1_000_000 / i64::from(rate),
    };
    (interval_us, i64::from(limits.like_burst.max(1)) * interval_us)
}

/// The settings that `like.lua` takes in one argument.
pub fn like_settings(limits: &EngineLimits) -> String {
    let (interval_us, burst_us) = rate_us(limits);
    format!(
        "{interval_us} {burst_us} {RATE_KEEP_MS} {} {} {} {} {} {} {}",
        limits.journal_len_max,
        limits.journal_age_ms_max.max(0),
        ttl_ms(limits.likes_idle_ms),
        ttl_ms(limits.answers_idle_ms),
        EngineLimits::ANSWERS_MAX,
        limits.likes_max,
        limits.like_again_ms.max(0),
    )
}

impl RedisEngine {
    pub(super) async fn do_like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        let LikeRequest { user, product, key, is_key_new, desired, at } = request;
        let partition = self.partition_of_user(user);
        let keys = [
            Key::Meta(partition),
            Key::Journal(partition),
            Key::Likes(partition, user.clone()),
            Key::Answers(partition, user.clone()),
            Key::Rate(partition, user.clone()),
        ]
        .map(|key| self.keys.name(&key));
        let desired = match desired {
            Desired::Toggled => "toggle",
            Desired::Exactly(true) => "1",
            Desired::Exactly(false) => "0",
        };
        let mut args = Args::default();
        args.push(epoch).push(user).push(product).push(key).push(EventId::of_like(user, key)).push(desired);
        args.push(at.as_ms()).push(&self.like_settings).push(u8::from(*is_key_new));
        let reply = self.link.eval(&script::LIKE, &keys, &args, STEP_LIMIT).await?;
        match list(reply)?.as_slice() {
            [kind] => match text(kind)? {
                "EPOCH" => Err(lost_epoch(epoch)),
                "NOT_LOADED" => Ok(LikeOutcome::NotLoaded),
                "CONFLICT" => Ok(LikeOutcome::Conflict),
                "BUSY" => Ok(LikeOutcome::Busy),
                "TOO_MANY" => Ok(LikeOutcome::TooMany),
                _ => Err(unexpected(kind)),
            },
            [kind, detail] => match text(kind)? {
                "DONE" => Ok(LikeOutcome::Done(decode_answer(detail)?)),
                "REPLAYED" => Ok(LikeOutcome::Replayed(decode_answer(detail)?)),
                "LIMITED" => Ok(LikeOutcome::RateLimited { retry_after_ms: parse(detail)? }),
                _ => Err(unexpected(kind)),
            },
            other => Err(unexpected(&Value::Array(other.to_vec()))),
        }
    }

    pub(super) async fn do_load_likes(&self, epoch: u64, users: &[UserLikes]) -> Result<()> {
        let mut by_partition: BTreeMap<u16, Vec<&UserLikes>> = BTreeMap::new();
        for user in users {
            by_partition.entry(self.partition_of_user(&user.user)).or_default().push(user);
        }
        let loads = by_partition.iter().map(async |(partition, users)| {
            let mut rest = users.as_slice();
            while !rest.is_empty() {
                let (batch, later) = rest.split_at(batch_len(rest));
                match batch {
                    [heavy] if heavy.likes.len() + heavy.unliked.len() > LOAD_VALUES_MAX => {
                        self.load_heavy(epoch, *partition, heavy).await?
                    }
                    _ => self.load_batch(epoch, *partition, batch, None).await?,
                }
                rest = later;
            }
            Ok(())
        });
        try_join_all(loads).await.map(drop)
    }

    /// Brings a user's likes in pieces, into a key of this call's own, so that Redis is held up for no longer than by others.
    async fn load_heavy(&self, epoch: u64, partition: u16, heavy: &UserLikes) -> Result<()> {
        let staged = self.keys.name(&Key::Staged(partition, rand::random(), heavy.user.clone()));
        for likes in scores(heavy).collect::<Vec<_>>().chunks(LOAD_VALUES_MAX) {
            let mut add = redis::cmd("ZADD");
            add.arg(&staged);
            likes.iter().for_each(|(product, score)| {
                add.arg(score).arg(product.as_str());
            });
            self.link.call(&add, limit_for(2 * likes.len())).await?;
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&staged).arg(STAGED_MS);
            self.link.call(&expire, STEP_LIMIT).await?;
        }
        let user = UserLikes { likes: Vec::new(), unliked: Vec::new(), ..heavy.clone() };
        self.load_batch(epoch, partition, &[&user], Some(staged)).await
    }

    async fn load_batch(&self, epoch: u64, partition: u16, users: &[&UserLikes], staged: Option<String>) -> Result<()> {
        let limits = &self.limits;
        let mut keys = vec![self.keys.name(&Key::Meta(partition))];
        let mut args = Args::default();
        args.push(epoch).push(ttl_ms(limits.likes_idle_ms)).push(ttl_ms(limits.answers_idle_ms));
        let as_of = users.iter().map(|user| user.as_of).min().unwrap_or_default();
        args.push(EngineLimits::ANSWERS_MAX).push(as_of);
        for loaded in users {
            let UserLikes { user, likes, unliked, answers, .. } = loaded;
            keys.push(self.keys.name(&Key::Likes(partition, user.clone())));
            keys.push(self.keys.name(&Key::Answers(partition, user.clone())));
            args.push(likes.len() + unliked.len()).push(answers.len());
            for (product, score) in scores(loaded) {
                args.push(score).push(product);
            }
            for (key, product, answer) in answers {
                args.push(format_args!("{key}\t{} {product}", Saved(answer)));
            }
        }
        keys.extend(staged);
        let reply = self.link.eval(&script::LOAD_LIKES, &keys, &args, limit_for(args.len())).await?;
        match text(&reply)? {
            "OK" => Ok(()),
            "EPOCH" => Err(lost_epoch(epoch)),
            "EXPIRED" => Err(EngineError::Unavailable("a user's likes were loaded too slowly".to_owned())),
            _ => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn do_viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        let partition = self.partition_of_user(user);
        let keys = [Key::Meta(partition), Key::Likes(partition, user.clone())].map(|key| self.keys.name(&key));
        let mut args = Args::default();
        args.push(epoch).push(ttl_ms(self.limits.likes_idle_ms));
        products.iter().for_each(|product| {
            args.push(product);
        });
        let reply = self.link.eval(&script::VIEWER_LIKES, &keys, &args, limit_for(args.len())).await?;
        let reply = list(reply)?;
        let Some((kind, times)) = reply.split_first() else { return Err(unexpected(&Value::Array(reply))) };
        match text(kind)? {
            "EPOCH" => Err(lost_epoch(epoch)),
            "NOT_LOADED" => Ok(None),
            "LIKES" if times.len() == products.len() => times.iter().map(decode_time).collect::<Result<_>>().map(Some),
            _ => Err(unexpected(kind)),
        }
    }

    pub(super) async fn do_charge_likes(&self, user: &UserId, likes: u32, at: Timestamp) -> Result<()> {
        let (interval_us, burst_us) = rate_us(&self.limits);
        if interval_us == 0 {
            return Ok(());
        }
        let keys = [self.keys.name(&Key::Rate(self.partition_of_user(user), user.clone()))];
        let mut args = Args::default();
        args.push(at.as_ms()).push(likes).push(interval_us).push(burst_us).push(RATE_KEEP_MS);
        self.link.eval(&script::CHARGE, &keys, &args, STEP_LIMIT).await.map(drop)
    }

    pub(super) async fn do_forget_likes(&self, users: &[UserId]) -> Result<()> {
        for user in users {
            let partition = self.partition_of_user(user);
            let keys =
                [Key::Journal(partition), Key::Likes(partition, user.clone()), Key::Answers(partition, user.clone())]
                    .map(|key| self.keys.name(&key));
            let mut args = Args::default();
            args.push(ttl_ms(self.limits.likes_idle_ms));
            self.link.eval(&script::FORGET_LIKES, &keys, &args, STEP_LIMIT).await?;
        }
        Ok(())
    }
}

/// What a user's sorted set holds; of a product that comes twice the last counts.
fn scores(user: &UserLikes) -> impl Iterator<Item = (&ProductId, i64)> {
    let unliked = user.unliked.iter().map(|(product, first)| (product, -first.as_ms()));
    unliked.chain(user.likes.iter().map(|(product, at)| (product, at.as_ms())))
}

/// How many of the first users fit into one call; at least one.
fn batch_len(users: &[&UserLikes]) -> usize {
    let mut values = 0;
    let fits = users.iter().take_while(|user| {
        values += user.likes.len() + user.unliked.len() + user.answers.len() + 1;
        values <= LOAD_VALUES_MAX
    });
    fits.count().max(1)
}

/// `<liked> <changed> <at> <position>`, as the scripts save an answer, before its product.
struct Saved<'a>(&'a LikeAnswer);

impl std::fmt::Display for Saved<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LikeAnswer { liked, changed, at, position } = self.0;
        write!(f, "{} {} {} {position}", u8::from(*liked), u8::from(*changed), at.as_ms())
    }
}

fn decode_answer(reply: &Value) -> Result<LikeAnswer> {
    let read = |text: &str| {
        let mut words = text.split(' ');
        let mut flag = || match words.next()? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let (liked, changed) = (flag()?, flag()?);
        let at = Timestamp::from_ms(words.next()?.parse().ok()?);
        Some(LikeAnswer { liked, changed, at, position: words.next()?.parse().ok()? })
    };
    read(text(reply)?).ok_or_else(|| unexpected(reply))
}

fn decode_time(reply: &Value) -> Result<Option<Timestamp>, EngineError> {
    match reply {
        Value::Nil => Ok(None),
        time => Ok(Some(Timestamp::from_ms(parse(time)?))),
    }
}
