//! Runs operations for every transport: parses each document once, catches panics, and tells failures by their codes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_graphql::parser::types::{Field, OperationType};
use async_graphql::{Positioned, Request, Response, ServerError, Value};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;

use super::documents::{Documents, Prepared};
use super::errors::{self, Failure};
use super::groups::{Groups, Key, Member, OpenSubscriptions};
use super::guards::{Audience, Caller};
use super::limits::DocumentLimits;
use super::{Schema, schema, sharing};
use crate::live::Hub;
use crate::pipeline::{App, AppError, Metrics};

/// A response as JSON; a cheap copy for each who receives it.
pub type Payload = Bytes;

/// What became of an operation.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and none is ever kept")]
pub enum Outcome {
    /// A query or mutation, or a subscription that was refused.
    Answered(Response),
    /// A subscription that has begun.
    Subscribed(Member),
}

/// What transports call. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    schema: Schema,
    documents: Arc<Documents>,
    groups: Arc<Groups>,
}

impl Api {
    /// The API of a running node.
    pub fn new(hub: Arc<Hub>, limits: DocumentLimits) -> Self {
        let open = OpenSubscriptions::default();
        Self::over(schema(hub.app().clone(), &limits, open.clone()), hub, limits, open)
    }

    /// The schema must have been made with the same limits and count of subscriptions.
    pub(crate) fn over(schema: Schema, hub: Arc<Hub>, limits: DocumentLimits, open: OpenSubscriptions) -> Self {
        let groups = Groups::new(schema.clone(), hub, limits, open);
        Self { groups, documents: Arc::new(Documents::new(limits)), schema }
    }

    /// What kind of operation a request would run; `None` for what is refused before anything runs.
    pub fn kind(&self, request: &mut Request) -> Option<OperationType> {
        self.documents.kind(request)
    }

    /// The node behind it.
    pub fn app(&self) -> &Arc<App> {
        self.groups.app()
    }

    /// What the node counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.app().metrics()
    }

    /// How many subscriptions are open.
    pub fn subscriptions(&self) -> usize {
        self.groups.open()
    }

    /// Runs one query or mutation. `request_id` is what INTERNAL errors and the log share.
    pub async fn run(&self, request: Request, caller: Caller, request_id: &str) -> Response {
        let began = Instant::now();
        let response = self.run_one(request, caller, request_id).await;
        self.metrics().operation(errors::outcome(&response), began.elapsed());
        response
    }

    async fn run_one(&self, mut request: Request, caller: Caller, request_id: &str) -> Response {
        match self.documents.parse(&mut request) {
            Ok(Some(known)) if known.kind(request.operation_name.as_deref()) == Some(OperationType::Subscription) => {
                let message = "a subscription has many answers: send it to the WebSocket or the event stream";
                errors::failed(Failure::bad("query", message), request_id)
            }
            Ok(_) => self.answer(request, caller, request_id).await,
            Err(failure) => errors::failed(failure, request_id),
        }
    }

    /// Runs an operation of any kind.
    pub async fn operate(&self, request: Request, caller: Caller, request_id: &str) -> Outcome {
        let began = Instant::now();
        let outcome = self.operate_one(request, caller, request_id).await;
        let code = match &outcome {
            Outcome::Answered(response) => errors::outcome(response),
            Outcome::Subscribed(_) => "OK",
        };
        self.metrics().operation(code, began.elapsed());
        outcome
    }

    async fn operate_one(&self, mut request: Request, caller: Caller, request_id: &str) -> Outcome {
        let document = match self.documents.parse(&mut request) {
            Ok(document) => document,
            Err(failure) => return Outcome::Answered(errors::failed(failure, request_id)),
        };
        let operation = document.as_ref().and_then(|known| sharing::operation(&known.document, &request));
        let subscription = operation.filter(|operation| operation.ty == OperationType::Subscription);
        let (Some(known), Some(operation)) = (&document, subscription) else {
            return Outcome::Answered(self.answer(request, caller, request_id).await);
        };
        let subscribed = match sharing::root_field(&known.document, operation) {
            Ok(field) => self.subscribe(known, field, request, caller, request_id).await,
            Err(failure) => Err(errors::failed(failure, request_id)),
        };
        subscribed.map_or_else(Outcome::Answered, Outcome::Subscribed)
    }

    async fn subscribe(
        &self,
        known: &Prepared,
        field: &Positioned<Field>,
        mut request: Request,
        caller: Caller,
        request_id: &str,
    ) -> Result<Member, Response> {
        let failed = |failure: Failure| errors::failed(failure, request_id);
        let (held, variable) = sharing::resume(&field.node, &request, &known.normal).map_err(failed)?;
        let mut shared = request.variables.clone();
        if let Some(variable) = variable {
            shared.remove(&variable);
        }
        let audience =
            if sharing::is_for_everyone(&known.document) { Audience::Everyone } else { Audience::One(caller) };
        let key = Key {
            document: known.normal.clone(),
            operation: request.operation_name.clone(),
            variables: serde_json::to_string(&shared).expect("variables came from JSON"),
            audience: audience.clone(),
        };
        let begin = || {
            request.set_parsed_query(sharing::with_root_field(&known.document, &request, field));
            request.data(audience)
        };
        self.groups.join(key, begin, held).await
    }

    async fn answer(&self, request: Request, caller: Caller, request_id: &str) -> Response {
        match AssertUnwindSafe(self.schema.execute(request.data(Audience::One(caller)))).catch_unwind().await {
            Ok(response) => errors::told(errors::name_cost(response, self.documents.limits().cost), request_id),
            Err(panic) => panicked(panic.as_ref(), request_id),
        }
    }
}

/// A response as the GraphQL-over-HTTP draft has it: an operation that was not run has no `data`, not even null.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
}

/// A response as JSON.
pub fn payload(response: &Response) -> Payload {
    let data = (!errors::was_not_run(response)).then_some(&response.data);
    let answer = Answer { data, errors: &response.errors };
    serde_json::to_vec(&answer).expect("a response is made of strings, numbers and lists").into()
}

/// Names one request in answers and in the log.
pub fn new_request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

pub fn panicked(panic: &(dyn std::any::Any + Send), request_id: &str) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    errors::failed(AppError::Internal(format!("panic: {}", text.unwrap_or("of an unknown kind"))), request_id)
}
