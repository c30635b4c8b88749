//! One line of a check-up: what was looked at, how it is, and what to do about it.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// It works, and something is lost or slow when more goes wrong.
    Warn,
    /// It does not work, or a promise does not hold.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    /// What was looked at, in two or three words.
    pub subject: &'static str,
    /// What was found, and what to do where it is not [`Verdict::Ok`].
    pub sentence: String,
}

impl Finding {
    pub fn ok(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, sentence: sentence.into() }
    }

    pub fn warn(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, subject, sentence: sentence.into() }
    }

    pub fn fail(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, subject, sentence: sentence.into() }
    }

    /// How far a clock is from this machine's, in milliseconds. A period begins, and a like's time is written, by the clock
    /// of the server that takes it; an event from more than 5 minutes ahead is refused.
    pub fn clock(subject: &'static str, difference_ms: i64) -> Self {
        let sentence = format!("its clock is {difference_ms} ms from this machine's");
        match difference_ms.abs() {
            0..=1_000 => Self::ok(subject, sentence),
            1_001..=300_000 => Self::warn(subject, format!("{sentence}; have both follow NTP")),
            _ => Self::fail(subject, format!("{sentence}; have both follow NTP: days would begin at different times")),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict:<5} {:<22} {}", self.subject, self.sentence)
    }
}
