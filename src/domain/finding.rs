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

    /// How far a clock is from this machine's, in milliseconds; over 1 s it is `verdict`, and `consequence` follows.
    pub fn clock(subject: &'static str, verdict: Verdict, difference_ms: i64, consequence: &str) -> Self {
        let sentence = format!("its clock is {difference_ms} ms from this machine's");
        match difference_ms.unsigned_abs() {
            0..=1_000 => Self::ok(subject, sentence),
            _ => Self { verdict, subject, sentence: format!("{sentence}, so {consequence}; have both follow NTP") },
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
