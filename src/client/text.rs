//! The text of a CSV file: in UTF-8 and with bare line ends, whatever program wrote it, and how its fields are separated.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs_io::{DecodeReaderBytes, DecodeReaderBytesBuilder};

/// The longest row, in bytes: a hundred times what the fields can hold. Beyond it a quote was never closed, and the rest
/// of the file would be taken for one field.
const ROW_LEN_MAX: usize = 1 << 20;

/// Hands on a text with every line ended by a bare \n, the last one too: the CSV reader counts lines right only then. What
/// begins with the mark of UTF-16 is turned into UTF-8; everything else passes as it is.
pub(super) struct Text<R> {
    source: BufReader<DecodeReaderBytes<Counted<R>, Vec<u8>>>,
    line: Vec<u8>,
    taken: usize,
    bytes_read: Arc<AtomicU64>,
    /// Bytes handed on since the present row began. The CSV reader reads ahead, so this is an estimate.
    pub row_len: usize,
}

/// The first row of a text.
pub(super) struct Header {
    pub text: Vec<u8>,
    /// Which a line before it names, as Excel writes it: `sep=;`.
    pub separator: Option<u8>,
}

impl<R: Read> Text<R> {
    pub fn new(source: R) -> Self {
        let bytes_read = Arc::default();
        let counted = Counted { source, bytes_read: Arc::clone(&bytes_read) };
        let decoded = DecodeReaderBytesBuilder::new().utf8_passthru(true).strip_bom(true).build(counted);
        Self { source: BufReader::new(decoded), line: Vec::new(), taken: 0, bytes_read, row_len: 0 }
    }

    /// Bytes taken from the source so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// What the text begins with. It is still handed on, without the line that names the separator.
    pub fn header(&mut self) -> std::io::Result<Header> {
        let (mut begins, mut separator) = (0, None);
        loop {
            let last = self.line.len();
            if self.read_line()? == 0 {
                break;
            }
            let line = &self.line[last..];
            let named = if begins == last && separator.is_none() { named_separator(line) } else { None };
            if named.is_some() {
                separator = named;
                // The line still counts as one.
                self.line.truncate(last);
                self.line.push(b'\n');
                begins = self.line.len();
            } else if begins == last && line == b"\n" {
                begins = self.line.len();
            } else if self.line[begins..].iter().filter(|byte| **byte == b'"').count() % 2 == 0 {
                break;
            }
        }
        Ok(Header { text: self.line[begins..].to_vec(), separator })
    }

    /// Adds the next line to what is to be handed on; 0 at the end.
    fn read_line(&mut self) -> std::io::Result<usize> {
        let read = (&mut self.source).take(ROW_LEN_MAX as u64).read_until(b'\n', &mut self.line)?;
        self.row_len += read;
        if self.row_len >= ROW_LEN_MAX {
            return Err(std::io::Error::other("a row of over 1 MiB; was a quote never closed?"));
        }
        if read > 0 {
            if self.line.ends_with(b"\n") {
                self.line.pop();
            }
            if self.line.ends_with(b"\r") {
                self.line.pop();
            }
            self.line.push(b'\n');
        }
        Ok(read)
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.line.len() {
            self.line.clear();
            self.taken = 0;
            self.read_line()?;
        }
        let len = into.len().min(self.line.len() - self.taken);
        into[..len].copy_from_slice(&self.line[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}

fn named_separator(line: &[u8]) -> Option<u8> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line {
        [name @ .., separator] if name.eq_ignore_ascii_case(b"sep=") => Some(*separator),
        _ => None,
    }
}

struct Counted<R> {
    source: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
