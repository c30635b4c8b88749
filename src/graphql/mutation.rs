//! Writing.

use async_graphql::{Context, Object, Result};

use super::errors::Failure;
use super::guards::{Caller, Needs, Role, SignedIn, author};
use super::types::adjust::{AdjustWeightsInput, CancelWeightsInput};
use super::types::audit::{LETTERS_MAX, ReplayDeadLettersInput, ReplayPayload};
use super::types::desk::{
    self, BoardInput, BoardPayload, DeleteBoardInput, ProductRuleInput, ProductRulePayload, RebuildBoardInput,
};
use super::types::likes::{LikePayload, SetLikeInput, ToggleLikeInput, Wish};
use super::types::record::{Checked, EVENTS_MAX, RecordEventsInput, RecordEventsPayload};
use super::types::scalars::int;
use super::types::upsert::{self, PRODUCTS_MAX, UpsertProductsInput, UpsertProductsPayload};
use super::types::verify::{RepairInput, RepairPayload};
use super::types::weights::WeightsPayload;
use super::{app, inputs};
use crate::domain::{BoardId, ProductId};
use crate::pipeline::Recorder;

#[derive(Default)]
pub struct Mutation;

#[Object]
impl Mutation {
    /// Flips the viewer's like. With an idempotency key a retry returns the first answer instead of flipping back; CONFLICT
    /// where the key was used for another product.
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
    /// Events belong to their producer, whom the token names by its claim `producer`, or else `sub`: ids are the producer's own,
    /// and nobody else reverses its events.
    #[graphql(guard = "Needs(Role::Ingest)")]
    async fn record_events(&self, ctx: &Context<'_>, input: RecordEventsInput) -> Result<RecordEventsPayload> {
        bounded("events", input.events.len(), EVENTS_MAX)?;
        let checked = Checked::new(input.events, app(ctx).now());
        if checked.events.is_empty() {
            return Ok(checked.answered(Vec::new(), None));
        }
        let caller = Caller::of(ctx)?;
        let recorder = Recorder { producer: caller.producer.clone(), is_admin: caller.roles.contains(&Role::Admin) };
        let (outcomes, durability) = app(ctx).record_by(&recorder, &checked.events).await?;
        Ok(checked.answered(outcomes, durability))
    }

    /// INGEST role. At most 500 products; inserts or replaces by id.
    #[graphql(guard = "Needs(Role::Ingest)")]
    async fn upsert_products(&self, ctx: &Context<'_>, input: UpsertProductsInput) -> Result<UpsertProductsPayload> {
        bounded("products", input.products.len(), PRODUCTS_MAX)?;
        let (products, user_errors) = upsert::checked(input.products);
        let upserted = if products.is_empty() { 0 } else { app(ctx).upsert_products(&products).await? };
        Ok(UpsertProductsPayload { upserted: int(upserted), user_errors })
    }

    /// Sets weights of one board or of all, by a rule that is added to those there are: `weightPreview` says before what that
    /// would do.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn adjust_weights(&self, ctx: &Context<'_>, input: AdjustWeightsInput) -> Result<WeightsPayload> {
        match input.parse(author(ctx)?, &app(ctx).definitions().boards, app(ctx).now()) {
            Ok(rule) => Ok(app(ctx).adjust_weights(&rule).await?.into()),
            Err(errors) => Ok(WeightsPayload::refused(errors)),
        }
    }

    /// Takes a rule back, as if it had never been made: boards are scored anew.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn cancel_weights(&self, ctx: &Context<'_>, input: CancelWeightsInput) -> Result<WeightsPayload> {
        match input.parse() {
            Ok(version) => Ok(app(ctx).cancel_weights(version, &author(ctx)?(input.note)).await?.into()),
            Err(errors) => Ok(WeightsPayload::refused(errors)),
        }
    }

    /// Makes a board, filled from the ledger before it is shown, or changes the one with this id.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn save_board(&self, ctx: &Context<'_>, input: BoardInput) -> Result<BoardPayload> {
        match input.parse() {
            Ok(board) => Ok(app(ctx).save_board(&board, &author(ctx)?(String::new())).await?.into()),
            Err(errors) => Ok(BoardPayload::refused(errors)),
        }
    }

    /// Its subscriptions end. The board `daily` stays: it is meant where no board is named.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn delete_board(&self, ctx: &Context<'_>, input: DeleteBoardInput) -> Result<BoardPayload> {
        let id = match input.parse(is_board(ctx)) {
            Ok(id) => id,
            Err(errors) => return Ok(BoardPayload::refused(errors)),
        };
        let deleted = app(ctx).delete_board(&id, &author(ctx)?(input.note)).await?;
        Ok(deleted.map_or_else(|| BoardPayload::unknown(&id), |definition| BoardPayload::of(definition.board)))
    }

    /// Excludes a product, or multiplies what it scores, on every board or one.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn set_product_rule(&self, ctx: &Context<'_>, input: ProductRuleInput) -> Result<ProductRulePayload> {
        let known = match ProductId::new(&input.product_id) {
            Ok(id) => app(ctx).products(&[id]).await?.iter().any(Option::is_some),
            // The input's own check says what is wrong.
            Err(_) => true,
        };
        match input.parse(author(ctx)?, app(ctx).now(), known, is_board(ctx)) {
            Ok(rule) => Ok(ProductRulePayload::of(app(ctx).set_product_rule(&rule).await?)),
            Err(errors) => Ok(ProductRulePayload::refused(errors)),
        }
    }

    /// Computes a board anew from the ledger; with `fromPeriod`, the closed periods from that one on as well, each with its
    /// carry. The board goes on as it is until that is done: `isCurrent` says when.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn rebuild_board(&self, ctx: &Context<'_>, input: RebuildBoardInput) -> Result<BoardPayload> {
        match input.parse(|id| app(ctx).board(id), app(ctx).now()) {
            Ok(desk::Rebuild { board, from, note }) => {
                let outcome = app(ctx).rebuild_board(&board.id, from.as_ref(), &author(ctx)?(note)).await?;
                Ok(BoardPayload::reopened(&board, outcome))
            }
            Err(errors) => Ok(BoardPayload::refused(errors)),
        }
    }

    /// Takes entries into the ledger that it could not take before: all, or at most 500 by id.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn replay_dead_letters(&self, ctx: &Context<'_>, input: ReplayDeadLettersInput) -> Result<ReplayPayload> {
        let note = match inputs::optional_note(input.note) {
            Ok(note) => note,
            Err(error) => return Ok(ReplayPayload { replayed: 0, user_errors: vec![error] }),
        };
        if let Some(ids) = &input.ids {
            bounded("ids", ids.len(), LETTERS_MAX)?;
        }
        let ids: Option<Vec<String>> = input.ids.map(|ids| ids.into_iter().map(|id| id.0).collect());
        let done = app(ctx).replay_dead_letters(ids.as_deref(), &author(ctx)?(note)).await?;
        Ok(ReplayPayload::new(done, ids.as_deref()))
    }

    /// Sets likes and activity to what the recorded events come to, and has every board computed anew. Likes and events are
    /// taken meanwhile. Where it takes over 10 s it is UNAVAILABLE: ask again for the result.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn repair(&self, ctx: &Context<'_>, input: RepairInput) -> Result<RepairPayload> {
        match inputs::optional_note(input.note) {
            Ok(note) => Ok(app(ctx).repair(&author(ctx)?(note)).await?.into()),
            Err(error) => Ok(RepairPayload::refused(error)),
        }
    }
}

/// Says whether there is a visible board of that id.
fn is_board<'a>(ctx: &Context<'a>) -> impl Fn(&BoardId) -> bool + use<'a> {
    let app = app(ctx);
    move |id| app.board(id).is_some()
}

/// A list in an input holds something, and not too much.
fn bounded(argument: &'static str, len: usize, most: usize) -> Result<(), Failure> {
    match len {
        0 => Err(Failure::bad(argument, "give at least one")),
        _ if len > most => Err(Failure::too_many(argument, most, format!("{argument}: {len} are given"))),
        _ => Ok(()),
    }
}
