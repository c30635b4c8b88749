//! Periods under a clock in hand: the roll of `daily`, late events, and boards that follow the ledger.

use std::time::Duration;

use acclaim::domain::{BoardId, SnapshotReason, Timestamp, UserId};
use acclaim::engine::{Desired, EngineLimits};
use acclaim::graphql::guards::{Caller, Role};
use acclaim::graphql::{Api, DocumentLimits, Request};
use acclaim::live::{BoardUpdate, Hub, Topic, Update};
use acclaim::pipeline::{Durability, EventResult, LikeResult};
use serde_json::{Value, json};

use crate::support::node::{Node, order, product};
use crate::support::stack::Setup;
use crate::support::{metric, until};

crate::both_setups!(
    daily_rolls_at_midnight_and_keeps_the_results,
    an_event_that_the_engine_forgot_is_counted_once_all_the_same,
    a_day_that_clocks_enter_twice_holds_its_instants,
);

const LIMIT: Duration = Duration::from_secs(20);

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

async fn daily_rolls_at_midnight_and_keeps_the_results(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2026-11-22T23:59:58Z")).await;
    node.with_products(&["a", "b"]).await;
    node.app.record(&[order("1", "a", None), order("2", "a", None), order("3", "b", None)]).await.unwrap();
    until("the day's orders are ranked", LIMIT, async || {
        node.shown().await == ("2026-11-22".into(), vec![("a".into(), 1.2), ("b".into(), 0.6)])
    })
    .await;

    let hub = Hub::start(&node.app);
    let mut live = hub.sequence(Topic::Board { board: BoardId::daily(), top: 10 }, 10.0).unwrap();
    let mut next = async || {
        let step = tokio::time::timeout(LIMIT, live.next()).await.expect("a step in time").unwrap();
        let [Update::Board(update)] = &step[..] else { panic!("{step:?}") };
        update.clone()
    };
    assert!(matches!(next().await, BoardUpdate::Snapshot { reason: SnapshotReason::Initial, .. }));

    node.set_clock(at("2026-11-23T00:00:00Z"));
    let ann = UserId::new("ann").unwrap();
    let liked = node.app.like(&ann, &product("b"), Desired::Toggled, None).await.unwrap();
    assert!(matches!(liked, LikeResult::Done { liked: true, like_count: Some(1), .. }), "{liked:?}");
    until("the new day is shown", LIMIT, async || {
        let (period, places) = node.shown().await;
        // Until the switch the old day is what is shown, whole; three tenths of it carry over.
        assert!(period != "2026-11-22" || places[0] == ("a".into(), 1.2), "{places:?}");
        (period.as_str(), places) == ("2026-11-23", vec![("b".into(), 0.38), ("a".into(), 0.36)])
    })
    .await;
    let rolled = next().await;
    let BoardUpdate::Snapshot { state, reason: SnapshotReason::Rolled } = rolled else { panic!("{rolled:?}") };
    assert_eq!(state.period, "2026-11-23");
    let results = node.app.ledger().results(&BoardId::daily(), "2026-11-22", 10).await.unwrap();
    let results: Vec<_> = results.iter().map(|place| (place.product.as_str(), place.points.as_f64())).collect();
    assert_eq!(results, [("a", 1.2), ("b", 0.6)]);

    // A late event goes to its own day: neither today's board nor the frozen results move.
    let late = order("4", "b", Some(at("2026-11-22T23:59:59Z")));
    assert_eq!(node.app.record(&[late]).await.unwrap().0, [EventResult::Recorded]);
    // An unlike takes back the like of today.
    node.app.like(&ann, &product("b"), Desired::Exactly(false), None).await.unwrap();
    until("the unlike is counted", LIMIT, async || {
        node.shown().await == ("2026-11-23".into(), vec![("a".into(), 0.36), ("b".into(), 0.18)])
    })
    .await;
    let frozen = node.app.ledger().results(&BoardId::daily(), "2026-11-22", 10).await.unwrap();
    assert_eq!(frozen[1].points.as_f64(), 0.6);
    assert_eq!(node.app.verify(None).await.unwrap().differing, 0);
    node.stop().await;
}

async fn an_event_that_the_engine_forgot_is_counted_once_all_the_same(setup: Setup) {
    let limits = EngineLimits { event_memory_ms: 1, ..EngineLimits::default() };
    let node = Node::start(setup, limits, at("2036-11-22T12:00:00Z")).await;
    node.with_products(&["a"]).await;
    let record = async || node.app.record(&[order("1", "a", None)]).await.unwrap();
    assert_eq!(record().await.0, [EventResult::Recorded]);
    until("the order is ranked", LIMIT, async || node.shown().await.1 == [("a".into(), 0.6)]).await;
    node.set_clock(at("2036-11-22T12:00:01Z"));
    // The producer says nothing of the time, so the engine lets its repetition through and the ledger refuses it.
    until("the engine lets it through", LIMIT, async || {
        let (results, durability) = record().await;
        let as_another = (&[EventResult::Recorded][..], Some(Durability::Committed));
        assert_ne!((&results[..], durability), as_another, "one id counts once");
        let refused = metric(&node.app.metrics().text(), "acclaim_refused_entries_total");
        refused > Some(0.0) && results == [EventResult::Duplicate] && durability == Some(Durability::Committed)
    })
    .await;
    until("the board equals the ledger again", LIMIT, async || {
        node.shown().await.1 == [("a".into(), 0.6)]
            && node.app.verify(None).await.is_ok_and(|report| report.differing == 0)
    })
    .await;
    assert_eq!(node.stack.count("SELECT count(*) FROM events").await, 1);
    node.stop().await;
}

/// St John's put its clocks back at 00:01, from Sunday to Saturday.
async fn a_day_that_clocks_enter_twice_holds_its_instants(setup: Setup) {
    let node = Node::start(setup, EngineLimits::default(), at("2010-11-06T20:00:10Z")).await;
    node.with_products(&["a", "b"]).await;
    let api = Api::new(Hub::start(&node.app), DocumentLimits::default());
    let data = async |document: &str| {
        let caller = Caller { user: Some(UserId::new("ann").unwrap()), roles: Role::ALL.to_vec(), ..Caller::default() };
        let answer = serde_json::from_slice::<Value>(
            &api.run(api.prepare(Request::new(document)), caller, "test").await.payload,
        )
        .unwrap();
        assert!(answer.get("errors").is_none(), "{document}: {answer}");
        answer["data"].clone()
    };
    let saved = data("mutation { saveBoard(input: { id: \"johns\", title: \"Johns\", window: DAY, timeZone: \"America/St_Johns\" }) { userErrors { message } } }").await;
    assert_eq!(saved["saveBoard"]["userErrors"], json!([]));
    node.app.record(&[order("1", "a", Some(at("2010-11-06T20:00:00Z")))]).await.unwrap();
    let shows = async |period: &str, scores: &[(&str, f64)]| {
        let places = scores.iter().map(|(id, score)| ((*id).to_owned(), *score)).collect::<Vec<_>>();
        until("the board shows it", LIMIT, async || {
            node.shown_on("johns").await == (period.to_owned(), places.clone())
        })
        .await;
    };
    shows("2010-11-06", &[("a", 0.6)]).await;
    // The clocks show 00:00:30 on Sunday, and half an hour after that 23:20 on Saturday.
    node.set_clock(at("2010-11-07T02:50:00Z"));
    node.app.record(&[order("2", "b", Some(at("2010-11-07T02:45:00Z")))]).await.unwrap();
    shows("2010-11-07", &[("b", 0.6)]).await;
    assert_eq!(node.results("johns", "2010-11-06").await, [("a".to_owned(), 0.6)]);
    for (instant, key) in [
        ("2010-11-06T20:00:00Z", "2010-11-06"),
        ("2010-11-07T02:29:59.999Z", "2010-11-06"),
        ("2010-11-07T02:30:30Z", "2010-11-07"),
        ("2010-11-07T02:50:00Z", "2010-11-07"),
    ] {
        let asked = format!("{{ board(id: \"johns\") {{ period(at: \"{instant}\") {{ key startsAt endsAt }} }} }}");
        let period = data(&asked).await["board"]["period"].clone();
        let bound = |name: &str| at(period[name].as_str().unwrap());
        assert_eq!(period["key"], key, "{instant}");
        assert!(bound("startsAt") <= at(instant) && at(instant) < bound("endsAt"), "{instant}: {period}");
    }
    node.stop().await;
}

/// Movements are part of a page, and a page must not need the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_before_are_remembered_while_the_ledger_hangs() {
    let node = Node::start(Setup::Servers, EngineLimits::default(), at("2026-11-22T12:00:00Z")).await;
    node.with_products(&["a", "b"]).await;
    node.app.record(&[order("1", "a", None)]).await.unwrap();
    until("the order is ranked", LIMIT, async || node.shown().await.1 == [("a".to_owned(), 0.6)]).await;
    node.set_clock(at("2026-11-23T12:00:00Z"));
    until("the next day is shown", LIMIT, async || node.shown().await.0 == "2026-11-23").await;
    let daily = node.board("daily");
    let today = daily.period_at(node.app.now());
    let ranks = async |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| product(id)).collect();
        node.app.ranks_before(&daily, &today, &ids).await
    };
    assert_eq!(ranks(&["a", "b"]).await.unwrap(), Some(vec![Some(1), None]));
    let lock =
        "BEGIN; LOCK TABLE closed_periods, period_results IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(10); ROLLBACK";
    let meanwhile = async {
        // What was asked for before is remembered, so each time it is another one.
        let mut others = (0..).map(|n| format!("other-{n}"));
        until("the ledger hangs", Duration::from_secs(5), async || {
            ranks(&[others.next().unwrap().as_str()]).await.is_err()
        })
        .await;
        assert_eq!(ranks(&["b", "a"]).await.unwrap(), Some(vec![None, Some(1)]));
    };
    tokio::join!(node.stack.sql(lock), meanwhile);
    node.stop().await;
}
