//! Reading at the admin's desk. Every field stands behind the guard of `Query.admin`.

use async_graphql::{Context, ID, Object, Result};

use super::arguments::ROWS_MAX;
use super::cursor::{self, Cursor};
use super::errors::Failure;
use super::groups::OpenSubscriptions;
use super::guards::{Caller, author};
use super::types::adjust::AdjustWeightsInput;
use super::types::audit::{AuditConnection, DeadLetterConnection};
use super::types::desk::ProductRule;
use super::types::preview::{self, BoardPreview, RankMove, WeightPreview};
use super::types::system::SystemStatus;
use super::types::verify::VerifyReport;
use super::types::weights::WeightRuleConnection;
use super::{app, arguments};
use crate::domain::BoardId;
use crate::pipeline::Trial;

pub struct Admin;

#[Object]
impl Admin {
    /// Every rule ever, newest first: who, when, why.
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

    /// What `adjustWeights` would do with the same input, without doing it: to the open period of each board that the change
    /// reaches. `movesOf` is one of these boards. `top` is how many places are compared and listed, at most 100.
    async fn weight_preview(
        &self,
        ctx: &Context<'_>,
        input: AdjustWeightsInput,
        moves_of: Option<ID>,
        #[graphql(default_with = "Some(20)")] top: Option<i32>,
    ) -> Result<WeightPreview> {
        let rule = input.parse(author(ctx)?, &app(ctx).definitions().boards, app(ctx).now());
        let trial = Trial::from(rule.map_err(|errors| preview::refusal(&errors))?);
        let top = arguments::within("top", top.unwrap_or(20), 1, ROWS_MAX)? as usize;
        let moved = match moves_of {
            Some(id) => arguments::board_at("movesOf", ctx, &id)?.id.clone(),
            None => trial.board.clone().unwrap_or_else(BoardId::daily),
        };
        let reached = app(ctx).boards_reached(&trial);
        if reached.iter().all(|board| board.id != moved) {
            return Err(Failure::bad("movesOf", format!("the change does not reach the board {moved}")).into());
        }
        let asked = ctx.look_ahead();
        let (asks_boards, asks_moves) = (asked.field("boards").exists(), asked.field("moves").exists());
        let mut shown = WeightPreview::default();
        // One after the other: each takes as much memory and time as a board has products.
        for board in reached.into_iter().filter(|board| asks_boards || asks_moves && board.id == moved) {
            let preview = app(ctx).weight_preview(&board, &trial, top).await?;
            shown.boards.push(BoardPreview::new(board.clone(), &preview));
            if board.id == moved {
                shown.moves = RankMove::all(app(ctx), &Caller::viewing(ctx), &preview);
            }
        }
        Ok(shown)
    }

    /// Those that count or will again, the newest for each product and board.
    async fn product_rules(&self, ctx: &Context<'_>) -> Result<Vec<ProductRule>> {
        Ok(app(ctx).product_rules().into_iter().map(ProductRule::from).collect())
    }

    /// Journal entries that the ledger could not take, newest first.
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
