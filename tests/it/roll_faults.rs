//! SIGKILL in the middle of a roll and of a rebuild: the next start goes on where the dead one stopped, and comes to the
//! same.

use std::collections::BTreeMap;
use std::time::Duration;

use acclaim::domain::{BoardId, Timestamp};
use acclaim::engine::redis::keys::BoardKey;
use acclaim::engine::{Engine, EngineLimits};
use serde_json::{Value, json};

use crate::support::redis::board_key;
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::until;

crate::both_setups!(a_server_killed_in_the_middle_of_a_roll_closes_every_day_as_if_it_had_lived);

const LIMIT: Duration = Duration::from_secs(60);
/// Days to be closed: so many that a kill falls between them.
const DAYS: i64 = 200;
const DAY_MS: i64 = 24 * 3_600_000;

/// The days before today, oldest first, each with the orders of every product.
fn history() -> Vec<(String, Vec<(String, i64)>)> {
    let today = Timestamp::from_ms(Timestamp::now().as_ms().div_euclid(DAY_MS) * DAY_MS);
    let orders = |day: i64| (0..5).map(move |n| (format!("p{n}"), (day * 7 + n * 11) % 13 + 1)).collect();
    (0..DAYS).map(|day| (today.minus_ms((DAYS - day) * DAY_MS).to_string()[..10].to_owned(), orders(day))).collect()
}

/// `day rank product millionths`, each as it should be stored: three tenths of the day before, and 0.6 an order.
fn expected(history: &[(String, Vec<(String, i64)>)]) -> Vec<String> {
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    let mut rows = Vec::new();
    for (day, orders) in history {
        for (product, count) in orders {
            let total = totals.entry(product).or_default();
            let carried = *total * 3 / 10;
            *total = count * 600_000 + if carried < 10_000 { 0 } else { carried };
        }
        let mut board: Vec<_> = totals.iter().map(|(product, total)| (*total, *product)).collect();
        board.sort_unstable_by(|a, b| b.cmp(a));
        rows.extend(board.iter().zip(1..).map(|((total, product), rank)| format!("{day} {rank} {product} {total}")));
    }
    rows
}

async fn record(server: &Server, events: &[Value]) {
    for chunk in events.chunks(500) {
        let answer = server.graphql("shop", RECORD, json!({ "events": chunk })).await["recordEvents"].clone();
        assert_eq!(answer["recorded"], chunk.len(), "{answer}");
    }
}

async fn a_server_killed_in_the_middle_of_a_roll_closes_every_day_as_if_it_had_lived(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(5).await;
    let history = history();
    let event = |day: &str, (product, count): &(String, i64)| {
        json!({ "id": format!("{day}-{product}"), "signal": "ORDER", "productId": product, "count": count,
                "occurredAt": format!("{day}T18:00:00Z") })
    };
    let events: Vec<_> =
        history.iter().flat_map(|(day, orders)| orders.iter().map(move |order| event(day, order))).collect();
    record(&server, &events).await;
    let first_day = Timestamp::parse(&format!("{}T00:00:00Z", history[0].0)).unwrap();
    let begun = format!("SELECT count(*) FROM closed_periods WHERE board = 'daily' AND period >= '{}'", history[0].0);
    let stored = async || {
        let rows = "SELECT period || ' ' || rank || ' ' || product_id || ' ' || points AS value FROM period_results
                    WHERE board = 'daily' ORDER BY period, rank";
        stack.column(rows).await
    };

    stack.reopen("daily", first_day).await;
    let mut closed = 0;
    until("some days are closed", LIMIT, async || {
        closed = stack.count(&begun).await;
        closed >= 3
    })
    .await;
    server.kill();
    let closed = stack.count(&begun).await;
    assert!(closed < DAYS as u64, "all of {closed} days were closed: the kill came too late");
    let half = stored().await;
    let expected = expected(&history);
    assert!(expected.starts_with(&half), "what a dead server leaves is whole days");

    let server = stack.serve().await;
    until("every day is closed", LIMIT, async || stack.count(&begun).await == DAYS as u64).await;
    assert_eq!(stored().await, expected);
    let of_last: Vec<(String, f64)> = expected[expected.len() - 5..]
        .iter()
        .map(|row| {
            let mut words = row.split(' ').skip(2);
            let product = words.next().unwrap().to_owned();
            (product, (words.next().unwrap().parse::<i64>().unwrap() * 3 / 10) as f64 / 1e6)
        })
        .collect();
    until("today begins with what carries over", LIMIT, async || server.ranking(10).await == of_last).await;
    // The same again, under a server that lives.
    stack.reopen("daily", first_day).await;
    assert_eq!(stored().await, [""; 0]);
    until("every day is closed again", LIMIT, async || stack.count(&begun).await == DAYS as u64).await;
    assert_eq!(stored().await, expected);
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_a_rebuild_leaves_the_old_board_until_the_new_one_is_whole() {
    const PRODUCTS: usize = 12_000;
    const ROUNDS: u32 = 10;
    let stack = Stack::new(Setup::Servers).await;
    let redis = stack.redis.as_ref().unwrap();
    let mut server = stack.serve().await;
    server.with_products(PRODUCTS).await;
    let event = |n| json!({ "id": format!("e{n}"), "signal": "VIEW", "productId": format!("p{n}"), "count": n + 1 });
    record(&server, &(0..PRODUCTS).map(event).collect::<Vec<_>>()).await;
    let best = format!("p{}", PRODUCTS - 1);
    let score = |weight: u32| [(best.clone(), f64::from(weight) * PRODUCTS as f64)];
    let next = board_key(&BoardId::daily(), BoardKey::NextScores);
    let is_building = || redis.command(&["EXISTS", &next]) == redis::Value::Int(1);
    let adjust = "mutation($weight: Float!) { adjustWeights(input: { board: \"daily\", note: \"test\",
        weights: [{ signal: VIEW, weight: $weight }] }) { version } }";
    let mut was_building = false;
    for weight in 1..=ROUNDS {
        let (url, http) = (server.url.clone(), server.http.clone());
        let asked = tokio::spawn(async move {
            let body = json!({ "query": adjust, "variables": { "weight": weight } });
            http.post(format!("{url}/graphql")).header("x-acclaim-user", "ann").json(&body).send().await.ok();
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_building() && std::time::Instant::now() < deadline {}
        server.kill();
        was_building = is_building();
        asked.await.unwrap();
        if was_building {
            let engine = redis.engine("acc", EngineLimits::default()).await;
            let whole = engine.whole(&BoardId::daily()).await.unwrap();
            let (_, _, places) = whole.expect("the old board is still shown");
            assert_eq!(places.len(), PRODUCTS);
        }
        server = stack.serve().await;
        until("the board has the new weights", LIMIT, async || server.ranking(1).await == score(weight)).await;
        server.assert_verified().await;
        if was_building {
            break;
        }
    }
    assert!(was_building, "no kill in {ROUNDS} fell into a rebuild");
}
