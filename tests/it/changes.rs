//! What admins change, from inside a node: an answer comes when the boards show it, and every board stays exact.

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{
    Board, BoardId, EventId, Factor, IdempotencyKey, PageStart, Scope, Signal, SnapshotReason, Timestamp, UserId,
    Weight, Window, partition_of,
};
use acclaim::engine::{Desired, EngineLimits};
use acclaim::ledger::{
    Author, CancelOutcome, NewProduct, NewProductRule, NewWeightRule, ReopenOutcome, RuleOutcome, SaveOutcome,
};
use acclaim::pipeline::{App, LikeResult, Settings};
use jiff::tz::TimeZone;
use serde_json::json;

use crate::support::node::{Node, order, product};
use crate::support::stack::Setup;
use crate::support::until;

crate::both_setups!(
    a_change_is_shown_when_it_is_answered,
    a_scoped_board_follows_the_catalogue,
    a_deleted_board_is_gone_and_may_come_again,
    what_is_deleted_while_nobody_projects_is_gone_too,
    closed_periods_are_computed_anew,
    replayed_entries_count_on_every_board,
);

const LIMIT: Duration = Duration::from_secs(20);

fn noon() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

fn ada() -> Author {
    Author { name: "ada".to_owned(), at: noon(), note: "to see what happens".to_owned() }
}

fn board_id(id: &str) -> BoardId {
    BoardId::new(id).unwrap()
}

fn orders_at(weight: f64) -> NewWeightRule {
    NewWeightRule {
        board: None,
        weights: vec![(Signal::Order, Weight::from_f64(weight).unwrap())],
        from: None,
        until: None,
        hours: None,
        author: ada(),
        expected_version: None,
    }
}

/// A node with products, and `orders` of each of them counted everywhere.
async fn node_with(setup: Setup, orders: &[(&str, usize)]) -> Node {
    let node = Node::start(setup, EngineLimits::default(), noon()).await;
    node.with_products(&orders.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
    for (id, count) in orders {
        let events: Vec<_> = (0..*count).map(|n| order(&format!("{id}-{n}"), id, None)).collect();
        node.app.record(&events).await.unwrap();
    }
    let listed = orders.iter().filter(|(_, count)| *count > 0).count();
    until("the orders are ranked", LIMIT, async || {
        shown(&node, "daily").await.len() == listed && shown(&node, "trending").await.len() == listed
    })
    .await;
    until("every board is current", LIMIT, async || all_current(&node).await).await;
    node
}

async fn all_current(node: &Node) -> bool {
    for definition in &node.app.definitions().boards {
        if !node.app.is_current(&definition.board.id).await.is_ok_and(|is_current| is_current) {
            return false;
        }
    }
    true
}

/// What the engine shows of a board.
async fn shown(node: &Node, id: &str) -> Vec<(String, f64)> {
    let Some(page) = node.app.engine().page(&board_id(id), &PageStart::Rank(1), 100).await.unwrap() else {
        return Vec::new();
    };
    page.rows.places.iter().map(|place| (place.product.to_string(), place.points.as_f64())).collect()
}

fn rows(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    rows.iter().map(|(id, points)| ((*id).to_owned(), *points)).collect()
}

async fn assert_exact(node: &Node) {
    let report = node.app.verify(None).await.unwrap();
    assert_eq!((report.differing, report.rows), (0, vec![]));
}

/// Not waited for here: the answer has waited.
async fn a_change_is_shown_when_it_is_answered(setup: Setup) {
    let node = node_with(setup, &[("a", 3), ("b", 1)]).await;
    let before = rows(&[("a", 1.8), ("b", 0.6)]);
    assert_eq!(shown(&node, "daily").await, before);
    let RuleOutcome::Added(rule) = node.app.adjust_weights(&orders_at(2.0)).await.unwrap() else { panic!() };
    for id in ["daily", "hourly", "weekly", "monthly", "all-time"] {
        assert_eq!(shown(&node, id).await, rows(&[("a", 6.0), ("b", 2.0)]), "{id}");
    }
    let mut lifted = NewProductRule {
        product: product("b"),
        board: Some(board_id("daily")),
        excluded: false,
        boost: Some(Factor::from_f64(5.0).unwrap()),
        until: Some(noon().plus_ms(60_000)),
        author: ada(),
    };
    node.app.set_product_rule(&lifted).await.unwrap();
    assert_eq!(shown(&node, "daily").await, rows(&[("b", 10.0), ("a", 6.0)]));
    assert_eq!(shown(&node, "weekly").await, rows(&[("a", 6.0), ("b", 2.0)]));
    lifted = NewProductRule { board: None, excluded: true, boost: None, product: product("a"), until: None, ..lifted };
    node.app.set_product_rule(&lifted).await.unwrap();
    assert_eq!(shown(&node, "daily").await, rows(&[("b", 10.0)]), "who is excluded holds no rank");
    assert_eq!(shown(&node, "all-time").await, rows(&[("b", 2.0)]));
    let standing: Vec<_> = node.app.product_rules().into_iter().map(|rule| (rule.product, rule.version)).collect();
    assert_eq!(standing, [(product("a"), 3), (product("b"), 2)]);
    let cancelled = node.app.cancel_weights(rule.version, &ada()).await.unwrap();
    assert_eq!(cancelled, CancelOutcome::Cancelled { rule, version: 4 });
    assert_eq!(shown(&node, "daily").await, rows(&[("b", 3.0)]));
    assert!(all_current(&node).await);
    assert_exact(&node).await;

    // The rule ends by itself: until the board has followed, it is not what is asked for.
    node.set_clock(noon().plus_ms(60_000));
    assert_eq!(node.app.product_rules().len(), 1);
    until("the rule has ended", LIMIT, async || shown(&node, "daily").await == rows(&[("b", 0.6)])).await;
    assert!(node.app.is_current(&board_id("daily")).await.unwrap());
    node.app.set_product_rule(&NewProductRule { excluded: false, ..lifted }).await.unwrap();
    assert_eq!((shown(&node, "daily").await, node.app.product_rules().len()), (before, 0));
    assert_exact(&node).await;
    node.stop().await;
}

async fn a_scoped_board_follows_the_catalogue(setup: Setup) {
    let node = node_with(setup, &[("mug", 3), ("pen", 2), ("new", 0)]).await;
    let stock = async |id: &str, category: Option<&str>| {
        let category = category.map(str::to_owned);
        let row =
            NewProduct { id: product(id), name: id.to_owned(), image_url: None, price: None, category, brand: None };
        node.app.upsert_products(&[row]).await.unwrap();
    };
    stock("mug", Some("kitchen")).await;
    let scope = Scope { category: Some("kitchen".to_owned()), brand: None };
    let kitchen = Board { scope, ..Board::new(board_id("kitchen"), "Kitchen", Window::Day, TimeZone::UTC) };
    let SaveOutcome::Saved(saved) = node.app.save_board(&kitchen, &ada()).await.unwrap() else { panic!() };
    assert_eq!((saved.board, node.app.board(&kitchen.id).as_deref()), (kitchen.clone(), Some(&kitchen)));
    assert_eq!(shown(&node, "kitchen").await, rows(&[("mug", 1.8)]), "filled when it is answered");
    // Into the scope, with all that was counted before; and out of it.
    stock("pen", Some("kitchen")).await;
    until("the pen is in", LIMIT, async || shown(&node, "kitchen").await == rows(&[("mug", 1.8), ("pen", 1.2)])).await;
    stock("mug", Some("garage")).await;
    until("the mug is out", LIMIT, async || shown(&node, "kitchen").await == rows(&[("pen", 1.2)])).await;
    stock("new", Some("kitchen")).await;
    node.app.record(&[order("1", "new", None), order("2", "mug", None)]).await.unwrap();
    let both = rows(&[("pen", 1.2), ("new", 0.6)]);
    until("what is new counts", LIMIT, async || shown(&node, "kitchen").await == both).await;
    // Another definition under the same id.
    let wider = Board { scope: Scope::default(), ..kitchen };
    node.app.save_board(&wider, &ada()).await.unwrap();
    assert_eq!(shown(&node, "kitchen").await, rows(&[("mug", 2.4), ("pen", 1.2), ("new", 0.6)]));
    assert_exact(&node).await;
    node.stop().await;
}

async fn a_deleted_board_is_gone_and_may_come_again(setup: Setup) {
    let node = node_with(setup, &[("a", 3)]).await;
    let mine = Board::new(board_id("mine"), "Mine", Window::Week, TimeZone::UTC);
    node.app.save_board(&mine, &ada()).await.unwrap();
    let published = async || node.app.engine().published(&mine.id).await.unwrap();
    until("it is published", LIMIT, async || published().await.is_some()).await;
    let (seq, generation) = published().await.map(|state| (state.seq, state.generation)).unwrap();
    let deleted = node.app.delete_board(&mine.id, &ada()).await.unwrap();
    assert_eq!(deleted.map(|definition| definition.board), Some(mine.clone()));
    assert_eq!((node.app.board(&mine.id), node.app.is_current(&mine.id).await.unwrap()), (None, false));
    assert_eq!(node.app.engine().board(&mine.id).await.unwrap(), Default::default(), "it holds no trim any more");
    assert_eq!(published().await, None);
    assert_eq!(node.app.delete_board(&mine.id, &ada()).await.unwrap(), None);
    // The same id with another window: a board of its own, whose states never go back behind those of the first.
    let again = Board { window: Window::Hour, ..mine.clone() };
    node.app.save_board(&again, &ada()).await.unwrap();
    assert_eq!(shown(&node, "mine").await, rows(&[("a", 1.8)]));
    until("it is published again", LIMIT, async || published().await.is_some()).await;
    let state = published().await.unwrap();
    assert!(state.seq > seq && state.generation > generation);
    assert_eq!((state.period.as_str(), state.places.len()), ("2026-11-22T12Z", 1));
    assert_exact(&node).await;
    node.stop().await;
}

async fn what_is_deleted_while_nobody_projects_is_gone_too(setup: Setup) {
    let node = node_with(setup, &[("a", 1)]).await;
    let mine = Board::new(board_id("mine"), "Mine", Window::Week, TimeZone::UTC);
    node.app.save_board(&mine, &ada()).await.unwrap();
    assert_eq!(shown(&node, "mine").await, rows(&[("a", 0.6)]));
    let Node { app, stack, .. } = node;
    let (engine, ledger) = (app.engine().clone(), app.ledger().clone());
    app.stop(LIMIT).await;
    drop(app);
    ledger.delete_board(&mine.id, &ada()).await.unwrap();
    let settings = Settings { clock: Arc::new(noon), ..Settings::default() };
    let app = App::start(engine, ledger, settings).await.unwrap();
    let survey = async || app.engine().board(&mine.id).await.unwrap();
    until("it is gone", LIMIT, async || survey().await == Default::default()).await;
    app.stop(LIMIT).await;
    drop(stack);
}

async fn closed_periods_are_computed_anew(setup: Setup) {
    let node = node_with(setup, &[("a", 3), ("b", 1)]).await;
    let results = async || {
        let results = node.app.ledger().results(&BoardId::daily(), "2026-11-22", 10).await.unwrap();
        results.iter().map(|place| (place.product.to_string(), place.points.as_f64())).collect::<Vec<_>>()
    };
    let midnight = Timestamp::parse("2026-11-23T00:00:00Z").unwrap();
    node.set_clock(midnight);
    until("the next day begins with its share", LIMIT, async || {
        shown(&node, "daily").await == rows(&[("a", 0.54), ("b", 0.18)])
    })
    .await;
    let late: Vec<_> = (0..9).map(|n| order(&format!("late-{n}"), "b", Some(noon()))).collect();
    node.app.record(&late).await.unwrap();
    until("late events are counted", LIMIT, async || shown(&node, "all-time").await[0].0 == "b").await;
    assert_eq!(results().await, rows(&[("a", 1.8), ("b", 0.6)]), "what was closed stands");
    assert_eq!(shown(&node, "daily").await, rows(&[("a", 0.54), ("b", 0.18)]));
    let yesterday = node.board("daily").period_of_key("2026-11-22").unwrap();
    let outcome = node.app.rebuild_board(&BoardId::daily(), Some(&yesterday), &ada()).await.unwrap();
    assert_eq!(outcome, ReopenOutcome::Reopened { from: yesterday.starts_at });
    until("the board is current", LIMIT, async || node.app.is_current(&BoardId::daily()).await.unwrap()).await;
    assert_eq!(results().await, rows(&[("b", 6.0), ("a", 1.8)]));
    assert_eq!(shown(&node, "daily").await, rows(&[("b", 1.8), ("a", 0.54)]));
    let published = async || node.app.engine().published(&BoardId::daily()).await.unwrap().unwrap();
    until("it is told", LIMIT, async || published().await.reason == SnapshotReason::Recovered).await;
    // Without a period the open one alone.
    assert_eq!(
        node.app.rebuild_board(&BoardId::daily(), None, &ada()).await.unwrap(),
        ReopenOutcome::Reopened { from: None }
    );
    assert_eq!(results().await, rows(&[("b", 6.0), ("a", 1.8)]));
    assert_exact(&node).await;
    let log = node.app.audit_log(None, 10).await.unwrap().rows;
    assert_eq!(log.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["rebuildBoard"; 2]);
    node.stop().await;
}

async fn replayed_entries_count_on_every_board(setup: Setup) {
    let node = node_with(setup, &[("a", 1), ("b", 2)]).await;
    let (ann, key) = (UserId::new("ann").unwrap(), IdempotencyKey::new("k1").unwrap());
    // The engine knows ann, and that she likes nothing.
    assert_eq!(node.app.viewer_likes(&ann, &[product("a")]).await.unwrap(), [None]);
    // Of an epoch before the present one, so that they share their positions with nothing in the journal.
    let (epoch, partition) = (node.app.epoch().unwrap() - 1, partition_of("ann", 4));
    let entries = [
        json!({ "id": "lost-1", "signal": "ORDER", "product": "a", "user": null, "count": 5,
            "occurredAtMs": noon().as_ms(), "recordedAtMs": noon().as_ms(), "reverses": null }),
        json!({ "id": EventId::of_like(&ann, &key), "signal": "LIKE", "product": "a", "user": "ann", "count": 1,
            "occurredAtMs": noon().as_ms(), "recordedAtMs": noon().as_ms(), "reverses": null }),
    ];
    for (entry, seq) in entries.iter().zip(0..) {
        let at = if setup == Setup::Servers { "now()" } else { "0" };
        node.stack
            .sql(&format!(
                "INSERT INTO dead_letters (id, partition, epoch, seq, entry, error, at)
                 VALUES ('{partition}:{epoch}-{seq}', {partition}, {epoch}, {seq}, '{entry}', 'a test', {at})"
            ))
            .await;
    }
    assert_eq!(node.app.dead_letters(None, 10).await.unwrap().rows.len(), 2);
    let replayed = node.app.replay_dead_letters(None, &ada()).await.unwrap();
    assert_eq!((replayed.replayed, replayed.refused), (2, vec![]));
    let with_points = |points: f64| rows(&[("a", points), ("b", 1.2)]);
    assert_eq!(shown(&node, "daily").await, with_points(3.8));
    assert_eq!(node.app.like_counts(&[product("a"), product("b")]).await.unwrap(), [1, 0]);
    assert_eq!(node.app.viewer_likes(&ann, &[product("a")]).await.unwrap(), [Some(noon())]);
    // She takes back what she was not known to have liked; it is the same key that a retry would bring.
    let again = node.app.like(&ann, &product("a"), Desired::Exactly(true), Some(key)).await.unwrap();
    assert!(matches!(again, LikeResult::Done { liked: true, .. }), "{again:?}");
    let unliked = node.app.like(&ann, &product("a"), Desired::Toggled, None).await.unwrap();
    assert!(matches!(unliked, LikeResult::Done { liked: false, like_count: Some(0), .. }), "{unliked:?}");
    until("the unlike is counted", LIMIT, async || shown(&node, "daily").await == with_points(3.6)).await;
    assert_exact(&node).await;
    node.stop().await;
}
