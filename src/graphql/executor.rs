//! Runs operations for every transport: catches panics, names failures by their codes, and writes the answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_graphql::parser::types::OperationType;
use async_graphql::{PathSegment, Response, Variables};
use bytes::Bytes;
use futures_util::FutureExt;

use super::answer::{Answer, Writer};
use super::document::{Documents, Prepared, Request, Step};
use super::errors::{self, Failure};
use super::groups::{Groups, Key, Member, OpenSubscriptions};
use super::guards::{Audience, Caller};
use super::limits::DocumentLimits;
use super::sharing::{self, Execution, Toll};
use super::{Schema, schema};
use crate::live::Hub;
use crate::pipeline::{App, AppError, Metrics};

/// A response as JSON; a cheap copy for each who receives it.
pub type Payload = Bytes;

/// What a request asks for, or why it is refused.
pub struct Operation {
    prepared: Result<Prepared, Box<Response>>,
    read: u64,
    began: Instant,
}

impl Operation {
    /// `None` for what is refused before anything runs.
    pub fn kind(&self) -> Option<OperationType> {
        self.prepared.as_ref().ok().map(|prepared| prepared.form.kind)
    }

    /// What running it costs, in units of 10 µs of the time of server and stores; nothing where it is refused.
    pub fn cost(&self) -> u64 {
        self.prepared.as_ref().map_or(0, |prepared| prepared.cost)
    }

    /// What it has cost to get here, in the same units.
    pub fn read(&self) -> u64 {
        self.read
    }
}

/// What became of an operation.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and none is ever kept")]
pub enum Outcome {
    /// A query or mutation, or a subscription that was refused.
    Answered(Answer),
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
        let groups = Groups::new(schema.clone(), hub, open);
        Self { groups, documents: Arc::new(Documents::new(limits)), schema }
    }

    /// Looks at what a request asks for, without running it.
    pub fn prepare(&self, request: Request) -> Operation {
        let began = Instant::now();
        let (prepared, read) = self.documents.prepare(request, self.app().definitions().boards.len());
        Operation { prepared, read, began }
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
    pub async fn run(&self, operation: Operation, caller: Caller, request_id: &str) -> Answer {
        let answer = match operation.prepared {
            Ok(prepared) if prepared.form.kind == OperationType::Subscription => {
                let message = "a subscription has many answers: send it to the WebSocket or the event stream";
                errors::failed(Failure::bad("query", message), request_id).into()
            }
            Ok(prepared) => self.answer(&prepared, caller, request_id).await,
            Err(refused) => errors::told(*refused, request_id).into(),
        };
        self.metrics().operation(answer.code, operation.began.elapsed());
        answer
    }

    /// Runs an operation of any kind. What a subscription for its viewer alone executes is charged to `toll`.
    pub async fn operate(&self, operation: Operation, caller: Caller, toll: Option<Toll>, request_id: &str) -> Outcome {
        let outcome = match operation.prepared {
            Ok(prepared) if prepared.form.kind == OperationType::Subscription => {
                let subscribed = self.subscribe(prepared, caller, toll, request_id).await;
                subscribed.map_or_else(|refused| Outcome::Answered(refused.into()), Outcome::Subscribed)
            }
            Ok(prepared) => Outcome::Answered(self.answer(&prepared, caller, request_id).await),
            Err(refused) => Outcome::Answered(errors::told(*refused, request_id).into()),
        };
        let code = match &outcome {
            Outcome::Answered(answer) => answer.code,
            Outcome::Subscribed(_) => "OK",
        };
        self.metrics().operation(code, operation.began.elapsed());
        outcome
    }

    async fn subscribe(
        &self,
        prepared: Prepared,
        caller: Caller,
        toll: Option<Toll>,
        request_id: &str,
    ) -> Result<Member, Response> {
        let Prepared { form, variables, cost } = prepared;
        let held = sharing::resume(&form, &variables).map_err(|failure| {
            let field = &form.root.fields[0];
            errors::failed_at(failure, field.pos, &field.key, request_id)
        })?;
        let audience = if sharing::is_for_everyone(&form) { Audience::Everyone } else { Audience::One(caller) };
        let mut shared = variables;
        shared.retain(|name, _| form.variables.contains(name));
        let key = Key::of(&form, &shared, audience.clone());
        // What all of a kind share, nobody pays for alone.
        let toll = toll.filter(|_| matches!(&audience, Audience::One(Caller { user: Some(_), .. })));
        let execution = || Execution { form, variables: shared, audience, cost, toll };
        self.groups.join(key, execution, held).await
    }

    /// Executes a query or mutation, step by step.
    async fn answer(&self, prepared: &Prepared, caller: Caller, request_id: &str) -> Answer {
        let form = &prepared.form;
        let introspection = prepared.introspection();
        let audience = Audience::One(caller);
        let mut writer = Writer::new(form, &introspection, request_id);
        for step in &form.steps {
            let mut executed = self.execute(step, &prepared.variables, &audience, request_id).await;
            for error in executed.errors.iter_mut().filter(|error| error.path.is_empty()) {
                // What the first step meets refuses the operation. What an earlier step has done is answered.
                let [field] = &form.root.fields[step.fields.clone()] else { return executed.into() };
                if step.fields.start == 0 {
                    return executed.into();
                }
                error.path.push(PathSegment::Field(field.key.to_string()));
            }
            if !writer.step(step.fields.clone(), executed) {
                break;
            }
        }
        writer.finish()
    }

    async fn execute(&self, step: &Step, variables: &Variables, audience: &Audience, request_id: &str) -> Response {
        if step.is_empty() {
            return Response::default();
        }
        let request = step.request(variables.clone()).data(audience.clone());
        match AssertUnwindSafe(self.schema.execute(request)).catch_unwind().await {
            Ok(response) => errors::told(response, request_id),
            Err(panic) => panicked(panic.as_ref(), request_id),
        }
    }
}

/// Names one request in answers and in the log.
pub fn new_request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

pub fn panicked(panic: &(dyn std::any::Any + Send), request_id: &str) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    errors::failed(AppError::Internal(format!("panic: {}", text.unwrap_or("of an unknown kind"))), request_id)
}
