//! Boards.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, Result};

use super::period::{Period, PeriodConnection, asks_position};
use super::scalars::{DateTime, Duration};
use super::weights::WeightRule;
use crate::domain;
use crate::graphql::cursor::{self, Cursor};
use crate::graphql::errors::Failure;
use crate::graphql::guards::Caller;
use crate::graphql::node::NodeId;
use crate::graphql::{app, arguments};
use crate::pipeline::Meant;

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    Hour,
    Day,
    Week,
    Month,
    AllTime,
    HalfLife,
}

impl WindowKind {
    /// `None` for HALF_LIFE without a half-life.
    pub fn window(self, half_life: Option<domain::HalfLife>) -> Option<domain::Window> {
        Some(match self {
            Self::Hour => domain::Window::Hour,
            Self::Day => domain::Window::Day,
            Self::Week => domain::Window::Week,
            Self::Month => domain::Window::Month,
            Self::AllTime => domain::Window::AllTime,
            Self::HalfLife => domain::Window::HalfLife(half_life?),
        })
    }
}

pub struct Board(pub Arc<domain::Board>);

/// A leaderboard: what is counted, over which window, for which products.
#[Object]
impl Board {
    pub async fn node_id(&self) -> ID {
        NodeId::Board(self.0.id.clone()).encode()
    }

    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }

    async fn title(&self) -> &str {
        &self.0.title
    }

    async fn window(&self) -> WindowKind {
        match self.0.window {
            domain::Window::Hour => WindowKind::Hour,
            domain::Window::Day => WindowKind::Day,
            domain::Window::Week => WindowKind::Week,
            domain::Window::Month => WindowKind::Month,
            domain::Window::AllTime => WindowKind::AllTime,
            domain::Window::HalfLife(_) => WindowKind::HalfLife,
        }
    }

    /// Only for HALF_LIFE.
    async fn half_life(&self) -> Option<Duration> {
        self.0.window.half_life().map(|half_life| Duration(half_life.to_string()))
    }

    /// Null means every product.
    async fn category(&self) -> Option<&str> {
        self.0.scope.category.as_deref()
    }

    async fn brand(&self) -> Option<&str> {
        self.0.scope.brand.as_deref()
    }

    async fn time_zone(&self) -> &str {
        self.0.time_zone.iana_name().unwrap_or("UTC")
    }

    /// Share of the closed period's score that the next period starts with.
    async fn carry_over(&self) -> f64 {
        self.0.carry_over.as_f64()
    }

    /// In force now, then what is to come. Rules that have not begun are for the admin role, and left out without it.
    async fn weights(&self, ctx: &Context<'_>) -> Result<Vec<WeightRule>> {
        let now = app(ctx).now();
        let mut rules = WeightRule::of_board(&self.0, &app(ctx).definitions().rules, now);
        if !Caller::of(ctx)?.is_admin() {
            rules.retain(|rule| rule.has_begun(now));
        }
        Ok(rules)
    }

    /// Whether what is shown follows from the board as it is defined now, from all rules and, where that was asked for, from
    /// periods that were computed anew. False too while the engine can't say.
    async fn is_current(&self, ctx: &Context<'_>) -> bool {
        app(ctx).is_current(&self.0.id).await.unwrap_or(false)
    }

    async fn next_roll_at(&self, ctx: &Context<'_>) -> Option<DateTime> {
        self.0.period_at(app(ctx).now()).ends_at.map(DateTime)
    }

    async fn current(&self, ctx: &Context<'_>) -> Period {
        Period::current(&self.0, asks_position(&ctx.look_ahead()))
    }

    /// By key, for example 2026-11-22, or the period that covers an instant: now, where none is given. Null where there is none: no period has the
    /// key, it has not begun, or it ended before anything was counted.
    async fn period(&self, ctx: &Context<'_>, key: Option<String>, at: Option<DateTime>) -> Result<Option<Period>> {
        let meant = match (key, at) {
            (Some(key), None) => Meant::Key(key),
            (None, at) => Meant::At(at.map_or_else(|| app(ctx).now(), |at| at.0)),
            (Some(_), Some(_)) => return Err(Failure::bad("key", "give either key or at").into()),
        };
        let found = app(ctx).period(&self.0, &meant).await?;
        Ok(found.map(|found| Period::found(&self.0, found, asks_position(&ctx.look_ahead()))))
    }

    /// The current one, then those whose results are stored, newest first.
    async fn periods(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<PeriodConnection> {
        let first = arguments::first(first)?;
        let before = cursor::after(after, |cursor| match cursor {
            Cursor::Period(before) => Some(before),
            _ => None,
        })?;
        let asked = ctx.look_ahead();
        let with_position = asks_position(&asked.field("nodes")) || asks_position(&asked.field("edges").field("node"));
        Ok(PeriodConnection::read(app(ctx), &self.0, before, first, with_position).await?)
    }
}
