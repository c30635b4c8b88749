//! Eight days of real orders, loaded after sixteen years: every period since is computed, and equals a plain sum over the
//! file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use acclaim::domain::{PageStart, Period, Timestamp};
use acclaim::engine::EngineLimits;
use acclaim::pipeline::{EventResult, Source};

use crate::support::node::{Node, order};
use crate::support::stack::{Setup, Stack};
use crate::support::until;

crate::both_setups!(every_day_of_real_orders_equals_a_plain_sum);

const LIMIT: Duration = Duration::from_secs(60);
const ORDER_MILLIONTHS: i64 = 600_000;
/// What carries less than this is dropped.
const DUST_MILLIONTHS: i64 = 10_000;

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/orders-2010-12-01-to-08.csv")
}

struct Line {
    id: String,
    product: String,
    at: String,
    reverses: Option<String>,
}

fn lines() -> Vec<Line> {
    let mut rows = csv::Reader::from_path(file()).unwrap();
    let line = |row: csv::StringRecord| Line {
        id: row[0].to_owned(),
        product: row[2].to_owned(),
        at: row[3].to_owned(),
        reverses: (!row[4].is_empty()).then(|| row[4].to_owned()),
    };
    rows.records().map(|row| line(row.unwrap())).collect()
}

/// The board of each day of December 2010 from the 1st on, by hand: what the lines of the day come to, and three tenths of
/// the day before. A cancellation counts on the day of the order that it takes back.
fn expected(lines: &[Line], days: u32) -> Vec<(String, Vec<(String, i64)>)> {
    let day_of_line: BTreeMap<&str, &str> = lines.iter().map(|line| (line.id.as_str(), &line.at[..10])).collect();
    let mut orders: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for line in lines {
        let (day, count) = match &line.reverses {
            None => (&line.at[..10], 1),
            Some(original) => (day_of_line[original.as_str()], -1),
        };
        *orders.entry((day, &line.product)).or_default() += count;
    }
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    let mut boards = Vec::new();
    for day in 1..=days {
        let day = format!("2010-12-{day:02}");
        for total in totals.values_mut() {
            let carried = *total * 3 / 10;
            *total = if carried < DUST_MILLIONTHS { 0 } else { carried };
        }
        for ((_, product), count) in orders.iter().filter(|((of, _), _)| *of == day) {
            *totals.entry(product).or_default() += count * ORDER_MILLIONTHS;
        }
        totals.retain(|_, total| *total != 0);
        let mut board: Vec<(String, i64)> = totals.iter().map(|(id, total)| ((*id).to_owned(), *total)).collect();
        board.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
        boards.push((day, board));
    }
    boards
}

async fn every_day_of_real_orders_equals_a_plain_sum(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), Timestamp::parse("2026-11-25T12:00:00Z").unwrap()).await;
    let lines = lines();
    assert_eq!(lines.len(), 19_260);
    let mut products: Vec<&str> = lines.iter().map(|line| line.product.as_str()).collect();
    products.sort_unstable();
    products.dedup();
    for chunk in products.chunks(500) {
        node.with_products(chunk).await;
    }
    for chunk in lines.chunks(500) {
        let event = |line: &Line| {
            let mut event = order(&line.id, &line.product, Some(Timestamp::parse(&line.at).unwrap()));
            event.reverses = line.reverses.as_ref().map(|id| acclaim::domain::EventId::from_producer(id).unwrap());
            event
        };
        let events: Vec<_> = chunk.iter().map(event).collect();
        // On a loaded machine Redis may not answer in time: sent again, what it had recorded is there.
        let mut expected = vec![EventResult::Recorded];
        until("the lines are recorded", LIMIT, async || match node.app.record(&events).await {
            Ok((results, _)) => {
                assert!(results.iter().all(|result| expected.contains(result)), "{results:?}");
                true
            }
            Err(_) => {
                expected = vec![EventResult::Recorded, EventResult::Duplicate];
                false
            }
        })
        .await;
    }
    until("every line is in the ledger", LIMIT, async || {
        node.stack.count("SELECT count(*) FROM events").await == 19_260
    })
    .await;

    let daily = node.board("daily");
    let expected = expected(&lines, 12);
    let day = async |key: &str| {
        let period: Period = daily.period_of_key(key).unwrap();
        let page = node.app.closed_page(&daily, &period, &PageStart::Rank(1), 5_000).await.unwrap();
        let places = page.rows.places.iter().map(|place| (place.product.to_string(), place.points.ranked()));
        (page.reading.freshness.source, places.collect::<Vec<_>>())
    };
    // Nothing is stored of these days, so they are computed, each with all that carried over to it.
    for (key, board) in [&expected[0], &expected[3], &expected[7]] {
        let (source, places) = day(key).await;
        assert_eq!(source, Source::Ledger);
        assert!(places == *board, "{key} is computed as {:?}, and should be {:?}", &places[..5], &board[..5]);
    }

    node.stack.reopen("daily", Timestamp::parse("2010-12-01T00:00:00Z").unwrap()).await;
    until("the chain is stored up to yesterday", LIMIT, async || {
        node.closed("daily").await.last().is_some_and(|last| last == "2026-11-24")
    })
    .await;
    for (key, board) in &expected {
        let results = node.results("daily", key).await;
        let kept: Vec<_> = board.iter().take(1_000).map(|(id, total)| (id.clone(), *total as f64 / 1e6)).collect();
        assert!(results == kept, "{key} is {:?}, and should be {:?}", &results[..5], &kept[..5]);
        // What is not kept is computed, and is the same.
        let (source, places) = day(key).await;
        assert_eq!(source, if board.len() > 1_000 { Source::Ledger } else { Source::Results }, "{key}");
        assert!(places == *board, "{key}");
    }
    assert!(expected[3].1.iter().all(|(_, total)| *total > 0), "the 4th has what carried over");
    assert!(expected[2].1.len() > 1_000 && expected[3].1.len() > 1_000, "so that some of it is not kept");
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

/// The same file through the command line: the sums of a day that a person would check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_orders_are_imported_from_the_command_line() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let lines = lines();
    let products: std::collections::BTreeSet<_> = lines.iter().map(|line| line.product.clone()).collect();
    let catalogue = stack.sqlite_file().with_file_name("products.csv");
    let rows: String = products.iter().map(|id| format!("{id},Product {id}\n")).collect();
    std::fs::write(&catalogue, format!("id,name\n{rows}")).unwrap();
    for (kind, path) in [("products", catalogue), ("events", file())] {
        let output = stack
            .command()
            .args(["import", kind, path.to_str().unwrap(), "--url", &server.url])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (key, board) = expected(&lines, 6).pop().unwrap();
    let query = format!(
        "{{ board {{ period(key: \"{key}\") {{ freshness {{ source }} entries(first: 100) {{ totalCount nodes {{ productId score }} }} }} }} }}"
    );
    let read = server.graphql("reader", &query, serde_json::json!({})).await["board"]["period"].clone();
    assert_eq!(read["freshness"]["source"], "LEDGER");
    assert_eq!(read["entries"]["totalCount"], board.len());
    let nodes = read["entries"]["nodes"].as_array().unwrap();
    for ((id, total), node) in board.iter().zip(nodes) {
        assert_eq!(
            (node["productId"].as_str(), node["score"].as_f64()),
            (Some(id.as_str()), Some(*total as f64 / 1e6))
        );
    }
    assert_eq!(nodes.len(), 100);
}

/// The README's step 8 and then "Loading history", on one server: the day of step 8 is one of the eight, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_loaded_after_the_tour() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let acclaim = |arguments: &[&str]| {
        let output =
            stack.command().args(arguments).args(["--url", &server.url]).stdin(Stdio::null()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let demo = |name: &str| format!("{}/demo/{name}", env!("CARGO_MANIFEST_DIR"));
    let said = acclaim(&["import", "products", &demo("products.csv")]);
    assert!(said.contains("1467 products recorded, 0 there before, 0 bad rows"), "{said}");
    let tour = demo("orders.csv");
    for counts in ["3810 events recorded, 0 there before", "0 events recorded, 3810 there before"] {
        let said = acclaim(&["import", "events", &tour, "--shift-to-now"]);
        assert!(said.contains(counts), "{said}");
    }
    acclaim(&["verify"]);
    let lines = lines();
    let products: std::collections::BTreeSet<_> = lines.iter().map(|line| line.product.clone()).collect();
    let catalogue = stack.sqlite_file().with_file_name("products.csv");
    let rows: String = products.iter().map(|id| format!("{id},Product {id}\n")).collect();
    std::fs::write(&catalogue, format!("id,name\n{rows}")).unwrap();
    acclaim(&["import", "products", catalogue.to_str().unwrap()]);
    let said = acclaim(&["import", "events", file().to_str().unwrap()]);
    assert!(said.contains("15450 events recorded, 3810 there before, 0 bad rows"), "{said}");
    let said = acclaim(&["rebuild", "--board", "daily", "--from", "2010-12-01"]);
    assert!(said.contains("daily: computed anew, with its periods from 2010-12-01 to 20"), "{said}");
    acclaim(&["verify"]);
    // By hand, without what the tour has moved to its own day.
    let mut moved = csv::Reader::from_path(&tour).unwrap();
    let moved: std::collections::HashSet<String> = moved.records().map(|row| row.unwrap()[0].to_owned()).collect();
    let is_moved =
        |line: &Line| moved.contains(&line.id) || line.reverses.as_ref().is_some_and(|id| moved.contains(id));
    let left: Vec<Line> = lines.into_iter().filter(|line| !is_moved(line)).collect();
    for (key, board) in expected(&left, 8) {
        let query = format!(
            "{{ board {{ period(key: \"{key}\") {{ freshness {{ source }} entries(first: 100) {{ totalCount nodes {{ productId score }} }} }} }} }}"
        );
        let read = server.graphql("reader", &query, serde_json::json!({})).await["board"]["period"].clone();
        assert_eq!(
            (&read["freshness"]["source"], read["entries"]["totalCount"].as_u64()),
            (&"RESULTS".into(), Some(board.len() as u64)),
            "{key}"
        );
        let nodes = read["entries"]["nodes"].as_array().unwrap().iter();
        let shown: Vec<_> =
            nodes.map(|node| (node["productId"].as_str().unwrap(), node["score"].as_f64().unwrap())).collect();
        let by_hand: Vec<_> = board.iter().take(100).map(|(id, total)| (id.as_str(), *total as f64 / 1e6)).collect();
        assert_eq!(shown, by_hand, "{key}");
    }
}
