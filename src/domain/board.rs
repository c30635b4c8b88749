//! Boards, and the periods that their windows cut time into.

use jiff::{ToSpan, Zoned, civil, tz::TimeZone};

use super::{BoardId, Bucket, Timestamp, Weights};

/// How long a board counts before it starts again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Window {
    /// A calendar day in the board's time zone: 23, 24 or 25 hours.
    Day,
    /// One period without beginning or end.
    AllTime,
}

impl Window {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::AllTime => "ALL_TIME",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Day, Self::AllTime].into_iter().find(|window| window.name() == name)
    }
}

/// The definition of a leaderboard.
#[derive(Clone, PartialEq, Debug)]
pub struct Board {
    pub id: BoardId,
    pub title: String,
    pub window: Window,
    pub time_zone: TimeZone,
}

impl Board {
    /// The weights before any rule.
    pub fn base_weights(&self) -> Weights {
        if self.id == BoardId::likes() { Weights::LIKES } else { Weights::DEFAULT }
    }

    /// The period that contains an instant.
    pub fn period_at(&self, at: Timestamp) -> Period {
        match self.window {
            Window::AllTime => {
                Period { key: "all".to_owned(), first: Bucket::MIN, end: Bucket::MAX, starts_at: None, ends_at: None }
            }
            Window::Day => {
                let day = at.in_zone(&self.time_zone).date();
                let start = |date| start_of_day(date, &self.time_zone).expect("instants are kept within the calendar");
                Period::between(day.to_string(), start(day), start(day.saturating_add(1.day())))
            }
        }
    }

    /// The period with a key, as [`Period::key`] gives it; `None` where no period of this board has that key.
    pub fn period_of_key(&self, key: &str) -> Option<Period> {
        let period = match self.window {
            Window::AllTime => self.period_at(Timestamp::from_ms(0)),
            Window::Day => {
                let date = key.parse::<civil::Date>().ok()?;
                self.period_at(Timestamp::from(start_of_day(date, &self.time_zone)?.timestamp()))
            }
        };
        (period.key == key).then_some(period)
    }
}

/// The first instant of a local day: midnight, or what follows it where the clocks are put forward at midnight.
fn start_of_day(date: civil::Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()
}

/// One window of a board: buckets from `first` up to and without `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Period {
    /// For people and URLs, for example `2026-11-22`; sorts by time within a board.
    pub key: String,
    pub first: Bucket,
    pub end: Bucket,
    /// `None` for a period without beginning.
    pub starts_at: Option<Timestamp>,
    /// `None` for a period without end.
    pub ends_at: Option<Timestamp>,
}

impl Period {
    fn between(key: String, start: Zoned, end: Zoned) -> Self {
        let (starts_at, ends_at) = (Timestamp::from(start.timestamp()), Timestamp::from(end.timestamp()));
        Self {
            key,
            first: Bucket::containing(starts_at),
            end: Bucket::containing(ends_at),
            starts_at: Some(starts_at),
            ends_at: Some(ends_at),
        }
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

    fn daily(zone: &str) -> Board {
        Board {
            id: BoardId::daily(),
            title: String::new(),
            window: Window::Day,
            time_zone: TimeZone::get(zone).unwrap(),
        }
    }

    fn hours(period: &Period) -> i64 {
        period.ends_at.unwrap().since_ms(period.starts_at.unwrap()) / 3_600_000
    }

    #[test]
    fn a_day_follows_the_clocks_of_its_zone() {
        let at = |text| Timestamp::parse(text).unwrap();
        let seoul = daily("Asia/Seoul").period_at(at("2026-11-21T15:00:00Z"));
        assert_eq!(seoul.key, "2026-11-22");
        assert_eq!(seoul.starts_at, Some(at("2026-11-21T15:00:00Z")));
        let new_york = daily("America/New_York");
        assert_eq!(hours(&new_york.period_at(at("2026-11-01T12:00:00Z"))), 25);
        assert_eq!(hours(&new_york.period_at(at("2026-03-08T12:00:00Z"))), 23);
        assert_eq!(hours(&daily("Australia/Lord_Howe").period_at(at("2026-06-01T00:00:00Z"))), 24);
        // Clocks in Santiago go forward at midnight, so that day begins at one.
        let santiago = daily("America/Santiago").period_at(at("2026-09-06T12:00:00Z"));
        assert_eq!(hours(&santiago), 23);
        assert_eq!(santiago.starts_at, Some(at("2026-09-06T04:00:00Z")));
    }

    #[test]
    fn days_meet_without_gap_and_keys_lead_back() {
        let board = daily("Europe/London");
        let mut at = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        for _ in 0..400 {
            let period = board.period_at(at);
            assert!(period.contains(period.first) && !period.contains(period.end));
            assert_eq!(board.period_of_key(&period.key).as_ref(), Some(&period));
            at = period.ends_at.unwrap();
            assert!(period.is_over(at) && !period.is_over(at.minus_ms(1)));
            assert_eq!(board.period_at(at).starts_at, Some(at));
        }
        assert_eq!(board.period_of_key("2026-13-01"), None);
        assert_eq!(board.period_of_key("yesterday"), None);
    }

    #[test]
    fn the_ends_of_the_calendar_do_not_panic() {
        for ms in [i64::MIN, i64::MAX] {
            daily("UTC").period_at(Timestamp::from_ms(ms));
            Timestamp::from_ms(ms).to_string();
        }
    }
}
