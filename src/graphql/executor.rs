//! Runs operations for every transport: parses each document once, catches panics, and tells failures by their codes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Data, Executor, Request, Response};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, future};
use quick_cache::sync::Cache;

use super::Schema;
use super::errors::{self, Failure};
use super::expansion::{NODES_MAX, is_too_large};
use crate::pipeline::AppError;

/// Documents kept: a site sends some dozens of different ones. With the length below, at most some tens of MB.
const DOCUMENTS_MAX: usize = 1_000;
/// Longest document kept, in bytes: longer than any that people write, shorter than what a flood would fill memory with.
const DOCUMENT_LEN_MAX: usize = 4_096;

/// What transports call. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    schema: Schema,
    documents: Arc<Cache<String, Arc<ExecutableDocument>>>,
}

impl Api {
    pub fn new(schema: Schema) -> Self {
        Self { schema, documents: Arc::new(Cache::new(DOCUMENTS_MAX)) }
    }

    /// Runs one query or mutation. `request_id` is what INTERNAL errors and the log share.
    pub async fn run(&self, mut request: Request, request_id: &str) -> Response {
        if let Err(failure) = self.parse(&mut request) {
            return errors::failed(failure, request_id);
        }
        match AssertUnwindSafe(self.schema.execute(request)).catch_unwind().await {
            Ok(response) => errors::told(response, request_id),
            Err(panic) => panicked(panic.as_ref(), request_id),
        }
    }

    /// Parsing costs as much as a simple query does, and clients send the same few documents for ever. What is too large
    /// to be looked at any closer is refused here.
    fn parse(&self, request: &mut Request) -> Result<(), Failure> {
        if let Some(document) = self.documents.get(request.query.as_str()) {
            request.set_parsed_query(ExecutableDocument::clone(&document));
            return Ok(());
        }
        // What can't be parsed is refused by the schema, in the same words as on any other way.
        let Ok(document) = request.parsed_query() else { return Ok(()) };
        if is_too_large(document) {
            let message = format!("the document selects over {NODES_MAX} fields with its fragments spread out");
            return Err(Failure::too_many("query", message));
        }
        let document = ExecutableDocument::clone(document);
        if request.query.len() <= DOCUMENT_LEN_MAX {
            self.documents.insert(request.query.clone(), Arc::new(document));
        }
        Ok(())
    }
}

impl Executor for Api {
    async fn execute(&self, request: Request) -> Response {
        self.run(request, &new_request_id()).await
    }

    fn execute_stream(&self, mut request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let request_id = new_request_id();
        if let Err(failure) = self.parse(&mut request) {
            return stream::once(future::ready(errors::failed(failure, &request_id))).boxed();
        }
        let responses = self.schema.execute_stream_with_session_data(request, session.unwrap_or_default());
        AssertUnwindSafe(responses)
            .catch_unwind()
            .map(move |response| match response {
                Ok(response) => errors::told(response, &request_id),
                Err(panic) => panicked(panic.as_ref(), &request_id),
            })
            .boxed()
    }
}

/// Names one request in answers and in the log.
pub fn new_request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn panicked(panic: &(dyn std::any::Any + Send), request_id: &str) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    errors::failed(AppError::Internal(format!("panic: {}", text.unwrap_or("of an unknown kind"))), request_id)
}
