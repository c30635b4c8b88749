//! The board that is loaded: what it shows, and products of the bench's own that stand on it.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::view::Place;
use super::{Target, explained};
use crate::client::Client;
use crate::domain::{BoardId, Event};

/// Rows in one call: what the server takes at most.
pub const BATCH_LEN_MAX: usize = 500;
/// How long the board usually takes to show what was recorded, at the very most.
const SHOW_TIME_MAX: Duration = Duration::from_secs(1);
/// How long it may take before it is given up.
const SHOW_TIMEOUT: Duration = Duration::from_secs(10);
/// Quicker than people see, seldom enough to cost nothing.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

const RANKING: &str = "query Ranking($board: ID!, $first: Int!) {
  ranking(board: $board, first: $first) { nodes { productId score } }
}";
const UPSERT: &str = "mutation Stock($rows: [ProductInput!]!) {
  upsertProducts(input: { products: $rows }) { userErrors { message } }
}";
const RECORD: &str = "mutation Record($rows: [EventInput!]!) {
  recordEvents(input: { events: $rows }) { rejected results { error { message } } }
}";

/// The first places, as a query shows them.
pub async fn ranking(client: &Client, board: &BoardId, first: usize) -> anyhow::Result<Vec<Place>> {
    #[derive(Deserialize)]
    struct Answer {
        ranking: Ranking,
    }
    #[derive(Deserialize)]
    struct Ranking {
        nodes: Vec<Place>,
    }
    let variables = json!({ "board": board.as_str(), "first": first });
    let answer: Answer = client.call(RANKING, &variables).await?;
    Ok(answer.ranking.nodes)
}

/// Events of one run, each with an id of its own.
pub struct Recorder {
    client: Client,
    run: u64,
    next: std::sync::atomic::AtomicU64,
}

impl Recorder {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), run: rand::random(), next: 0.into() }
    }

    /// A view of a product that counts `count` times, as an `EventInput`.
    pub fn view(&self, product: &str, count: u32) -> Value {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("bench-{:016x}-{number}", self.run);
        let count = i64::from(count).clamp(1, Event::COUNT_MAX);
        json!({ "id": id, "signal": "VIEW", "productId": product, "count": count })
    }

    /// Fails when the call or one of the events is refused.
    pub async fn record(&self, rows: &[Value]) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            record_events: Payload,
        }
        #[derive(Deserialize)]
        struct Payload {
            rejected: u32,
            results: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            error: Option<Message>,
        }
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        for rows in rows.chunks(BATCH_LEN_MAX) {
            let answer: Answer =
                self.client.call(RECORD, &json!({ "rows": rows })).await.map_err(|error| explained(error, "INGEST"))?;
            let payload = answer.record_events;
            if payload.rejected > 0 {
                let reason = payload.results.into_iter().find_map(|row| row.error).map(|error| error.message);
                bail!("an event of the bench is rejected: {}", reason.unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The products to load: the bench's own, put into the catalogue, or else what the board shows. At least `least`, at
/// most `most` unless they are the bench's own.
pub async fn products(target: &Target, least: usize, most: usize) -> anyhow::Result<Vec<String>> {
    let Some(count) = target.products else {
        let places = ranking(&target.client, &target.board, most).await?;
        if places.len() < least {
            bail!(
                "the board {} shows {} products, and {least} are needed: add some of the bench's with --products {}",
                target.board,
                places.len(),
                most.max(least)
            );
        }
        return Ok(places.into_iter().map(|place| place.product_id).collect());
    };
    let ids: Vec<String> = (1..=count).map(|number| format!("bench-{number:05}")).collect();
    let row = |id: &String| {
        let name = format!("Product of the {id}");
        json!({ "id": id, "name": name, "price": "9.99", "currency": "EUR", "category": "Bench" })
    };
    for ids in ids.chunks(BATCH_LEN_MAX) {
        let rows: Vec<Value> = ids.iter().map(row).collect();
        let stocked: Result<IgnoredAny, _> = target.client.call(UPSERT, &json!({ "rows": rows })).await;
        stocked.map_err(|error| explained(error, "INGEST"))?;
    }
    Ok(ids)
}

/// Records views until the first `top` places are products of the list, or all of them are shown.
pub async fn lift(target: &Target, recorder: &Recorder, products: &[String], top: usize) -> anyhow::Result<()> {
    let shown = async || -> anyhow::Result<bool> {
        let places = ranking(&target.client, &target.board, top).await?;
        let ours = places.iter().filter(|place| products.contains(&place.product_id)).count();
        Ok(ours >= top.min(products.len()))
    };
    let shown_within = async |limit: Duration| -> anyhow::Result<bool> {
        let deadline = Instant::now() + limit;
        while !shown().await? {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(true)
    };
    if shown().await? {
        return Ok(());
    }
    // What stands there already may have any score: each round counts ten times as much as the one before.
    let mut count = 10;
    while i64::from(count) <= Event::COUNT_MAX {
        let rows: Vec<Value> = products.iter().map(|product| recorder.view(product, count)).collect();
        recorder.record(&rows).await?;
        if shown_within(SHOW_TIME_MAX).await? {
            return Ok(());
        }
        count *= 10;
    }
    if shown_within(SHOW_TIMEOUT).await? {
        return Ok(());
    }
    bail!("the bench's products do not reach the first {top} places of {}: do views count there?", target.board)
}
