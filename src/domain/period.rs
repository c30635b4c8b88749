//! Windows, and the periods that they cut time into.
//!
//! Invariant: the periods of a window meet without gap or overlap, in any time zone and across its clock changes; a
//! period's key leads back to it.

use jiff::civil::{Date, ISOWeekDate, Weekday};
use jiff::fmt::temporal::SpanParser;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, SpanRelativeTo, ToSpan, Zoned};

use super::zone::start_of_date;
use super::{Bucket, Timestamp};

/// How long a board counts before it starts again. Calendar windows follow the clocks of the board's time zone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Window {
    /// An hour of the clock. Where clocks change by less than an hour, what is left of it.
    Hour,
    /// A calendar day: 23, 24 or 25 hours.
    Day,
    /// An ISO 8601 week, from Monday.
    Week,
    Month,
    /// One period without beginning or end.
    AllTime,
    /// Signals lose half of their worth in each half-life. Periods only say when scores are scaled anew.
    HalfLife(HalfLife),
}

/// A half-life within its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HalfLife {
    ms: i64,
}

/// A half-life from outside that is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a half-life is an ISO 8601 duration from 5 minutes (PT5M) to 30 days (P30D)")]
pub struct InvalidHalfLife;

impl HalfLife {
    /// A bucket is three such half-lives: what is shorter would decide by where in a bucket an event falls.
    pub const MS_MIN: i64 = 5 * 60_000;
    /// A board reads [`Self::REACH`] half-lives of activity: some two and a half years.
    pub const MS_MAX: i64 = 30 * 24 * 3_600_000;
    /// Half-lives after which even the largest weight, 10^9 millionths, is less than one millionth: 2^30 > 10^9.
    const REACH: i64 = 30;
    /// Half-lives from one landmark to the next. A signal then weighs up to 2^8 times its weight (2^9 for the shortest
    /// half-life), so that 50 million orders are told apart by rank, see [`super::Points::RANKED_MAX`].
    const ROLL: i64 = 8;

    pub fn from_ms(ms: i64) -> Result<Self, InvalidHalfLife> {
        if (Self::MS_MIN..=Self::MS_MAX).contains(&ms) { Ok(Self { ms }) } else { Err(InvalidHalfLife) }
    }

    pub const fn ms(self) -> i64 {
        self.ms
    }

    /// 2^((at - landmark) / half-life). From a library of its own, since the platform's may differ in the last bit.
    pub fn growth(self, landmark: Timestamp, at: Timestamp) -> f64 {
        libm::exp2(at.since_ms(landmark) as f64 / self.ms as f64)
    }

    fn buckets(self, half_lives: i64) -> i32 {
        let buckets = (self.ms * half_lives).div_euclid(Bucket::LEN_MS) + 1;
        i32::try_from(buckets).expect("30 times 30 days are 86,400 buckets")
    }

    fn period_at(self, at: Timestamp) -> Period {
        let len = self.buckets(Self::ROLL);
        let start = Bucket::containing(at).0.clamp(i32::MIN / 2, i32::MAX / 2).div_euclid(len) * len;
        let (landmark, end) = (Bucket(start), Bucket(start + len));
        Period {
            key: landmark.starts_at().in_zone(&TimeZone::UTC).strftime("%Y-%m-%dT%H:%MZ").to_string(),
            first: Bucket(start - self.buckets(Self::REACH)),
            end,
            starts_at: Some(landmark.starts_at()),
            ends_at: Some(end.starts_at()),
        }
    }
}

/// ISO 8601, for example PT1H.
impl std::fmt::Display for HalfLife {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        SignedDuration::from_millis(self.ms).fmt(f)
    }
}

/// Takes an ISO 8601 duration of known length: a week has 7 days of 24 hours, a month has no length.
impl std::str::FromStr for HalfLife {
    type Err = InvalidHalfLife;

    fn from_str(text: &str) -> Result<Self, InvalidHalfLife> {
        let span = SpanParser::new().parse_span(text).map_err(|_| InvalidHalfLife)?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| InvalidHalfLife)?;
        Self::from_ms(duration.as_millis().try_into().map_err(|_| InvalidHalfLife)?)
    }
}

impl Window {
    /// The kind's name, without the half-life.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK",
            Self::Month => "MONTH",
            Self::AllTime => "ALL_TIME",
            Self::HalfLife(_) => "HALF_LIFE",
        }
    }

    /// The window of a kind; the half-life counts only for HALF_LIFE, and must be there for it.
    pub fn from_name(name: &str, half_life: Option<HalfLife>) -> Option<Self> {
        let calendar = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::AllTime];
        let half_life = half_life.map(Self::HalfLife);
        calendar.into_iter().chain(half_life).find(|window| window.name() == name)
    }

    pub const fn half_life(self) -> Option<HalfLife> {
        match self {
            Self::HalfLife(half_life) => Some(half_life),
            _ => None,
        }
    }

    /// Whether a period's points can pass to the next. ALL_TIME has no next, and HALF_LIFE counts on by itself.
    pub const fn can_carry(self) -> bool {
        !matches!(self, Self::AllTime | Self::HalfLife(_))
    }

    /// The period that contains an instant.
    pub fn period_at(self, at: Timestamp, zone: &TimeZone) -> Period {
        // Events are kept by bucket, so a bucket is of one period: of that in which it ends.
        let bucket_end = Bucket::containing(at).starts_at().plus_ms(Bucket::LEN_MS - 1);
        let local = bucket_end.in_zone(zone);
        match self {
            Self::AllTime => {
                Period { key: "all".to_owned(), first: Bucket::MIN, end: Bucket::MAX, starts_at: None, ends_at: None }
            }
            Self::HalfLife(half_life) => half_life.period_at(at),
            Self::Hour => hour_at(&local),
            Self::Day => dates_at(&local, local.date(), |day| day.saturating_add(1.day()), |day| day.to_string()),
            Self::Week => {
                let monday = local.date().iso_week_date();
                let monday = first_of_week(monday.year(), monday.week()).expect("the week of a date has a Monday");
                dates_at(&local, monday, |monday| monday.saturating_add(7.days()), key_of_week)
            }
            Self::Month => {
                let key = |first: Date| format!("{:04}-{:02}", first.year(), first.month());
                dates_at(&local, local.date().first_of_month(), |first| first.saturating_add(1.month()), key)
            }
        }
    }

    /// The period with a key, as [`Period::key`] gives it; `None` where no period has that key.
    pub fn period_of_key(self, key: &str, zone: &TimeZone) -> Option<Period> {
        // An instant near the period's start; where clocks change, the period may begin some buckets after it.
        let near = match self {
            Self::AllTime => Timestamp::from_ms(0),
            Self::HalfLife(_) => Timestamp::parse(&key.replace('Z', ":00Z")).ok()?,
            Self::Hour => {
                let (hour, offset) = key.split_at_checked("2026-11-22T13".len())?;
                Timestamp::parse(&format!("{hour}:00:00{offset}")).ok()?
            }
            Self::Day => start_of_date(key.parse().ok()?, zone)?,
            Self::Week => {
                let (year, week) = key.split_once("-W")?;
                start_of_date(first_of_week(year.parse().ok()?, week.parse().ok()?)?, zone)?
            }
            Self::Month => start_of_date(format!("{key}-01").parse().ok()?, zone)?,
        };
        let candidates = (0..4).map(|bucket| self.period_at(near.plus_ms(bucket * Bucket::LEN_MS), zone));
        candidates.into_iter().find(|period| period.key == key)
    }
}

fn first_of_week(year: i16, week: i8) -> Option<Date> {
    Some(ISOWeekDate::new(year, week, Weekday::Monday).ok()?.date())
}

fn key_of_week(monday: Date) -> String {
    let week = monday.iso_week_date();
    format!("{:04}-W{:02}", week.year(), week.week())
}

/// The period that begins with a date, or one of those after it, where the clocks were past that already and were put back.
fn dates_at(at: &Zoned, mut first: Date, next: impl Fn(Date) -> Date, key: impl Fn(Date) -> String) -> Period {
    let start = |date| start_of_date(date, at.time_zone()).expect("instants are kept within the calendar");
    loop {
        let end = next(first);
        if Timestamp::from(at.timestamp()) < start(end) {
            return Period::between(key(first), start(first), start(end));
        }
        first = end;
    }
}

/// The hour of the clock that holds an instant, as far as the clock ran through it. Its key names the offset, since an
/// hour is there twice when clocks are put back.
fn hour_at(at: &Zoned) -> Period {
    let (zone, now) = (at.time_zone(), at.timestamp());
    let into_hour = SignedDuration::from_secs(i64::from(at.minute()) * 60 + i64::from(at.second()))
        + SignedDuration::from_nanos(i64::from(at.subsec_nanosecond()));
    let start = now.saturating_sub(into_hour).expect("a duration is no calendar span");
    let end = start.saturating_add(1.hour()).expect("hours are no calendar units");
    // Changes of the zone's name alone are none of the clock.
    let before = |instant: jiff::Timestamp| zone.to_offset(instant.saturating_sub(1.nanosecond()).expect("as above"));
    let after_now = now.saturating_add(1.nanosecond()).expect("as above");
    let changed = zone.preceding(after_now).map(|change| change.timestamp()).take_while(|change| *change > start);
    let start = changed.into_iter().find(|change| before(*change) != at.offset()).unwrap_or(start);
    let changes = zone.following(now).take_while(|change| change.timestamp() < end);
    let change = changes.into_iter().find(|change| change.offset() != at.offset());
    let end = change.map_or(end, |change| change.timestamp());
    let offset = if at.offset() == Offset::UTC { "Z".to_owned() } else { at.strftime("%:z").to_string() };
    Period::between(format!("{}{offset}", at.strftime("%Y-%m-%dT%H")), start.into(), end.into())
}

/// One window of a board: buckets from `first` up to and without `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Period {
    /// For people and URLs, for example `2026-11-22`, `2026-W47`, `2026-11-22T13Z`.
    pub key: String,
    /// The first bucket that counts: for HALF_LIFE long before the period starts.
    pub first: Bucket,
    pub end: Bucket,
    /// `None` for a period without beginning.
    pub starts_at: Option<Timestamp>,
    /// `None` for a period without end.
    pub ends_at: Option<Timestamp>,
}

impl Period {
    /// Begins and ends with the buckets that hold these instants: a few old offsets are no whole number of buckets, and
    /// clocks were changed at 00:01 in places.
    fn between(key: String, starts_at: Timestamp, ends_at: Timestamp) -> Self {
        let (first, end) = (Bucket::containing(starts_at), Bucket::containing(ends_at));
        Self { key, first, end, starts_at: Some(first.starts_at()), ends_at: Some(end.starts_at()) }
    }

    pub fn contains(&self, bucket: Bucket) -> bool {
        self.first <= bucket && bucket < self.end
    }

    /// Whether the period was over at an instant.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        crate::domain::time_zone(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn minutes(period: &Period) -> i64 {
        period.ends_at.unwrap().since_ms(period.starts_at.unwrap()) / 60_000
    }

    fn trending(ms: i64) -> Window {
        Window::HalfLife(HalfLife::from_ms(ms).unwrap())
    }

    #[test]
    fn a_day_follows_the_clocks_of_its_zone() {
        let hours = |name, instant| minutes(&Window::Day.period_at(at(instant), &zone(name))) / 60;
        let seoul = Window::Day.period_at(at("2026-11-21T15:00:00Z"), &zone("Asia/Seoul"));
        assert_eq!((seoul.key.as_str(), seoul.starts_at), ("2026-11-22", Some(at("2026-11-21T15:00:00Z"))));
        assert_eq!(hours("America/New_York", "2026-11-01T12:00:00Z"), 25);
        assert_eq!(hours("America/New_York", "2026-03-08T12:00:00Z"), 23);
        assert_eq!(hours("Australia/Lord_Howe", "2026-06-01T00:00:00Z"), 24);
        // Clocks in Santiago go forward at midnight, so that day begins at one.
        let santiago = Window::Day.period_at(at("2026-09-06T12:00:00Z"), &zone("America/Santiago"));
        assert_eq!((minutes(&santiago), santiago.starts_at), (23 * 60, Some(at("2026-09-06T04:00:00Z"))));
    }

    #[test]
    fn weeks_are_those_of_iso_8601_and_months_those_of_the_calendar() {
        let week = |instant| Window::Week.period_at(at(instant), &TimeZone::UTC);
        assert_eq!(week("2027-01-03T23:59:59Z").key, "2026-W53");
        assert_eq!(week("2027-01-04T00:00:00Z").key, "2027-W01");
        assert_eq!(week("2026-11-25T12:00:00Z").starts_at, Some(at("2026-11-23T00:00:00Z")));
        let month = Window::Month.period_at(at("2026-10-31T23:30:00Z"), &zone("Europe/Berlin"));
        assert_eq!((month.key.as_str(), month.starts_at), ("2026-11", Some(at("2026-10-31T23:00:00Z"))));
    }

    #[test]
    fn an_hour_that_the_clock_runs_through_twice_is_two_periods() {
        let new_york = zone("America/New_York");
        let hour = |instant| Window::Hour.period_at(at(instant), &new_york);
        assert_eq!(hour("2026-11-01T05:30:00Z").key, "2026-11-01T01-04:00");
        assert_eq!(hour("2026-11-01T06:30:00Z").key, "2026-11-01T01-05:00");
        assert_eq!(minutes(&hour("2026-11-01T06:30:00Z")), 60);
        // Lord Howe puts its clocks back by half an hour at two.
        let lord_howe = zone("Australia/Lord_Howe");
        let twice = Window::Hour.period_at(at("2026-04-04T15:10:00Z"), &lord_howe);
        assert_eq!((twice.key.as_str(), minutes(&twice)), ("2026-04-05T01+10:30", 30));
    }

    #[test]
    fn a_half_life_reaches_back_as_far_as_anything_counts() {
        let hour = HalfLife::from_ms(3_600_000).unwrap();
        let period = Window::HalfLife(hour).period_at(at("2026-11-25T12:00:00Z"), &TimeZone::UTC);
        assert!(period.starts_at.unwrap() <= at("2026-11-25T12:00:00Z") && !period.is_over(at("2026-11-25T12:00:00Z")));
        let oldest = period.first.starts_at().minus_ms(1);
        assert!(1e9 * hour.growth(period.starts_at.unwrap(), oldest) < 1.0);
        assert_eq!(hour.growth(at("2026-11-25T12:00:00Z"), at("2026-11-25T14:00:00Z")), 4.0);
        assert_eq!(HalfLife::from_ms(HalfLife::MS_MIN - 1), Err(InvalidHalfLife));
        assert_eq!(HalfLife::from_ms(HalfLife::MS_MAX + 1), Err(InvalidHalfLife));
    }

    #[test]
    fn a_half_life_is_written_as_iso_8601_does() {
        let ms = |text: &str| text.parse::<HalfLife>().map(HalfLife::ms).ok();
        assert_eq!([ms("PT1H"), ms("PT90M"), ms("PT1H30M")], [Some(3_600_000), Some(5_400_000), Some(5_400_000)]);
        assert_eq!([ms("P1D"), ms("P1W"), ms("P30D")], [Some(86_400_000), Some(604_800_000), Some(2_592_000_000)]);
        for bad in ["", "1 hour", "1h", "PT", "P1M", "P1Y", "PT1H ", "-PT1H", "PT4M59S", "P31D", "PT99999999999999999H"]
        {
            assert_eq!(ms(bad), None, "{bad}");
        }
        for text in ["PT5M", "PT1H", "PT1H30M", "PT720H"] {
            assert_eq!(text.parse::<HalfLife>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn periods_meet_without_gap_and_keys_lead_back() {
        let windows = [Window::Hour, Window::Day, Window::Week, Window::Month, trending(300_000), trending(3_600_000)];
        for name in ["UTC", "Europe/London", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"] {
            for window in windows {
                for start in ["2026-03-01T00:00:00Z", "2026-10-03T00:00:00Z", "2026-12-28T00:00:00Z"] {
                    let mut instant = at(start);
                    for _ in 0..1_000 {
                        let period = window.period_at(instant, &zone(name));
                        assert!(period.contains(period.first) && !period.contains(period.end));
                        assert_eq!(window.period_of_key(&period.key, &zone(name)).as_ref(), Some(&period));
                        instant = period.ends_at.unwrap();
                        assert!(period.is_over(instant) && !period.is_over(instant.minus_ms(1)));
                        assert_eq!(window.period_at(instant, &zone(name)).starts_at, Some(instant));
                        assert_eq!(window.period_at(instant.minus_ms(1), &zone(name)), period);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_key_has_no_period() {
        let windows = [Window::Hour, Window::Day, Window::Week, Window::Month, Window::AllTime, trending(3_600_000)];
        for key in ["", "2026-13-01", "2026-W54", "2026-13", "yesterday", "2026-11-22T25Z", "2026-11-22T13:07Z", "日本"]
        {
            for window in windows {
                assert_eq!(window.period_of_key(key, &zone("Europe/London")), None, "{window:?} {key}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_calendar_do_not_panic() {
        let windows = [Window::Hour, Window::Day, Window::Week, Window::Month, Window::AllTime, trending(3_600_000)];
        for ms in [i64::MIN, i64::MAX] {
            for window in windows {
                window.period_at(Timestamp::from_ms(ms), &zone("America/New_York"));
            }
            Timestamp::from_ms(ms).to_string();
        }
    }
}
