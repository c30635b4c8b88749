//! Writing.

use async_graphql::{Context, Object, Result};

use super::app;
use super::errors::Failure;
use super::guards::{Caller, Needs, Role, SignedIn};
use super::types::likes::{LikePayload, SetLikeInput, ToggleLikeInput, Wish};
use super::types::record::{Checked, EVENTS_MAX, RecordEventsInput, RecordEventsPayload};
use super::types::scalars::int;
use super::types::upsert::{self, PRODUCTS_MAX, UpsertProductsInput, UpsertProductsPayload};
use super::types::weights::{AdjustWeightsInput, WeightsPayload};

#[derive(Default)]
pub struct Mutation;

#[Object]
impl Mutation {
    /// Flips the viewer's like. With an idempotency key a retry returns the first answer instead of flipping back.
    #[graphql(guard = "SignedIn")]
    async fn toggle_like(&self, ctx: &Context<'_>, input: ToggleLikeInput) -> Result<LikePayload> {
        Wish::from(input).grant(ctx).await
    }

    /// Idempotent by nature: the viewer's like becomes `liked`.
    #[graphql(guard = "SignedIn")]
    async fn set_like(&self, ctx: &Context<'_>, input: SetLikeInput) -> Result<LikePayload> {
        Wish::from(input).grant(ctx).await
    }

    /// INGEST role. At most 500 events; one result each, in order; a repeated id is reported as a duplicate and changes nothing.
    #[graphql(guard = "Needs(Role::Ingest)")]
    async fn record_events(&self, ctx: &Context<'_>, input: RecordEventsInput) -> Result<RecordEventsPayload> {
        bounded("events", input.events.len(), EVENTS_MAX)?;
        let checked = Checked::new(input.events, app(ctx).now());
        if checked.events.is_empty() {
            return Ok(checked.answered(Vec::new(), None));
        }
        let (outcomes, durability) = app(ctx).record(&checked.events).await?;
        Ok(checked.answered(outcomes, Some(durability)))
    }

    /// INGEST role. At most 500 products; inserts or replaces by id.
    #[graphql(guard = "Needs(Role::Ingest)")]
    async fn upsert_products(&self, ctx: &Context<'_>, input: UpsertProductsInput) -> Result<UpsertProductsPayload> {
        bounded("products", input.products.len(), PRODUCTS_MAX)?;
        let (products, user_errors) = upsert::checked(input.products);
        let upserted = if products.is_empty() { 0 } else { app(ctx).upsert_products(&products).await? };
        Ok(UpsertProductsPayload { upserted: int(upserted), user_errors })
    }

    #[graphql(guard = "Needs(Role::Admin)")]
    async fn adjust_weights(&self, ctx: &Context<'_>, input: AdjustWeightsInput) -> Result<WeightsPayload> {
        let who = Caller::of(ctx)?.user.as_ref().map_or("anonymous".to_owned(), ToString::to_string);
        match input.parse(who, app(ctx).now(), |board| app(ctx).board(board).is_some()) {
            Ok(rule) => Ok(app(ctx).adjust_weights(&rule).await?.into()),
            Err(errors) => Ok(WeightsPayload::refused(errors)),
        }
    }
}

/// A list in an input holds something, and not too much.
fn bounded(argument: &'static str, len: usize, most: usize) -> Result<(), Failure> {
    match len {
        0 => Err(Failure::bad(argument, "give at least one")),
        _ if len > most => Err(Failure::too_many(argument, most, format!("{argument}: {len} are given"))),
        _ => Ok(()),
    }
}
