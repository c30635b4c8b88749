//! The stock server: the same node behind a plain async-graphql schema, served by async-graphql-axum as its examples do.
//!
//! It has what the load asks for, under the names of our schema. Each subscriber has a stream of its own, whose events are
//! resolved for it alone. Where there is a choice, it is the cheaper one: fields are plain, products are looked up
//! together, nothing is guarded or limited.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{self, BoardId, EventId, Money, PageStart, Place, ProductId};
use acclaim::engine::EngineLimits;
use acclaim::engine::memory::MemoryEngine;
use acclaim::ledger::{Ledger, NewProduct};
use acclaim::live::{BoardUpdate, Hub, Topic, Update};
use acclaim::pipeline::{App, EventResult, NewEvent, Settings};
use async_graphql::{Context, Enum, ID, InputObject, Interface, Object, Result, Schema, SimpleObject, Subscription};
use async_graphql_axum::{GraphQL, GraphQLSubscription};
use axum::Router;
use axum::routing::{get, post_service};
use axum::serve::ListenerExt;
use futures_util::stream::{self, Stream, StreamExt};
use tempfile::TempDir;

use crate::support::until;

/// Makes this program the server: followed by a port and a ledger's URL.
pub const FLAG: &str = "--stock";

/// The stock server as a process of its own; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    _folder: TempDir,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([FLAG, &port.to_string(), &format!("sqlite://{}/stock.db", folder.path().display())])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, url: format!("http://127.0.0.1:{port}"), _folder: folder };
        let (http, ready) = (reqwest::Client::new(), format!("{}/readyz", server.url));
        until("the stock server is ready", Duration::from_secs(30), async || {
            assert!(server.child.try_wait().unwrap().is_none(), "the stock server has ended");
            http.get(&ready).send().await.is_ok()
        })
        .await;
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A node as `acclaim serve` starts it when nothing is set.
pub async fn node(ledger_url: &str) -> Arc<App> {
    let ledger = Ledger::connect(ledger_url).await.unwrap();
    ledger.migrate().await.unwrap();
    App::start(Arc::new(MemoryEngine::new(EngineLimits::default())), ledger, Settings::default()).await.unwrap()
}

/// Serves until it is killed.
pub async fn serve(port: u16, ledger_url: &str) {
    let app = node(ledger_url).await;
    let hub = Hub::start(&app);
    let schema = Schema::build(Query, Mutation, Changes).data(app).data(hub).finish();
    let routes = Router::new()
        .route("/readyz", get(async || "ready"))
        .route("/graphql", post_service(GraphQL::new(schema.clone())))
        .route_service("/graphql/ws", GraphQLSubscription::new(schema));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    // As ours does; a frame must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, routes).await.unwrap();
}

fn app<'a>(ctx: &Context<'a>) -> &'a Arc<App> {
    ctx.data_unchecked()
}

// ------------------------------------------------------------ query

struct Query;

#[Object]
impl Query {
    async fn board(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Board>> {
        Ok(app(ctx).board(&BoardId::new(&id)?).map(|board| Board { id: ID(board.id.to_string()) }))
    }

    async fn ranking(&self, ctx: &Context<'_>, board: ID, first: u16) -> Result<Ranking> {
        let board = app(ctx).board(&BoardId::new(&board)?).ok_or("there is no such board")?;
        let page = app(ctx).page(&board, &PageStart::Rank(1), first.into()).await?;
        Ok(Ranking { nodes: entries(app(ctx), &page.rows.places).await? })
    }
}

#[derive(SimpleObject)]
struct Board {
    id: ID,
}

#[derive(SimpleObject)]
struct Ranking {
    nodes: Vec<RankingEntry>,
}

#[derive(SimpleObject)]
struct RankingEntry {
    rank: u64,
    product_id: ID,
    score: f64,
    product: Option<Product>,
}

#[derive(SimpleObject)]
struct Product {
    name: String,
}

async fn products(app: &App, ids: impl Iterator<Item = &ProductId>) -> Result<Vec<Option<Product>>> {
    let ids: Vec<ProductId> = ids.cloned().collect();
    let rows = app.products(&ids).await?;
    Ok(rows.into_iter().map(|row| row.map(|row| Product { name: row.name.clone() })).collect())
}

async fn entries(app: &App, places: &[Place]) -> Result<Vec<RankingEntry>> {
    let products = products(app, places.iter().map(|place| &place.product)).await?;
    let rows = (1..).zip(places).zip(products);
    let entry = |((rank, place), product): ((u64, &Place), Option<Product>)| RankingEntry {
        rank,
        product_id: ID(place.product.to_string()),
        score: place.points.as_f64(),
        product,
    };
    Ok(rows.map(entry).collect())
}

// ------------------------------------------------------------ mutation

struct Mutation;

#[Object]
impl Mutation {
    async fn upsert_products(&self, ctx: &Context<'_>, input: UpsertProductsInput) -> Result<UpsertProductsPayload> {
        let row = |input: ProductInput| -> Result<NewProduct> {
            let price = Some(Money { amount: input.price.parse()?, currency: input.currency });
            let (id, category) = (ProductId::new(&input.id)?, Some(input.category));
            Ok(NewProduct { id, name: input.name, image_url: None, price, category, brand: None })
        };
        let rows = input.products.into_iter().map(row).collect::<Result<Vec<_>>>()?;
        app(ctx).upsert_products(&rows).await?;
        Ok(UpsertProductsPayload { user_errors: Vec::new() })
    }

    async fn record_events(&self, ctx: &Context<'_>, input: RecordEventsInput) -> Result<RecordEventsPayload> {
        let event = |input: EventInput| -> Result<NewEvent> {
            let (id, product) = (EventId::from_producer(&input.id)?, ProductId::new(&input.product_id)?);
            let (signal, count) = (input.signal.into(), input.count.into());
            Ok(NewEvent { id, signal, product, user: None, count, occurred_at: None, reverses: None })
        };
        let events = input.events.into_iter().map(event).collect::<Result<Vec<_>>>()?;
        let (results, _) = app(ctx).record(&events).await?;
        let error = |result: EventResult| match result {
            EventResult::Recorded | EventResult::Duplicate => None,
            refused => Some(UserError { message: format!("{refused:?}") }),
        };
        let results: Vec<_> = results.into_iter().map(|result| RecordedEvent { error: error(result) }).collect();
        let rejected = results.iter().filter(|result| result.error.is_some()).count();
        Ok(RecordEventsPayload { rejected, results })
    }
}

#[derive(InputObject)]
struct UpsertProductsInput {
    products: Vec<ProductInput>,
}

#[derive(InputObject)]
struct ProductInput {
    id: ID,
    name: String,
    price: String,
    currency: String,
    category: String,
}

#[derive(SimpleObject)]
struct UpsertProductsPayload {
    user_errors: Vec<UserError>,
}

#[derive(SimpleObject)]
struct UserError {
    message: String,
}

#[derive(InputObject)]
struct RecordEventsInput {
    events: Vec<EventInput>,
}

#[derive(InputObject)]
struct EventInput {
    id: ID,
    signal: Signal,
    product_id: ID,
    count: u32,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::Signal")]
enum Signal {
    View,
    Like,
    Cart,
    Share,
    Order,
}

#[derive(SimpleObject)]
struct RecordEventsPayload {
    rejected: usize,
    results: Vec<RecordedEvent>,
}

#[derive(SimpleObject)]
struct RecordedEvent {
    error: Option<UserError>,
}

// ------------------------------------------------------------ subscription

struct Changes;

#[Subscription]
impl Changes {
    async fn board_changes(
        &self,
        ctx: &Context<'_>,
        board: ID,
        top: u16,
        #[graphql(default = 10.0)] max_rate: f64,
    ) -> Result<impl Stream<Item = Result<BoardEvent>> + use<>> {
        let (app, hub) = (app(ctx).clone(), ctx.data_unchecked::<Arc<Hub>>());
        let top = usize::from(top);
        let sequence = hub.sequence(Topic::Board { board: BoardId::new(&board)?, top }, max_rate).unwrap();
        let first = sequence.whole(domain::SnapshotReason::Initial);
        let later = stream::unfold(sequence, async |mut sequence| Some((sequence.next().await?, sequence)));
        let updates = stream::iter([first]).chain(later).flat_map(stream::iter);
        Ok(updates.filter_map(move |update| {
            let app = app.clone();
            async move {
                match update {
                    Update::Board(update) => Some(BoardEvent::of(&app, update, top).await),
                    Update::Rank { .. } | Update::Likes { .. } | Update::Rule { .. } => None,
                }
            }
        }))
    }
}

#[derive(Interface)]
#[graphql(field(name = "seq", ty = "&u64"))]
enum BoardEvent {
    Snapshot(BoardSnapshot),
    Delta(BoardDelta),
    Heartbeat(BoardHeartbeat),
}

#[derive(SimpleObject)]
struct BoardSnapshot {
    seq: u64,
    reason: SnapshotReason,
    entries: Vec<RankingEntry>,
}

#[derive(SimpleObject)]
struct BoardDelta {
    seq: u64,
    from_seq: u64,
    changes: Vec<RankChange>,
}

#[derive(SimpleObject)]
struct BoardHeartbeat {
    seq: u64,
}

#[derive(SimpleObject)]
struct RankChange {
    kind: ChangeKind,
    product_id: ID,
    from_rank: Option<u64>,
    to_rank: Option<u64>,
    score: Option<f64>,
    product: Option<Product>,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::SnapshotReason")]
enum SnapshotReason {
    Initial,
    Resumed,
    Gap,
    Lagged,
    Rolled,
    Reweighted,
    Recovered,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::ChangeKind")]
enum ChangeKind {
    Entered,
    Left,
    Moved,
    Rescored,
}

impl BoardEvent {
    async fn of(app: &App, update: BoardUpdate, top: usize) -> Result<Self> {
        Ok(match update {
            BoardUpdate::Snapshot { state, reason } => {
                let entries = entries(app, state.top(top)).await?;
                Self::Snapshot(BoardSnapshot { seq: state.seq, reason: reason.into(), entries })
            }
            BoardUpdate::Delta { state, from_seq, changes } => {
                let products = products(app, changes.iter().map(|change| &change.product)).await?;
                let change = |(change, product): (domain::RankChange, Option<Product>)| RankChange {
                    kind: change.kind.into(),
                    product_id: ID(change.product.to_string()),
                    from_rank: change.from_rank,
                    to_rank: change.to_rank,
                    score: change.points.map(|points| points.as_f64()),
                    product,
                };
                let changes = changes.into_iter().zip(products).map(change).collect();
                Self::Delta(BoardDelta { seq: state.seq, from_seq, changes })
            }
            BoardUpdate::Heartbeat { state, .. } => {
                Self::Heartbeat(BoardHeartbeat { seq: state.map_or(0, |state| state.seq) })
            }
        })
    }
}
