//! What a run prints: a table of names and figures, and how a figure is written.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Figures under a title, in the order in which they were added.
pub struct Table {
    title: String,
    rows: Vec<(&'static str, String)>,
}

impl Table {
    pub fn new(title: String) -> Self {
        Self { title, rows: Vec::new() }
    }

    pub fn row(&mut self, name: &'static str, value: impl fmt::Display) {
        self.rows.push((name, value.to_string()));
    }

    /// What stands in the row of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.rows.iter().find(|(row, _)| *row == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows.iter().try_for_each(|(name, value)| write!(f, "\n  {name:<width$}  {value}"))
    }
}

/// A whole number with commas between thousands.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Bytes, in units of a thousand each.
pub fn bytes(count: f64) -> String {
    match count.abs() {
        small if small < 1e3 => format!("{count:.0} bytes"),
        middle if middle < 1e6 => format!("{:.1} KB", count / 1e3),
        _ => format!("{:.1} MB", count / 1e6),
    }
}

/// `total` and what that is in a second; of a run of no length, only the total.
pub fn rate(total: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds == 0.0 {
        return number(total as f64);
    }
    format!("{}, {}/s", number(total as f64), number(total as f64 / seconds))
}

/// How long things took: to the microsecond, and three digits of it.
pub struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    /// Nothing that is measured may take longer: calls time out well before.
    const MAX_US: u64 = 120_000_000;

    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, Self::MAX_US, 3);
        Self(Mutex::new(histogram.expect("the bounds are in order")))
    }

    pub fn record(&self, took: Duration) {
        self.histogram().saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What 99 of 100 stay within.
    pub fn p99(&self) -> Duration {
        Duration::from_micros(self.histogram().value_at_quantile(0.99))
    }

    fn histogram(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let histogram = self.histogram();
        if histogram.is_empty() {
            return f.write_str("none measured");
        }
        let ms = |us: u64| us as f64 / 1e3;
        let [p50, p99] = [0.5, 0.99].map(|share| ms(histogram.value_at_quantile(share)));
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, max {:.1} ms", ms(histogram.max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([0.4, 999.0, 1_000.0, 1_234_567.0].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999.0, 1_300.0, 45_600_000.0].map(bytes), ["999 bytes", "1.3 KB", "45.6 MB"]);
        assert_eq!(rate(3_000, Duration::from_secs(2)), "3,000, 1,500/s");
        assert_eq!(rate(0, Duration::ZERO), "0");
        let mut table = Table::new("title".to_owned());
        table.row("a", 1);
        table.row("long name", "x");
        assert_eq!(table.to_string(), "title\n  a          1\n  long name  x");
        assert_eq!([table.value("long name"), table.value("long")], [Some("x"), None]);
    }

    #[test]
    fn latencies_are_told_by_rank() {
        let latencies = Latencies::new();
        assert_eq!(latencies.to_string(), "none measured");
        (1..=100).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        latencies.record(Duration::from_secs(3_600));
        let text = latencies.to_string();
        assert!(text.starts_with("p50 51.0 ms, p99 100."), "{text}");
    }
}
