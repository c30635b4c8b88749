//! Boards and their periods.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject};
use tokio::sync::OnceCell;

use super::ranking::{RankingConnection, RankingEntry};
use super::scalars::{DateTime, Duration};
use super::weights::WeightRule;
use crate::domain::{self, FeedPosition, PageStart};
use crate::graphql::arguments::{self, RADIUS_MAX};
use crate::graphql::guards::Caller;
use crate::graphql::siblings::Siblings;
use crate::graphql::{app, types::scalars};
use crate::pipeline::{self, AppError, BoardPage, Reading, Source};

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    Hour,
    Day,
    Week,
    Month,
    AllTime,
    HalfLife,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum PeriodStatus {
    Open,
    Closed,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum DataSource {
    Engine,
    Ledger,
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

    /// In force now, then what is scheduled.
    async fn weights(&self, ctx: &Context<'_>) -> Vec<WeightRule> {
        WeightRule::of_board(&self.0, &app(ctx).definitions().rules, app(ctx).now())
    }

    /// Whether what is shown follows from the board as it is defined now, from all rules and, where that was asked for, from
    /// periods that were computed anew.
    async fn is_current(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(app(ctx).is_current(&self.0.id).await?)
    }

    async fn next_roll_at(&self, ctx: &Context<'_>) -> Option<scalars::DateTime> {
        self.0.period_at(app(ctx).now()).ends_at.map(DateTime)
    }

    async fn current(&self, ctx: &Context<'_>) -> Period {
        let asked = ctx.look_ahead();
        let in_entries = asked.field("entries").field("period").field("position");
        Period::current(&self.0, asked.field("position").exists() || in_entries.exists())
    }
}

/// A period, read when it is first asked about: everything it answers is of one and the same window.
pub struct Period {
    board: Arc<domain::Board>,
    reading: OnceCell<pipeline::Result<Arc<Reading>>>,
    /// The first places and where they stand. A first page is of the same reading where the position is asked for too,
    /// or the position would say nothing about that page.
    top: OnceCell<pipeline::Result<BoardPage>>,
    shares_top: bool,
    position: OnceCell<FeedPosition>,
}

impl Period {
    /// What the board shows now.
    pub fn current(board: &Arc<domain::Board>, with_position: bool) -> Self {
        Self {
            board: board.clone(),
            reading: OnceCell::new(),
            top: OnceCell::new(),
            shares_top: with_position,
            position: OnceCell::new(),
        }
    }

    /// What was read, and where it stands, if that is known.
    pub fn known(reading: Arc<Reading>, position: Option<FeedPosition>) -> Self {
        let (board, reading) = (reading.board.clone(), OnceCell::new_with(Some(Ok(reading))));
        let position = OnceCell::new_with(position);
        Self { board, reading, top: OnceCell::new(), shares_top: false, position }
    }

    async fn reading(&self, ctx: &Context<'_>) -> pipeline::Result<Arc<Reading>> {
        let read = async || Ok(Arc::new(app(ctx).entries(&self.board, &[]).await?.reading));
        self.reading.get_or_init(read).await.clone()
    }

    /// Answers that come from two windows, because the board rolled in between, are not given out as one.
    async fn same_as(&self, reading: &Reading) -> pipeline::Result<()> {
        let known = self.reading.get_or_init(async || Ok(Arc::new(reading.clone()))).await;
        match known {
            Ok(known) if known.period.key != reading.period.key => Err(AppError::Unavailable {
                reason: "the board has just begun its next period; ask again".to_owned(),
                retry_after_ms: 0,
            }),
            _ => Ok(()),
        }
    }

    /// A page of what the board shows. One engine call.
    pub async fn page(&self, ctx: &Context<'_>, start: PageStart, count: u32) -> Result<RankingConnection> {
        let page: BoardPage = if self.shares_top && start == PageStart::Rank(1) {
            let mut top = self.top(ctx).await?;
            top.rows.places.truncate(count as usize);
            top
        } else {
            app(ctx).page(&self.board, &start, count.into()).await?
        };
        self.same_as(&page.reading).await?;
        Ok(RankingConnection::new(app(ctx), &Caller::viewing(ctx), page, self.position.get().copied()))
    }

    async fn top(&self, ctx: &Context<'_>) -> pipeline::Result<BoardPage> {
        let read = async || {
            let (page, position) = app(ctx).top(&self.board).await?;
            self.position.set(position).ok();
            Ok(page)
        };
        self.top.get_or_init(read).await.clone()
    }
}

#[Object]
impl Period {
    async fn id(&self, ctx: &Context<'_>) -> Result<ID> {
        Ok(ID(format!("{}:{}", self.board.id, self.reading(ctx).await?.period.key)))
    }

    async fn board(&self) -> Board {
        Board(self.board.clone())
    }

    async fn key(&self, ctx: &Context<'_>) -> Result<String> {
        Ok(self.reading(ctx).await?.period.key.clone())
    }

    async fn starts_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        Ok(self.reading(ctx).await?.period.starts_at.map(DateTime))
    }

    async fn ends_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        Ok(self.reading(ctx).await?.period.ends_at.map(DateTime))
    }

    async fn status(&self, ctx: &Context<'_>) -> Result<PeriodStatus> {
        let over = self.reading(ctx).await?.period.is_over(app(ctx).now());
        Ok(if over { PeriodStatus::Closed } else { PeriodStatus::Open })
    }

    async fn freshness(&self, ctx: &Context<'_>) -> Result<Freshness> {
        Ok(self.reading(ctx).await?.freshness.into())
    }

    /// Hand it to boardChanges(resume:): from this answer to live without a gap.
    async fn position(&self, ctx: &Context<'_>) -> Result<String> {
        if self.position.get().is_none() {
            self.same_as(&self.top(ctx).await?.reading).await?;
        }
        let position = self.position.get().expect("it is known, or was read just now");
        Ok(position.to_string())
    }

    #[graphql(complexity = "arguments::cost(first, child_complexity)")]
    async fn entries(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
        from_rank: Option<i32>,
    ) -> Result<RankingConnection> {
        let first = arguments::first(first)?;
        self.page(ctx, arguments::page_start(after, from_rank)?, first).await
    }

    async fn entry(&self, ctx: &Context<'_>, product_id: ID) -> Result<Option<RankingEntry>> {
        let product = arguments::product("productId", &product_id)?;
        let siblings = Siblings::new(app(ctx), &Caller::viewing(ctx), vec![product]);
        let entries = siblings.entries(&self.board).await?;
        self.same_as(&entries.reading).await?;
        Ok(RankingEntry::of(&entries, &siblings, 0))
    }

    /// The product with `radius` places above and below it.
    #[graphql(
        complexity = "arguments::cost(Some(radius.unwrap_or(5).saturating_mul(2).saturating_add(1)), child_complexity)"
    )]
    async fn around(
        &self,
        ctx: &Context<'_>,
        product_id: ID,
        #[graphql(default_with = "Some(5)")] radius: Option<i32>,
    ) -> Result<Vec<RankingEntry>> {
        let product = arguments::product("productId", &product_id)?;
        let radius = arguments::within("radius", radius.unwrap_or(5), 0, RADIUS_MAX)?;
        let start = PageStart::Around { product: product.clone(), radius: radius.into() };
        let mut entries = self.page(ctx, start, 2 * radius + 1).await?.into_entries();
        // Near the top, fewer places stand above the product; no more than `radius` shall stand below it.
        let own = entries.iter().position(|entry| entry.is_of(&product));
        entries.truncate(own.map_or(0, |own| own + 1 + radius as usize));
        Ok(entries)
    }
}

#[derive(SimpleObject)]
pub struct Freshness {
    source: DataSource,
    as_of: DateTime,
    degraded: bool,
}

impl From<pipeline::Freshness> for Freshness {
    fn from(freshness: pipeline::Freshness) -> Self {
        let source = match freshness.source {
            Source::Engine => DataSource::Engine,
            Source::Ledger => DataSource::Ledger,
        };
        Self { source, as_of: DateTime(freshness.as_of), degraded: freshness.degraded }
    }
}
