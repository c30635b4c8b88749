//! Documents, parsed once each: a site sends some dozens of different ones for ever, and parsing one costs as much as a
//! simple query does.
//!
//! Invariant: nothing is validated or run that has not passed here, where it is found out whether a document is too large
//! to be looked at any closer.

use std::sync::Arc;

use async_graphql::Request;
use async_graphql::parser::types::ExecutableDocument;
use quick_cache::sync::Cache;

use super::errors::Failure;
use super::expansion::{NODES_MAX, is_too_large};

/// Documents kept: a site sends some dozens of different ones. With the length below, at most some tens of MB.
const DOCUMENTS_MAX: usize = 1_000;
/// Longest document kept, in bytes: longer than any that people write, shorter than what a flood would fill memory with.
const DOCUMENT_LEN_MAX: usize = 4_096;

/// The documents seen lately, by their text.
pub struct Documents(Cache<String, Arc<ExecutableDocument>>);

impl Documents {
    pub fn new() -> Self {
        Self(Cache::new(DOCUMENTS_MAX))
    }

    /// Puts the parsed document into the request, and returns it. `None` for one that can't be parsed, which the schema
    /// refuses in the same words as on any other way.
    pub fn parse(&self, request: &mut Request) -> Result<Option<Arc<ExecutableDocument>>, Failure> {
        if let Some(document) = self.0.get(request.query.as_str()) {
            request.set_parsed_query(ExecutableDocument::clone(&document));
            return Ok(Some(document));
        }
        let Ok(document) = request.parsed_query() else { return Ok(None) };
        if is_too_large(document) {
            let message = format!("the document selects over {NODES_MAX} fields with its fragments spread out");
            return Err(Failure::too_many("query", message));
        }
        let document = Arc::new(ExecutableDocument::clone(document));
        if request.query.len() <= DOCUMENT_LEN_MAX {
            self.0.insert(request.query.clone(), document.clone());
        }
        Ok(Some(document))
    }
}
