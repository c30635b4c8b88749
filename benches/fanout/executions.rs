//! How many documents are run for how many deliveries, counted where the API itself can be asked: inside its process,
//! with members that take payloads and no sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acclaim::domain::{EventId, ProductId, Signal};
use acclaim::graphql::guards::Caller;
use acclaim::graphql::{Api, DocumentLimits, Outcome, Request};
use acclaim::ledger::NewProduct;
use acclaim::live::Hub;
use acclaim::pipeline::{App, NewEvent};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::task::JoinSet;

use crate::support::until;
use crate::table::{number, row, table};
use crate::{PLACES, stock};

const UPDATES: u64 = 30;
/// Twice the pace at which states are published.
const RECORD_EVERY: Duration = Duration::from_millis(200);
const SUBSCRIPTION: &str = "subscription { boardChanges(top: 10) { __typename seq \
     ... on BoardSnapshot { reason entries { rank productId score product { name } } } \
     ... on BoardDelta { fromSeq changes { kind productId fromRank toRank score product { name } } } } }";

pub async fn run(crowds: &[usize]) {
    let mut rows = vec![row!["subscribers", "documents run", "deliveries", "deliveries for each document"]];
    for subscribers in crowds {
        let (executions, deliveries) = count(*subscribers).await;
        let each = deliveries as f64 / executions as f64;
        let [executions, deliveries] = [executions, deliveries].map(|count| number(count as f64));
        rows.push(row![subscribers, executions, deliveries, number(each)]);
    }
    table(&format!("Documents run, counted inside the process while the board changes {UPDATES} times"), &rows);
}

/// Executions and deliveries while the board moves; what greeted the members is not counted.
async fn count(subscribers: usize) -> (u64, u64) {
    let folder = tempfile::TempDir::new().unwrap();
    let app = stock::node(&format!("sqlite://{}/node.db", folder.path().display())).await;
    let ids: Vec<ProductId> = (0..PLACES).map(|n| ProductId::new(&format!("p{n}")).unwrap()).collect();
    let row = |id: &ProductId| NewProduct {
        id: id.clone(),
        name: format!("Product {id}"),
        image_url: None,
        price: None,
        category: None,
        brand: None,
    };
    app.upsert_products(&ids.iter().map(row).collect::<Vec<_>>()).await.unwrap();
    let api = Api::new(Hub::start(&app), DocumentLimits::default());

    let deliveries = Arc::new(AtomicU64::new(0));
    let mut members = JoinSet::new();
    for _ in 0..subscribers {
        let mut payloads = subscribe(&api).await;
        payloads.next().await.unwrap();
        let deliveries = deliveries.clone();
        members.spawn(async move {
            while payloads.next().await.is_some() {
                deliveries.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let before = api.metrics().executions();
    for round in 0..UPDATES {
        record(&app, &ids, round).await;
        tokio::time::sleep(RECORD_EVERY).await;
    }
    until("all members were given the same", Duration::from_secs(10), async || {
        deliveries.load(Ordering::Relaxed) >= (api.metrics().executions() - before) * subscribers as u64
    })
    .await;
    let counted = (api.metrics().executions() - before, deliveries.load(Ordering::Relaxed));
    app.stop(Duration::from_secs(5)).await;
    counted
}

async fn subscribe(api: &Api) -> BoxStream<'static, acclaim::graphql::LiveEvent> {
    match api.operate(api.prepare(Request::new(SUBSCRIPTION)), Caller::default(), None, "bench").await {
        Outcome::Subscribed(member) => member.into_stream(),
        Outcome::Answered(answer) => panic!("{:?}", answer.refusal),
    }
}

/// Some views of every product.
async fn record(app: &App, ids: &[ProductId], round: u64) {
    let view = |id: &ProductId| NewEvent {
        id: EventId::from_producer(&format!("{id}-{round}")).unwrap(),
        signal: Signal::View,
        product: id.clone(),
        user: None,
        count: rand::random_range(1..=20),
        occurred_at: None,
        reverses: None,
    };
    app.record(&ids.iter().map(view).collect::<Vec<_>>()).await.unwrap();
}
