//! Rows of the two CSV forms, products and events, checked as far as that is possible without the server.
//!
//! Columns are found by the header's names, in any order. Every row knows the line it begins in, counted as an editor
//! counts: quoted line breaks, blank lines and Windows line ends included. Nothing of a file is held but the present row.

use std::io::Read;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::text::Text;
use crate::domain::{Event, EventId, Money, ProductId, Signal, Timestamp, UserId};

/// What programs put between fields, the likeliest first.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Characters of a header that are shown where it is not understood: all of ours, and enough to see what is in the file.
const HEADER_SHOWN_MAX: usize = 200;

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
    csv: csv::Reader<Text<R>>,
    form: Form,
    /// For each name of [`Form::columns`], its place in the file.
    places: Vec<Option<usize>>,
    width: usize,
    /// Columns of the file that mean nothing here.
    pub unused: Vec<String>,
    record: csv::ByteRecord,
}

impl<R: Read> Rows<R> {
    /// Reads the header, and finds by it what separates fields. Fails when a column that must be there is not, or one that is
    /// known is there twice.
    pub fn new(source: R, form: Form) -> anyhow::Result<Self> {
        let mut text = Text::new(source);
        let header = text.header()?;
        let (known, required) = form.columns();
        let is_known = |name: &&String| known.contains(&name.as_str());
        let readings = match &header.separator {
            Some(separator) => vec![(*separator, names(&header.text, *separator)?)],
            None => SEPARATORS.map(|by| Ok((by, names(&header.text, by)?))).into_iter().collect::<csv::Result<_>>()?,
        };
        // Of readings that are as good, the last wins.
        let found = |(_, names): &(u8, Vec<String>)| names.iter().filter(is_known).count();
        let best = readings.into_iter().rev().max_by_key(found);
        let (separator, names) = best.expect("there is a separator to try");
        let places: Vec<_> = known.iter().map(|name| names.iter().position(|there| there == name)).collect();
        let shown = || {
            let text: String =
                String::from_utf8_lossy(&header.text).trim_end().chars().take(HEADER_SHOWN_MAX).collect();
            let (needed, others) = known.split_at(required);
            format!("it reads {text:?}; needed are {}; known are also {}", needed.join(", "), others.join(", "))
        };
        if let Some(missing) = places[..required].iter().position(Option::is_none) {
            bail!("the header has no column {:?}; {}", known[missing], shown());
        }
        let is_twice = |name: &&&str| names.iter().filter(|there| there == *name).count() > 1;
        if let Some(twice) = known.iter().find(is_twice) {
            bail!("the header has the column {twice:?} twice; {}", shown());
        }
        let unused = names.iter().filter(|name| !is_known(name) && !name.is_empty()).cloned().collect();
        let csv = csv::ReaderBuilder::new().flexible(true).delimiter(separator).from_reader(text);
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
        self.csv.get_ref().bytes_read()
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
        if let Some(price) = price.filter(|price| Money::parse_amount(price).is_none()) {
            bail!("price {price:?} is not a decimal number such as 29.90: digits, and perhaps a point");
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
            let count = count.filter(|_| !text.starts_with('+'));
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

/// The names of a header's columns. Capitals and blanks make no difference.
fn names(header: &[u8], separator: u8) -> csv::Result<Vec<String>> {
    let mut csv = csv::ReaderBuilder::new().has_headers(false).delimiter(separator).from_reader(header);
    let mut names = csv::ByteRecord::new();
    csv.read_byte_record(&mut names)?;
    let name = |name: &[u8]| String::from_utf8_lossy(name).trim().to_lowercase().replace(' ', "_");
    Ok(names.iter().map(name).collect())
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
    fn files_of_spreadsheets_are_read() {
        let commas = "id,name,price,image_url\na,\"Mug, red\",1.50,\nb,Jug,2,/b.jpg\n";
        let rows = |bytes: &[u8]| -> Vec<_> {
            let mut rows = Rows::new(bytes, Form::Products).unwrap();
            let row = || rows.next_row().unwrap().map(|row| row.unwrap());
            std::iter::from_fn(row).map(|row| (row.line, row.input)).collect()
        };
        let plain = rows(commas.as_bytes());
        assert_eq!(
            (plain[0].0, &plain[0].1["name"], &plain[1].1["imageUrl"]),
            (2, &json!("Mug, red"), &json!("/b.jpg"))
        );
        let utf16 = |text: &str, bytes_of: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{text}").encode_utf16().flat_map(bytes_of).collect()
        };
        for separator in [";", "\t", "|"] {
            let other = commas.replace(',', separator).replace(&format!("Mug{separator}"), "Mug,");
            assert_eq!(rows(other.as_bytes()), plain, "{separator:?}");
        }
        let semicolons = commas.replace(',', ";").replace("Mug;", "Mug,");
        for text in [
            format!("\u{feff}{semicolons}"),
            semicolons.replace("id;name;price;image_url", " ID ;Name;\"PRICE\";\u{a0}Image URL"),
            semicolons.replace("id;name;price;image_url", "\"id\";\"name\";\"price\";\"image_url\""),
            semicolons.replace('\n', "\r\n"),
        ] {
            assert_eq!(rows(text.as_bytes()), plain, "{text:?}");
            assert_eq!(rows(&utf16(&text, u16::to_le_bytes)), plain, "{text:?}");
            assert_eq!(rows(&utf16(&text, u16::to_be_bytes)), plain, "{text:?}");
        }
        // Lines are those of the file.
        let below = |head: &str, text: &str| {
            rows(format!("{head}{text}").as_bytes()).into_iter().map(|row| row.0).collect::<Vec<_>>()
        };
        assert_eq!(below("sep=;\r\n", &semicolons), [3, 4]);
        assert_eq!(below("\"SEP=,\"\n\n", commas), [4, 5]);
        assert_eq!(below("sep=\t\n", &commas.replace(',', "\t").replace("Mug\t", "Mug,")), [3, 4]);
        assert_eq!(below("\n\n", &semicolons), [4, 5]);
    }

    #[test]
    fn a_header_that_is_not_understood_is_shown() {
        let refused = |bytes: &[u8]| Rows::new(bytes, Form::Products).err().unwrap().to_string();
        for (header, said) in [
            ("id,name,price,price", "the header has the column \"price\" twice; it reads \"id,name,price,price\""),
            ("ID;Name;id", "the header has the column \"id\" twice; it reads \"ID;Name;id\""),
            (
                "Artikel;Bezeichnung",
                "no column \"id\"; it reads \"Artikel;Bezeichnung\"; needed are id, name; known are also",
            ),
            ("sep=;\nid,name", "no column \"id\"; it reads \"id,name\""),
            ("id:name", "it reads \"id:name\""),
            ("", "it reads \"\""),
        ] {
            assert!(refused(header.as_bytes()).contains(said), "{}", refused(header.as_bytes()));
        }
        let unmarked: Vec<u8> = "id,name\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(refused(&unmarked).contains("it reads \"i\\0d\\0,"), "{}", refused(&unmarked));
        assert!(refused(format!("{}\n", "x".repeat(1_000)).as_bytes()).len() < 400);
        // What is not read may be there as often as it likes.
        let rows = Rows::new(&b"id,name,,colour,,colour\n"[..], Form::Products).unwrap();
        assert_eq!(rows.unused, ["colour", "colour"]);
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
        for bad in
            ["ten", "1_000", "\"1,000\"", "1 000", "1e3", "+5", "-5", "NaN", "inf", "0x10", "1.2.3", ".", "£5", "５"]
        {
            let rows = read(&format!("id,name,price\na,A,{bad}\nb,B,10\n"), Form::Products);
            let price = bad.trim_matches('"');
            let reason = &rows[0].as_ref().unwrap_err().reason;
            assert!(reason.starts_with(&format!("price {price:?} is not a decimal number")), "{reason}");
            assert!(rows[1].is_ok());
        }
        for good in ["5", " 5 ", "5.00", ".5", "007"] {
            assert!(read(&format!("id,name,price\na,A,{good}\n"), Form::Products)[0].is_ok(), "{good}");
        }
        for bad in ["1_000", "+5", "1e3", "NaN", "0x10"] {
            let rows = read(&format!("id,signal,product_id,count\na,VIEW,p,{bad}\n"), Form::Events { shift_ms: 0 });
            assert!(rows[0].as_ref().unwrap_err().reason.starts_with(&format!("count {bad:?} is not a whole number")));
        }
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
