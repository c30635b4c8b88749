//! Reading.

use async_graphql::{Context, ID, Object, Result};

use super::admin::Admin;
use super::errors::Failure;
use super::guards::{Caller, Needs, Role};
use super::node::{self, Found, Node};
use super::siblings::Siblings;
use super::types::board::Board;
use super::types::period::Period;
use super::types::product::Product;
use super::types::ranking::RankingConnection;
use super::types::viewer::Viewer;
use super::{app, arguments};
use crate::domain::BoardId;

#[derive(Default)]
pub struct Query;

#[Object]
impl Query {
    async fn product(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Product>> {
        let id = arguments::product("id", &id)?;
        Ok(Product::of(&Siblings::new(app(ctx), &Caller::viewing(ctx), vec![id]), 0).await?)
    }

    /// Same order and length as `ids`; null where a product is unknown. At most 100.
    async fn products(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Product>>> {
        bounded("ids", ids.len())?;
        let ids: Vec<_> = ids.iter().map(|id| arguments::product("ids", id)).collect::<Result<_, _>>()?;
        Ok(Product::all(&Siblings::new(app(ctx), &Caller::viewing(ctx), ids)).await?)
    }

    /// Null where there is no such board.
    async fn board(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] id: ID,
    ) -> Result<Option<Board>> {
        Ok(BoardId::new(&id).ok().and_then(|id| app(ctx).board(&id)).map(Board))
    }

    async fn boards(&self, ctx: &Context<'_>) -> Vec<Board> {
        let definitions = app(ctx).definitions();
        definitions.boards.iter().filter_map(|known| app(ctx).board(&known.board.id)).map(Board).collect()
    }

    /// Shortcut for board(id).current.entries. It is never null, so an unknown board is an error: BAD_USER_INPUT.
    async fn ranking(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] board: ID,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
        from_rank: Option<i32>,
    ) -> Result<RankingConnection> {
        let board = arguments::board(ctx, &board)?;
        let first = arguments::first(first)?;
        let with_position = ctx.look_ahead().field("period").field("position").exists();
        Period::current(&board, with_position).page(ctx, arguments::page_start(after, from_rank)?, first).await
    }

    /// Null where the id leads to nothing (any more), or is none that this API gave out. What else only the admin role may
    /// read is FORBIDDEN here too.
    async fn node(&self, ctx: &Context<'_>, node_id: ID) -> Result<Option<Node>> {
        node::find(ctx, &[node_id]).await.pop().flatten().transpose()
    }

    /// Same order and length as `nodeIds`, each as by `node`. At most 100.
    async fn nodes(&self, ctx: &Context<'_>, node_ids: Vec<ID>) -> Result<Vec<Found>> {
        bounded("nodeIds", node_ids.len())?;
        node::check(&node_ids)?;
        Ok(node::find(ctx, &node_ids).await)
    }

    /// Null when nobody is signed in.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Option<Viewer>> {
        Ok(Viewer::of(Caller::of(ctx)?))
    }

    /// FORBIDDEN without the admin role.
    #[graphql(guard = "Needs(Role::Admin)")]
    async fn admin(&self) -> Admin {
        Admin
    }
}

/// A list of ids asks for no more than a page.
fn bounded(argument: &'static str, len: usize) -> Result<(), Failure> {
    let most = arguments::ROWS_MAX as usize;
    match len > most {
        true => Err(Failure::too_many(argument, most, format!("{argument}: {len} are given"))),
        false => Ok(()),
    }
}
