//! What answers have to be, and what was found.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// Codes that a client may be told. INTERNAL is none of them: nothing that a client sends may bring the server there.
const CODES: [&str; 7] = [
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "RATE_LIMITED",
    "UNAVAILABLE",
    "BAD_USER_INPUT",
    "LIMIT_EXCEEDED",
    "PERSISTED_QUERY_NOT_FOUND",
];
/// Close codes of graphql-transport-ws and RFC 6455 that the README names.
const CLOSES: [u16; 10] = [1001, 1002, 1007, 1009, 4400, 4401, 4403, 4408, 4409, 4429];
/// Faults that are told in full; one is enough to fail.
const LISTED_MAX: usize = 20;
/// Bytes of what was sent that stand beside a fault.
const SHOWN_MAX: usize = 600;

#[derive(Default)]
pub struct Findings {
    pub documents: AtomicU64,
    pub frames: AtomicU64,
    pub connections: AtomicU64,
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
    faults: Mutex<(u64, Vec<String>)>,
}

impl Findings {
    pub fn count(&self, kind: &'static str, what: impl ToString) {
        let mut counts = self.counts.lock().expect("nothing panics while it holds the counts");
        *counts.entry((kind, what.to_string())).or_default() += 1;
    }

    pub fn fault(&self, what: impl ToString, sent: &[u8]) {
        let mut faults = self.faults.lock().expect("as above");
        faults.0 += 1;
        if faults.1.len() < LISTED_MAX {
            let shown = String::from_utf8_lossy(&sent[..sent.len().min(SHOWN_MAX)]);
            faults.1.push(format!("{}\n    after {shown:?}", what.to_string()));
        }
    }

    /// How many there are, and the first of them.
    pub fn faults(&self) -> (u64, Vec<String>) {
        self.faults.lock().expect("as above").clone()
    }

    pub fn has_failed(&self) -> bool {
        self.faults().0 > 0
    }

    pub fn print_counts(&self) {
        let counts = self.counts.lock().expect("as above");
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((kind, what), count) in &*counts {
            kinds.entry(kind).or_default().push(format!("{what} {count}"));
        }
        for (kind, counts) in kinds {
            println!("{kind}: {}", counts.join(", "));
        }
    }

    /// A GraphQL response, as the README promises it: JSON with data or errors, and each error with a message and a code.
    pub fn response(&self, response: &Value, sent: &[u8]) {
        let Some(object) = response.as_object() else { return self.fault(format!("no object: {response}"), sent) };
        match object.get("errors") {
            None if object.contains_key("data") => self.count("codes", "OK"),
            Some(Value::Array(errors)) if !errors.is_empty() => self.errors(errors, sent),
            _ => self.fault(format!("neither data nor errors: {response}"), sent),
        }
    }

    pub fn errors(&self, errors: &[Value], sent: &[u8]) {
        for error in errors {
            let extensions = &error["extensions"];
            let code = extensions["code"].as_str().unwrap_or("none");
            self.count("codes", code);
            let is_typed = CODES.contains(&code) && error["message"].is_string();
            let is_whole = match code {
                "UNAVAILABLE" | "RATE_LIMITED" => extensions["retryAfterMs"].is_u64(),
                "LIMIT_EXCEEDED" => extensions["limit"].is_string(),
                _ => true,
            };
            if !is_typed || !is_whole {
                self.fault(format!("an error that no client may be told: {error}"), sent);
            }
        }
    }

    pub fn closed(&self, code: u16, reason: &str, sent: &[u8]) {
        self.count("close codes", code);
        if !CLOSES.contains(&code) {
            self.fault(format!("closed with {code} {reason:?}"), sent);
        }
    }

    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
