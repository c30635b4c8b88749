//! Loads a CSV file of products or events into a running server.
//!
//! Batches are sent a few at a time, yet the result is as if the rows had been sent one by one: a batch waits while a
//! batch that names one of its ids is unanswered, so that a reversal never overtakes what it takes back. Rows carry ids,
//! so a batch whose answer was lost is sent again, and a file can be loaded twice, without counting anything twice.
//! A bad row is reported with its line and never keeps others out.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;

pub use super::progress::{Progress, Terminal};
pub use super::rows::BadRow;
use super::rows::{Form, Row, Rows};
use super::{Client, ClientError, UserError};
use crate::domain::Timestamp;

/// Rows in one call: what the server takes at most.
const BATCH_LEN_MAX: usize = 500;
/// Batches unanswered at a time. One waits for the ledger while others are read, sent and checked; more gain nothing,
/// since the ledger commits what is there together.
const IN_FLIGHT_MAX: usize = 4;

const RECORD_EVENTS: &str = "mutation Import($events: [EventInput!]!) {
  recordEvents(input: { events: $events }) { results { status error { message path } } }
}";
const UPSERT_PRODUCTS: &str = "mutation Import($products: [ProductInput!]!) {
  upsertProducts(input: { products: $products }) { upserted userErrors { message path } }
}";

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    Products,
    Events {
        /// Move all times by one constant, so that the last event of the file is now.
        shift_to_now: bool,
    },
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Events recorded, or products inserted or replaced.
    pub recorded: u64,
    /// Events that the server had already.
    pub duplicates: u64,
    /// Rows that were reported as bad.
    pub bad: u64,
}

impl Summary {
    pub fn rows(&self) -> u64 {
        self.recorded + self.duplicates + self.bad
    }

    fn add(&mut self, other: Self) {
        self.recorded += other.recorded;
        self.duplicates += other.duplicates;
        self.bad += other.bad;
    }
}

/// Loads a file, or standard input where it is named `-`, and shows the progress on standard error. `patience` is how long a server that does not answer is
/// waited for. Prints the summary.
pub async fn import_file(
    client: &Client,
    path: &Path,
    contents: Contents,
    patience: Duration,
) -> anyhow::Result<Summary> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let shift = matches!(contents, Contents::Events { shift_to_now: true });
    let mut file = open(path, shift).with_context(|| name.clone())?;
    let bytes = file.metadata().with_context(|| name.clone())?.len();
    let form = match contents {
        Contents::Products => Form::Products,
        Contents::Events { .. } if !shift => Form::Events { shift_ms: 0 },
        Contents::Events { .. } => {
            Form::Events { shift_ms: shift_to(Timestamp::now(), &mut file).with_context(|| name.clone())? }
        }
    };
    let terminal = Terminal::new(name.clone(), bytes);
    let began = Instant::now();
    let result = import(client, file, form, patience, &terminal).await;
    terminal.finish();
    let summary =
        result.with_context(|| format!("{name}: stopped; what was loaded stays, and the file can be loaded again"))?;
    let seconds = began.elapsed().as_secs_f64();
    let what = if form == Form::Products { "products" } else { "events" };
    println!(
        "{name}: {} {what} recorded, {} there before, {} bad rows; {seconds:.1} s, {:.0} rows/s",
        summary.recorded,
        summary.duplicates,
        summary.bad,
        summary.rows() as f64 / seconds.max(0.001)
    );
    Ok(summary)
}

/// What comes once only, as from a pipe, is kept in a temporary file where it is to be read twice.
fn open(path: &Path, is_read_twice: bool) -> io::Result<File> {
    let mut file = match path {
        path if path == Path::new("-") => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        path => File::open(path)?,
    };
    if !is_read_twice || file.metadata()?.is_file() {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut file, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// By how much the times of a file must move so that its last event happens at `now`. The file is put back to where it was.
fn shift_to(now: Timestamp, file: &mut (impl Read + Seek)) -> anyhow::Result<i64> {
    let begin = file.stream_position()?;
    let mut rows = Rows::new(&mut *file, Form::Events { shift_ms: 0 })?;
    let mut last: Option<Timestamp> = None;
    while let Some(row) = rows.next_row()? {
        // Bad rows are reported when they are loaded.
        last = last.max(row.ok().and_then(|row| row.occurred_at));
    }
    drop(rows);
    file.seek(SeekFrom::Start(begin))?;
    Ok(last.map_or(0, |last| now.since_ms(last)))
}

/// Loads rows, in the order of the file as far as order can matter.
async fn import(
    client: &Client,
    source: impl Read,
    form: Form,
    patience: Duration,
    progress: &impl Progress,
) -> anyhow::Result<Summary> {
    let mut rows = Rows::new(source, form)?;
    for name in &rows.unused {
        progress.unused_column(name);
    }
    let sender = Sender { client, form, patience, progress };
    let mut summary = Summary::default();
    let mut in_flight = FuturesUnordered::new();
    let mut names_in_flight: Vec<(u64, HashSet<String>)> = Vec::new();
    for number in 0.. {
        let (batch, bad) = next_batch(&mut rows, progress)?;
        summary.bad += bad;
        let names = names_of(&batch);
        while in_flight.len() >= IN_FLIGHT_MAX
            || (batch.is_empty() && !in_flight.is_empty())
            || names_in_flight.iter().any(|(_, others)| !others.is_disjoint(&names))
        {
            let answered: Option<anyhow::Result<(u64, Summary)>> = in_flight.next().await;
            let (number, outcome) = answered.expect("names are in flight only with their batch")?;
            names_in_flight.retain(|(other, _)| *other != number);
            summary.add(outcome);
            progress.advanced(rows.bytes_read(), summary.rows());
        }
        if batch.is_empty() {
            break;
        }
        names_in_flight.push((number, names));
        let sender = &sender;
        in_flight.push(async move { Ok((number, sender.send(batch).await?)) });
    }
    Ok(summary)
}

/// Reads the next rows that can be sent, reports those that can't, and says how many these were. Empty at the end.
fn next_batch<R: Read>(rows: &mut Rows<R>, progress: &impl Progress) -> anyhow::Result<(Vec<Row>, u64)> {
    let (mut batch, mut bad) = (Vec::new(), 0);
    while batch.len() < BATCH_LEN_MAX {
        match rows.next_row()? {
            Some(Ok(row)) => batch.push(row),
            Some(Err(row)) => {
                progress.bad_row(&row);
                bad += 1;
            }
            None => break,
        }
    }
    Ok((batch, bad))
}

/// Every id that the rows write or take back. Rows that share none may be recorded in any order.
fn names_of(batch: &[Row]) -> HashSet<String> {
    batch.iter().flat_map(|row| std::iter::once(&row.id).chain(&row.reverses)).cloned().collect()
}

struct Sender<'a, P> {
    client: &'a Client,
    form: Form,
    patience: Duration,
    progress: &'a P,
}

/// What one call came to.
enum Answer {
    /// Every row has its outcome; the bad ones by their place in the call.
    Done { summary: Summary, bad: Vec<(usize, String)> },
    /// These rows, by place, are bad, and may have kept the others out: those are sent again, which does no harm.
    KeptOut { bad: Vec<(usize, String)> },
    /// The whole call was refused, and it is not said which row is the reason.
    Refused(String),
}

impl<P: Progress> Sender<'_, P> {
    /// Sends a batch until every row is recorded or reported. Where the server refuses a call as a whole, the rows it
    /// names are left out; where it names none, the batch is halved until the bad row stands alone.
    async fn send(&self, batch: Vec<Row>) -> anyhow::Result<Summary> {
        let mut summary = Summary::default();
        let mut parts = VecDeque::from([batch]);
        while let Some(mut part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            let bad = match self.ask(&part).await? {
                Answer::Done { summary: done, bad } => {
                    summary.add(done);
                    bad
                }
                Answer::KeptOut { bad } => {
                    let places: HashSet<usize> = bad.iter().map(|(place, _)| *place).collect();
                    let keep = |place: &usize| !places.contains(place);
                    let rest = (0..part.len()).filter(keep).map(|place| part[place].clone()).collect();
                    parts.push_front(rest);
                    bad
                }
                Answer::Refused(reason) if part.len() == 1 => vec![(0, reason)],
                Answer::Refused(_) => {
                    let second = part.split_off(part.len() / 2);
                    parts.push_front(second);
                    parts.push_front(part);
                    continue;
                }
            };
            for (place, reason) in bad {
                self.progress.bad_row(&BadRow { line: part[place].line, reason });
                summary.bad += 1;
            }
        }
        Ok(summary)
    }

    async fn ask(&self, rows: &[Row]) -> anyhow::Result<Answer> {
        let inputs: Vec<_> = rows.iter().map(|row| &row.input).collect();
        let answer = match self.form {
            Form::Events { .. } => self.record(&json!({ "events": inputs }), rows.len()).await,
            Form::Products => self.upsert(&json!({ "products": inputs }), rows.len()).await,
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Failure::Call(ClientError::Refused { code, message, .. })) => match code.as_str() {
                // The call does not fit the schema, or is too large: a row's doing.
                "BAD_USER_INPUT" | "LIMIT_EXCEEDED" => Ok(Answer::Refused(message)),
                "UNAUTHENTICATED" | "FORBIDDEN" => {
                    bail!("{code}: {message}; set --token to what `acclaim token --user import --role ingest` prints")
                }
                _ => bail!("the server answers {code}: {message}"),
            },
            Err(Failure::Call(error)) => Err(error.into()),
            Err(Failure::Nonsense(reason)) => bail!("{} answers {reason}", self.client.url()),
        }
    }

    async fn record(&self, variables: &serde_json::Value, len: usize) -> Result<Answer, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Recorded {
            record_events: Payload,
        }
        #[derive(Deserialize)]
        struct Payload {
            results: Vec<EventResult>,
        }
        #[derive(Deserialize)]
        struct EventResult {
            status: Status,
            error: Option<UserError>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "UPPERCASE")]
        enum Status {
            Recorded,
            Duplicate,
            Rejected,
        }
        let answer: Recorded = self.call(RECORD_EVENTS, variables).await?;
        let results = answer.record_events.results;
        if results.len() != len {
            return Err(Failure::Nonsense(format!("{} results for {len} events", results.len())));
        }
        let (mut summary, mut bad) = (Summary::default(), Vec::new());
        for (place, result) in results.into_iter().enumerate() {
            match result.status {
                Status::Recorded => summary.recorded += 1,
                Status::Duplicate => summary.duplicates += 1,
                Status::Rejected => {
                    bad.push((place, result.error.map_or_else(|| "rejected".to_owned(), |error| reason(&error))));
                }
            }
        }
        Ok(Answer::Done { summary, bad })
    }

    async fn upsert(&self, variables: &serde_json::Value, len: usize) -> Result<Answer, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Upserted {
            upsert_products: Payload,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            user_errors: Vec<UserError>,
        }
        let answer: Upserted = self.call(UPSERT_PRODUCTS, variables).await?;
        let errors = answer.upsert_products.user_errors;
        if errors.is_empty() {
            // The server counts distinct products; here it is rows, as everywhere in the summary.
            return Ok(Answer::Done {
                summary: Summary { recorded: len as u64, ..Summary::default() },
                bad: Vec::new(),
            });
        }
        let mut bad: Vec<(usize, String)> = Vec::new();
        for error in &errors {
            match place_of(error).filter(|place| *place < len) {
                // One line for a row, however much is wrong with it.
                Some(place) => match bad.iter_mut().find(|(other, _)| *other == place) {
                    Some((_, text)) => *text = format!("{text}; {}", reason(error)),
                    None => bad.push((place, reason(error))),
                },
                None => return Ok(Answer::Refused(reason(error))),
            }
        }
        Ok(Answer::KeptOut { bad })
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        operation: &str,
        variables: &serde_json::Value,
    ) -> Result<T, Failure> {
        let waiting = |error: &ClientError| self.progress.waiting(error);
        self.client.call_patiently(operation, variables, self.patience, waiting).await.map_err(Failure::Call)
    }
}

enum Failure {
    Call(ClientError),
    Nonsense(String),
}

/// The place of a row in the call: the first number in the path, as in `input.products.3.name`.
fn place_of(error: &UserError) -> Option<usize> {
    error.path.iter().flatten().find_map(|part| part.parse().ok())
}

/// The field of the row, as far as the path names one, and the server's message.
fn reason(error: &UserError) -> String {
    let mut parts = error.path.iter().flatten();
    let in_row = parts.any(|part| part.parse::<usize>().is_ok());
    let field: Vec<&str> = parts.map(String::as_str).collect();
    if in_row && !field.is_empty() { format!("{}: {}", field.join("."), error.message) } else { error.message.clone() }
}

#[cfg(test)]
mod tests;
