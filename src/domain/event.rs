//! Events, and the journal entries that hold them.

use super::{Bucket, EventId, InvalidId, Position, ProductId, Signal, Timestamp, UserId};

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
}

impl Event {
    /// Counts per event: one, up to what a producer that counts by the hour sends.
    pub const COUNT_MAX: i64 = 1_000_000;

    /// The event that the fields of a journal entry are, or why they are none. `field` gives a field's text, or why there is
    /// none.
    pub fn from_fields<'a>(field: impl Fn(&str) -> Result<&'a str, String>) -> Result<Self, String> {
        let number = |name: &str| {
            let value = field(name)?;
            value.parse::<i64>().map_err(|_| format!("{name} is {value:?}, not a whole number"))
        };
        let invalid = |error: InvalidId| error.to_string();
        let signal = number("signal")?;
        let signal_code = i16::try_from(signal).ok().and_then(Signal::from_code);
        let optional = |name: &str| field(name).map(|text| (!text.is_empty()).then_some(text));
        Ok(Self {
            id: EventId::new(field("id")?).map_err(invalid)?,
            signal: signal_code.ok_or_else(|| format!("there is no signal {signal}"))?,
            product: ProductId::new(field("product")?).map_err(invalid)?,
            user: optional("user")?.map(UserId::new).transpose().map_err(invalid)?,
            count: number("count")?,
            occurred_at: Timestamp::from_ms(number("occurred_at")?),
            recorded_at: Timestamp::from_ms(number("recorded_at")?),
            reverses: optional("reverses")?.map(EventId::new).transpose().map_err(invalid)?,
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
    /// Not an event: kept word for word for the dead letters, and counted by no board.
    Malformed {
        raw: String,
        reason: String,
    },
}
