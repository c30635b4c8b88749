//! A board's periods: the one that it shows, and closed ones.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Lookahead, Object, Result, SimpleObject};
use tokio::sync::OnceCell;

use super::board::Board;
use super::ranking::{PageInfo, RankingConnection, RankingEntry};
use super::scalars::DateTime;
use crate::domain::{self, FeedPosition, PageStart, Timestamp};
use crate::graphql::app;
use crate::graphql::arguments::{self, RADIUS_MAX};
use crate::graphql::cursor::Cursor;
use crate::graphql::guards::Caller;
use crate::graphql::node::NodeId;
use crate::graphql::siblings::Siblings;
use crate::pipeline::{self, App, AppError, BoardEntries, BoardPage, Found, Reading, Source};

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum PeriodStatus {
    Open,
    Closed,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum DataSource {
    Engine,
    /// Computed from the ledger: `degraded` where it stands for what the engine should show, and not where a closed
    /// period's results were never stored or are not kept that far.
    Ledger,
    /// Stored when the period was closed.
    Results,
}

/// A period, read when it is first asked about: everything it answers is of one and the same window.
pub struct Period {
    board: Arc<domain::Board>,
    /// The closed one that is meant; `None` for the one that the board shows.
    closed: Option<domain::Period>,
    reading: OnceCell<pipeline::Result<Arc<Reading>>>,
    /// The first places and where they stand. A first page is of the same reading where the position is asked for too,
    /// or the position would say nothing about that page.
    top: OnceCell<pipeline::Result<BoardPage>>,
    shares_top: bool,
    position: OnceCell<FeedPosition>,
}

/// Whether the position of a period is asked for, where the period is.
pub fn asks_position(asked: &Lookahead<'_>) -> bool {
    let in_entries = asked.field("entries").field("period").field("position");
    asked.field("position").exists() || in_entries.exists()
}

impl Period {
    /// What the board shows now.
    pub fn current(board: &Arc<domain::Board>, with_position: bool) -> Self {
        Self {
            board: board.clone(),
            closed: None,
            reading: OnceCell::new(),
            top: OnceCell::new(),
            shares_top: with_position,
            position: OnceCell::new(),
        }
    }

    /// What was read, and where it stands, if that is known.
    pub fn known(reading: Arc<Reading>, position: Option<FeedPosition>) -> Self {
        let closed = reading.is_closed().then(|| reading.period.clone());
        let (board, reading) = (reading.board.clone(), OnceCell::new_with(Some(Ok(reading))));
        let position = OnceCell::new_with(position);
        Self { board, closed, reading, top: OnceCell::new(), shares_top: false, position }
    }

    /// What was looked for.
    pub fn found(board: &Arc<domain::Board>, found: Found, with_position: bool) -> Self {
        match found {
            Found::Shown(reading) => Self { shares_top: with_position, ..Self::known(Arc::new(reading), None) },
            Found::Closed(_, Some(reading)) => Self::known(Arc::new(reading), None),
            Found::Closed(period, None) => Self { closed: Some(period), ..Self::current(board, false) },
        }
    }

    async fn reading(&self, ctx: &Context<'_>) -> pipeline::Result<Arc<Reading>> {
        let read = async || match &self.closed {
            Some(period) => Ok(Arc::new(app(ctx).closed_reading(&self.board, period).await?)),
            None => Ok(Arc::new(app(ctx).entries(&self.board, &[]).await?.reading)),
        };
        self.reading.get_or_init(read).await.clone()
    }

    /// Which one it is.
    async fn period(&self, ctx: &Context<'_>) -> pipeline::Result<domain::Period> {
        match &self.closed {
            Some(period) => Ok(period.clone()),
            None => Ok(self.reading(ctx).await?.period.clone()),
        }
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

    /// A page: one engine call, or one look-up in a closed period's results.
    pub async fn page(&self, ctx: &Context<'_>, start: PageStart, count: u32) -> Result<RankingConnection> {
        let page: BoardPage = if let Some(period) = &self.closed {
            app(ctx).closed_page(&self.board, period, &start, count.into()).await?
        } else if self.shares_top && start == PageStart::Rank(1) {
            let mut top = self.top(ctx).await?;
            top.rows.places.truncate(count as usize);
            top
        } else {
            app(ctx).page(&self.board, &start, count.into()).await?
        };
        self.same_as(&page.reading).await?;
        Ok(RankingConnection::new(app(ctx), &Caller::viewing(ctx), page, self.position.get().copied()))
    }

    /// The places of products.
    pub async fn entries_of(&self, ctx: &Context<'_>, siblings: &Arc<Siblings>) -> pipeline::Result<Arc<BoardEntries>> {
        let entries = match &self.closed {
            Some(period) => Arc::new(app(ctx).closed_entries(&self.board, period, siblings.ids()).await?),
            None => siblings.entries(&self.board).await?,
        };
        self.same_as(&entries.reading).await?;
        Ok(entries)
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
    pub async fn node_id(&self, ctx: &Context<'_>) -> Result<ID> {
        Ok(NodeId::Period(self.board.id.clone(), self.period(ctx).await?.key).encode())
    }

    async fn id(&self, ctx: &Context<'_>) -> Result<ID> {
        Ok(ID(format!("{}:{}", self.board.id, self.period(ctx).await?.key)))
    }

    async fn board(&self) -> Board {
        Board(self.board.clone())
    }

    async fn key(&self, ctx: &Context<'_>) -> Result<String> {
        Ok(self.period(ctx).await?.key)
    }

    async fn starts_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        Ok(self.period(ctx).await?.starts_at.map(DateTime))
    }

    async fn ends_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        Ok(self.period(ctx).await?.ends_at.map(DateTime))
    }

    async fn status(&self, ctx: &Context<'_>) -> Result<PeriodStatus> {
        let over = self.closed.is_some() || self.period(ctx).await?.is_over(app(ctx).now());
        Ok(if over { PeriodStatus::Closed } else { PeriodStatus::Open })
    }

    async fn freshness(&self, ctx: &Context<'_>) -> Result<Freshness> {
        Ok(self.reading(ctx).await?.freshness.into())
    }

    /// Hand it to boardChanges(resume:): from this answer to live without a gap. That of a closed period leads to a
    /// snapshot.
    async fn position(&self, ctx: &Context<'_>) -> Result<String> {
        if self.closed.is_some() {
            return Ok(FeedPosition::NOWHERE.to_string());
        }
        if self.position.get().is_none() {
            self.same_as(&self.top(ctx).await?.reading).await?;
        }
        let position = self.position.get().expect("it is known, or was read just now");
        Ok(position.to_string())
    }

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
        let entries = self.entries_of(ctx, &siblings).await?;
        Ok(RankingEntry::of(&entries, &siblings, 0))
    }

    /// The product with `radius` places above and below it.
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
            Source::Results => DataSource::Results,
        };
        Self { source, as_of: DateTime(freshness.as_of), degraded: freshness.degraded }
    }
}

#[derive(SimpleObject)]
pub struct PeriodEdge {
    cursor: String,
    node: Arc<Period>,
}

pub struct PeriodConnection {
    /// Each with the cursor behind it.
    periods: Vec<(Cursor, Arc<Period>)>,
    has_next_page: bool,
    has_previous_page: bool,
}

impl PeriodConnection {
    /// At most `first` periods that ended before an instant; without one, from the one that the board shows.
    pub async fn read(
        app: &App,
        board: &Arc<domain::Board>,
        before: Option<Timestamp>,
        first: u32,
        with_position: bool,
    ) -> pipeline::Result<Self> {
        let mut periods = Vec::new();
        let before_closed = match before {
            Some(before) => before,
            None => {
                let shown = app.entries(board, &[]).await?.reading;
                // The one before ended just then; before all of time there is none.
                let before = shown.period.starts_at.map_or(Timestamp::from_ms(i64::MIN), |start| start.plus_ms(1));
                let period = Period::found(board, Found::Shown(shown), with_position);
                periods.push((Cursor::Period(before), Arc::new(period)));
                before
            }
        };
        let page = app.closed_periods(board, before_closed, first - periods.len() as u32).await?;
        periods.extend(page.rows.into_iter().filter_map(|found| {
            let Found::Closed(domain::Period { ends_at: Some(ended_at), .. }, _) = &found else { return None };
            Some((Cursor::Period(*ended_at), Arc::new(Period::found(board, found, false))))
        }));
        Ok(Self { periods, has_next_page: page.has_more, has_previous_page: before.is_some() })
    }
}

#[Object]
impl PeriodConnection {
    async fn edges(&self) -> Vec<PeriodEdge> {
        let edge = |(cursor, node): &(Cursor, Arc<Period>)| PeriodEdge { cursor: cursor.encode(), node: node.clone() };
        self.periods.iter().map(edge).collect()
    }

    async fn nodes(&self) -> Vec<Arc<Period>> {
        self.periods.iter().map(|(_, period)| period.clone()).collect()
    }

    async fn page_info(&self) -> PageInfo {
        PageInfo {
            has_next_page: self.has_next_page,
            has_previous_page: self.has_previous_page,
            start_cursor: self.periods.first().map(|(cursor, _)| cursor.encode()),
            end_cursor: self.periods.last().map(|(cursor, _)| cursor.encode()),
        }
    }
}
