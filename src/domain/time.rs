//! Instants and buckets. UTC inside; a time zone appears only where a board's periods are cut.

use jiff::tz::TimeZone;

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z: the precision of the API's `DateTime`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Calendars here end 7,000 years from 1970 either way, well within jiff's own, so that a day more never fails.
    const CALENDAR_MS_MAX: i64 = 7_000 * 365 * 24 * 3_600_000;

    /// The node's clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }

    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }

    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub const fn minus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this instant; negative when it is later.
    pub const fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same instant for calendar arithmetic. Instants 7,000 years away and more are taken for that long.
    pub fn in_zone(self, zone: &TimeZone) -> jiff::Zoned {
        let ms = self.0.clamp(-Self::CALENDAR_MS_MAX, Self::CALENDAR_MS_MAX);
        jiff::Timestamp::from_millisecond(ms).expect("7,000 years are within jiff's range").to_zoned(zone.clone())
    }

    /// Parses RFC 3339; what is finer than a millisecond is cut off.
    pub fn parse(text: &str) -> Result<Self, jiff::Error> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_millisecond()))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(instant: jiff::Timestamp) -> Self {
        Self(instant.as_millisecond())
    }
}

/// RFC 3339 in UTC with exactly three decimals.
impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.in_zone(&TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// A quarter of an hour, as a count since 1970-01-01T00:00:00Z. Every time zone's day starts on one now; where an old one
/// did not (Monrovia until 1972), periods begin with the bucket in which it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bucket(pub i32);

impl Bucket {
    /// A quarter of an hour is the finest step of today's time zones (Nepal, the Chatham Islands).
    pub const LEN_MS: i64 = 15 * 60 * 1000;
    pub const MIN: Self = Self(i32::MIN);
    pub const MAX: Self = Self(i32::MAX);

    /// The bucket that begins at an instant, or the first one after it: the first in which what is to count from there does.
    pub fn from_instant(at: Timestamp) -> Self {
        Self(Self::containing(at.minus_ms(1)).0.saturating_add(1))
    }

    /// The bucket that contains an instant. Instants beyond i32 buckets (some 60,000 years) share the outermost ones.
    pub fn containing(at: Timestamp) -> Self {
        Self(at.as_ms().div_euclid(Self::LEN_MS).clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }

    pub const fn starts_at(self) -> Timestamp {
        Timestamp::from_ms(self.0 as i64 * Self::LEN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_milliseconds_always_and_reads_them_back() {
        let t = Timestamp::from_ms(1_290_000_000_000);
        assert_eq!(t.to_string(), "2010-11-17T13:20:00.000Z");
        assert_eq!(Timestamp::parse(&t.to_string()).unwrap(), t);
        assert_eq!(Timestamp::parse("2010-11-17T14:20:00.1239+01:00").unwrap(), t.plus_ms(123));
    }

    #[test]
    fn buckets_before_1970_round_down() {
        assert_eq!(Bucket::containing(Timestamp::from_ms(-1)), Bucket(-1));
        assert_eq!(Bucket::containing(Timestamp::from_ms(0)), Bucket(0));
        assert_eq!(Bucket(-1).starts_at(), Timestamp::from_ms(-900_000));
    }
}
