//! Live.

use async_graphql::{Context, ID, Result, Subscription as GraphQLSubscription};
use futures_util::{Stream, StreamExt, future};

use super::errors::Failure;
use super::guards::Caller;
use super::types::live::{BoardEvent, LikeEvent, ProductRankEvent, ResumeWith, View};
use super::types::weights::WeightRule;
use super::{app, arguments, tap};
use crate::live::{Topic, Update};

/// How often a second new weight rules are looked for: admins make them one by one. None is left out.
const RULES_RATE: f64 = 10.0;

#[derive(Default)]
pub struct Subscription;

#[GraphQLSubscription]
impl Subscription {
    /// A snapshot first, then changes. With `resume`, a position of an event or of a page: nothing first where that is still what
    /// the board shows, else a snapshot, or with `resumeWith: DELTA` one merged delta.
    /// `top` is how many places are shown, at most 100. `maxRate` is messages a second for this subscriber;
    /// what falls in between is merged, the newest state wins. Where somebody else begins to watch the same, one more may
    /// come, so that no first snapshot is old. Whoever resumes must hold the first `top` places of that position.
    async fn board_changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] board: ID,
        #[graphql(default = 20)] top: i32,
        // Read where the member joins its group: it is the one argument in which members may differ.
        #[graphql(name = "resume")] _resume: Option<String>,
        #[graphql(default_with = "ResumeWith::Snapshot")] resume_with: ResumeWith,
        #[graphql(default_with = "Some(10.0)")] max_rate: Option<f64>,
    ) -> Result<impl Stream<Item = BoardEvent> + use<>> {
        let board = arguments::board(ctx, &board)?;
        let top = arguments::within("top", top, 1, arguments::ROWS_MAX)? as usize;
        let topic = Topic::Board { board: board.id.clone(), top };
        let rate = arguments::rate(max_rate, 10.0)?;
        let updates = tap::resumed_updates(ctx, topic, rate, resume_with.into())?;
        let view = View { app: app(ctx).clone(), board, viewer: Caller::viewing(ctx), top };
        Ok(updates.filter_map(move |update| {
            future::ready(match update {
                Update::Board(update) => Some(view.event(update)),
                Update::Rank { .. } | Update::Likes { .. } | Update::Rule { .. } => None,
            })
        }))
    }

    /// The product's own place, on or off the visible top: the present state first, then each change.
    async fn product_rank(
        &self,
        ctx: &Context<'_>,
        product_id: ID,
        #[graphql(default_with = "arguments::daily()")] board: ID,
        #[graphql(default_with = "Some(2.0)")] max_rate: Option<f64>,
    ) -> Result<impl Stream<Item = ProductRankEvent> + use<>> {
        let board = arguments::board(ctx, &board)?;
        let product = arguments::product("productId", &product_id)?;
        arguments::known_products("productId", ctx, std::slice::from_ref(&product)).await?;
        let topic = Topic::Rank { board: board.id.clone(), product };
        let updates = tap::updates(ctx, topic, arguments::rate(max_rate, 2.0)?)?;
        Ok(updates.filter_map(|update| future::ready(ProductRankEvent::of(update))))
    }

    /// Present counts first, then absolute counts (never differences). At most 100 products.
    async fn likes(
        &self,
        ctx: &Context<'_>,
        product_ids: Vec<ID>,
        #[graphql(default_with = "Some(2.0)")] max_rate: Option<f64>,
    ) -> Result<impl Stream<Item = LikeEvent> + use<>> {
        let mut products: Vec<_> =
            product_ids.iter().map(|id| arguments::product("productIds", id)).collect::<Result<_, _>>()?;
        products.sort();
        products.dedup();
        match products.len() {
            0 => return Err(Failure::bad("productIds", "give at least one").into()),
            len if len <= arguments::ROWS_MAX as usize => {}
            _ => return Err(Failure::too_many("productIds", arguments::ROWS_MAX as usize, "too many products").into()),
        }
        arguments::known_products("productIds", ctx, &products).await?;
        let updates = tap::updates(ctx, Topic::Likes { products }, arguments::rate(max_rate, 2.0)?)?;
        let (app, viewer) = (app(ctx).clone(), Caller::viewing(ctx));
        Ok(updates.filter_map(move |update| future::ready(LikeEvent::of(&app, &viewer, update))))
    }

    /// Each weight rule that is made from now on, and once more when it is cancelled. Rules that have not begun are for the
    /// admin role; without it they are not told.
    async fn weights_changed(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = WeightRule> + use<>> {
        let topic = Topic::Rules { begun_only: !Caller::of(ctx)?.is_admin() };
        let updates = tap::updates(ctx, topic, RULES_RATE)?;
        Ok(updates.filter_map(|update| future::ready(WeightRule::of(update))))
    }
}
