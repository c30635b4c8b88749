//! The way into the journal for producers' events, up to their acknowledgement.
//!
//! Invariant: an event that is answered as recorded, with COMMITTED, is in the ledger. One that the ledger has passed and not
//! taken is a duplicate or a dead letter, and is answered as that.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::doubt::{Doubt, unknown};
use super::fault::before_write;
use super::intake::{Acknowledged, busy};
use super::progress::End;
use super::{App, AppError, Durability, RETRY_AFTER_MS, Result};
use crate::domain::{
    Event, EventId, InvalidEvent, Position, Producer, ProductId, Signal, Timestamp, UserId, partition_of,
};
use crate::engine::{Original, RecordOutcome, RecordRequest};
use crate::ledger::EventState;

/// An event as a producer sends it; its numbers and times are within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub id: EventId,
    pub signal: Signal,
    pub product: ProductId,
    pub user: Option<UserId>,
    pub count: i64,
    /// `None` for now.
    pub occurred_at: Option<Timestamp>,
    pub reverses: Option<EventId>,
}

/// Who records events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorder {
    /// To whom they belong; `None` where they belong to nobody, as all did once.
    pub producer: Option<Producer>,
    /// Whether events that belong to nobody may be reversed.
    pub is_admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventResult {
    Recorded,
    Duplicate,
    UnknownProduct,
    /// The event to be reversed is not known.
    UnknownOriginal,
    /// The event to be reversed has another product or signal.
    Mismatch,
    /// No ledger could store it. Nothing was written.
    Invalid(InvalidEvent),
    /// The ledger can't store it; it stands among the dead letters.
    DeadLettered,
}

impl EventResult {
    /// As it is counted.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Duplicate => "duplicate",
            Self::UnknownProduct | Self::UnknownOriginal | Self::Mismatch | Self::Invalid(_) => "rejected",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// A call's events on their way: what is known of each, in their order.
struct Recording<'a> {
    events: &'a [NewEvent],
    results: Vec<EventResult>,
    /// Where each one that was recorded stands.
    entries: Vec<Option<(u16, Position)>>,
    /// Up to where the engine was corrected when it was asked first, by partition.
    corrected: BTreeMap<u16, Position>,
    /// Partitions of which the ledger has all that was there by then.
    passed: BTreeSet<u16>,
    doubt: Doubt,
}

impl NewEvent {
    /// The event that the engine is to write; a reversal's count and time are taken from what it takes back.
    fn event(&self, now: Timestamp) -> Event {
        Event {
            id: self.id.clone(),
            signal: self.signal,
            product: self.product.clone(),
            user: self.user.clone(),
            count: self.count,
            occurred_at: self.occurred_at.unwrap_or(now),
            recorded_at: now,
            reverses: self.reverses.clone(),
            is_new: false,
        }
    }
}

impl App {
    /// Records events that belong to nobody, as [`Self::record_by`].
    pub async fn record(&self, events: &[NewEvent]) -> Result<(Vec<EventResult>, Option<Durability>)> {
        self.record_by(&Recorder::default(), events).await
    }

    /// Records events; one result each, in order. The durability is that of all that were recorded; `None` where none was.
    pub async fn record_by(
        &self,
        recorder: &Recorder,
        events: &[NewEvent],
    ) -> Result<(Vec<EventResult>, Option<Durability>)> {
        let recorded = match &recorder.producer {
            None => self.record_all(events).await,
            Some(producer) => match self.owned(producer, recorder.is_admin, events).await {
                Ok(events) => self.record_all(&events).await,
                Err(error) => Err(error),
            },
        };
        match &recorded {
            Ok((results, _)) => results.iter().for_each(|result| self.metrics.events(result.outcome(), 1)),
            Err(error) => self.metrics.events(error.outcome(), events.len()),
        }
        recorded
    }

    /// The events as they are stored: their ids, and those that they reverse, are the producer's own. An admin may reverse what
    /// belongs to nobody, where the producer has no such event.
    async fn owned(&self, producer: &Producer, is_admin: bool, events: &[NewEvent]) -> Result<Vec<NewEvent>> {
        let reversed = events.iter().filter(|_| is_admin).filter_map(|event| event.reverses.as_ref());
        let ids: Vec<_> = reversed.flat_map(|id| [id.clone(), id.of(producer)]).collect();
        let known: HashMap<EventId, Original> = match ids[..] {
            [] => HashMap::new(),
            _ => before_write(self, self.ledger.originals(&ids)).await?.into_iter().collect(),
        };
        let original = |id: &EventId| {
            let own = id.of(producer);
            if known.contains_key(id) && !known.contains_key(&own) { id.clone() } else { own }
        };
        let own = |event: &NewEvent| NewEvent {
            id: event.id.of(producer),
            reverses: event.reverses.as_ref().map(original),
            ..event.clone()
        };
        Ok(events.iter().map(own).collect())
    }

    async fn record_all(&self, events: &[NewEvent]) -> Result<(Vec<EventResult>, Option<Durability>)> {
        self.epoch()?;
        let now = self.now();
        let products: Vec<_> = events.iter().map(|event| event.product.clone()).collect();
        let rows = before_write(self, self.catalogue.products(&products)).await?;
        let earlier = self.earlier(events).await?;

        let mut recording = Recording {
            events,
            results: vec![EventResult::UnknownProduct; events.len()],
            entries: vec![None; events.len()],
            corrected: BTreeMap::new(),
            passed: BTreeSet::new(),
            doubt: Doubt::new(),
        };
        let mut requests: BTreeMap<u16, Vec<(usize, RecordRequest)>> = BTreeMap::new();
        for (index, new) in events.iter().enumerate() {
            if rows[index].is_none() {
                continue;
            }
            // What belongs to nobody keeps its id from everybody.
            if earlier.contains_key(&new.id) || new.id.as_sent().is_some_and(|sent| earlier.contains_key(&sent)) {
                recording.results[index] = EventResult::Duplicate;
                continue;
            }
            let event = new.event(now);
            if let Err(invalid) = event.validate() {
                recording.results[index] = EventResult::Invalid(invalid);
                continue;
            }
            let home = event.reverses.as_ref().unwrap_or(&event.id);
            let partition = partition_of(home.as_str(), self.engine.limits().partitions);
            let request = RecordRequest {
                id: event.id,
                signal: event.signal,
                product: event.product,
                user: event.user,
                count: event.count,
                occurred_at: event.occurred_at,
                reverses: event.reverses.map(|id| (id, None)),
            };
            requests.entry(partition).or_default().push((index, request));
        }

        let mut positions = Vec::new();
        for (partition, indexed) in requests {
            let last = loop {
                match self.record_in(partition, &indexed, &mut recording).await {
                    Err(failure) if recording.doubt.asks_again(&failure).await => {}
                    result => break result.map_err(|failure| recording.doubt.told(failure, None))?,
                }
            };
            positions.extend(last.map(|last| (partition, last)));
        }
        let deadline = recording.doubt.answer_by(self.settings.ack_timeout);
        let waits = positions.iter().map(|(partition, last)| self.until_committed(*partition, *last, deadline));
        let ends = futures_util::future::try_join_all(waits).await?;
        let is_accepted = ends.iter().any(|end| matches!(end, Acknowledged::Accepted));
        let passed = positions.iter().zip(&ends).filter(|(_, end)| !matches!(end, Acknowledged::Accepted));
        recording.passed = passed.map(|((partition, _), _)| *partition).collect();
        let is_accepted = self.look_up_refused(&mut recording).await? || is_accepted;
        let is_in = |result: &EventResult| matches!(result, EventResult::Recorded | EventResult::Duplicate);
        let durability = recording.results.iter().any(is_in).then_some(match is_accepted {
            true => Durability::Accepted,
            false => Durability::Committed,
        });
        Ok((recording.results, durability))
    }

    /// Asks the ledger what it has of the entries that it passed and, as far as is known, may not have taken. True where
    /// it can't say.
    async fn look_up_refused(&self, recording: &mut Recording<'_>) -> Result<bool> {
        let (mut asked, mut is_refused) = (Vec::new(), false);
        for (index, entry) in recording.entries.iter().enumerate() {
            let Some((partition, position)) = *entry else { continue };
            let end = self.waits.verdict(partition, position);
            is_refused |= end == Some(End::Refused);
            if matches!(end, Some(End::Refused | End::Untold)) {
                asked.push((index, (recording.events[index].id.clone(), partition, position)));
            }
        }
        self.expect_duplicates(recording).await?;
        if asked.is_empty() {
            return Ok(false);
        }
        let entries: Vec<_> = asked.iter().map(|(_, entry)| entry.clone()).collect();
        let states = match before_write(self, self.ledger.event_states(&entries)).await {
            Ok(states) => states,
            Err(_) if !is_refused => return Ok(true),
            Err(error) => return Err(unknown(error.into())),
        };
        for ((index, _), state) in asked.into_iter().zip(states) {
            recording.results[index] = match state {
                EventState::Committed => EventResult::Recorded,
                EventState::Rejected => EventResult::Duplicate,
                EventState::DeadLettered => EventResult::DeadLettered,
            };
        }
        Ok(false)
    }

    /// Where the ledger has refused anything since the engine was asked, the event that the engine remembered may be one of it:
    /// then it is forgotten, and what is sent again is judged anew. Of what the ledger has yet to pass, nobody knows.
    async fn expect_duplicates(&self, recording: &Recording<'_>) -> Result<()> {
        let partitions = self.engine.limits().partitions;
        let doubtful = |event: &&NewEvent| {
            let home = event.reverses.as_ref().unwrap_or(&event.id);
            let partition = partition_of(home.as_str(), partitions);
            let corrected = recording.corrected.get(&partition).filter(|_| recording.passed.contains(&partition));
            corrected.is_some_and(|corrected| self.waits.has_refused_since(partition, *corrected))
        };
        let duplicates = recording.events.iter().zip(&recording.results);
        let duplicates = duplicates.filter(|(_, result)| **result == EventResult::Duplicate).map(|(event, _)| event);
        let duplicates: Vec<_> = duplicates.filter(doubtful).collect();
        if duplicates.is_empty() || self.is_ledger_away() {
            return Ok(());
        }
        let ids: Vec<_> =
            duplicates.iter().flat_map(|event| [Some(&event.id), event.reverses.as_ref()]).flatten().cloned().collect();
        let known = before_write(self, self.ledger.originals(&ids)).await.map_err(|error| unknown(error.into()))?;
        let known: HashMap<EventId, Original> = known.into_iter().collect();
        let is_known = |event: &NewEvent| {
            let is_reversed = |id| known.get(id).is_some_and(|original: &Original| original.reversed);
            known.contains_key(&event.id) || event.reverses.as_ref().is_some_and(is_reversed)
        };
        match duplicates.into_iter().find(|event| !is_known(event)) {
            None => Ok(()),
            Some(event) => {
                let reason = format!("the ledger has refused an event {}, which the engine still remembers", event.id);
                let failure = AppError::Unavailable { reason, retry_after_ms: RETRY_AFTER_MS };
                Err(recording.doubt.told(failure, None))
            }
        }
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
        recording: &mut Recording<'_>,
    ) -> Result<Option<Position>> {
        let epoch = self.epoch()?;
        recording.corrected.entry(partition).or_insert_with(|| self.waits.corrected(partition));
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
                recording.results[index] = match outcome {
                    RecordOutcome::Recorded(position) => {
                        last = last.max(Some(position));
                        recording.doubt.has_written();
                        recording.entries[index] = Some((partition, position));
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
        if places.iter().any(|place| recording.results[*place] == EventResult::Duplicate) {
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
        let looked_up = events.iter().filter(|event| is_young || is_old(event));
        let ids: Vec<_> = looked_up.flat_map(|event| [Some(event.id.clone()), event.id.as_sent()]).flatten().collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        match before_write(self, self.ledger.originals(&ids)).await {
            Err(_) if self.is_ledger_away() && !events.iter().any(|event| is_old(&event)) => Ok(HashMap::new()),
            known => Ok(known?.into_iter().collect()),
        }
    }
}
