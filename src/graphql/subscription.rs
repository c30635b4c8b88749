//! Live.

use async_graphql::{Context, ID, Result, Subscription as GraphQLSubscription};
use futures_util::{Stream, StreamExt};

use super::guards::Caller;
use super::types::live::{BoardEvent, View};
use super::{app, arguments, hub};

#[derive(Default)]
pub struct Subscription;

#[GraphQLSubscription]
impl Subscription {
    /// A snapshot first, then changes. `top` is how many places are shown, at most 100.
    // An event is a snapshot or a delta, and a document asks for both: half of it is what one costs.
    #[graphql(complexity = "arguments::cost(Some(top), child_complexity.div_ceil(2))")]
    async fn board_changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] board: ID,
        #[graphql(default = 20)] top: i32,
    ) -> Result<impl Stream<Item = BoardEvent> + use<>> {
        let board = arguments::board(ctx, &board)?;
        let top = arguments::within("top", top, 1, arguments::ROWS_MAX)? as usize;
        let updates = hub(ctx).subscribe(&board.id, top);
        let view = View { app: app(ctx).clone(), board, viewer: Caller::of(ctx).user.clone(), top };
        Ok(updates.map(move |update| view.event(update)))
    }
}
