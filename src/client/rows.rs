//! Rows of the two CSV forms, products and events, checked as far as that is possible without the server.
//!
//! Columns are found by the header's names, in any order. Every row knows the line it begins in, counted as an editor
//! counts: quoted line breaks, blank lines and Windows line ends included. Nothing of a file is held but the present row.

use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::domain::{Event, EventId, ProductId, Signal, Timestamp, UserId};

/// The longest row, in bytes: a hundred times what the fields can hold. Beyond it a quote was never closed, and the rest
/// of the file would be taken for one field.
const ROW_LEN_MAX: usize = 1 << 20;

/// Which of the two forms a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Products,
    /// `shift_ms` is added to every time.
    Events {
        shift_ms: i64,
    },
}

impl Form {
    /// Names of the columns, those that must be there first, and how many these are.
    fn columns(self) -> (&'static [&'static str], usize) {
        match self {
            Self::Products => (&["id", "name", "category", "brand", "price", "currency", "image_url"], 2),
            Self::Events { .. } => (&["id", "signal", "product_id", "user_id", "count", "occurred_at", "reverses"], 3),
        }
    }
}

/// A row that can be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub line: u64,
    pub id: String,
    pub reverses: Option<String>,
    pub occurred_at: Option<Timestamp>,
    /// The `ProductInput` or `EventInput`.
    pub input: Value,
}

/// A row that can not, or that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    pub line: u64,
    pub reason: String,
}

/// Reads a file row by row.
pub(super) struct Rows<R> {
    csv: csv::Reader<UnixLines<R>>,
    form: Form,
    /// For each name of [`Form::columns`], its place in the file.
    places: Vec<Option<usize>>,
    width: usize,
    /// Columns of the file that mean nothing here.
    pub unused: Vec<String>,
    record: csv::ByteRecord,
}

impl<R: BufRead> Rows<R> {
    /// Reads the header. Fails when a column that must be there is not.
    pub fn new(source: R, form: Form) -> anyhow::Result<Self> {
        let mut csv = csv::ReaderBuilder::new().flexible(true).from_reader(UnixLines::new(source));
        let header = csv.byte_headers()?.clone();
        let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        let (known, required) = form.columns();
        let places: Vec<_> = known.iter().map(|name| names.iter().position(|there| there == name)).collect();
        if let Some(missing) = places[..required].iter().position(Option::is_none) {
            bail!(
                "the header has no column {:?}; needed are {}; known are also {}",
                known[missing],
                known[..required].join(", "),
                known[required..].join(", ")
            );
        }
        let unused = names.iter().filter(|name| !known.contains(&name.as_str())).cloned().collect();
        Ok(Self { csv, form, places, width: names.len(), unused, record: csv::ByteRecord::new() })
    }

    /// The next row; `None` at the end. An error is the file's, and ends the reading.
    pub fn next_row(&mut self) -> anyhow::Result<Option<Result<Row, BadRow>>> {
        self.csv.get_mut().row_len = 0;
        let last_line = self.csv.position().line();
        if !self.csv.read_byte_record(&mut self.record).with_context(|| format!("after line {}", last_line - 1))? {
            return Ok(None);
        }
        // Every row has ended with exactly one \n, and holds one for each line break in its fields.
        let end = self.csv.position().line() - 1;
        let breaks = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let line = end.saturating_sub(breaks);
        let row = self.parse(line).map_err(|error| {
            let span = if breaks > 0 { format!(" (the row ends in line {end})") } else { String::new() };
            BadRow { line, reason: format!("{error:#}{span}") }
        });
        Ok(Some(row))
    }

    /// Bytes taken from the file so far.
    pub fn bytes_read(&self) -> u64 {
        self.csv.get_ref().bytes_read
    }

    fn parse(&self, line: u64) -> anyhow::Result<Row> {
        if self.record.len() != self.width {
            bail!("{} fields, but the header has {}", self.record.len(), self.width);
        }
        match self.form {
            Form::Products => self.product(line),
            Form::Events { shift_ms } => self.event(line, shift_ms),
        }
    }

    /// A field by the place of its name in [`Form::columns`]; `None` where it is empty.
    fn field(&self, column: usize) -> anyhow::Result<Option<&str>> {
        let Some(bytes) = self.places[column].and_then(|place| self.record.get(place)) else { return Ok(None) };
        let name = self.form.columns().0[column];
        let text = std::str::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?.trim();
        Ok((!text.is_empty()).then_some(text))
    }

    fn needed(&self, column: usize) -> anyhow::Result<&str> {
        self.field(column)?.with_context(|| format!("{} is empty", self.form.columns().0[column]))
    }

    fn product(&self, line: u64) -> anyhow::Result<Row> {
        let id = ProductId::new(self.needed(0)?)?;
        let price = self.field(4)?;
        if let Some(price) = price {
            price
                .parse::<rust_decimal::Decimal>()
                .with_context(|| format!("price {price:?} is not a decimal number"))?;
        }
        let input = json!({
            "id": id.as_str(),
            "name": self.needed(1)?,
            "category": self.field(2)?,
            "brand": self.field(3)?,
            "price": price,
            "currency": self.field(5)?,
            "imageUrl": self.field(6)?,
        });
        Ok(Row { line, id: id.to_string(), reverses: None, occurred_at: None, input })
    }

    fn event(&self, line: u64, shift_ms: i64) -> anyhow::Result<Row> {
        let id = EventId::from_producer(self.needed(0)?)?;
        let name = self.needed(1)?;
        let signal = Signal::from_name(name)
            .with_context(|| format!("signal {name:?} is none of {}", Signal::ALL.map(Signal::name).join(", ")))?;
        let product = ProductId::new(self.needed(2)?)?;
        let user = self.field(3)?.map(UserId::new).transpose()?;
        let count = self.field(4)?.map(|text| {
            let count: Option<i64> = text.parse().ok().filter(|count| (1..=Event::COUNT_MAX).contains(count));
            count.with_context(|| format!("count {text:?} is not a whole number from 1 to {}", Event::COUNT_MAX))
        });
        let occurred_at = self.field(5)?.map(|text| {
            let at = Timestamp::parse(text);
            at.with_context(|| format!("occurred_at {text:?} is not a time such as 2010-12-06T09:58:00Z"))
        });
        let occurred_at = occurred_at.transpose()?.map(|at| at.plus_ms(shift_ms));
        let reverses = self.field(6)?.map(EventId::from_producer).transpose()?;
        let input = json!({
            "id": id.as_str(),
            "signal": signal.name(),
            "productId": product.as_str(),
            "userId": user.as_ref().map(UserId::as_str),
            "count": count.transpose()?.unwrap_or(1),
            "occurredAt": occurred_at.map(|at| at.to_string()),
            "reverses": reverses.as_ref().map(EventId::as_str),
        });
        Ok(Row { line, id: id.to_string(), reverses: reverses.map(|id| id.to_string()), occurred_at, input })
    }
}

/// Hands on a text with every line ended by a bare \n, the last one too: the CSV reader counts lines right only then.
struct UnixLines<R> {
    source: R,
    line: Vec<u8>,
    taken: usize,
    bytes_read: u64,
    /// Bytes handed on since the present row began. The CSV reader reads ahead, so this is an estimate.
    row_len: usize,
}

impl<R: BufRead> UnixLines<R> {
    fn new(source: R) -> Self {
        Self { source, line: Vec::new(), taken: 0, bytes_read: 0, row_len: 0 }
    }
}

impl<R: BufRead> Read for UnixLines<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.line.len() {
            self.line.clear();
            self.taken = 0;
            let read = (&mut self.source).take(ROW_LEN_MAX as u64).read_until(b'\n', &mut self.line)?;
            self.bytes_read += read as u64;
            self.row_len += read;
            if self.row_len >= ROW_LEN_MAX {
                return Err(std::io::Error::other("a row of over 1 MiB; was a quote never closed?"));
            }
            if read == 0 {
                return Ok(0);
            }
            if self.line.ends_with(b"\r\n") {
                self.line.pop();
                self.line.pop();
                self.line.push(b'\n');
            } else if !self.line.ends_with(b"\n") {
                self.line.push(b'\n');
            }
        }
        let len = into.len().min(self.line.len() - self.taken);
        into[..len].copy_from_slice(&self.line[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "id,signal,product_id,user_id,occurred_at,reverses\n";

    fn read(text: &str, form: Form) -> Vec<Result<Row, BadRow>> {
        let mut rows = Rows::new(text.as_bytes(), form).unwrap();
        std::iter::from_fn(|| rows.next_row().unwrap()).collect()
    }

    fn events(text: &str) -> Vec<Result<Row, BadRow>> {
        read(&format!("{HEADER}{text}"), Form::Events { shift_ms: 0 })
    }

    fn lines(rows: &[Result<Row, BadRow>]) -> Vec<u64> {
        rows.iter().map(|row| row.as_ref().map_or_else(|bad| bad.line, |row| row.line)).collect()
    }

    #[test]
    fn a_row_becomes_the_input_of_the_api() {
        let rows = events("536365-0,ORDER,85123A,c17850,2010-12-01T08:26:00Z,\n7,LIKE,b,,,536365-0\n");
        assert_eq!(
            rows[0].as_ref().unwrap().input,
            json!({"id": "536365-0", "signal": "ORDER", "productId": "85123A", "userId": "c17850", "count": 1,
                   "occurredAt": "2010-12-01T08:26:00.000Z", "reverses": null})
        );
        let reversal = rows[1].as_ref().unwrap();
        assert_eq!(reversal.reverses.as_deref(), Some("536365-0"));
        assert_eq!(reversal.input["occurredAt"], Value::Null);
        let products = "price,id,name,colour\n29.90,a,\"Bag, red\",red\n";
        let mut products = Rows::new(products.as_bytes(), Form::Products).unwrap();
        assert_eq!(products.unused, ["colour"]);
        let input = products.next_row().unwrap().unwrap().unwrap().input;
        assert_eq!(
            (&input["name"], &input["price"], &input["brand"]),
            (&json!("Bag, red"), &json!("29.90"), &Value::Null)
        );
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts() {
        let text = "id,name\na,A\n\n\nb,\"two\nlines\"\nc,C\n";
        for text in [text.to_owned(), text.replace('\n', "\r\n"), text.trim_end().to_owned(), format!("\u{feff}{text}")]
        {
            assert_eq!(lines(&read(&text, Form::Products)), [2, 5, 7], "{text:?}");
        }
    }

    #[test]
    fn a_bad_row_says_its_line_and_why_and_the_next_is_read() {
        let rows = events(
            "a,ORDER,p,,2010-12-01T08:26:00Z,\n\
             b,ORDERED,p,,2010-12-01T08:26:00Z,\n\
             c,ORDER,p,,yesterday,\n\
             ,ORDER,p,,2010-12-01T08:26:00Z,\n\
             d,ORDER,p\n\
             e,ORDER,\"p\nq\",,2010-12-01T08:26:00Z,\n\
             f,ORDER,p,,2010-12-01T08:26:00Z,\n",
        );
        assert_eq!(lines(&rows), [2, 3, 4, 5, 6, 7, 9]);
        let reason = |at: usize| rows[at].as_ref().unwrap_err().reason.as_str();
        assert!(reason(1).starts_with("signal \"ORDERED\" is none of VIEW, LIKE"), "{}", reason(1));
        assert!(reason(2).starts_with("occurred_at \"yesterday\" is not a time"), "{}", reason(2));
        assert_eq!(reason(3), "id is empty");
        assert_eq!(reason(4), "3 fields, but the header has 6");
        assert_eq!(reason(5), "the product id holds a control character (the row ends in line 8)");
        assert!(rows[0].is_ok() && rows[6].is_ok());
    }

    #[test]
    fn counts_and_prices_are_checked() {
        let rows = read(
            "id,signal,product_id,count\na,VIEW,p,0\nb,VIEW,p,1000000\nc,VIEW,p,1000001\nd,VIEW,p,1.5\ne,VIEW,p,\n",
            Form::Events { shift_ms: 0 },
        );
        assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, false, true]);
        assert_eq!(rows[1].as_ref().unwrap().input["count"], json!(1_000_000));
        let rows = read("id,name,price\na,A,ten\nb,B,10\n", Form::Products);
        assert!(rows[0].as_ref().unwrap_err().reason.starts_with("price \"ten\" is not a decimal number"));
        assert!(rows[1].is_ok());
    }

    #[test]
    fn a_row_that_is_not_utf8_is_bad_alone() {
        let mut rows = Rows::new(&b"id,name\na,\xff\nb,B\n"[..], Form::Products).unwrap();
        let bad = rows.next_row().unwrap().unwrap().unwrap_err();
        assert!(bad.line == 2 && bad.reason.starts_with("name is not UTF-8"), "{bad:?}");
        assert!(rows.next_row().unwrap().unwrap().is_ok());
    }

    #[test]
    fn every_time_moves_by_the_same_amount() {
        let text =
            format!("{HEADER}a,ORDER,p,,2010-12-06T08:00:00Z,\nb,ORDER,p,,2010-12-06T09:00:00Z,\nc,ORDER,p,,,\n");
        let rows = read(&text, Form::Events { shift_ms: 86_400_000 });
        let times: Vec<_> = rows.iter().map(|row| row.as_ref().unwrap().input["occurredAt"].clone()).collect();
        assert_eq!(times, [json!("2010-12-07T08:00:00.000Z"), json!("2010-12-07T09:00:00.000Z"), Value::Null]);
    }

    #[test]
    fn a_header_without_a_needed_column_and_a_quote_never_closed_end_the_reading() {
        let error = Rows::new(&b"id,signal\n"[..], Form::Events { shift_ms: 0 }).err().unwrap().to_string();
        assert!(error.starts_with("the header has no column \"product_id\""), "{error}");
        let text = format!("id,name\na,A\nb,\"{}", "endless\n".repeat(300_000));
        let mut rows = Rows::new(text.as_bytes(), Form::Products).unwrap();
        assert!(rows.next_row().unwrap().unwrap().is_ok());
        let error = format!("{:#}", rows.next_row().unwrap_err());
        assert!(error.starts_with("after line 2: ") && error.contains("quote never closed"), "{error}");
    }
}
