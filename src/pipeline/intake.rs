//! The ways into the journal: likes and producers' events, up to their acknowledgement.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::doubt::{Doubt, unknown};
use super::fault::{before_write, write_wait};
use super::progress::End;
use super::{App, AppError, Durability, EventResult, LikeResult, NewEvent, RETRY_AFTER_MS, Result};
#[cfg(feature = "planted-bugs")]
use crate::domain::planted::Bug;
use crate::domain::{EventId, IdempotencyKey, Position, ProductId, UserId, partition_of};
use crate::engine::{
    Desired, EngineError, LikeAnswer, LikeOutcome, LikeRequest, Original, RecordOutcome, RecordRequest,
};
use crate::ledger::LedgerError;

/// How soon to try again when the journal is full: it empties as soon as the ledger answers.
const BUSY_RETRY_MS: u64 = 1_000;

/// How long an answer waits for the count of likes once all else is known: a page can do without it.
const COUNT_TIME_MAX: Duration = Duration::from_millis(50);

fn busy() -> AppError {
    AppError::Unavailable {
        reason: "the journal is full, because the ledger is behind".into(),
        retry_after_ms: BUSY_RETRY_MS,
    }
}

/// What an entry has come to.
enum Acknowledged {
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
        let key = key.unwrap_or_else(|| {
            IdempotencyKey::new(&format!("{:032x}", rand::random::<u128>())).expect("32 digits make a key")
        });
        let request = LikeRequest { user: user.clone(), product: product.clone(), key, desired, at: self.now() };
        #[cfg(feature = "planted-bugs")]
        if Bug::AckBeforeAppend.is_planted() {
            return self.acknowledge_first(request).await;
        }
        let mut doubt = Doubt::new();
        loop {
            match self.like_and_wait(&request, &mut doubt).await {
                Err(failure) if doubt.asks_again(&failure).await => {}
                result => return result.map_err(|failure| doubt.told(failure, Some(&request.key))),
            }
        }
    }

    async fn like_and_wait(&self, request: &LikeRequest, doubt: &mut Doubt) -> Result<LikeResult> {
        let LikeRequest { user, product, .. } = request;
        let Some((answer, is_replay)) = self.like_once_loaded(request).await? else {
            return Ok(LikeResult::KeyConflict);
        };
        // Recovery has taken an older epoch's journal over, and with it the entry that this answer was saved beside; it tells
        // nobody what was refused.
        let is_settled = is_replay && self.epoch().map_err(unknown)? > answer.position.epoch;
        let partition = partition_of(user.as_str(), self.engine.limits().partitions);
        let deadline = doubt.answer_by(self.settings.ack_timeout);
        // Side by side: the count of likes is there well before the ledger.
        let committed = async {
            match is_settled {
                true if answer.changed => Ok(self.untold()),
                true => Ok(Acknowledged::Committed),
                false => self.until_committed(partition, answer.position, deadline).await,
            }
        };
        let counted = async {
            if !is_settled {
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
                    let forgotten = self.engine.forget_likes(std::slice::from_ref(user)).await;
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
            None if answer.changed => InLedger::Nothing,
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
            self.loads.ask(request.user.clone()).await?;
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
                LikeOutcome::NotLoaded => {
                    // Others may be asked for first.
                    let loaded = timeout(write_wait(self), self.loads.ask(request.user.clone())).await;
                    loaded.unwrap_or_else(|_| Err(LedgerError::late(write_wait(self)).into()))?;
                }
            }
        }
        Err(AppError::Internal("a user's likes are loaded and not found".into()))
    }

    /// What an engine's error means for a caller whose step writes.
    fn write_error(&self, epoch: u64, error: EngineError) -> AppError {
        let is_unanswered = matches!(error, EngineError::Unanswered(_));
        let failure = self.engine_error(epoch, error);
        if is_unanswered { unknown(failure) } else { failure }
    }

    /// `Unknown` where the epoch ended meanwhile: whether the entry was saved is not known here, and to say ACCEPTED
    /// would be a promise.
    async fn until_committed(&self, partition: u16, position: Position, deadline: Instant) -> Result<Acknowledged> {
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

    fn untold(&self) -> Acknowledged {
        if self.is_ledger_away() { Acknowledged::Accepted } else { Acknowledged::Untold }
    }

    /// Records events; one result each, in order. The durability is that of all that were recorded.
    pub async fn record(&self, events: &[NewEvent]) -> Result<(Vec<EventResult>, Durability)> {
        let recorded = self.record_all(events).await;
        match &recorded {
            Ok((results, _)) => results.iter().for_each(|result| self.metrics.events(result.outcome(), 1)),
            Err(error) => self.metrics.events(error.outcome(), events.len()),
        }
        recorded
    }

    async fn record_all(&self, events: &[NewEvent]) -> Result<(Vec<EventResult>, Durability)> {
        self.epoch()?;
        let now = self.now();
        let products: Vec<_> = events.iter().map(|event| event.product.clone()).collect();
        let rows = before_write(self, self.catalogue.products(&products)).await?;
        let earlier = self.earlier(events).await?;

        let mut results = vec![EventResult::UnknownProduct; events.len()];
        let mut requests: BTreeMap<u16, Vec<(usize, RecordRequest)>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            if rows[index].is_none() {
                continue;
            }
            if earlier.contains_key(&event.id) {
                results[index] = EventResult::Duplicate;
                continue;
            }
            let home = event.reverses.as_ref().unwrap_or(&event.id);
            let partition = partition_of(home.as_str(), self.engine.limits().partitions);
            let request = RecordRequest {
                id: event.id.clone(),
                signal: event.signal,
                product: event.product.clone(),
                user: event.user.clone(),
                count: event.count,
                occurred_at: event.occurred_at.unwrap_or(now),
                reverses: event.reverses.clone().map(|id| (id, None)),
            };
            requests.entry(partition).or_default().push((index, request));
        }

        let mut positions = Vec::new();
        let mut doubt = Doubt::new();
        for (partition, indexed) in requests {
            let last = loop {
                match self.record_in(partition, &indexed, &mut results, &mut doubt).await {
                    Err(failure) if doubt.asks_again(&failure).await => {}
                    result => break result.map_err(|failure| doubt.told(failure, None))?,
                }
            };
            positions.extend(last.map(|last| (partition, last)));
        }
        let deadline = doubt.answer_by(self.settings.ack_timeout);
        let waits = positions.iter().map(|(partition, last)| self.until_committed(*partition, *last, deadline));
        let ends = futures_util::future::try_join_all(waits).await?;
        let is_accepted = ends.iter().any(|end| matches!(end, Acknowledged::Accepted));
        Ok((results, if is_accepted { Durability::Accepted } else { Durability::Committed }))
    }

    async fn last_written(&self, epoch: u64, partition: u16) -> Result<Option<Position>> {
        let survey = self.engine.survey().await.map_err(|error| self.engine_error(epoch, error))?;
        Ok(survey.partitions.get(usize::from(partition)).and_then(|here| here.last))
    }

    /// Records one partition's events; returns a position at which all of them are written, if any is.
    async fn record_in(
        &self,
        partition: u16,
        indexed: &[(usize, RecordRequest)],
        results: &mut [EventResult],
        doubt: &mut Doubt,
    ) -> Result<Option<Position>> {
        let epoch = self.epoch()?;
        let places: Vec<_> = indexed.iter().map(|(index, _)| *index).collect();
        let mut indexed = indexed.to_vec();
        let mut last = None;
        // The second time with what the ledger knows of the originals that the engine does not remember.
        for is_first in [true, false] {
            let requests: Vec<_> = indexed.iter().map(|(_, request)| request.clone()).collect();
            let outcomes = self.engine.record(epoch, partition, &requests, self.now()).await;
            let outcomes = outcomes.map_err(|error| self.write_error(epoch, error))?;
            let mut unknown = Vec::new();
            for ((index, request), outcome) in indexed.into_iter().zip(outcomes) {
                results[index] = match outcome {
                    RecordOutcome::Recorded(position) => {
                        last = last.max(Some(position));
                        doubt.has_written();
                        EventResult::Recorded
                    }
                    RecordOutcome::Duplicate => EventResult::Duplicate,
                    RecordOutcome::Mismatch => EventResult::Mismatch,
                    RecordOutcome::Busy => return Err(busy()),
                    RecordOutcome::UnknownOriginal => {
                        unknown.push((index, request));
                        EventResult::UnknownOriginal
                    }
                };
            }
            if unknown.is_empty() || !is_first {
                break;
            }
            indexed = self.with_originals(unknown).await?;
        }
        if places.iter().any(|place| results[*place] == EventResult::Duplicate) {
            // The call that recorded it may not be durable yet; it is once all that is there by now is.
            last = last.max(self.last_written(epoch, partition).await?);
        }
        Ok(last)
    }

    /// Those of the requests whose originals the ledger knows, with them.
    async fn with_originals(&self, unknown: Vec<(usize, RecordRequest)>) -> Result<Vec<(usize, RecordRequest)>> {
        let ids: Vec<_> =
            unknown.iter().filter_map(|(_, request)| Some(request.reverses.as_ref()?.0.clone())).collect();
        let originals: HashMap<EventId, Original> =
            before_write(self, self.ledger.originals(&ids)).await?.into_iter().collect();
        let known = unknown.into_iter().filter_map(|(index, mut request)| {
            let (id, original) = request.reverses.as_mut()?;
            *original = Some(originals.get(id)?.clone());
            Some((index, request))
        });
        Ok(known.collect())
    }

    /// What the ledger knows of reversals, and of events that claim to be older than the engine's memory.
    async fn earlier(&self, events: &[NewEvent]) -> Result<HashMap<EventId, Original>> {
        let (began_at, memory_ms) = (self.epoch_began_at(), self.engine.limits().event_memory_ms);
        let horizon = self.now().minus_ms(memory_ms).max(began_at);
        // A reversal is at home where its original is, so only the ledger knows its id from any other place.
        let is_old = |event: &&NewEvent| event.reverses.is_some() || event.occurred_at.is_some_and(|at| at <= horizon);
        // An engine that was lost has forgotten what came just before; while the ledger is away, that is left to its commit.
        let is_young = began_at.plus_ms(memory_ms) > self.now() && !self.is_ledger_away();
        let ids: Vec<_> =
            events.iter().filter(|event| is_young || is_old(event)).map(|event| event.id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        match before_write(self, self.ledger.originals(&ids)).await {
            Err(_) if self.is_ledger_away() && !events.iter().any(|event| is_old(&event)) => Ok(HashMap::new()),
            known => Ok(known?.into_iter().collect()),
        }
    }
}
