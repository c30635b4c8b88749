//! Readers who page through a ranking with its products and their own likes: requests a second, and how long one takes.
//!
//! Every page is read in full: its ranks follow each other, and its scores never rise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{self, Recorder};
use super::meter::{self, Meter};
use super::table::{Latencies, Table, number, rate};
use super::view::{Entry, Place, descending};
use super::{Faults, Outcome, Target};
use crate::client::{Caller, Client};

/// Pages that a reader turns before beginning anew: few people go further.
const PAGES_MAX: u32 = 5;

const PAGE: &str = "query Page($board: ID!, $first: Int!, $after: String) {
  ranking(board: $board, first: $first, after: $after) {
    totalCount
    nodes { rank score productId product { name imageUrl price { amount currency } like { count viewerHasLiked } } }
    pageInfo { hasNextPage endCursor }
  }
}";

pub struct Settings {
    pub clients: usize,
    /// Places on a page.
    pub first: usize,
}

#[derive(Deserialize)]
struct Answer {
    ranking: Page,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    nodes: Vec<Entry>,
    page_info: PageInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

/// What all readers share.
struct Reading {
    board: String,
    first: usize,
    pages: AtomicU64,
    places: AtomicU64,
    latencies: Latencies,
    faults: Faults,
    stop: CancellationToken,
}

/// Loads the target until its time is over or `stop` is cancelled.
pub async fn run(target: &Target, settings: &Settings, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let server = target.look().await?;
    let products = board::products(target, 1, settings.first).await?;
    if target.products.is_some() {
        board::lift(target, &Recorder::new(&target.client), &products, settings.first).await?;
    }
    let reading = Arc::new(Reading {
        board: target.board.to_string(),
        first: settings.first,
        pages: AtomicU64::new(0),
        places: AtomicU64::new(0),
        latencies: Latencies::new(),
        faults: Faults::default(),
        stop: stop.child_token(),
    });
    let meter = Meter::start(server);
    let mut readers = JoinSet::new();
    for number in 0..settings.clients {
        // Several people, where the server believes names; all of them the token's holder otherwise.
        let client = match &target.client.caller {
            Caller::Token(_) | Caller::Anonymous => target.client.clone(),
            Caller::Name(_) => target.client.called_by(Caller::Name(format!("bench-reader-{number}"))),
        };
        let reading = reading.clone();
        readers.spawn(async move { reading.read(&client).await });
    }
    let state = || format!("{} pages", number(reading.pages.load(Ordering::Relaxed) as f64));
    let ends = async {
        meter::pass(target.duration, stop, state).await;
        reading.stop.cancel();
        std::future::pending().await
    };
    let all = async {
        while let Some(ended) = readers.join_next().await {
            ended??;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! { done = all => done?, () = ends => {} }
    let (spent, pages) = (meter.stop(), reading.pages.load(Ordering::Relaxed));
    let mut table = Table::new(format!(
        "rankings: board {}, {} clients, pages of {}, {:.0} s",
        target.board,
        settings.clients,
        settings.first,
        spent.time.as_secs_f64()
    ));
    table.row("requests", rate(pages, spent.time));
    table.row("places", rate(reading.places.load(Ordering::Relaxed), spent.time));
    table.row("latency", &reading.latencies);
    table.row("server memory", meter::memory(server));
    spent.rows(&mut table, pages, "request");
    table.row("checked", "ranks and scores of every page");
    Ok(Outcome { table, faults: reading.faults.told() })
}

impl Reading {
    /// Turns pages until the run ends.
    async fn read(&self, client: &Client) -> anyhow::Result<()> {
        while !self.stop.is_cancelled() {
            let (mut after, mut first_rank) = (None, Some(1));
            for _ in 0..PAGES_MAX {
                let variables = json!({ "board": self.board, "first": self.first, "after": after });
                let sent = Instant::now();
                let answer: Answer = client.call(PAGE, &variables).await?;
                self.latencies.record(sent.elapsed());
                self.pages.fetch_add(1, Ordering::Relaxed);
                let Page { nodes, page_info } = answer.ranking;
                self.places.fetch_add(nodes.len() as u64, Ordering::Relaxed);
                if let Err(fault) = check(nodes, self.first, first_rank.take()) {
                    self.faults.add(format!("a page of {} {fault}", self.board));
                }
                if !page_info.has_next_page || self.stop.is_cancelled() {
                    break;
                }
                after = page_info.end_cursor;
            }
        }
        Ok(())
    }
}

/// Whether a page's ranks follow each other, from `first_rank` where that is known, and its scores never rise. The board
/// may move between two pages, so that a page's first rank follows from no other page.
fn check(nodes: Vec<Entry>, first: usize, first_rank: Option<usize>) -> Result<(), String> {
    if nodes.len() > first {
        return Err(format!("has {} places, and {first} were asked for", nodes.len()));
    }
    let Some(start) = nodes.first().map(|entry| entry.rank) else { return Ok(()) };
    if first_rank.is_some_and(|expected| expected != start) {
        return Err(format!("begins with rank {start}"));
    }
    if let Some((entry, expected)) = nodes.iter().zip(start..).find(|(entry, expected)| entry.rank != *expected) {
        return Err(format!("has rank {} where {expected} should be", entry.rank));
    }
    let places: Vec<Place> = nodes.into_iter().map(|entry| entry.place).collect();
    descending(&places).map_err(|broken| format!("is out of order: {broken}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(usize, f64)]) -> Vec<Entry> {
        let entry = |(rank, score): &(usize, f64)| Entry {
            rank: *rank,
            place: Place { product_id: format!("p{rank}"), score: *score },
        };
        rows.iter().map(entry).collect()
    }

    #[test]
    fn a_page_out_of_order_is_told() {
        assert_eq!(check(page(&[]), 2, Some(1)), Ok(()));
        assert_eq!(check(page(&[(1, 2.0), (2, 2.0), (3, 1.0)]), 3, Some(1)), Ok(()));
        assert_eq!(check(page(&[(7, 2.0), (8, 1.0)]), 3, None), Ok(()));
        let wrong = |rows: &[(usize, f64)], first_rank| check(page(rows), 2, first_rank).unwrap_err();
        assert_eq!(wrong(&[(2, 1.0)], Some(1)), "begins with rank 2");
        assert_eq!(wrong(&[(3, 1.0), (5, 0.5)], None), "has rank 5 where 4 should be");
        assert!(wrong(&[(1, 1.0), (2, 1.5)], Some(1)).contains("rank 2 is above"));
        assert!(wrong(&[(1, 3.0), (2, 2.0), (3, 1.0)], Some(1)).contains("has 3 places"));
    }
}
