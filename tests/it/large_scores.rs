//! Scores beyond what a sorted set and JavaScript hold: exact whatever comes and is taken back, at the roll too, and ranked as far
//! as ranks tell them apart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{Board, BoardId, EventId, Factor, PageStart, Place, Points, Signal, Timestamp, Weight};
use acclaim::engine::EngineLimits;
use acclaim::ledger::{Author, NewProductRule, NewWeightRule};
use acclaim::pipeline::{EventResult, Moment, NewEvent, Trial};
use serde_json::{Value, json};

use crate::support::node::{Node, order, product};
use crate::support::stack::{RECORD, Setup, Stack};
use crate::support::until;

crate::both_setups!(
    what_is_taken_back_leaves_the_rest,
    every_board_and_every_way_to_a_score_agree,
    what_carries_over_is_exact,
);

const LIMIT: Duration = Duration::from_secs(60);
const MILLION: i64 = 1_000_000;
const BOARDS: [&str; 6] = ["daily", "hourly", "weekly", "monthly", "all-time", "trending"];

/// Twenty million orders at the largest weight are twenty thousand million points: more than twice what ranks tell apart.
async fn what_is_taken_back_leaves_the_rest(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(2).await;
    let adjust = "mutation { adjustWeights(input: { weights: [{ signal: ORDER, weight: 1000 }], note: \"n\" }) { userErrors { message } } }";
    assert_eq!(server.graphql("ada", adjust, json!({})).await["adjustWeights"]["userErrors"], json!([]));
    let record = async |events: Vec<Value>| {
        let answer = server.graphql("shop", RECORD, json!({ "events": events })).await;
        assert_eq!(answer["recordEvents"]["recorded"], events.len(), "{answer}");
    };
    // The lines of the first place, as they are told; they add up to its score.
    let shown = async || {
        let query =
            "{ ranking(first: 2) { nodes { rank productId score explanation { total lines { points count } } } } }";
        server.graphql("reader", query, json!({})).await["ranking"]["nodes"].clone()
    };
    let until_shown = async |score: f64, count: i64| {
        until("the score is right, and explained", LIMIT, async || {
            let nodes = shown().await;
            let line = json!({ "total": score, "lines": [{ "points": score, "count": count }] });
            nodes[0] == json!({ "rank": 1, "productId": "p0", "score": score, "explanation": line })
        })
        .await;
        server.assert_verified().await;
    };
    let orders = |ids: std::ops::Range<i64>, count: i64| {
        ids.map(|n| json!({ "id": format!("o{n}"), "signal": "ORDER", "productId": "p0", "count": count })).collect()
    };
    record(orders(0..9, MILLION)).await;
    until_shown(9e9, 9 * MILLION).await;
    record(orders(9..20, MILLION)).await;
    until_shown(2e10, 20 * MILLION).await;
    let taken_back = |ids: std::ops::Range<i64>| {
        let reversal =
            |n| json!({ "id": format!("r{n}"), "signal": "ORDER", "productId": "p0", "reverses": format!("o{n}") });
        ids.map(reversal).collect()
    };
    record(taken_back(0..5)).await;
    until_shown(1.5e10, 15 * MILLION).await;
    record(taken_back(5..18)).await;
    until_shown(2e9, 2 * MILLION).await;
    record(taken_back(18..20)).await;
    until("nothing is left", LIMIT, async || shown().await == json!([])).await;
    server.assert_verified().await;
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn author(node: &Node) -> Author {
    Author { name: "ada".to_owned(), at: node.app.now(), note: "why".to_owned() }
}

async fn weigh(node: &Node, millionths: i64) {
    let rule = NewWeightRule {
        board: None,
        weights: vec![(Signal::Order, Weight::from_millionths(millionths))],
        from: None,
        until: None,
        hours: None,
        author: author(node),
        expected_version: None,
    };
    node.app.adjust_weights(&rule).await.unwrap();
}

async fn record(node: &Node, events: &[NewEvent]) {
    let (results, _) = node.app.record(events).await.unwrap();
    assert!(results.iter().all(|result| *result == EventResult::Recorded), "{results:?}");
}

/// So many events of a million orders each.
fn orders(product: &str, count: usize, occurred_at: Option<Timestamp>) -> Vec<NewEvent> {
    let of = |n| NewEvent { count: MILLION, ..order(&format!("{product}-{n}"), product, occurred_at) };
    (0..count).map(of).collect()
}

fn reversals(events: &[NewEvent]) -> Vec<NewEvent> {
    let reversal = |event: &NewEvent| NewEvent {
        id: EventId::from_producer(&format!("back-{}", event.id)).unwrap(),
        reverses: Some(event.id.clone()),
        ..event.clone()
    };
    events.iter().map(reversal).collect()
}

/// A board as (product, millionths), as its points are kept.
async fn points(node: &Node, board: &Arc<Board>) -> Vec<(String, i128)> {
    let page = node.app.page(board, &PageStart::Rank(1), 100).await.unwrap();
    page.rows.places.iter().map(|place| (place.product.to_string(), place.points.millionths())).collect()
}

/// Every score of a board is the sum of its lines, at the page's own moment.
async fn assert_explained(node: &Node, board: &Arc<Board>) {
    let page = node.app.page(board, &PageStart::Rank(1), 100).await.unwrap();
    let reading = Arc::new(page.reading);
    let ids: Vec<_> = page.rows.places.iter().map(|place| place.product.clone()).collect();
    let tally = node.app.tally(&reading, &ids, Moment::AsRead).await.unwrap().expect("the journal has everything");
    for Place { product, points } in page.rows.places {
        let explanation = tally.explain(&reading, &product, points);
        let explanation = explanation.unwrap_or_else(|| panic!("{}: {product} at {points:?}", board.id));
        let score = board.score(&reading.period, points, reading.freshness.as_of);
        assert_eq!(explanation.total(), score, "{}: {explanation:#?}", board.id);
    }
}

async fn every_board_and_every_way_to_a_score_agree(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2026-11-22T12:07:08.901Z")).await;
    let ids = ["p0", "p1", "p2", "p3"];
    node.with_products(&ids).await;
    weigh(&node, 999_999_999).await;
    let lifted = NewProductRule {
        product: product("p3"),
        board: None,
        excluded: false,
        boost: Some(Factor::MAX),
        until: None,
        author: author(&node),
    };
    node.app.set_product_rule(&lifted).await.unwrap();
    let all: HashMap<_, _> =
        ids.into_iter().zip([60, 40, 3, 40]).map(|(id, count)| (id, orders(id, count, None))).collect();
    let one = i128::from(MILLION) * 999_999_999;
    let boards: Vec<_> = BOARDS.map(|id| node.board(id)).to_vec();
    let expected = |counts: [i128; 4]| {
        let worth = |(id, count): (&str, i128)| (id.to_owned(), count * one * if id == "p3" { 100 } else { 1 });
        let mut places: Vec<_> = ids.into_iter().zip(counts).map(worth).filter(|(_, points)| *points != 0).collect();
        // What is beyond the bound ranks by id.
        places.sort_by_key(|(id, points)| std::cmp::Reverse((Points::from_millionths(*points).ranked(), id.clone())));
        places
    };
    let until_right = async |counts: [i128; 4]| {
        until("every board is right", LIMIT, async || {
            for board in &boards {
                let shown = points(&node, board).await;
                let is_right = match board.window.half_life() {
                    // Its points are grown: what is known by hand is which products have any.
                    Some(_) => shown.len() == counts.iter().filter(|count| **count != 0).count(),
                    None => shown == expected(counts),
                };
                if !is_right {
                    return false;
                }
            }
            true
        })
        .await;
        for board in &boards {
            assert_explained(&node, board).await;
        }
        assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    };
    for id in ids {
        record(&node, &all[id]).await;
    }
    until_right([60, 40, 3, 40]).await;
    let daily = node.board("daily");
    assert_eq!(points(&node, &daily).await[0], ("p3".to_owned(), 40 * one * 100));
    let trending = points(&node, &node.board("trending")).await;
    let of = |id: &str| trending.iter().find(|(product, _)| product == id).unwrap().1;
    assert_eq!(of("p0") * 2, of("p1") * 3, "grown alike, whatever the size");
    assert!((of("p3") as f64 / of("p1") as f64 - 100.0).abs() < 1e-6, "{trending:?}");

    // Pages are cut by ranks, and go on behind a place.
    let whole = points(&node, &daily).await;
    for (n, (id, millionths)) in whole.iter().enumerate() {
        let place = Place { product: product(id), points: Points::from_millionths(*millionths) };
        let rest = node.app.page(&daily, &PageStart::After(place), 10).await.unwrap().rows;
        let rest: Vec<_> = rest.places.iter().map(|place| place.product.to_string()).collect();
        assert_eq!(rest, whole[n + 1..].iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
    }
    // What a preview says there is, is there.
    let weights = vec![(Signal::View, Weight::MAX)];
    let trial = Trial { board: Some(BoardId::daily()), weights, from: None, until: None, hours: None };
    until("all is in the ledger", LIMIT, async || node.stack.count("SELECT COUNT(*) FROM events").await == 143).await;
    let foretold = node.app.weight_preview(&daily, &trial, 100).await.unwrap();
    let foretold: Vec<_> =
        foretold.moves.iter().map(|step| (step.product.to_string(), step.points_before.millionths())).collect();
    assert_eq!(foretold, whole);

    record(&node, &reversals(&all["p0"][..58])).await;
    record(&node, &reversals(&all["p1"][..20])).await;
    record(&node, &reversals(&all["p3"][..40])).await;
    until_right([2, 20, 3, 0]).await;
    let live: Vec<_> = {
        let mut live = Vec::new();
        for board in &boards {
            live.push(node.app.engine().whole(&board.id).await.unwrap().unwrap().2);
        }
        live
    };
    for (board, live) in boards.iter().zip(live) {
        node.app.rebuild_board(&board.id, None, &author(&node)).await.unwrap();
        until("it is rebuilt", LIMIT, async || node.app.is_current(&board.id).await.unwrap()).await;
        assert_eq!(node.app.engine().whole(&board.id).await.unwrap().unwrap().2, live, "{}", board.id);
    }
    until_right([2, 20, 3, 0]).await;
    node.stop().await;
}

/// What a day is closed with, and what the next begins with, beyond the bound and below.
async fn what_carries_over_is_exact(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2026-11-20T12:00:00Z")).await;
    let ids = ["p0", "p1", "p2"];
    node.with_products(&ids).await;
    weigh(&node, 999_999_999).await;
    for (id, count) in ids.into_iter().zip([70, 90, 20]) {
        record(&node, &orders(id, count, None)).await;
    }
    let one = i128::from(MILLION) * 999_999_999;
    let daily = node.board("daily");
    let of = |rows: &[(&str, i128)]| rows.iter().map(|(id, points)| ((*id).to_owned(), *points)).collect::<Vec<_>>();
    let closed = of(&[("p2", 20 * one), ("p1", 90 * one), ("p0", 70 * one)]);
    until("all is counted", LIMIT, async || points(&node, &daily).await == closed).await;

    node.set_clock(at("2026-11-22T12:00:00Z"));
    let carried = |count: i128, days: usize| (0..days).fold(count * one, |points, _| points * 3 / 10);
    let next = |days| of(&[("p1", carried(90, days)), ("p0", carried(70, days)), ("p2", carried(20, days))]);
    until("the next day but one is shown", LIMIT, async || points(&node, &daily).await == next(2)).await;
    assert_explained(&node, &daily).await;
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    let results = async |key: &str| {
        let places = node.app.ledger().results(&BoardId::daily(), key, 100).await.unwrap();
        places.into_iter().map(|place| (place.product.to_string(), place.points.millionths())).collect::<Vec<_>>()
    };
    assert_eq!(results("2026-11-20").await, closed);
    // Two lie beyond the bound still.
    assert_eq!(results("2026-11-21").await, next(1));
    assert!(next(1)[1].1 > Points::RANKED_MAX.into());

    // A closed day is read in pages, and explained.
    let period = daily.period_of_key("2026-11-21").unwrap();
    let read = async |start: PageStart| node.app.closed_page(&daily, &period, &start, 10).await.unwrap();
    let page = read(PageStart::Rank(1)).await;
    assert_eq!(
        page.rows.places.iter().map(|place| place.points.millionths()).collect::<Vec<_>>(),
        next(1).iter().map(|row| row.1).collect::<Vec<_>>()
    );
    for (n, place) in page.rows.places.iter().enumerate() {
        assert_eq!(read(PageStart::After(place.clone())).await.rows.places, page.rows.places[n + 1..]);
    }
    let reading = Arc::new(page.reading);
    let ids = ids.map(product);
    let tally = node.app.tally(&reading, &ids, Moment::AsRead).await.unwrap().unwrap();
    for place in &page.rows.places {
        assert_eq!(tally.explain(&reading, &place.product, place.points).unwrap().total(), place.points);
        let entries =
            node.app.closed_entries(&daily, &period, std::slice::from_ref(&place.product)).await.unwrap().entries;
        assert_eq!(entries[0].unwrap().1, place.points);
    }

    // Computed from the ledger again, the chain is the same.
    node.stack.reopen("daily", at("2026-11-20T00:00:00Z")).await;
    until("the chain is stored again", LIMIT, async || {
        node.closed("daily").await.len() == 3 && node.app.is_current(&daily.id).await.unwrap()
    })
    .await;
    assert_eq!((results("2026-11-20").await, results("2026-11-21").await), (closed, next(1)));
    assert_eq!(points(&node, &daily).await, next(2));
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}
