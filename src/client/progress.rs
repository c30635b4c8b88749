//! How an import and a rebuild show themselves: a bar on a terminal, plain lines anywhere else. Bad rows are lines in both.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::ClientError;
use super::rows::BadRow;

/// Without a bar: often enough to see that it moves, seldom enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What an import tells while it runs.
pub trait Progress: Sync {
    fn bad_row(&self, row: &BadRow);
    /// The column of the header that is not read.
    fn unused_column(&self, name: &str);
    /// `bytes` of the file are read, and `rows` are answered.
    fn advanced(&self, bytes: u64, rows: u64);
    /// A call is repeated until the server answers.
    fn waiting(&self, why: &ClientError);
}

/// Shows it on standard error.
pub struct Terminal {
    file: String,
    bar: ProgressBar,
    lines: Mutex<Lines>,
}

struct Lines {
    progress_at: Instant,
    waiting_at: Option<Instant>,
}

impl Terminal {
    /// `file` as the user named it, `bytes` long.
    pub fn new(file: String, bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  [{elapsed}]");
        bar.set_style(style.expect("the template is correct"));
        Self { file, bar, lines: Mutex::new(Lines { progress_at: Instant::now(), waiting_at: None }) }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Whether `last` is long enough ago for another line; if so it is now.
    fn is_due(last: &mut Instant) -> bool {
        let due = last.elapsed() >= LINE_EVERY;
        if due {
            *last = Instant::now();
        }
        due
    }
}

impl Progress for Terminal {
    fn bad_row(&self, row: &BadRow) {
        self.say(&format!("{}:{}: {}", self.file, row.line, row.reason));
    }

    fn unused_column(&self, name: &str) {
        self.say(&format!("{}:1: the column {name:?} is not read", self.file));
    }

    fn advanced(&self, bytes: u64, rows: u64) {
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{rows} rows"));
        let mut lines = self.lines.lock().expect("nothing panics while it holds the lock");
        lines.waiting_at = None;
        if self.bar.is_hidden() && Self::is_due(&mut lines.progress_at) {
            eprintln!("{}: {rows} rows so far", self.file);
        }
    }

    fn waiting(&self, why: &ClientError) {
        self.bar.set_message(format!("waiting: {why}"));
        let mut lines = self.lines.lock().expect("nothing panics while it holds the lock");
        let due = lines.waiting_at.as_mut().is_none_or(Self::is_due);
        lines.waiting_at.get_or_insert_with(Instant::now);
        if self.bar.is_hidden() && due {
            eprintln!("waiting: {why}");
        }
    }
}

/// Shows on standard error what is going on where nobody can say how much is left.
pub struct Spinner {
    bar: ProgressBar,
    said_at: Mutex<Option<Instant>>,
}

impl Spinner {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg}  [{elapsed}]");
        bar.set_style(style.expect("the template is correct"));
        Self { bar, said_at: Mutex::default() }
    }

    pub fn show(&self, text: String) {
        if self.bar.is_hidden() {
            let mut said_at = self.said_at.lock().expect("nothing panics while it holds the lock");
            if said_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                *said_at = Some(Instant::now());
                eprintln!("{text}");
            }
        }
        self.bar.set_message(text);
        self.bar.tick();
    }

    /// Does something that writes to the terminal.
    pub fn hidden(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Spinner {
    fn default() -> Self {
        Self::new()
    }
}
