//! Reading.

use async_graphql::{Context, ID, Object, Result};

use super::cursor::{self, Cursor};
use super::errors::Failure;
use super::guards::{Caller, Needs, Role};
use super::siblings::Siblings;
use super::types::board::{Board, Period};
use super::types::preview::{WeightPreview, WeightPreviewInput};
use super::types::product::Product;
use super::types::ranking::RankingConnection;
use super::types::verify::VerifyReport;
use super::types::viewer::Viewer;
use super::types::weights::WeightRuleConnection;
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
    #[graphql(complexity = "arguments::cost(Some(ids.len() as i32), child_complexity)")]
    async fn products(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Product>>> {
        if ids.len() > arguments::ROWS_MAX as usize {
            let message = format!("ids: {} are given", ids.len());
            return Err(Failure::too_many("ids", arguments::ROWS_MAX as usize, message).into());
        }
        let ids: Vec<_> = ids.iter().map(|id| arguments::product("ids", id)).collect::<Result<_, _>>()?;
        Ok(Product::all(&Siblings::new(app(ctx), &Caller::viewing(ctx), ids)).await?)
    }

    async fn board(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] id: ID,
    ) -> Result<Option<Board>> {
        let id = BoardId::new(&id).map_err(|error| Failure::bad("id", error))?;
        Ok(app(ctx).board(&id).map(Board))
    }

    async fn boards(&self, ctx: &Context<'_>) -> Vec<Board> {
        let definitions = app(ctx).definitions();
        definitions.boards.iter().filter_map(|known| app(ctx).board(&known.board.id)).map(Board).collect()
    }

    /// Shortcut for board(id).current.entries.
    #[graphql(complexity = "arguments::cost(first, child_complexity)")]
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

pub struct Admin;

#[Object]
impl Admin {
    /// Every rule ever, newest first: who, when, why.
    #[graphql(complexity = "arguments::cost(first, child_complexity)")]
    async fn weight_rules(
        &self,
        ctx: &Context<'_>,
        board: Option<ID>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<WeightRuleConnection> {
        let board = board.map(|id| arguments::board(ctx, &id)).transpose()?;
        let first = arguments::first(first)?;
        let below = cursor::after(after, |cursor| match cursor {
            Cursor::Rule(version) => Some(version),
            _ => None,
        })?;
        let page = app(ctx).rules(board.as_ref().map(|board| &board.id), below, first).await?;
        Ok(WeightRuleConnection::new(page, below.is_some()))
    }

    /// What a change of weights would do to the board's open period, without making it.
    #[graphql(complexity = "input.cost(child_complexity)")]
    async fn weight_preview(&self, ctx: &Context<'_>, input: WeightPreviewInput) -> Result<WeightPreview> {
        let board = arguments::board_at("input.board", ctx, &input.board)?;
        let (trial, top) = input.parse()?;
        let preview = app(ctx).weight_preview(&board, &trial, top).await?;
        Ok(WeightPreview::new(app(ctx), &Caller::viewing(ctx), preview))
    }

    /// Recomputes from the ledger and compares with what is served: one board, or, with null, likes, activity and every board.
    async fn verify(&self, ctx: &Context<'_>, board: Option<ID>) -> Result<VerifyReport> {
        let board = board.map(|id| arguments::board(ctx, &id)).transpose()?;
        Ok(app(ctx).verify(board.as_ref().map(|board| &board.id)).await?.into())
    }
}
