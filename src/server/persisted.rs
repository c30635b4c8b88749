//! Automatic persisted queries, by Apollo's protocol: a client sends a document's SHA-256 instead of the document, and
//! the document itself only when the server does not know it.
//!
//! Kept here, in front of the executor: an extension of async-graphql would slow down every request, whoever sent it.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::graphql::errors::Failure;

/// Documents kept: some dozens for each of a site's pages.
const DOCUMENTS_MAX: usize = 1_000;
/// Their bytes in all. A document counts as at least its share, so that this bounds their number as well.
const DOCUMENTS_LEN_MAX: u64 = 4 << 20;
/// A longer document is answered, and sent again each time.
const DOCUMENT_LEN_MAX: usize = 16 << 10;

#[derive(Clone)]
struct Weight;

impl Weighter<String, Arc<str>> for Weight {
    fn weight(&self, _: &String, document: &Arc<str>) -> u64 {
        (document.len() as u64).max(DOCUMENTS_LEN_MAX / DOCUMENTS_MAX as u64)
    }
}

/// The documents that clients have sent with their hash.
pub struct Persisted(Cache<String, Arc<str>, Weight>);

impl Persisted {
    pub fn new() -> Self {
        Self(Cache::with_weighter(DOCUMENTS_MAX, DOCUMENTS_LEN_MAX, Weight))
    }

    /// The document that a request means: the one it brings, or the one it names in `extensions.persistedQuery`.
    pub fn document(&self, query: Option<String>, extensions: Option<&Map<String, Value>>) -> Result<String, Failure> {
        let query = query.filter(|query| !query.is_empty());
        let named = extensions.and_then(|extensions| extensions.get("persistedQuery"));
        let Some(named) = named.filter(|named| !named.is_null()) else {
            return query.ok_or_else(|| Failure::bad("query", "there is no query"));
        };
        if named["version"] != 1 {
            return Err(Failure::bad("persistedQuery", "its version must be 1"));
        }
        let hash = named["sha256Hash"].as_str().unwrap_or_default().to_ascii_lowercase();
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::bad("persistedQuery", "its sha256Hash must be 64 hexadecimal digits"));
        }
        let Some(query) = query else {
            return self.0.get(&hash).map(|known| known.to_string()).ok_or(Failure::PersistedQueryNotFound);
        };
        if hex::encode(Sha256::digest(&query)) != hash {
            return Err(Failure::bad("persistedQuery", "its sha256Hash is not that of the query"));
        }
        if query.len() <= DOCUMENT_LEN_MAX {
            self.0.insert(hash, query.as_str().into());
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = "{ __typename }";

    fn hash(document: &str) -> String {
        hex::encode(Sha256::digest(document))
    }

    fn ask(persisted: &Persisted, query: Option<&str>, named: Value) -> Result<String, Failure> {
        let extensions = json!({ "persistedQuery": named });
        persisted.document(query.map(str::to_owned), extensions.as_object())
    }

    #[test]
    fn a_document_is_sent_once() {
        let persisted = Persisted::new();
        let named = json!({ "version": 1, "sha256Hash": hash(DOCUMENT) });
        assert_eq!(ask(&persisted, None, named.clone()), Err(Failure::PersistedQueryNotFound));
        assert_eq!(ask(&persisted, Some(DOCUMENT), named.clone()).as_deref(), Ok(DOCUMENT));
        assert_eq!(ask(&persisted, None, named).as_deref(), Ok(DOCUMENT));
        let upper = json!({ "version": 1, "sha256Hash": hash(DOCUMENT).to_uppercase() });
        assert_eq!(ask(&persisted, Some(""), upper).as_deref(), Ok(DOCUMENT));
    }

    #[test]
    fn nobody_puts_a_document_under_another_one_s_name() {
        let persisted = Persisted::new();
        let named = json!({ "version": 1, "sha256Hash": hash(DOCUMENT) });
        for bad in
            [json!({ "version": 2, "sha256Hash": hash(DOCUMENT) }), json!({ "version": 1 }), json!("x"), json!([])]
        {
            let refused = ask(&persisted, Some(DOCUMENT), bad.clone());
            assert!(
                matches!(&refused, Err(Failure::BadInput { argument, .. }) if argument == "persistedQuery"),
                "{bad}"
            );
        }
        let refused = ask(&persisted, Some("{ viewer { id } }"), named.clone());
        assert!(matches!(&refused, Err(Failure::BadInput { argument, .. }) if argument == "persistedQuery"));
        assert_eq!(ask(&persisted, None, named), Err(Failure::PersistedQueryNotFound));
        assert!(
            matches!(persisted.document(None, None), Err(Failure::BadInput { argument, .. }) if argument == "query")
        );
        assert_eq!(persisted.document(Some(DOCUMENT.to_owned()), None).as_deref(), Ok(DOCUMENT));
    }

    #[test]
    fn a_flood_fills_no_more_than_its_share() {
        let persisted = Persisted::new();
        for n in 0..3_000 {
            let document = format!("{{ a{n} }} # {}", "x".repeat(n % 20_000));
            ask(&persisted, Some(&document), json!({ "version": 1, "sha256Hash": hash(&document) })).unwrap();
        }
        assert!(persisted.0.len() <= DOCUMENTS_MAX && persisted.0.weight() <= DOCUMENTS_LEN_MAX);
        assert!(persisted.0.len() > 100);
    }
}
