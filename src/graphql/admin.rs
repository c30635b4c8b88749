//! Reading at the admin's desk. Every field stands behind the guard of `Query.admin`.

use async_graphql::{Context, ID, Object, Result};

use super::cursor::{self, Cursor};
use super::groups::OpenSubscriptions;
use super::guards::Caller;
use super::types::audit::{AuditConnection, DeadLetterConnection};
use super::types::desk::ProductRule;
use super::types::preview::{WeightPreview, WeightPreviewInput};
use super::types::system::SystemStatus;
use super::types::verify::VerifyReport;
use super::types::weights::WeightRuleConnection;
use super::{app, arguments};

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
        Ok(WeightRuleConnection::new(page, below.is_some(), &app(ctx).definitions().rules))
    }

    /// What a change of weights would do to the board's open period, without making it.
    #[graphql(complexity = "input.cost(child_complexity)")]
    async fn weight_preview(&self, ctx: &Context<'_>, input: WeightPreviewInput) -> Result<WeightPreview> {
        let board = arguments::board_at("input.board", ctx, &input.board)?;
        let (trial, top) = input.parse()?;
        let preview = app(ctx).weight_preview(&board, &trial, top).await?;
        Ok(WeightPreview::new(app(ctx), &Caller::viewing(ctx), preview))
    }

    /// Those that count or will again, the newest for each product and board.
    async fn product_rules(&self, ctx: &Context<'_>) -> Result<Vec<ProductRule>> {
        Ok(app(ctx).product_rules().into_iter().map(ProductRule::from).collect())
    }

    /// Journal entries that the ledger could not take, newest first.
    #[graphql(complexity = "arguments::cost(first, child_complexity)")]
    async fn dead_letters(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<DeadLetterConnection> {
        let first = arguments::first(first)?;
        let after = cursor::after(after, |cursor| match cursor {
            Cursor::Letter(id) => Some(id),
            _ => None,
        })?;
        let page = app(ctx).dead_letters(after.as_deref(), first).await?;
        Ok(DeadLetterConnection::new(page, after.is_some()))
    }

    /// What admins have done, newest first.
    #[graphql(complexity = "arguments::cost(first, child_complexity)")]
    async fn audit_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<AuditConnection> {
        let first = arguments::first(first)?;
        let below = cursor::after(after, |cursor| match cursor {
            Cursor::Audit(id) => Some(id),
            _ => None,
        })?;
        let page = app(ctx).audit_log(below, first).await?;
        Ok(AuditConnection::new(page, below.is_some()))
    }

    /// Recomputes from the ledger and compares with what is served: one board, or, with null, likes, activity and every board.
    /// Where it takes over 10 s it is UNAVAILABLE: ask again for the result.
    async fn verify(&self, ctx: &Context<'_>, board: Option<ID>) -> Result<VerifyReport> {
        let board = board.map(|id| arguments::board(ctx, &id)).transpose()?;
        Ok(app(ctx).verify(board.as_ref().map(|board| &board.id)).await?.into())
    }

    async fn system(&self, ctx: &Context<'_>) -> Result<SystemStatus> {
        let subscriptions = ctx.data_unchecked::<OpenSubscriptions>().count();
        Ok(SystemStatus::new(app(ctx).system().await, subscriptions))
    }
}
