//! Time zones: which there are, and when a zone's clocks reach a date.
//!
//! Invariant: every node has the same zones. They come from the tz database that is built in, never from the machine's,
//! which has names of its own (`localtime`) and may be of another release.

use jiff::ToSpan;
use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::Timestamp;

/// A name that is no time zone's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimeZone {
    #[error("{0:?} is not an IANA time zone such as Europe/London")]
    Unknown(String),
    #[error("the time zone {given:?} is written {written}")]
    Misspelt { given: String, written: String },
}

/// The time zone with exactly this name.
pub fn time_zone(name: &str) -> Result<TimeZone, InvalidTimeZone> {
    let unknown = || InvalidTimeZone::Unknown(name.to_owned());
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?;
    match zone.iana_name() {
        // In the database for machines on which no zone has been set.
        None | Some("Factory" | "Etc/Unknown") => Err(unknown()),
        // The look-up does not mind capitals. One zone has one spelling, for whoever compares.
        Some(written) if written != name => {
            Err(InvalidTimeZone::Misspelt { given: name.to_owned(), written: written.to_owned() })
        }
        Some(_) => Ok(zone),
    }
}

/// The first instant at which a zone's clocks show this date or a later one: no later than the next date's. Clocks may skip
/// midnight, reach it twice (put back at 00:01, as in St John's), or skip a whole day (Samoa). `None` beyond the calendar.
pub(super) fn start_of_date(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    let midnight = date.to_datetime(Time::midnight());
    // No offset reaches 26 hours, so the date has not begun there.
    let mut since = midnight.to_zoned(TimeZone::UTC).ok()?.timestamp().checked_sub(26.hours()).ok()?;
    loop {
        // The clocks run evenly from `since` until they are changed.
        let reached = zone.to_offset(since).to_timestamp(midnight).ok()?.max(since);
        match zone.following(since).next() {
            Some(change) if change.timestamp() <= reached => since = change.timestamp(),
            _ => return Some(reached.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{Bucket, Period, Window};
    use super::*;

    const WINDOWS: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn period(window: Window, zone: &str, instant: &str) -> Period {
        window.period_at(at(instant), &time_zone(zone).unwrap())
    }

    #[test]
    fn zones_are_those_of_the_database_that_is_built_in() {
        for name in ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "EST5EDT", "US/Eastern"] {
            assert_eq!(time_zone(name).unwrap().iana_name(), Some(name));
        }
        for name in [
            "localtime",
            "posixrules",
            "Factory",
            "Etc/Unknown",
            "posix/Europe/Berlin",
            "right/Europe/Berlin",
            "../Europe/Berlin",
            "/usr/share/zoneinfo/Europe/Berlin",
            "Europe/../Europe/Berlin",
            "Europe/Berlin/",
            " Europe/Berlin",
            "Europe",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "UTC0",
            "+01:00",
            "Z",
            "tzdata.zi",
            "",
        ] {
            assert_eq!(time_zone(name), Err(InvalidTimeZone::Unknown(name.to_owned())));
        }
        let said = |name| time_zone(name).unwrap_err().to_string();
        assert_eq!(said("europe/berlin"), "the time zone \"europe/berlin\" is written Europe/Berlin");
        assert_eq!(said("utc"), "the time zone \"utc\" is written UTC");
    }

    #[test]
    fn a_day_that_clocks_enter_twice_begins_once() {
        // St John's puts its clocks back at 00:01, to 23:01 of the day before.
        let day = |instant| period(Window::Day, "America/St_Johns", instant);
        let (saturday, sunday) = (day("2010-11-06T20:00:00Z"), day("2010-11-07T02:50:00Z"));
        assert_eq!((saturday.key.as_str(), saturday.ends_at), ("2010-11-06", Some(at("2010-11-07T02:30:00Z"))));
        assert_eq!((sunday.key.as_str(), sunday.starts_at), ("2010-11-07", saturday.ends_at));
        assert_eq!(sunday.ends_at, Some(at("2010-11-08T03:30:00Z")));
    }

    #[test]
    fn a_day_that_clocks_skip_is_no_period() {
        let friday = period(Window::Day, "Pacific/Apia", "2011-12-30T09:00:00Z");
        assert_eq!((friday.key.as_str(), friday.ends_at), ("2011-12-29", Some(at("2011-12-30T10:00:00Z"))));
        assert_eq!(period(Window::Day, "Pacific/Apia", "2011-12-30T10:00:00Z").key, "2011-12-31");
        assert_eq!(Window::Day.period_of_key("2011-12-30", &time_zone("Pacific/Apia").unwrap()), None);
    }

    #[test]
    fn an_offset_of_odd_seconds_has_periods_of_whole_buckets() {
        // Monrovia was 44 min 30 s behind until 1972.
        let day = period(Window::Day, "Africa/Monrovia", "1971-06-01T12:00:00Z");
        assert_eq!((day.key.as_str(), day.starts_at), ("1971-06-01", Some(at("1971-06-01T00:30:00Z"))));
        let hour = period(Window::Hour, "Africa/Monrovia", "1971-06-01T12:30:00Z");
        assert_eq!((hour.key.as_str(), hour.starts_at), ("1971-06-01T12-00:44:30", Some(at("1971-06-01T12:30:00Z"))));
    }

    /// Whether the period is a whole number of buckets, is found by each instant of it, and has a key of its own.
    fn check(window: Window, period: &Period, zone: &TimeZone) {
        let (starts_at, ends_at) = (period.starts_at.unwrap(), period.ends_at.unwrap());
        let told = format!("{} {window:?} {period:?}", zone.iana_name().unwrap());
        assert!(starts_at < ends_at, "{told}");
        assert_eq!((period.first.starts_at(), period.end.starts_at()), (starts_at, ends_at), "{told}");
        assert_eq!(window.period_at(starts_at, zone), *period, "{told}");
        assert_eq!(window.period_at(ends_at.minus_ms(1), zone), *period, "{told}");
        assert_eq!(window.period_of_key(&period.key, zone).as_ref(), Some(period), "{told}");
    }

    /// Every zone around each of its changes from 1970 to 2040. Zones that are others under another name are left out.
    #[test]
    fn periods_of_every_zone_meet_at_every_change_of_its_clocks() {
        let (first, last) = (at("1969-12-25T00:00:00Z"), at("2040-01-01T00:00:00Z"));
        let mut seen = HashSet::new();
        for name in TimeZoneDatabase::bundled().available() {
            let Ok(zone) = time_zone(name.as_str()) else { continue };
            let since = jiff::Timestamp::from_millisecond(first.as_ms()).unwrap();
            let changes = zone.following(since).map(|change| (Timestamp::from(change.timestamp()), change.offset()));
            let mut changes: Vec<_> = changes.take_while(|(change, _)| *change < last).collect();
            // The day itself for zones whose clocks are never changed.
            changes.push((first, zone.to_offset(since)));
            if !seen.insert(changes.clone()) {
                continue;
            }
            for window in WINDOWS {
                // Changes often share a week or a month.
                let mut checked_until = Timestamp::from_ms(i64::MIN);
                changes.sort_unstable_by_key(|(change, _)| *change);
                for (change, _) in &changes {
                    let around = Bucket::containing(*change).starts_at();
                    let mut period = window.period_at(around.minus_ms(2 * 3_600_000).max(checked_until), &zone);
                    let until = around.plus_ms(2 * 3_600_000);
                    while period.starts_at.unwrap() <= until {
                        if period.starts_at.unwrap() >= checked_until {
                            check(window, &period, &zone);
                            checked_until = period.ends_at.unwrap();
                        }
                        let next = window.period_at(period.ends_at.unwrap(), &zone);
                        assert_eq!(next.starts_at, period.ends_at, "{name:?} {window:?} {period:?}");
                        assert_ne!(next.key, period.key, "{name:?} {window:?}");
                        period = next;
                    }
                }
            }
        }
        assert!(seen.len() > 250, "{} zones", seen.len());
    }
}
