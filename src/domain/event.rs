//! Events, and the journal entries that hold them.

use super::{Bucket, EventId, InvalidId, InvalidPosition, Position, ProductId, Signal, Timestamp, UserId};

/// Why an event can be neither stored nor counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidEvent {
    /// The field of [`Event`] that is at fault.
    pub field: &'static str,
    pub reason: String,
}

/// One recorded signal.
///
/// An unlike or a reversal is an event of its own with a negative count and the `occurred_at` of what it takes back, so
/// that it lands in the same bucket and undoes exactly that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub id: EventId,
    pub signal: Signal,
    pub product: ProductId,
    /// Whose signal it was; always there for a like.
    pub user: Option<UserId>,
    /// How many of the signal. A like is +1, an unlike -1.
    pub count: i64,
    pub occurred_at: Timestamp,
    /// When it entered the journal, by the clock of the node that wrote it.
    pub recorded_at: Timestamp,
    /// The event it takes back, for a producer's reversal.
    pub reverses: Option<EventId>,
    /// Of a like, whether the ledger has nothing that it repeats or contradicts, as far as the engine can know: the server made
    /// its key, and all that the user's likes rest on is committed, or as certain.
    pub is_new: bool,
}

impl Event {
    /// Counts per event: one, up to what a producer that counts by the hour sends.
    pub const COUNT_MAX: i64 = 1_000_000;

    /// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z, the range of RFC 3339, which both databases hold.
    pub const TIMES_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

    /// Whether any ledger can store the event and any board count it. The edge lets only such events in, the journal's
    /// readers take everything else for malformed, and a commit puts it into the dead letters.
    pub fn validate(&self) -> Result<(), InvalidEvent> {
        let wrong = |field, reason: String| Err(InvalidEvent { field, reason });
        let ids = [
            ("id", EventId::check(self.id.as_str())),
            ("product", ProductId::check(self.product.as_str())),
            ("user", self.user.as_ref().map_or(Ok(()), |user| UserId::check(user.as_str()))),
            ("reverses", self.reverses.as_ref().map_or(Ok(()), |id| EventId::check(id.as_str()))),
        ];
        for (field, checked) in ids {
            if let Err(error) = checked {
                return wrong(field, error.to_string());
            }
        }
        if self.count == 0 || self.count.unsigned_abs() > Self::COUNT_MAX.unsigned_abs() {
            let reason = format!("the count {} is not 1 to {} or what takes that back", self.count, Self::COUNT_MAX);
            return wrong("count", reason);
        }
        for (field, at) in [("occurred_at", self.occurred_at), ("recorded_at", self.recorded_at)] {
            if !Self::TIMES_MS.contains(&at.as_ms()) {
                return wrong(field, "a time is not within the years 1 to 9999".to_owned());
            }
        }
        if self.id.is_of_like() && !self.is_like() {
            let reason = "the id is a like's, and the event is not one like or unlike of that user".to_owned();
            return wrong("id", reason);
        }
        Ok(())
    }

    /// Whether boards count it only once the ledger has it: only the ledger can tell whether a key that was sent is new.
    pub fn waits_for_commit(&self) -> bool {
        self.id.is_of_like() && !self.is_new
    }

    /// Whether this is one like or unlike of the user that its id names.
    fn is_like(&self) -> bool {
        let is_own = self.user.as_ref().is_some_and(|user| self.id.like_of(user).is_some());
        self.signal == Signal::Like && self.count.abs() == 1 && is_own
    }

    /// The event that the fields of a journal entry are, or why they are none that [`Self::validate`] lets pass. `field` gives a field's text, or why there is
    /// none.
    pub fn from_fields<'a>(field: impl Fn(&str) -> Result<&'a str, String>) -> Result<Self, String> {
        let number = |name: &str| number(&field, name);
        let invalid = |error: InvalidId| error.to_string();
        let optional = |name: &str| field(name).map(|text| (!text.is_empty()).then_some(text));
        let event = Self {
            id: EventId::new(field("id")?).map_err(invalid)?,
            signal: signal(&field)?,
            product: ProductId::new(field("product")?).map_err(invalid)?,
            user: optional("user")?.map(UserId::new).transpose().map_err(invalid)?,
            count: number("count")?,
            occurred_at: Timestamp::from_ms(number("occurred_at")?),
            recorded_at: Timestamp::from_ms(number("recorded_at")?),
            reverses: optional("reverses")?.map(EventId::new).transpose().map_err(invalid)?,
            // Earlier versions do not write it.
            is_new: field("new") == Ok("1"),
        };
        event.validate().map_err(|invalid| invalid.reason)?;
        Ok(event)
    }

    pub fn bucket(&self) -> Bucket {
        Bucket::containing(self.occurred_at)
    }
}

fn number<'a>(field: impl Fn(&str) -> Result<&'a str, String>, name: &str) -> Result<i64, String> {
    let value = field(name)?;
    value.parse().map_err(|_| format!("{name} is {value:?}, not a whole number"))
}

fn signal<'a>(field: impl Fn(&str) -> Result<&'a str, String>) -> Result<Signal, String> {
    let code = number(field, "signal")?;
    i16::try_from(code).ok().and_then(Signal::from_code).ok_or_else(|| format!("there is no signal {code}"))
}

/// Takes an event back that boards have counted and the ledger has refused. The ledger itself passes over it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undo {
    /// Where in the same partition the refused entry stands.
    pub refused: Position,
    pub signal: Signal,
    pub product: ProductId,
    /// What the refused entry counted.
    pub count: i64,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
}

impl Undo {
    /// The field that an undo has and no event, in place of the event's id.
    pub const FIELD: &str = "undoes";

    /// As [`Event::from_fields`].
    pub fn from_fields<'a>(field: impl Fn(&str) -> Result<&'a str, String>) -> Result<Self, String> {
        Ok(Self {
            refused: field(Self::FIELD)?.parse().map_err(|invalid: InvalidPosition| invalid.to_string())?,
            signal: signal(&field)?,
            product: ProductId::new(field("product")?).map_err(|invalid| invalid.to_string())?,
            count: number(&field, "count")?,
            occurred_at: Timestamp::from_ms(number(&field, "occurred_at")?),
            recorded_at: Timestamp::from_ms(number(&field, "recorded_at")?),
        })
    }

    pub fn bucket(&self) -> Bucket {
        Bucket::containing(self.occurred_at)
    }
}

/// One entry of a partition's journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub position: Position,
    pub body: EntryBody,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryBody {
    Event(Event),
    Undo(Undo),
    /// Neither: kept word for word for the dead letters, and counted by no board.
    Malformed {
        raw: String,
        reason: String,
    },
}
