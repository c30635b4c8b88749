//! Closed periods through the API: from stored results, from the ledger where nothing is stored, and how rows have moved.

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{BoardId, PageStart, Timestamp, UserId};
use acclaim::engine::EngineLimits;
use acclaim::engine::memory::MemoryEngine;
use acclaim::graphql::guards::{Caller, Role};
use acclaim::graphql::{Api, DocumentLimits, Request};
use acclaim::ledger::Ledger;
use acclaim::live::Hub;
use acclaim::pipeline::{App, NewEvent, Settings};
use async_graphql::Variables;
use serde_json::{Value, json};

use crate::support::node::{Node, order};
use crate::support::stack::Setup;
use crate::support::{told, until};

crate::both_setups!(
    closed_periods_are_read_from_results,
    what_was_never_stored_is_computed_along_the_chain,
    what_is_not_kept_is_computed,
    days_in_which_nothing_happened_are_not_stored,
    a_crowd_computes_a_period_once,
    half_lives_show_faded_scores,
);

const LIMIT: Duration = Duration::from_secs(30);

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

struct Site {
    node: Node,
    api: Api,
}

impl Site {
    async fn start(setup: Setup, now: &str) -> Self {
        let node = Node::start(setup, EngineLimits::default(), at(now)).await;
        let api = Api::new(Hub::start(&node.app), DocumentLimits::default());
        Self { node, api }
    }

    async fn ask(&self, query: &str, variables: Value) -> Value {
        let request = Request::new(query).variables(Variables::from_json(variables));
        let caller = Caller { user: Some(UserId::new("ann").unwrap()), roles: Role::ALL.to_vec(), ..Caller::default() };
        serde_json::from_slice(&self.api.run(self.api.prepare(request), caller, "test").await.payload).unwrap()
    }

    async fn data(&self, query: &str, variables: Value) -> Value {
        let answer = self.ask(query, variables).await;
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"].clone()
    }

    /// One field of `daily`.
    async fn daily(&self, field: &str) -> Value {
        self.data(&format!("{{ board {{ it: {field} }} }}"), json!({})).await["board"]["it"].clone()
    }

    /// Orders at an instant, as many of each product as said.
    async fn orders(&self, day: &str, products: &[(&str, i64)]) {
        let order = |(product, count): &(&str, i64)| {
            let of_day = order(&format!("{day}-{product}"), product, Some(at(&format!("{day}T09:00:00Z"))));
            NewEvent { count: *count, ..of_day }
        };
        let events: Vec<_> = products.iter().map(order).collect();
        self.node.app.record(&events).await.unwrap();
        let ids = format!("SELECT count(*) FROM events WHERE id LIKE '%{day}-%'");
        until("the orders are in the ledger", LIMIT, async || {
            self.node.stack.count(&ids).await == products.len() as u64
        })
        .await;
    }

    /// Sets the clock to noon and waits until `daily` shows that day.
    async fn noon(&self, day: &str) {
        self.node.set_clock(at(&format!("{day}T12:00:00Z")));
        until("the day is shown", LIMIT, async || self.node.shown().await.0 == day).await;
    }
}

const ROWS: &str = "nodes { rank productId score movement { direction previousRank places } }";

fn row(rank: u64, product: &str, score: f64, direction: &str, previous_rank: Option<u64>, places: u64) -> Value {
    let movement = json!({ "direction": direction, "previousRank": previous_rank, "places": places });
    json!({ "rank": rank, "productId": product, "score": score, "movement": movement })
}

async fn closed_periods_are_read_from_results(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a", "b", "c"]).await;
    site.orders("2026-11-20", &[("a", 3), ("b", 2)]).await;
    site.noon("2026-11-21").await;
    site.orders("2026-11-21", &[("b", 3), ("c", 1)]).await;
    site.noon("2026-11-22").await;

    let list = "periods(first: 2) { nodes { id key status freshness { source degraded } }
        edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor } }";
    let first = site.daily(list).await;
    let node = |key: &str, status: &str, source: &str| json!({ "id": format!("daily:{key}"), "key": key, "status": status, "freshness": { "source": source, "degraded": false } });
    assert_eq!(first["nodes"], json!([node("2026-11-22", "OPEN", "ENGINE"), node("2026-11-21", "CLOSED", "RESULTS")]));
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    assert_eq!(first["pageInfo"]["endCursor"], first["edges"][1]["cursor"]);
    let after = list.replace("first: 2", &format!("first: 2, after: {}", first["pageInfo"]["endCursor"]));
    let rest = site.daily(&after).await;
    // The day before the first one was closed empty when the board began.
    assert_eq!(
        rest["nodes"],
        json!([node("2026-11-20", "CLOSED", "RESULTS"), node("2026-11-19", "CLOSED", "RESULTS")])
    );
    assert_eq!((&rest["pageInfo"]["hasNextPage"], &rest["pageInfo"]["hasPreviousPage"]), (&json!(false), &json!(true)));
    let behind_current = site.daily("periods(first: 1) { nodes { key } pageInfo { hasNextPage } }").await;
    assert_eq!(behind_current, json!({ "nodes": [{ "key": "2026-11-22" }], "pageInfo": { "hasNextPage": true } }));

    let closed = site
        .daily(&format!(
            "period(key: \"2026-11-21\") {{ key startsAt endsAt status position board {{ id }}
            freshness {{ source asOf degraded }} entries {{ totalCount {ROWS} period {{ key freshness {{ source }} }} }}
            entry(productId: \"c\") {{ rank score movement {{ direction }} }} none: entry(productId: \"x\") {{ rank }}
            around(productId: \"b\", radius: 1) {{ rank productId }} }}"
        ))
        .await;
    let rows =
        [row(1, "b", 2.16, "UP", Some(2), 1), row(2, "c", 0.6, "NEW", None, 0), row(3, "a", 0.54, "DOWN", Some(1), 2)];
    let period = json!({ "key": "2026-11-21", "freshness": { "source": "RESULTS" } });
    assert_eq!(closed["entries"], json!({ "totalCount": 3, "nodes": rows, "period": period }));
    assert_eq!(closed["freshness"]["source"], "RESULTS");
    assert!(closed["freshness"]["asOf"].as_str().unwrap().starts_with("2026-11-22T12:00"));
    assert_eq!(closed["entry"], json!({ "rank": 2, "score": 0.6, "movement": { "direction": "NEW" } }));
    assert_eq!(closed["none"], Value::Null);
    assert_eq!(closed["around"], json!([{ "rank": 1, "productId": "b" }, { "rank": 2, "productId": "c" }]));
    assert_eq!(
        (&closed["status"], &closed["startsAt"], &closed["endsAt"]),
        (&json!("CLOSED"), &json!("2026-11-21T00:00:00.000Z"), &json!("2026-11-22T00:00:00.000Z"))
    );
    assert!(closed["position"].as_str().unwrap().starts_with("0-0"), "it leads to a snapshot");

    // Pages of a closed period follow each other.
    let page = async |arguments: &str| {
        let field = format!(
            "period(key: \"2026-11-21\") {{ entries({arguments}) {{ nodes {{ productId }} pageInfo {{ endCursor hasNextPage }} }} }}"
        );
        site.daily(&field).await["entries"].clone()
    };
    let first = page("first: 2").await;
    let second = page(&format!("first: 2, after: {}", first["pageInfo"]["endCursor"])).await;
    assert_eq!((&second["nodes"], &second["pageInfo"]["hasNextPage"]), (&json!([{ "productId": "a" }]), &json!(false)));

    // By instant: a closed one, the one that is shown, and none.
    for (at, key) in [
        ("2026-11-20T23:59:59.999Z", "2026-11-20"),
        ("2026-11-21T00:00:00Z", "2026-11-21"),
        ("2026-11-22T23:59:59Z", "2026-11-22"),
    ] {
        assert_eq!(site.daily(&format!("period(at: \"{at}\") {{ key }}")).await["key"], key);
    }
    let shown = site.daily("period(key: \"2026-11-22\") { status position freshness { source } entries { nodes { productId } period { position } } }").await;
    assert_eq!((&shown["status"], &shown["freshness"]["source"]), (&json!("OPEN"), &json!("ENGINE")));
    assert_eq!(shown["position"], shown["entries"]["period"]["position"]);
    assert_ne!(shown["position"], closed["position"]);
    let nones = ["at: \"2026-11-23T00:00:00Z\"", "key: \"2026-11-23\"", "key: \"yesterday\"", "key: \"2026-11-18\""];
    for none in nones {
        assert_eq!(site.daily(&format!("period({none}) {{ key }}")).await, Value::Null, "{none}");
    }
    assert_eq!(site.daily("period { key }").await["key"], "2026-11-22", "the present one where none is named");
    let both = "{ board { period(key: \"2026-11-21\", at: \"2026-11-21T00:00:00Z\") { key } } }";
    let answer = site.ask(both, json!({})).await;
    assert_eq!(told(&answer["errors"][0]), json!({ "code": "BAD_USER_INPUT", "argument": "key" }));
    let all_time =
        "{ board(id: \"all-time\") { periods { nodes { key } pageInfo { hasNextPage } } period(key: \"all\") { status }
        current { entries { nodes { movement { direction previousRank places } } } } } }";
    let all_time = site.data(all_time, json!({})).await["board"].clone();
    assert_eq!(all_time["periods"], json!({ "nodes": [{ "key": "all" }], "pageInfo": { "hasNextPage": false } }));
    let still = json!({ "movement": { "direction": "SAME", "previousRank": null, "places": 0 } });
    assert_eq!(all_time["current"]["entries"]["nodes"], json!([still, still, still]));
    site.node.stop().await;
}

async fn what_was_never_stored_is_computed_along_the_chain(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a", "b"]).await;
    // History that is loaded after its days have passed.
    site.orders("2026-11-10", &[("a", 10)]).await;
    site.orders("2026-11-12", &[("a", 1), ("b", 2)]).await;
    let entries = format!("{{ freshness {{ source degraded }} entries {{ {ROWS} }} }}");
    let day = async |key: &str| site.daily(&format!("period(key: \"{key}\") {entries}")).await;
    let computed = json!({ "source": "LEDGER", "degraded": false });
    // 6 points, three tenths of them on the next day, and so on.
    let eleventh = day("2026-11-11").await;
    assert_eq!(eleventh["freshness"], computed);
    assert_eq!(eleventh["entries"]["nodes"], json!([row(1, "a", 1.8, "SAME", Some(1), 0)]));
    let twelfth = day("2026-11-12").await;
    assert_eq!(
        twelfth["entries"]["nodes"],
        json!([row(1, "b", 1.2, "NEW", None, 0), row(2, "a", 1.14, "DOWN", Some(1), 1)])
    );
    assert_eq!(day("2026-11-10").await["entries"]["nodes"], json!([row(1, "a", 6.0, "NEW", None, 0)]));
    assert_eq!(day("2026-11-09").await, Value::Null, "nothing had happened");
    // 14 Nov: 1.14 * 0.09 = 0.1026, 1.2 * 0.09 = 0.108.
    let fourteenth = day("2026-11-14").await["entries"]["nodes"].clone();
    assert_eq!(fourteenth[0], row(1, "b", 0.108, "SAME", Some(1), 0));
    assert_eq!(day("2026-11-17").await["entries"]["nodes"], json!([]), "dust is dropped");
    assert_eq!(site.node.closed("daily").await, ["2026-11-19"], "reading stores nothing");

    // Stored, they are the same, and say so.
    site.node.stack.reopen("daily", at("2026-11-10T00:00:00Z")).await;
    until("the chain is stored", LIMIT, async || site.node.closed("daily").await.len() > 4).await;
    let stored = json!({ "source": "RESULTS", "degraded": false });
    for (key, known) in [("2026-11-11", eleventh), ("2026-11-12", twelfth)] {
        let read = day(key).await;
        assert_eq!((&read["freshness"], &read["entries"]), (&stored, &known["entries"]), "{key}");
    }
    site.node.stop().await;
}

async fn what_is_not_kept_is_computed(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    let ids: Vec<String> = (0..1_100).map(|n| format!("p{n:04}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    for chunk in names.chunks(500) {
        site.node.with_products(chunk).await;
    }
    let orders: Vec<_> = names.iter().zip(1..).map(|(id, count)| (*id, 1_100 - count + 1)).collect();
    for chunk in orders.chunks(500) {
        let order = |(product, count): &(&str, i64)| NewEvent { count: *count, ..order(product, product, None) };
        site.node.app.record(&chunk.iter().map(order).collect::<Vec<_>>()).await.unwrap();
    }
    until("all are shown", LIMIT, async || site.node.shown().await.1.len() == 100).await;
    site.noon("2026-11-21").await;
    site.noon("2026-11-22").await;
    let page = async |from: u64| {
        let field = format!(
            "period(key: \"2026-11-20\") {{ entries(first: 1, fromRank: {from}) {{ totalCount
                nodes {{ productId rank score }} period {{ freshness {{ source degraded }} }} }} }}"
        );
        site.daily(&field).await["entries"].clone()
    };
    let node = |rank: u64| json!([{ "productId": format!("p{:04}", rank - 1), "rank": rank, "score": (1_101 - rank) as f64 * 0.6 }]);
    for (rank, source) in [(1, "RESULTS"), (1_000, "RESULTS"), (1_001, "LEDGER"), (1_100, "LEDGER")] {
        let read = page(rank).await;
        let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6;
        assert_eq!(read["nodes"][0]["productId"], node(rank)[0]["productId"]);
        assert!(near(&read["nodes"][0]["score"], &node(rank)[0]["score"]), "{read}");
        assert_eq!(read["period"]["freshness"], json!({ "source": source, "degraded": false }));
        assert_eq!((&read["totalCount"], &read["nodes"][0]["rank"]), (&json!(1_100), &json!(rank)));
    }
    // The day after moved against all of them, also those whose place is not kept.
    let movement = "period(key: \"2026-11-21\") { entries(first: 1, fromRank: 1_050) { nodes { movement { direction previousRank } } } }".replace('_', "");
    assert_eq!(
        site.daily(&movement).await["entries"]["nodes"][0]["movement"],
        json!({ "direction": "SAME", "previousRank": 1_050 })
    );
    site.node.stop().await;
}

async fn half_lives_show_faded_scores(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a"]).await;
    site.node.app.record(&[order("1", "a", None)]).await.unwrap();
    let score = async || {
        let query = "{ ranking(board: \"trending\") { nodes { score movement { direction } } period { key } }
            product(id: \"a\") { entry(board: \"trending\") { score } } }";
        let read = site.data(query, json!({})).await;
        let nodes = &read["ranking"]["nodes"];
        // The board may be switched to its next period between the two.
        let is_one = nodes[0]["score"] == read["product"]["entry"]["score"];
        nodes[0]["score"].as_f64().filter(|_| is_one)
    };
    for (now, faded) in [("12:00", 0.6), ("13:00", 0.3), ("14:00", 0.15)] {
        site.node.set_clock(at(&format!("2026-11-20T{now}:00Z")));
        until("the score that is left is shown", LIMIT, async || score().await == Some(faded)).await;
    }
    site.node.stop().await;
}

async fn a_crowd_computes_a_period_once(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a"]).await;
    site.orders("2026-11-10", &[("a", 10)]).await;
    let score = async || {
        let field = "period(key: \"2026-11-12\") { entries { nodes { score } } }";
        site.daily(field).await["entries"]["nodes"][0]["score"].as_f64()
    };
    let scores = futures_util::future::join_all((0..20).map(|_| score())).await;
    assert_eq!(scores, [Some(0.54); 20]);
    assert_eq!(site.node.app.periods_computed(), 1);
    // A reason to rebuild the board is one to compute its past anew.
    site.node.stack.sql("UPDATE boards SET revision = revision + 1 WHERE id = 'daily'").await;
    until("it is computed anew", LIMIT, async || {
        assert_eq!(score().await, Some(0.54));
        site.node.app.periods_computed() == 2
    })
    .await;
    site.node.stop().await;
}

/// Days in a row, none of them stored: what three tenths of a day come to is told from the last of them alone, and what
/// never fades is refused where it would take too long, before anything is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_long_chains_come_to_is_exact_or_refused_at_once() {
    let site = Site::start(Setup::Embedded, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a"]).await;
    let first = at("2010-01-01T12:00:00Z");
    let day = |n: i64| order(&n.to_string(), "a", Some(first.plus_ms(n * 24 * 3_600_000)));
    for days in (0..1_010).collect::<Vec<_>>().chunks(500) {
        site.node.app.record(&days.iter().map(|n| day(*n)).collect::<Vec<_>>()).await.unwrap();
    }
    until("the orders are in the ledger", LIMIT, async || {
        site.node.stack.count("SELECT count(*) FROM events").await == 1_010
    })
    .await;
    for (id, carry_over) in [("whole", 1.0), ("slow", 0.99)] {
        let save = "mutation($input: BoardInput!) { saveBoard(input: $input) { userErrors { message } } }";
        let board = json!({ "id": id, "title": id, "window": "DAY", "carryOver": carry_over });
        assert_eq!(site.data(save, json!({ "input": board })).await["saveBoard"]["userErrors"], json!([]));
    }
    let of_day = |board: &str, n: i64| {
        let key = &first.plus_ms(n * 24 * 3_600_000).to_string()[..10];
        format!(
            "{{ board(id: \"{board}\") {{ period(key: \"{key}\") {{ entries {{ nodes {{ score movement {{ direction }} }} }} }} }} }}"
        )
    };
    let score = async |board: &str, n: i64| {
        let row = site.data(&of_day(board, n), json!({})).await["board"]["period"]["entries"]["nodes"][0].clone();
        assert_eq!(row["movement"]["direction"], if n == 0 { "NEW" } else { "SAME" }, "{board} {n}");
        (row["score"].as_f64().unwrap() * 1e6).round() as i64
    };
    // By hand: what a day's order is worth, and of the day before what its board carries over.
    let by_hand = |percent: i64, n: i64| {
        (0..=n).fold(0, |points, day| points * percent / 100 + if day < 1_010 { 600_000 } else { 0 })
    };
    // The limit counts the days before, of which the one asked for has as many as its number.
    for (n, key) in [(4_001, "2020-12-15"), (4_500, "2022-04-28")] {
        let refused = site.ask(&of_day("whole", n), json!({})).await["errors"][0].clone();
        assert_eq!(told(&refused), json!({ "code": "LIMIT_EXCEEDED", "limit": "periods", "value": 4_000 }));
        assert!(refused["message"].as_str().unwrap().contains(key), "{refused}");
    }
    assert_eq!(site.node.app.periods_computed(), 0, "nothing was computed for that");
    assert_eq!(score("whole", 4_000).await, by_hand(100, 4_000));
    for n in [0, 1, 74, 75, 76, 100, 1_005] {
        assert_eq!(score("daily", n).await, by_hand(30, n), "{n}");
    }
    for (board, percent) in [("whole", 100), ("slow", 99)] {
        for n in [900, 1_009, 1_100, 1_300] {
            assert_eq!(score(board, n).await, by_hand(percent, n), "{board} {n}");
        }
    }
    site.node.stop().await;
}

/// A board whose points never fade, rebuilt over ten years of silence: a row for each product and day would be four million.
async fn days_in_which_nothing_happened_are_not_stored(setup: Setup) {
    let site = Site::start(setup, "2026-11-20T12:00:00Z").await;
    let ids: Vec<String> = (0..1_100).map(|n| format!("p{n:04}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (began, late) = (at("2016-11-01T12:00:00Z"), at("2020-03-01T12:00:00Z"));
    for chunk in names.chunks(500) {
        site.node.with_products(chunk).await;
        let order = |product: &&str| order(product, product, Some(began));
        site.node.app.record(&chunk.iter().map(order).collect::<Vec<_>>()).await.unwrap();
    }
    site.node.app.record(&[order("late", "p0500", Some(late))]).await.unwrap();
    until("all is in the ledger", LIMIT, async || site.node.stack.count("SELECT count(*) FROM events").await == 1_101)
        .await;
    let save = "mutation { saveBoard(input: { id: \"whole\", title: \"Whole\", window: DAY, carryOver: 1 }) { userErrors { message } } }";
    assert_eq!(site.data(save, json!({})).await["saveBoard"]["userErrors"], json!([]));
    let rebuild = "mutation { rebuildBoard(input: { id: \"whole\", fromPeriod: \"1800-01-01\" }) { fromPeriod userErrors { message } } }";
    assert_eq!(site.data(rebuild, json!({})).await["rebuildBoard"]["userErrors"], json!([]), "long ago costs nothing");
    until("the chain is stored up to yesterday", LIMIT, async || {
        site.node.closed("whole").await.last().is_some_and(|last| last == "2026-11-19")
    })
    .await;
    assert_eq!(
        site.node.closed("whole").await,
        ["2016-11-01", "2020-02-29", "2020-03-01", "2026-11-18", "2026-11-19"],
        "what happened, the last day of each silence, and yesterday"
    );
    let rows = site.node.stack.count("SELECT count(*) FROM period_results WHERE board = 'whole'").await;
    assert_eq!(rows, 1_100 + 1_000 + 1_100 + 1_000 + 1_100, "whole where a silence follows, or nothing does yet");
    let page = async |key: &str, from: u64| {
        let query = format!(
            "{{ board(id: \"whole\") {{ period(key: \"{key}\") {{ freshness {{ source }} entries(first: 2, fromRank: {from}) {{ totalCount
                nodes {{ rank productId score movement {{ direction previousRank }} }} }} }} }} }}"
        );
        site.data(&query, json!({})).await["board"]["period"].clone()
    };
    let node = |rank: u64, product: &str, score: f64| json!({ "rank": rank, "productId": product, "score": score, "movement": { "direction": "SAME", "previousRank": rank } });
    for (key, source) in [
        ("2018-05-05", "LEDGER"),
        ("2020-02-29", "RESULTS"),
        ("2024-02-29", "LEDGER"),
        ("2026-11-17", "LEDGER"),
        ("2026-11-18", "RESULTS"),
    ] {
        let (first, last) = (page(key, 1).await, page(key, 1_099).await);
        assert_eq!(
            (&first["freshness"]["source"], &first["entries"]["totalCount"]),
            (&json!(source), &json!(1_100)),
            "{key}"
        );
        let best = if key < "2020-03" { node(1, "p1099", 0.6) } else { node(1, "p0500", 1.2) };
        assert_eq!(first["entries"]["nodes"][0], best, "{key}");
        assert_eq!(last["entries"]["nodes"], json!([node(1_099, "p0001", 0.6), node(1_100, "p0000", 0.6)]), "{key}");
    }
    assert_eq!(site.node.app.verify(None).await.unwrap().differing, 0);
    site.node.stop().await;
}

/// While no engine shows anything, a new day has what carries over from one that nobody has closed yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn degraded_reads_follow_the_chain_too() {
    let site = Site::start(Setup::Embedded, "2026-11-20T12:00:00Z").await;
    site.node.with_products(&["a"]).await;
    site.orders("2026-11-20", &[("a", 10)]).await;
    let Site { node: Node { app, stack, .. }, api } = site;
    app.stop(Duration::from_secs(10)).await;
    // Whoever holds the node holds its ledger.
    drop((api, app));
    let settings = Settings { clock: Arc::new(|| at("2026-11-22T12:00:00Z")), ..Settings::default() };
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    // Opened and not started: nobody projects.
    let app = App::open(Arc::new(MemoryEngine::new(EngineLimits::default())), ledger, settings).await.unwrap();
    let daily = app.board(&BoardId::daily()).unwrap();
    let page = app.page(&daily, &PageStart::Rank(1), 10).await.unwrap();
    assert!(page.reading.freshness.degraded);
    assert_eq!((page.reading.period.key.as_str(), page.rows.places[0].points.as_f64()), ("2026-11-22", 0.54));
    app.stop(Duration::from_secs(10)).await;
}
