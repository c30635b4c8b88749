//! The log: lines on standard error, one for each event.
//!
//! Invariant: whatever an event says, its line is one, and reads from left to right as it was written: line separators,
//! bidirectional controls and the like, which ids may hold, are escaped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs what passes a filter from now on; the sentence says what is wrong with the filter.
pub fn begin(filter: &str) -> Result<(), String> {
    if let Some(word) = no_level(filter) {
        return Err(format!(
            "--log (ACCLAIM_LOG) {word:?} is no level: set error, warn, info, debug, trace or off, or TARGET=LEVEL for a \
             part"
        ));
    }
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    let wanted = parsed.map_err(|error| {
        format!("--log (ACCLAIM_LOG) {filter:?} is not a filter: {error}; set a level such as info")
    })?;
    let colours = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(|| Lines(io::stderr()));
    tracing_subscriber::registry().with(filter_fn(is_for_the_log)).with(wanted).with(lines).init();
    Ok(())
}

/// A word that stands alone in a filter and is no level: it would be taken for a part of the program, and nothing else would
/// be logged.
fn no_level(log: &str) -> Option<&str> {
    let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let words = log.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.into_iter().find(|word| !word.contains(['=', '[']) && !is_level(word))
}

/// Whatever the filter asks for: the library of WebSockets traces whole messages, and the first of each has the caller's
/// token.
fn is_for_the_log(what: &tracing::Metadata<'_>) -> bool {
    *what.level() != tracing::Level::TRACE || !what.target().starts_with("tungstenite")
}

/// Takes an event's whole line at once, as the library hands it over.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all(format!("{}{end}", on_one_line(text)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match misleads(character) {
            true => write!(escaped, "{}", character.escape_default()).expect("a string takes all"),
            false => escaped.push(character),
        }
    }
    escaped.into()
}

/// What ends a line, or changes the order in which others are shown (Unicode Standard Annexes 9 and 14). The library has
/// escaped what terminals obey already, and colours are its own.
fn misleads(character: char) -> bool {
    let is_bidi =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_control = character.is_control() && character != '\u{1b}';
    is_bidi || is_control || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_reads_as_it_was_written() {
        let mut written = Vec::new();
        let line = "WARN product=a\u{202e}b\u{2028}WARN\u{85}c\u{2066}\nERROR forged é 商品\n";
        assert_eq!(Lines(&mut written).write(line.as_bytes()).unwrap(), line.len());
        let expected = "WARN product=a\\u{202e}b\\u{2028}WARN\\u{85}c\\u{2066}\\nERROR forged é 商品\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn colours_are_kept_and_a_plain_line_is_not_copied() {
        assert!(matches!(on_one_line("\u{1b}[33mWARN\u{1b}[0m plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_filter_is_made_of_levels() {
        assert_eq!(no_level("info,acclaim=debug"), None);
        assert_eq!(no_level("info,acclaim"), Some("acclaim"));
    }
}
