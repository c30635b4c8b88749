//! Runs operations for every transport: parses each document once, catches panics, and tells failures by their codes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Data, Executor, Request, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, future};

use super::Schema;
use super::documents::{Documents, Prepared};
use super::errors::{self, Failure};
use super::guards::Caller;
use super::limits::DocumentLimits;
use crate::pipeline::AppError;

/// A response as JSON; a cheap copy for each who receives it.
pub type Payload = Bytes;

/// What became of an operation.
pub enum Outcome {
    /// A query or mutation, or a subscription that was refused.
    Answered(Response),
    /// A subscription's payloads, until it ends.
    Subscribed(BoxStream<'static, Payload>),
}

/// What transports call. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    schema: Schema,
    documents: Arc<Documents>,
}

impl Api {
    /// The schema must have been made with the same limits.
    pub fn new(schema: Schema, limits: DocumentLimits) -> Self {
        Self { schema, documents: Arc::new(Documents::new(limits)) }
    }

    /// Parses the request's document, for a transport that must know what it does before it is run.
    pub fn prepare(&self, request: &mut Request) -> Result<Option<Prepared>, Failure> {
        self.documents.parse(request)
    }

    /// Runs one query or mutation. `request_id` is what INTERNAL errors and the log share.
    pub async fn run(&self, mut request: Request, caller: Caller, request_id: &str) -> Response {
        if let Err(failure) = self.documents.parse(&mut request) {
            return errors::failed(failure, request_id);
        }
        self.answer(request, caller, request_id).await
    }

    /// Runs an operation of any kind.
    pub async fn operate(&self, mut request: Request, caller: Caller, request_id: &str) -> Outcome {
        let document = match self.documents.parse(&mut request) {
            Ok(document) => document,
            Err(failure) => return Outcome::Answered(errors::failed(failure, request_id)),
        };
        let kind = document.and_then(|document| document.kind(request.operation_name.as_deref()));
        if kind != Some(OperationType::Subscription) {
            return Outcome::Answered(self.answer(request, caller, request_id).await);
        }
        let request_id = request_id.to_owned();
        let cost_max = self.documents.limits().cost;
        let responses = self.schema.execute_stream(request.data(caller));
        let payloads = AssertUnwindSafe(responses).catch_unwind().map(move |response| match response {
            Ok(response) => payload(&errors::told(errors::name_cost(response, cost_max), &request_id)),
            Err(panic) => payload(&panicked(panic.as_ref(), &request_id)),
        });
        Outcome::Subscribed(payloads.boxed())
    }

    async fn answer(&self, request: Request, caller: Caller, request_id: &str) -> Response {
        match AssertUnwindSafe(self.schema.execute(request.data(caller))).catch_unwind().await {
            Ok(response) => errors::told(errors::name_cost(response, self.documents.limits().cost), request_id),
            Err(panic) => panicked(panic.as_ref(), request_id),
        }
    }
}

impl Executor for Api {
    async fn execute(&self, request: Request) -> Response {
        self.run(request, Caller::default(), &new_request_id()).await
    }

    fn execute_stream(&self, mut request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let request_id = new_request_id();
        if let Err(failure) = self.documents.parse(&mut request) {
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

fn payload(response: &Response) -> Payload {
    serde_json::to_vec(response).expect("a response is made of strings, numbers and lists").into()
}

/// Names one request in answers and in the log.
pub fn new_request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn panicked(panic: &(dyn std::any::Any + Send), request_id: &str) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    errors::failed(AppError::Internal(format!("panic: {}", text.unwrap_or("of an unknown kind"))), request_id)
}
