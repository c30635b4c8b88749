//! The roll under a clock in hand: days of every length, every window, periods that nobody closed in time, projectors side
//! by side.

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{BoardId, Signal, Timestamp, UserId, Weight};
use acclaim::engine::{Desired, Engine, EngineLimits};
use acclaim::ledger::{Author, Ledger, NewWeightRule};
use acclaim::pipeline::{App, Durability, EventResult, LikeResult, Settings, project, sync};
use tokio_util::sync::CancellationToken;

use crate::support::node::{Node, order, product};
use crate::support::stack::{Setup, Stack};
use crate::support::until;

crate::both_setups!(
    days_roll_at_midnight_of_their_zone,
    every_window_rolls,
    periods_that_nobody_closed_are_filled_in_order,
    landmarks_that_nobody_closed_are_filled_in_order,
    late_events_wait_until_their_period_is_reopened,
);

const LIMIT: Duration = Duration::from_secs(30);

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn rows(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    rows.iter().map(|(product, score)| ((*product).to_owned(), *score)).collect()
}

/// A board of days in a zone, as `saveBoard` makes it.
fn daily_in(id: &str, zone: &str) -> String {
    format!(
        "INSERT INTO boards (id, title, time_window, time_zone, revision, carry_over)
         VALUES ('{id}', '{id}', 'DAY', '{zone}', 1, 300000)"
    )
}

async fn record(node: &Node, id: &str, product: &str) {
    let (results, _) = node.app.record(&[order(id, product, None)]).await.unwrap();
    assert_eq!(results, [EventResult::Recorded], "{id}");
}

async fn until_shown(node: &Node, board: &str, period: &str, places: &[(&str, f64)]) {
    let mut shown = Default::default();
    let wanted = (period.to_owned(), rows(places));
    let limit = tokio::time::timeout(LIMIT, async {
        loop {
            shown = node.shown_on(board).await;
            if shown == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(limit.await.is_ok(), "{board}: {shown:?} is shown, and {wanted:?} should be");
}

async fn days_roll_at_midnight_of_their_zone(setup: Setup) {
    let days = [
        ("new-york", "2026-03-08", "2026-03-08T05:00:00Z", 23),
        ("london", "2026-03-29", "2026-03-29T00:00:00Z", 23),
        ("london", "2026-10-25", "2026-10-24T23:00:00Z", 25),
        ("new-york", "2026-11-01", "2026-11-01T04:00:00Z", 25),
        ("seoul", "2026-11-22", "2026-11-21T15:00:00Z", 24),
    ];
    let boards = [
        daily_in("new-york", "America/New_York"),
        daily_in("london", "Europe/London"),
        daily_in("seoul", "Asia/Seoul"),
    ];
    let node = Node::start_with(setup, EngineLimits::default(), at("2026-03-08T04:59:59.999Z"), &boards).await;
    for (board, day, starts_at, hours) in days {
        let starts_at = at(starts_at);
        let ends_at = starts_at.plus_ms(hours * 3_600_000);
        let definition = node.board(board);
        let before = definition.period_at(starts_at.minus_ms(1)).key;
        let after = definition.period_at(ends_at).key;
        // A product of its own, so that nothing carries over from the case before.
        let mug = format!("mug-{day}");
        let id = |n: u32| format!("{day}-{n}");
        let of_mug = |places: Vec<(String, f64)>| places.into_iter().filter(|(id, _)| *id == mug).collect::<Vec<_>>();
        node.with_products(&[&mug]).await;

        node.set_clock(starts_at.minus_ms(1));
        record(&node, &id(0), &mug).await;
        until("the last event of the day before is shown", LIMIT, async || {
            let (period, places) = node.shown_on(board).await;
            period == before && of_mug(places) == rows(&[(&mug, 0.6)])
        })
        .await;
        node.set_clock(starts_at);
        record(&node, &id(1), &mug).await;
        let has_begun = async || {
            let (period, places) = node.shown_on(board).await;
            // Never empty: the old day until the switch, and what carries over from then on.
            let mug_has = of_mug(places).first().unwrap_or_else(|| panic!("{day}: the board is empty")).1;
            assert!(mug_has == if period == before { 0.6 } else { 0.18 } || mug_has == 0.78, "{period}: {mug_has}");
            period == day && mug_has == 0.78
        };
        until("the day has begun with what carries over and its first event", LIMIT, has_begun).await;
        node.set_clock(ends_at.minus_ms(1));
        record(&node, &id(2), &mug).await;
        until("the last event of the day is shown", LIMIT, async || {
            let (period, places) = node.shown_on(board).await;
            assert_eq!(period, day, "the day has {hours} hours");
            of_mug(places) == rows(&[(&mug, 1.38)])
        })
        .await;
        node.set_clock(ends_at);
        record(&node, &id(3), &mug).await;
        until("the next day has begun", LIMIT, async || {
            let (period, places) = node.shown_on(board).await;
            assert!(period != day || of_mug(places.clone()) == rows(&[(&mug, 1.38)]), "{places:?}");
            period == after && of_mug(places) == rows(&[(&mug, 1.014)])
        })
        .await;
        assert_eq!(of_mug(node.results(board, &before).await), rows(&[(&mug, 0.6)]));
        assert_eq!(of_mug(node.results(board, day).await), rows(&[(&mug, 1.38)]));
    }
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

async fn every_window_rolls(setup: Setup) {
    // The last second of an hour, a day, a week and a month at once.
    let node = Node::start(setup, EngineLimits::default(), at("2027-01-31T23:59:59Z")).await;
    node.with_products(&["a", "b"]).await;
    record(&node, "1", "a").await;
    record(&node, "2", "a").await;
    record(&node, "3", "b").await;
    let boards = [
        ("hourly", "2027-01-31T23Z", "2027-02-01T00Z"),
        ("daily", "2027-01-31", "2027-02-01"),
        ("weekly", "2027-W04", "2027-W05"),
        ("monthly", "2027-01", "2027-02"),
    ];
    for (board, before, _) in boards {
        until_shown(&node, board, before, &[("a", 1.2), ("b", 0.6)]).await;
    }
    until_shown(&node, "all-time", "all", &[("a", 1.2), ("b", 0.6)]).await;
    let trending = node.board("trending");
    let landmark = trending.period_at(node.app.now());
    // The quarter of an hour began 899 s ago, and a signal has lost of its worth since.
    let worth = |seconds: f64| (1.2e6 * 0.5_f64.powf(seconds / 3_600.0)).round() / 1e6;
    let best = async || {
        let (period, places) = node.shown_on("trending").await;
        (period, places.first().map(|(id, score)| (id.clone(), (score * 1e4).round() / 1e4)))
    };
    let rounded = |score: f64| Some(("a".to_owned(), (score * 1e4).round() / 1e4));
    until("trending is shown", LIMIT, async || best().await == (landmark.key.clone(), rounded(worth(899.0)))).await;

    node.set_clock(at("2027-02-01T00:00:00Z"));
    record(&node, "4", "b").await;
    until_shown(&node, "daily", "2027-02-01", &[("b", 0.78), ("a", 0.36)]).await;
    for (board, before, after) in boards {
        if board != "daily" {
            until_shown(&node, board, after, &[("b", 0.6)]).await;
        }
        assert_eq!(node.results(board, before).await, rows(&[("a", 1.2), ("b", 0.6)]), "{board}");
    }
    // Nothing is left of the scores of an all-time board but their sum; equal ones rank by id, higher first.
    until_shown(&node, "all-time", "all", &[("b", 1.2), ("a", 1.2)]).await;

    // The half-life's landmark moves on, and what is shown fades on as if it had not.
    let next = trending.period_at(landmark.ends_at.unwrap());
    node.set_clock(landmark.ends_at.unwrap());
    until("trending has rolled", LIMIT, async || node.shown_on("trending").await.0 == next.key).await;
    let seconds = landmark.ends_at.unwrap().since_ms(at("2027-01-31T23:45:00Z")) as f64 / 1_000.0;
    let (_, places) = node.shown_on("trending").await;
    let a = places.iter().find(|(id, _)| id == "a").unwrap().1;
    assert!((a - worth(seconds)).abs() < 2e-6, "{a} is shown, and {} should be", worth(seconds));
    assert_eq!(places[0].0, "b", "the later order counts more");
    let closed: Vec<_> = node.results("trending", &landmark.key).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(closed, ["b", "a"]);
    assert_eq!(node.closed("all-time").await, [""; 0]);
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

async fn periods_that_nobody_closed_are_filled_in_order(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2026-11-20T12:00:00Z")).await;
    node.with_products(&["a"]).await;
    record(&node, "1", "a").await;
    until_shown(&node, "daily", "2026-11-20", &[("a", 0.6)]).await;
    node.set_clock(at("2026-11-27T12:00:00Z"));
    record(&node, "2", "a").await;
    until_shown(&node, "daily", "2026-11-27", &[("a", 0.6)]).await;
    let chain = [("2026-11-20", 0.6), ("2026-11-21", 0.18), ("2026-11-22", 0.054), ("2026-11-23", 0.0162)];
    for (day, points) in chain {
        assert_eq!(node.results("daily", day).await, rows(&[("a", points)]), "{day}");
    }
    // What is less than 0.01 is dropped, and days without points are passed but for the last one.
    let closed = ["2026-11-19", "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-26"];
    assert_eq!(node.closed("daily").await, closed);
    assert_eq!(node.results("daily", "2026-11-26").await, []);
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

async fn landmarks_that_nobody_closed_are_filled_in_order(setup: Setup) {
    let now = at("2026-11-20T12:00:00Z");
    let node = Node::start(setup, EngineLimits::default(), now).await;
    node.with_products(&["a"]).await;
    record(&node, "1", "a").await;
    let trending = node.board("trending");
    let first = trending.period_at(now);
    let mut keys = vec![trending.period_before(&first).unwrap().key];
    let mut period = first.clone();
    for _ in 0..3 {
        keys.push(period.key);
        period = trending.period_at(period.ends_at.unwrap());
    }
    let until_current = async |key: &str| {
        until("trending is there", LIMIT, async || node.shown_on("trending").await.0 == key).await;
        until("it is current", LIMIT, async || node.app.is_current(&trending.id).await.unwrap()).await;
    };
    until_current(&first.key).await;
    node.set_clock(period.starts_at.unwrap());
    until_current(&period.key).await;
    assert_eq!(node.closed("trending").await, keys);
    node.stack.reopen("trending", first.starts_at.unwrap()).await;
    until("all of them are stored again", LIMIT, async || node.closed("trending").await == keys).await;
    node.stop().await;
}

async fn late_events_wait_until_their_period_is_reopened(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2026-11-20T12:00:00Z")).await;
    node.with_products(&["a", "b"]).await;
    record(&node, "1", "a").await;
    until_shown(&node, "daily", "2026-11-20", &[("a", 0.6)]).await;
    node.set_clock(at("2026-11-22T12:00:00Z"));
    until_shown(&node, "daily", "2026-11-22", &[("a", 0.054)]).await;

    let late = order("2", "b", Some(at("2026-11-20T23:59:59.999Z")));
    assert_eq!(node.app.record(&[late]).await.unwrap().0, [EventResult::Recorded]);
    record(&node, "3", "b").await;
    until_shown(&node, "daily", "2026-11-22", &[("b", 0.6), ("a", 0.054)]).await;
    assert_eq!(node.results("daily", "2026-11-20").await, rows(&[("a", 0.6)]), "closed results stand");

    let reopen = async || {
        node.stack.reopen("daily", at("2026-11-20T00:00:00Z")).await;
        until_shown(&node, "daily", "2026-11-22", &[("b", 0.654), ("a", 0.054)]).await;
        until("the chain is stored again", LIMIT, async || node.closed("daily").await.len() == 3).await;
        assert_eq!(node.closed("daily").await, ["2026-11-19", "2026-11-20", "2026-11-21"]);
        assert_eq!(node.results("daily", "2026-11-20").await, rows(&[("b", 0.6), ("a", 0.6)]));
        assert_eq!(node.results("daily", "2026-11-21").await, rows(&[("b", 0.18), ("a", 0.18)]));
    };
    reopen().await;
    // Twice is the same as once.
    reopen().await;
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

/// All boards that a rule reaches are computed anew at once, and what they read may take long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_are_committed_while_many_boards_wait_for_the_ledger() {
    let boards: Vec<_> = (0..12).map(|n| daily_in(&format!("day-{n}"), "UTC")).collect();
    let node = Node::start_with(Setup::Servers, EngineLimits::default(), at("2026-11-22T12:00:00Z"), &boards).await;
    node.with_products(&["a"]).await;
    record(&node, "1", "a").await;
    for n in 0..12 {
        until_shown(&node, &format!("day-{n}"), "2026-11-22", &[("a", 0.6)]).await;
    }
    let lock = "BEGIN; LOCK TABLE period_results IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(10); ROLLBACK";
    let held = "SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE datname = current_database() AND relation = 'period_results'::regclass AND mode = 'AccessExclusiveLock'";
    let meanwhile = async {
        until("the table is locked", LIMIT, async || node.stack.count(held).await == 1).await;
        let rule = NewWeightRule {
            board: None,
            weights: vec![(Signal::Order, Weight::from_f64(1.0).unwrap())],
            from: None,
            until: None,
            hours: None,
            author: Author { name: "ada".to_owned(), at: node.app.now(), note: "to see what happens".to_owned() },
            expected_version: None,
        };
        node.app.adjust_weights(&rule).await.unwrap();
        let ann = UserId::new("ann").unwrap();
        until("a like is COMMITTED", Duration::from_secs(5), async || {
            let liked = node.app.like(&ann, &product("a"), Desired::Toggled, None).await;
            matches!(liked, Ok(LikeResult::Done { durability: Durability::Committed, .. }))
        })
        .await;
        assert_eq!(node.stack.count(held).await, 1, "the boards still wait");
    };
    tokio::join!(node.stack.sql(lock), meanwhile);
    node.stop().await;
}

/// Two nodes that both project all the time, whatever the lease says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_projectors_at_the_roll_close_the_day_once_and_lose_nothing() {
    const EVENTS: u32 = 200;
    let stack = Stack::new(Setup::Servers).await;
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let clock = Arc::new(std::sync::Mutex::new(at("2026-11-22T23:59:59.900Z")));
    let (finish, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
    let mut apps = Vec::new();
    for _ in 0..2 {
        let shown = clock.clone();
        let settings = Settings { clock: Arc::new(move || *shown.lock().unwrap()), ..Settings::default() };
        let engine: Arc<dyn Engine> =
            Arc::new(stack.redis.as_ref().unwrap().engine("acc", EngineLimits::default()).await);
        apps.push(App::open(engine, ledger.clone(), settings).await.unwrap());
    }
    for app in &apps {
        let epoch = app.epoch().unwrap();
        let (app, finish) = (app.clone(), finish.clone());
        tasks.spawn(async move { project(&app, epoch, &finish).await.unwrap() });
    }
    let partitions: Vec<u16> = (0..apps[0].engine().limits().partitions).collect();
    let (app, done) = (apps[0].clone(), finish.clone());
    tasks.spawn(async move { sync(&app, &partitions, &done).await.unwrap() });

    let node = &apps[0];
    let new = acclaim::ledger::NewProduct {
        id: product("a"),
        name: "a".into(),
        image_url: None,
        price: None,
        category: None,
        brand: None,
    };
    node.upsert_products(&[new]).await.unwrap();
    let orders = async |ids: std::ops::Range<u32>| {
        for n in ids {
            let recorded = apps[n as usize % 2].record(&[order(&n.to_string(), "a", None)]).await.unwrap();
            assert_eq!(recorded.0, [EventResult::Recorded]);
        }
    };
    // Events before, while and after the clocks say midnight.
    let midnight = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        *clock.lock().unwrap() = at("2026-11-23T00:00:00Z");
    };
    tokio::join!(orders(0..EVENTS), midnight);
    let daily = node.board(&BoardId::daily()).unwrap();
    let shown = async || {
        let page = node.page(&daily, &acclaim::domain::PageStart::Rank(1), 10).await.unwrap();
        (page.reading.period.key, page.rows.places.first().map_or(0, |place| place.points.millionths()))
    };
    let of_day = async |day: &str| {
        let from = at(&format!("{day}T00:00:00Z"));
        let until = from.plus_ms(24 * 3_600_000);
        let counted = format!(
            "SELECT COALESCE(SUM(count), 0) FROM events WHERE occurred_at >= TIMESTAMPTZ '{from}'
             AND occurred_at < TIMESTAMPTZ '{until}'"
        );
        stack.count(&counted).await as i64
    };
    until("every event is in the ledger", LIMIT, async || {
        stack.count("SELECT count(*) FROM events").await == u64::from(EVENTS)
    })
    .await;
    let (before, after) = (of_day("2026-11-22").await, of_day("2026-11-23").await);
    assert_eq!(before + after, i64::from(EVENTS));
    assert!(before > 0 && after > 0, "{before} before and {after} after midnight");
    let carry = before * 600_000 * 3 / 10;
    until("the new day has what carries over and its own events", LIMIT, async || {
        shown().await == ("2026-11-23".to_owned(), (carry + after * 600_000).into())
    })
    .await;
    let results = ledger.results(&BoardId::daily(), "2026-11-22", 10).await.unwrap();
    assert_eq!(
        results.iter().map(|place| place.points.millionths()).collect::<Vec<_>>(),
        [i128::from(before * 600_000)]
    );
    assert_eq!(stack.count("SELECT count(*) FROM closed_periods WHERE board = 'daily'").await, 2);
    until("everything served equals the ledger", LIMIT, async || {
        node.verify(None).await.is_ok_and(|report| report.differing == 0)
    })
    .await;
    finish.cancel();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for app in apps {
        app.stop(Duration::from_secs(5)).await;
    }
}
