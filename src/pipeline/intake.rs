//! The way into the journal for likes, up to their acknowledgement. That of producers' events is `record`.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::doubt::{Doubt, unknown};
use super::fault::{before_write, write_wait};
use super::progress::End;
use super::{App, AppError, Durability, RETRY_AFTER_MS, Result};
#[cfg(feature = "planted-bugs")]
use crate::domain::planted::Bug;
use crate::domain::{EventId, IdempotencyKey, Position, ProductId, Timestamp, UserId, partition_of};
use crate::engine::{Desired, EngineError, LikeAnswer, LikeOutcome, LikeRequest};
use crate::ledger::{EventState, LedgerError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LikeResult {
    Done {
        liked: bool,
        changed: bool,
        at: Timestamp,
        like_count: Option<u64>,
        durability: Durability,
    },
    UnknownProduct,
    /// The key was used for another product. Nothing was written that lasts.
    KeyConflict,
    /// The ledger can't store it; it stands among the dead letters.
    DeadLettered,
}

/// How soon to try again when the journal, or the engine's memory, is full: they empty as soon as the ledger answers, or
/// somebody has made room.
pub(super) const FULL_RETRY_MS: u64 = 1_000;

/// How long an answer waits for the count of likes once all else is known: a page can do without it.
const COUNT_TIME_MAX: Duration = Duration::from_millis(50);

pub(super) fn busy() -> AppError {
    AppError::Full { reason: "the journal is full, because the ledger is behind".into(), retry_after_ms: FULL_RETRY_MS }
}

/// What an entry has come to.
pub(super) enum Acknowledged {
    Accepted,
    Committed,
    /// The ledger has passed it and did not take it.
    Refused,
    /// The ledger has passed it; whether it took it, it must be asked.
    Untold,
}

/// What the ledger has of a like that it has passed.
enum InLedger {
    /// What the engine answered.
    Own,
    /// The answer that the key was given before.
    Earlier(LikeAnswer),
    /// The key was used for another product before.
    OtherProduct,
    /// Nothing of it.
    Nothing,
    /// Its dead letter.
    DeadLetter,
}

impl App {
    /// Likes, unlikes or toggles, and waits up to `ack_timeout` for ledger and count.
    pub async fn like(
        &self,
        user: &UserId,
        product: &ProductId,
        desired: Desired,
        key: Option<IdempotencyKey>,
    ) -> Result<LikeResult> {
        let began = Instant::now();
        let result = self.like_until_known(user, product, desired, key).await;
        let (outcome, is_done) = match &result {
            Ok(LikeResult::Done { durability: Durability::Committed, .. }) => ("committed", true),
            Ok(LikeResult::Done { durability: Durability::Accepted, .. }) => ("accepted", true),
            Ok(LikeResult::UnknownProduct) => ("unknown_product", false),
            Ok(LikeResult::KeyConflict) => ("key_conflict", false),
            Ok(LikeResult::DeadLettered) => ("dead_lettered", false),
            Err(error) => (error.outcome(), false),
        };
        self.metrics.like(outcome, is_done.then(|| began.elapsed()));
        result
    }

    async fn like_until_known(
        &self,
        user: &UserId,
        product: &ProductId,
        desired: Desired,
        key: Option<IdempotencyKey>,
    ) -> Result<LikeResult> {
        if !before_write(self, self.catalogue.knows(product)).await? {
            return Ok(LikeResult::UnknownProduct);
        }
        #[cfg(feature = "planted-bugs")]
        let key = key.filter(|_| !Bug::NoIdempotencyCheck.is_planted());
        let is_key_new = key.is_none();
        let key = key.unwrap_or_else(|| {
            IdempotencyKey::new(&format!("{:032x}", rand::random::<u128>())).expect("32 digits make a key")
        });
        let (user, product, at) = (user.clone(), product.clone(), self.now());
        let mut request = LikeRequest { user, product, key, is_key_new, desired, at };
        #[cfg(feature = "planted-bugs")]
        if Bug::AckBeforeAppend.is_planted() {
            return self.acknowledge_first(request).await;
        }
        let mut doubt = Doubt::new();
        loop {
            match self.like_and_wait(&request, &mut doubt).await {
                Err(failure) if doubt.asks_again(&failure).await => request.is_key_new = false,
                result => return result.map_err(|failure| doubt.told(failure, Some(&request.key))),
            }
        }
    }

    async fn like_and_wait(&self, request: &LikeRequest, doubt: &mut Doubt) -> Result<LikeResult> {
        let LikeRequest { user, product, .. } = request;
        let partition = partition_of(user.as_str(), self.engine.limits().partitions);
        let corrected = self.waits.corrected(partition);
        let Some((answer, is_replay)) = self.like_once_loaded(request).await? else {
            return Ok(LikeResult::KeyConflict);
        };
        // Recovery has taken an older epoch's journal over, and with it the entry that this answer was saved beside; it tells
        // nobody what was refused.
        let is_settled = is_replay && self.epoch().map_err(unknown)? > answer.position.epoch;
        let deadline = doubt.answer_by(self.settings.ack_timeout);
        // Side by side: the count of likes is there well before the ledger.
        let committed = async {
            match is_settled {
                true if answer.changed => Ok::<_, AppError>(self.untold()),
                true => Ok(Acknowledged::Committed),
                false => match self.until_committed(partition, answer.position, deadline).await? {
                    // What it found there already may be what the ledger refused.
                    Acknowledged::Committed
                        if !answer.changed && self.waits.has_refused_since(partition, corrected) =>
                    {
                        Ok(self.untold())
                    }
                    acknowledged => Ok(acknowledged),
                },
            }
        };
        let counted = async {
            // It is counted once the ledger has it.
            if !is_settled && !self.is_ledger_away() {
                timeout_at(deadline, self.waits.likes(partition, answer.position)).await.ok();
            }
            // The like has taken effect; that nobody can say the count now must not make it look as if it had not.
            Ok(timeout_at(deadline + COUNT_TIME_MAX, self.counts.ask(product.clone())).await.ok().and_then(Result::ok))
        };
        let (acknowledged, like_count) = tokio::try_join!(committed, counted)?;
        let (answer, is_replay, durability) = match acknowledged {
            Acknowledged::Accepted => (answer, is_replay, Durability::Accepted),
            Acknowledged::Committed => (answer, is_replay, Durability::Committed),
            Acknowledged::Refused | Acknowledged::Untold => match self.in_ledger(request, &answer).await {
                Ok(InLedger::Own) => (answer, is_replay, Durability::Committed),
                Ok(other) => {
                    // Whoever committed it may have died before this.
                    let forgotten = self.engine.forget_likes(std::slice::from_ref(user), self.now()).await;
                    forgotten.map_err(|error| self.engine_error(answer.position.epoch, error))?;
                    match other {
                        InLedger::Own | InLedger::Nothing => {
                            let reason =
                                "the engine had the user's likes otherwise than the ledger; they are loaded anew";
                            let reason = reason.to_owned();
                            return Err(AppError::Unavailable { reason, retry_after_ms: RETRY_AFTER_MS });
                        }
                        InLedger::Earlier(earlier) => (earlier, true, Durability::Committed),
                        InLedger::OtherProduct => return Ok(LikeResult::KeyConflict),
                        InLedger::DeadLetter => return Ok(LikeResult::DeadLettered),
                    }
                }
                Err(_) if matches!(acknowledged, Acknowledged::Untold) => (answer, is_replay, Durability::Accepted),
                Err(error) => return Err(unknown(error.into())),
            },
        };
        // What was asked before its answer was lost, and not what somebody has sent with this key earlier. Of two sent in the
        // same millisecond both may be told that they changed it: which one did is not known, and it has one effect.
        let is_own = doubt.may_have_written() && answer.at == request.at;
        Ok(LikeResult::Done {
            liked: answer.liked,
            changed: answer.changed && (!is_replay || is_own),
            at: answer.at,
            like_count,
            durability,
        })
    }

    /// What the ledger has of a like that it has passed.
    async fn in_ledger(&self, request: &LikeRequest, answer: &LikeAnswer) -> Result<InLedger, LedgerError> {
        let LikeRequest { user, product, key, .. } = request;
        Ok(match before_write(self, self.ledger.answer(user, key)).await? {
            Some((other, _)) if other != *product => InLedger::OtherProduct,
            Some((_, own)) if own.position == answer.position => InLedger::Own,
            // The engine had forgotten the key; this is the answer that it was given then.
            Some((_, earlier)) => InLedger::Earlier(earlier),
            None if answer.changed => {
                let partition = partition_of(user.as_str(), self.engine.limits().partitions);
                let entry = (EventId::of_like(user, key), partition, answer.position);
                match before_write(self, self.ledger.event_states(&[entry])).await?[..] {
                    [EventState::DeadLettered] => InLedger::DeadLetter,
                    _ => InLedger::Nothing,
                }
            }
            // It changed nothing, so its position is that of an entry before it, which may be anybody's. What the ledger has
            // from later says nothing about it.
            None => match before_write(self, self.ledger.last_like(user, product)).await? {
                Some((liked, at)) if at <= answer.position && liked != answer.liked => InLedger::Nothing,
                None if answer.liked => InLedger::Nothing,
                _ => InLedger::Own,
            },
        })
    }

    /// Says COMMITTED, and lets the engine append when it can.
    #[cfg(feature = "planted-bugs")]
    async fn acknowledge_first(&self, request: LikeRequest) -> Result<LikeResult> {
        let (epoch, engine, at) = (self.epoch()?, self.engine.clone(), request.at);
        let products = std::slice::from_ref(&request.product);
        let known = async || engine.viewer_likes(epoch, &request.user, products, at).await;
        let mut liked_at = known().await.map_err(|error| self.engine_error(epoch, error))?;
        if liked_at.is_none() {
            self.load(&request.user).await?;
            liked_at = known().await.map_err(|error| self.engine_error(epoch, error))?;
        }
        let is_liked = liked_at.is_some_and(|liked_at| liked_at[0].is_some());
        let liked = match request.desired {
            Desired::Toggled => !is_liked,
            Desired::Exactly(liked) => liked,
        };
        tokio::spawn(async move { engine.like(epoch, &request).await });
        let durability = Durability::Committed;
        Ok(LikeResult::Done { liked, changed: liked != is_liked, at, like_count: None, durability })
    }

    /// The answer, and whether it was given before; `None` where its key is another product's.
    async fn like_once_loaded(&self, request: &LikeRequest) -> Result<Option<(LikeAnswer, bool)>> {
        let epoch = self.epoch()?;
        // A user who has just been loaded may be made to load anew in between, though hardly ever twice.
        for _ in 0..3 {
            match self.engine.like(epoch, request).await.map_err(|error| self.write_error(epoch, error))? {
                LikeOutcome::Done(answer) => return Ok(Some((answer, false))),
                LikeOutcome::Replayed(answer) => return Ok(Some((answer, true))),
                LikeOutcome::Conflict => return Ok(None),
                LikeOutcome::RateLimited { retry_after_ms } => return Err(AppError::RateLimited { retry_after_ms }),
                LikeOutcome::Busy => return Err(busy()),
                LikeOutcome::TooMany => {
                    let value = self.engine.limits().likes_max as usize;
                    let message = format!("nobody may like more than {value} products at a time");
                    return Err(AppError::TooMuch { limit: "likes", value, message });
                }
                LikeOutcome::NotLoaded => {
                    // Others may be asked for first.
                    let loaded = timeout(write_wait(self), self.load(&request.user)).await;
                    loaded.unwrap_or_else(|_| Err(LedgerError::late(write_wait(self)).into()))?;
                }
            }
        }
        Err(AppError::Internal("a user's likes are loaded and not found".into()))
    }

    /// What an engine's error means for a caller whose step writes.
    pub(super) fn write_error(&self, epoch: u64, error: EngineError) -> AppError {
        let is_unanswered = matches!(error, EngineError::Unanswered(_));
        let failure = self.engine_error(epoch, error);
        if is_unanswered { unknown(failure) } else { failure }
    }

    /// `Unknown` where the epoch ended meanwhile: whether the entry was saved is not known here, and to say ACCEPTED
    /// would be a promise.
    pub(super) async fn until_committed(
        &self,
        partition: u16,
        position: Position,
        deadline: Instant,
    ) -> Result<Acknowledged> {
        let deadline = if self.is_ledger_away() { Instant::now() } else { deadline };
        match timeout_at(deadline, self.waits.ledger(partition, position)).await {
            Ok(End::Passed) => Ok(Acknowledged::Committed),
            Ok(End::Refused) => Ok(Acknowledged::Refused),
            Ok(End::Untold) => Ok(self.untold()),
            Ok(End::Unknown) => Err(AppError::Unknown {
                reason: "the engine was lost before the ledger had the entry".into(),
                retry_after_ms: RETRY_AFTER_MS,
                key: None,
            }),
            Err(_) => Ok(Acknowledged::Accepted),
        }
    }

    pub(super) fn untold(&self) -> Acknowledged {
        if self.is_ledger_away() { Acknowledged::Accepted } else { Acknowledged::Untold }
    }
}
