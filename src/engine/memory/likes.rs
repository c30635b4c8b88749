//! The steps of likes: the like itself, loading, reading and forgetting.
//!
//! Invariant: what is checked comes before what is written, so that a like that is refused leaves no trace.

use std::collections::{HashMap, VecDeque};

use super::partition::Partition;
use crate::domain::{EntryBody, Event, EventId, IdempotencyKey, ProductId, Signal, Timestamp, UserId};
use crate::engine::{Desired, EngineLimits, LikeAnswer, LikeOutcome, LikeRequest, Result, UserLikes};

/// A user's last answers by their keys, oldest first, each with its product; never more than
/// [`EngineLimits::ANSWERS_MAX`].
#[derive(Default)]
pub struct Answers(VecDeque<(IdempotencyKey, ProductId, LikeAnswer)>);

impl Answers {
    fn of(&self, key: &IdempotencyKey) -> Option<(&ProductId, LikeAnswer)> {
        self.0.iter().find(|(known, ..)| known == key).map(|(_, product, answer)| (product, *answer))
    }

    fn push(&mut self, key: IdempotencyKey, product: ProductId, answer: LikeAnswer) {
        if self.0.len() == EngineLimits::ANSWERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, product, answer));
    }

    /// Adds what is unknown, as older than what is known, newest first while there is room. Says whether any was added.
    fn add_older(&mut self, answers: &[(IdempotencyKey, ProductId, LikeAnswer)]) -> bool {
        let len_before = self.0.len();
        for older in answers.iter().rev() {
            if self.0.len() < EngineLimits::ANSWERS_MAX && self.of(&older.0).is_none() {
                self.0.push_front(older.clone());
            }
        }
        self.0.len() > len_before
    }
}

/// What a user likes, and has unliked of late.
#[derive(Default)]
pub struct Likes {
    /// When each like occurred.
    liked: HashMap<ProductId, Timestamp>,
    /// When the like occurred that was taken back.
    unliked: HashMap<ProductId, Timestamp>,
    /// Whether they may lack what was in the journal when they were read.
    is_early: bool,
}

impl Likes {
    fn of(loaded: &UserLikes, is_early: bool) -> Self {
        let mut likes = Self {
            liked: loaded.likes.iter().cloned().collect(),
            unliked: loaded.unliked.iter().cloned().collect(),
            is_early,
        };
        likes.unliked.retain(|product, _| !likes.liked.contains_key(product));
        likes
    }

    pub fn products(&self) -> impl Iterator<Item = &ProductId> {
        self.liked.keys()
    }

    /// Likes a product; says when the like occurs.
    fn like(&mut self, product: &ProductId, at: Timestamp, limits: &EngineLimits) -> Timestamp {
        let first = self.unliked.remove(product).filter(|first| at.since_ms(*first) < limits.like_again_ms);
        let occurs = first.unwrap_or(at);
        self.liked.insert(product.clone(), occurs);
        if self.liked.len() + self.unliked.len() > limits.likes_max as usize
            && let Some(oldest) = self.unliked.iter().map(|(product, first)| (*first, product)).min()
        {
            let oldest = oldest.1.clone();
            self.unliked.remove(&oldest);
        }
        occurs
    }

    fn unlike(&mut self, product: &ProductId, at: Timestamp, limits: &EngineLimits) {
        self.unliked.retain(|_, first| at.since_ms(*first) < limits.like_again_ms);
        if let Some(first) = self.liked.remove(product)
            && at.since_ms(first) < limits.like_again_ms
        {
            self.unliked.insert(product.clone(), first);
        }
    }
}

/// Counts a like against the rate, as [`crate::engine::Engine::like`] says: the time to store, or the wait in
/// milliseconds. `None` to store where there is no limit.
fn spend(limits: &EngineLimits, stored: Option<i64>, at: Timestamp) -> std::result::Result<Option<i64>, u64> {
    if limits.like_rate == 0 {
        return Ok(None);
    }
    let interval = 1_000_000 / i64::from(limits.like_rate);
    let burst = i64::from(limits.like_burst.max(1)) * interval;
    let now = at.as_ms().saturating_mul(1_000);
    let ahead = match stored.unwrap_or(now).saturating_sub(now) {
        // No burst reaches that far: the clock was set back.
        impossible if impossible > burst => burst - interval,
        ahead => ahead.max(0),
    };
    let excess = ahead - (burst - interval);
    match u64::try_from(excess) {
        Ok(excess @ 1..) => Err(excess.div_ceil(1_000)),
        _ => Ok(Some(now.saturating_add(ahead + interval))),
    }
}

impl Partition {
    pub fn like(&mut self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        let LikeRequest { user, product, key, is_key_new, desired, at } = request;
        let (limits, at) = (self.limits, *at);
        self.journal.expect_epoch(epoch)?;
        if let Some((of, answer)) = self.answers.get(user, at).and_then(|answers| answers.of(key)) {
            return Ok(if of == product { LikeOutcome::Replayed(answer) } else { LikeOutcome::Conflict });
        }
        let rate = match spend(&limits, self.rates.get(user, at).copied(), at) {
            Ok(rate) => rate,
            Err(retry_after_ms) => return Ok(LikeOutcome::RateLimited { retry_after_ms }),
        };
        let Some((likes, likes_until)) = self.likes.get_mut(user, at) else { return Ok(LikeOutcome::NotLoaded) };
        if self.journal.is_busy(&limits, at) {
            return Ok(LikeOutcome::Busy);
        }

        let liked_at = likes.liked.get(product).copied();
        let liked = match desired {
            Desired::Toggled => liked_at.is_none(),
            Desired::Exactly(liked) => *liked,
        };
        if liked && liked_at.is_none() && likes.liked.len() >= limits.likes_max as usize {
            return Ok(LikeOutcome::TooMany);
        }
        *likes_until = at.plus_ms(limits.likes_idle_ms);
        let answer = if liked == liked_at.is_some() {
            LikeAnswer { liked, changed: false, at: liked_at.unwrap_or(at), position: self.journal.last() }
        } else {
            let occurred_at = match liked_at {
                None => likes.like(product, at, &limits),
                Some(liked_at) => {
                    likes.unlike(product, at, &limits);
                    liked_at
                }
            };
            let is_settled = self.uncertain.is_none_or(|position| self.journal.is_committed(position));
            let is_new = *is_key_new && is_settled && !likes.is_early;
            let position = self.journal.append(EntryBody::Event(Event {
                id: EventId::of_like(user, key),
                signal: Signal::Like,
                product: product.clone(),
                user: Some(user.clone()),
                count: if liked { 1 } else { -1 },
                occurred_at,
                recorded_at: at,
                reverses: None,
                is_new,
            }));
            if !is_new {
                self.uncertain = Some(position);
            }
            LikeAnswer { liked, changed: true, at, position }
        };
        if let Some(arrival) = rate {
            // Once it has passed it says nothing more.
            self.rates.put(user.clone(), arrival, at, Timestamp::from_ms(arrival / 1_000 + 1));
        }
        self.change_answers(user, at, |answers| {
            answers.push(key.clone(), product.clone(), answer);
            true
        });
        Ok(LikeOutcome::Done(answer))
    }

    pub fn load_likes(&mut self, epoch: u64, loaded: &UserLikes, at: Timestamp) -> Result<()> {
        self.journal.expect_epoch(epoch)?;
        let user = &loaded.user;
        if self.likes.get(user, at).is_none() {
            let as_of = Some(loaded.as_of).filter(|as_of| as_of.epoch == epoch).map_or(0, |as_of| as_of.seq);
            let is_early = self.forgotten.get(user, at).is_some_and(|held| as_of < held.seq);
            self.forgotten.take_if(user, |_| true);
            self.likes.put(user.clone(), Likes::of(loaded, is_early), at, at.plus_ms(self.limits.likes_idle_ms));
        }
        self.change_answers(user, at, |answers| answers.add_older(&loaded.answers));
        Ok(())
    }

    pub fn viewer_likes(
        &mut self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        self.journal.expect_epoch(epoch)?;
        let Some((likes, until)) = self.likes.get_mut(user, at) else { return Ok(None) };
        *until = at.plus_ms(self.limits.likes_idle_ms);
        Ok(Some(products.iter().map(|product| likes.liked.get(product).copied()).collect()))
    }

    pub fn charge_likes(&mut self, user: &UserId, likes: u32, at: Timestamp) {
        if self.limits.like_rate == 0 {
            return;
        }
        let interval = 1_000_000 / i64::from(self.limits.like_rate);
        let now = at.as_ms().saturating_mul(1_000);
        let stored = self.rates.get(user, at).copied().unwrap_or(now).max(now);
        let owed = now.saturating_add(i64::from(self.limits.like_burst.max(1)) * interval);
        let arrival = stored.saturating_add(i64::from(likes) * interval).min(owed);
        self.rates.put(user.clone(), arrival, at, Timestamp::from_ms(arrival / 1_000 + 1));
    }

    pub fn forget_likes(&mut self, user: &UserId, at: Timestamp) {
        self.likes.take_if(user, |_| true);
        self.answers.take_if(user, |_| true);
        if let Some(last) = self.journal.survey().last {
            self.forgotten.put(user.clone(), last, at, at.plus_ms(self.limits.likes_idle_ms));
        }
    }

    /// Changes a user's answers; where that saved any, their idle time starts again.
    fn change_answers(&mut self, user: &UserId, at: Timestamp, change: impl FnOnce(&mut Answers) -> bool) {
        let idle_from = at.plus_ms(self.limits.answers_idle_ms);
        match self.answers.get_mut(user, at) {
            Some((answers, until)) => {
                if change(answers) {
                    *until = idle_from;
                }
            }
            None => {
                let mut answers = Answers::default();
                if change(&mut answers) {
                    self.answers.put(user.clone(), answers, at, idle_from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(like_rate: u32, like_burst: u32) -> EngineLimits {
        EngineLimits { like_rate, like_burst, ..EngineLimits::default() }
    }

    #[test]
    fn a_burst_then_one_an_interval() {
        let limits = limits(3, 2);
        let at = Timestamp::from_ms(1_000);
        let first = spend(&limits, None, at).unwrap();
        assert_eq!(first, Some(1_333_333));
        let second = spend(&limits, first, at).unwrap();
        assert_eq!(second, Some(1_666_666));
        // 333,333 microseconds too many, rounded up.
        assert_eq!(spend(&limits, second, at), Err(334));
        assert_eq!(spend(&limits, second, at.plus_ms(333)), Err(1));
        assert_eq!(spend(&limits, second, at.plus_ms(334)), Ok(Some(1_999_999)));
        assert_eq!(spend(&limits, second, at.plus_ms(10_000)), Ok(Some(11_333_333)));
    }

    #[test]
    fn a_clock_set_back_leaves_one_like_and_then_the_steady_rate() {
        let limits = limits(10, 20);
        let stored = spend(&limits, None, Timestamp::from_ms(3_600_000)).unwrap();
        let stored = spend(&limits, stored, Timestamp::from_ms(0)).unwrap();
        assert_eq!(stored, Some(2_000_000));
        assert_eq!(spend(&limits, stored, Timestamp::from_ms(0)), Err(100));
        assert!(spend(&limits, stored, Timestamp::from_ms(100)).is_ok());
        assert!(spend(&limits, Some(i64::MAX), Timestamp::from_ms(i64::MIN)).is_ok());
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_is_one() {
        assert_eq!(spend(&limits(0, 0), None, Timestamp::from_ms(5)), Ok(None));
        let first = spend(&limits(10, 0), None, Timestamp::from_ms(0)).unwrap();
        assert_eq!(first, Some(100_000));
        assert_eq!(spend(&limits(10, 0), first, Timestamp::from_ms(0)), Err(100));
        assert_eq!(spend(&limits(10, 0), first, Timestamp::from_ms(100)), Ok(Some(200_000)));
    }
}
