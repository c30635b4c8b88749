//! The GraphQL API: the types clients see, and resolvers of about ten lines over [`App`] and [`Hub`].
//!
//! A resolver reads its arguments, makes one call and maps the answer. Who may call is in [`guards`], what failures are
//! called in [`errors`], how a page of products asks together in [`siblings`]. [`Api`] runs operations for the transports.
//! Nothing here knows HTTP, SQL or Redis.

mod admin;
mod answer;
mod arguments;
mod cursor;
mod delivery;
mod document;
pub mod errors;
mod executor;
mod groups;
pub mod guards;
mod inputs;
mod limits;
mod mutation;
mod node;
mod query;
pub mod sharing;
mod siblings;
mod subscription;
mod tap;
mod types;

use std::sync::Arc;

use async_graphql::{Context, SDLExportOptions, SchemaBuilder, ValidationMode};
use tokio::runtime::{Handle, RuntimeFlavor};

pub use answer::Answer;
pub use delivery::{LiveEvent, Outlet, Put};
pub use document::Request;
pub use executor::{Api, Operation, Outcome, Payload, new_request_id};
pub use groups::{Member, OpenSubscriptions};
pub use limits::DocumentLimits;
pub use sharing::Toll;

use crate::pipeline::App;
use mutation::Mutation;
use query::Query;
use subscription::Subscription;

pub type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

pub(crate) fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // Documents are valid before they come here.
    async_graphql::Schema::build(Query, Mutation, Subscription).validation_mode(ValidationMode::Fast)
}

/// The schema over a running node, refusing what costs more than the limits allow.
fn schema(app: Arc<App>, limits: &DocumentLimits, open: OpenSubscriptions) -> Schema {
    builder().data(app).data(open).data(limits.explanations).finish()
}

/// The schema as text: what `schema.graphql` holds.
pub fn sdl() -> String {
    builder().finish().sdl_with_options(SDLExportOptions::new().prefer_single_line_descriptions())
}

/// Does what may take over a millisecond without holding up what else its thread serves.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn app<'a>(ctx: &Context<'a>) -> &'a Arc<App> {
    ctx.data_unchecked()
}
