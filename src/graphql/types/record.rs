//! Recording events: what producers send, and what becomes of each.
//!
//! Each event stands alone: a bad one is REJECTED with its reason, and the others are recorded.

use async_graphql::{Enum, ID, InputObject, SimpleObject};

use super::likes::Durability;
use super::scalars::DateTime;
use super::weights::Signal;
use crate::domain::{self, Event, EventId, InvalidEvent, ProductId, Timestamp, UserId};
use crate::graphql::errors::UserError;
use crate::pipeline::{self, NewEvent};

/// Most events in a call: some 100 KB of JSON, and one call is one step of the engine per partition.
pub const EVENTS_MAX: usize = 500;
/// How far ahead a producer's clock may be. Beyond that, an event could fall into a period that has not begun.
const AHEAD_MS_MAX: i64 = 5 * 60 * 1000;
/// 2000-01-01T00:00:00Z. Older than any shop's events on the web; what an unset date looks like (year 1, or 1970) is not.
const OCCURRED_MS_MIN: i64 = 946_684_800_000;

#[derive(InputObject)]
pub struct RecordEventsInput {
    pub events: Vec<EventInput>,
}

#[derive(InputObject)]
pub struct EventInput {
    /// The producer's own id: the same id is counted once.
    pub id: ID,
    pub signal: Signal,
    pub product_id: ID,
    pub user_id: Option<ID>,
    /// How many of the signal, for producers that count first.
    #[graphql(default_with = "Some(1)")]
    pub count: Option<i32>,
    pub occurred_at: Option<DateTime>,
    /// The id of an earlier event of the same producer; undoes exactly what it added.
    pub reverses: Option<ID>,
}

impl EventInput {
    /// Checks one event, the `index`-th of its call.
    fn parse(&self, index: usize, now: Timestamp) -> Result<NewEvent, UserError> {
        let invalid = |field: &str, message: String| UserError::invalid(&format!("events.{index}.{field}"), message);
        let event_id =
            |field: &str, id: &ID| EventId::from_producer(id).map_err(|error| invalid(field, error.to_string()));
        let id = event_id("id", &self.id)?;
        let signal = domain::Signal::from(self.signal);
        if signal == domain::Signal::Like {
            let message = "a like belongs to a person and goes through toggleLike or setLike".to_owned();
            return Err(invalid("signal", message));
        }
        let product = ProductId::new(&self.product_id).map_err(|error| invalid("productId", error.to_string()))?;
        let user = self.user_id.as_ref().map(|user| UserId::new(user)).transpose();
        let user = user.map_err(|error| invalid("userId", error.to_string()))?;
        let count = i64::from(self.count.unwrap_or(1));
        if !(1..=Event::COUNT_MAX).contains(&count) {
            return Err(invalid("count", format!("{count} is not within 1 and {}", Event::COUNT_MAX)));
        }
        let occurred_at = self.occurred_at.map(|at| at.0);
        if let Some(at) = occurred_at
            && (at.since_ms(now) > AHEAD_MS_MAX || at.as_ms() < OCCURRED_MS_MIN)
        {
            let message = format!("{at} is before the year 2000 or over 5 minutes ahead of {now}");
            return Err(invalid("occurredAt", message));
        }
        let reverses = self.reverses.as_ref().map(|id| event_id("reverses", id)).transpose()?;
        if reverses.as_ref() == Some(&id) {
            return Err(invalid("reverses", "an event can't reverse itself".to_owned()));
        }
        Ok(NewEvent { id, signal, product, user, count, occurred_at, reverses })
    }
}

/// A call's events, checked: those to record, and what is wrong with the others.
pub struct Checked {
    pub events: Vec<NewEvent>,
    ids: Vec<ID>,
    /// By place in the call; `None` for one in `events`.
    errors: Vec<Option<UserError>>,
}

impl Checked {
    pub fn new(inputs: Vec<EventInput>, now: Timestamp) -> Self {
        let (mut events, mut errors) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        for (index, input) in inputs.iter().enumerate() {
            match input.parse(index, now) {
                Ok(event) => {
                    events.push(event);
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
        Self { events, errors, ids: inputs.into_iter().map(|input| input.id).collect() }
    }

    /// Puts the outcomes of `events` back among the others.
    pub fn answered(
        self,
        outcomes: Vec<pipeline::EventResult>,
        durability: Option<pipeline::Durability>,
    ) -> RecordEventsPayload {
        let mut outcomes = outcomes.into_iter();
        let results = self.ids.into_iter().zip(self.errors).enumerate().map(|(index, (event_id, error))| {
            let outcome = error.map_or_else(
                || outcome(index, outcomes.next().expect("record() answers every event")),
                |error| (EventStatus::Rejected, Some(error)),
            );
            EventResult { event_id, status: outcome.0, error: outcome.1 }
        });
        RecordEventsPayload::new(results.collect(), durability)
    }
}

fn outcome(index: usize, outcome: pipeline::EventResult) -> (EventStatus, Option<UserError>) {
    use pipeline::EventResult::*;
    let path = |field: &str| format!("events.{index}.{field}");
    let reason = match outcome {
        Recorded => return (EventStatus::Recorded, None),
        Duplicate => return (EventStatus::Duplicate, None),
        UnknownProduct => UserError::not_found(&path("productId"), "there is no such product"),
        UnknownOriginal => UserError::not_found(&path("reverses"), "there is no such event to reverse"),
        Mismatch => UserError::invalid(&path("reverses"), "the event to reverse has another product or signal"),
        Invalid(invalid) => UserError::invalid(&path(field_of(&invalid)), invalid),
        DeadLettered => UserError::dead_lettered(&format!("events.{index}"), "event"),
    };
    (EventStatus::Rejected, Some(reason))
}

/// The field of the input that gave the event its own.
fn field_of(invalid: &InvalidEvent) -> &'static str {
    match invalid.field {
        "product" => "productId",
        "user" => "userId",
        "occurred_at" | "recorded_at" => "occurredAt",
        same => same,
    }
}

#[derive(Enum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventStatus {
    Recorded,
    Duplicate,
    Rejected,
}

#[derive(SimpleObject)]
pub struct EventResult {
    /// The producer's own id of the event, as it was given.
    pub event_id: ID,
    pub status: EventStatus,
    pub error: Option<UserError>,
}

#[derive(SimpleObject)]
pub struct RecordEventsPayload {
    pub recorded: i32,
    pub duplicates: i32,
    pub rejected: i32,
    pub results: Vec<EventResult>,
    pub durability: Option<Durability>,
}

impl RecordEventsPayload {
    fn new(results: Vec<EventResult>, durability: Option<pipeline::Durability>) -> Self {
        let count = |status| results.iter().filter(|result| result.status == status).count() as i32;
        Self {
            recorded: count(EventStatus::Recorded),
            duplicates: count(EventStatus::Duplicate),
            rejected: count(EventStatus::Rejected),
            durability: durability.map(Durability::from),
            results,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(id: &str) -> EventInput {
        EventInput {
            id: ID(id.to_owned()),
            signal: Signal::Order,
            product_id: ID("a".to_owned()),
            user_id: None,
            count: Some(1),
            occurred_at: None,
            reverses: None,
        }
    }

    fn refused(change: impl FnOnce(&mut EventInput)) -> Option<Vec<String>> {
        let mut event = input("e1");
        change(&mut event);
        event.parse(3, Timestamp::parse("2026-11-22T12:00:00Z").unwrap()).err().and_then(|error| error.path)
    }

    fn at(text: &str) -> Option<DateTime> {
        Some(DateTime(Timestamp::parse(text).unwrap()))
    }

    #[test]
    fn bounds_are_named_by_path() {
        let path = |field: &str| Some(vec!["events".to_owned(), "3".to_owned(), field.to_owned()]);
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|event| event.count = None), None);
        assert_eq!(refused(|event| event.count = Some(1_000_000)), None);
        assert_eq!(refused(|event| event.count = Some(0)), path("count"));
        assert_eq!(refused(|event| event.count = Some(1_000_001)), path("count"));
        assert_eq!(refused(|event| event.occurred_at = at("2026-11-22T12:05:00Z")), None);
        assert_eq!(refused(|event| event.occurred_at = at("2026-11-22T12:05:00.001Z")), path("occurredAt"));
        assert_eq!(refused(|event| event.occurred_at = at("2010-12-06T08:00:00Z")), None);
        assert_eq!(refused(|event| event.occurred_at = at("1970-01-01T00:00:00Z")), path("occurredAt"));
        assert_eq!(refused(|event| event.signal = Signal::Like), path("signal"));
        assert_eq!(refused(|event| event.id = ID("x".repeat(129))), path("id"));
        assert_eq!(refused(|event| event.id = ID("like:1:a:b".to_owned())), path("id"));
        assert_eq!(refused(|event| event.product_id = ID(String::new())), path("productId"));
        assert_eq!(refused(|event| event.user_id = Some(ID("u".repeat(129)))), path("userId"));
        assert_eq!(refused(|event| event.reverses = Some(ID(String::new()))), path("reverses"));
    }

    #[test]
    fn results_keep_the_order_of_the_call() {
        let mut inputs: Vec<_> = ["a", "b", "c", "d"].map(input).into();
        inputs[1].count = Some(0);
        let checked = Checked::new(inputs, Timestamp::now());
        assert_eq!(checked.events.len(), 3);
        let outcomes = vec![
            pipeline::EventResult::Recorded,
            pipeline::EventResult::Duplicate,
            pipeline::EventResult::UnknownProduct,
        ];
        let payload = checked.answered(outcomes, Some(pipeline::Durability::Committed));
        assert_eq!((payload.recorded, payload.duplicates, payload.rejected), (1, 1, 2));
        use EventStatus::*;
        let statuses: Vec<_> = payload.results.iter().map(|result| (result.event_id.as_str(), result.status)).collect();
        assert_eq!(statuses, [("a", Recorded), ("b", Rejected), ("c", Duplicate), ("d", Rejected)]);
        let path = payload.results[3].error.as_ref().unwrap().path.clone().unwrap();
        assert_eq!(path, ["events", "3", "productId"]);
    }
}
