//! Runs operations for every transport: parses each document once, catches panics, and tells failures by their codes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Data, Executor, Request, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, future};

use super::Schema;
use super::documents::Documents;
use super::errors;
use super::guards::Caller;
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
    pub fn new(schema: Schema) -> Self {
        Self { schema, documents: Arc::new(Documents::new()) }
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
        let chosen = document.as_ref().and_then(|document| {
            let mut operations = document.operations.iter();
            operations.find(|(name, _)| {
                request.operation_name.is_none() || name.map(|n| n.as_str()) == request.operation_name.as_deref()
            })
        });
        if !chosen.is_some_and(|(_, operation)| operation.node.ty == OperationType::Subscription) {
            return Outcome::Answered(self.answer(request, caller, request_id).await);
        }
        let request_id = request_id.to_owned();
        let responses = self.schema.execute_stream(request.data(caller));
        let payloads = AssertUnwindSafe(responses).catch_unwind().map(move |response| match response {
            Ok(response) => payload(&errors::told(response, &request_id)),
            Err(panic) => payload(&panicked(panic.as_ref(), &request_id)),
        });
        Outcome::Subscribed(payloads.boxed())
    }

    async fn answer(&self, request: Request, caller: Caller, request_id: &str) -> Response {
        match AssertUnwindSafe(self.schema.execute(request.data(caller))).catch_unwind().await {
            Ok(response) => errors::told(response, request_id),
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
