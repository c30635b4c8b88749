//! What the API asks of the node behind it, and how it answers at its edges: in one process, over memory and SQLite.

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::UserId;
use acclaim::engine::EngineLimits;
use acclaim::engine::memory::MemoryEngine;
use acclaim::graphql::guards::{Caller, Role};
use acclaim::graphql::{Api, DocumentLimits, Outcome, Payload, Request};
use acclaim::ledger::Ledger;
use acclaim::live::Hub;
use acclaim::pipeline::{App, Settings};
use async_graphql::Variables;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, future};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::counted::{Counted, calls_of};
use crate::support::{told, until};

const TIME_MAX: Duration = Duration::from_secs(10);

/// An API with its node, whose engine counts what requests ask of it.
pub struct Site {
    pub api: Api,
    app: Arc<App>,
    engine: Arc<Counted>,
    _dir: TempDir,
}

impl Site {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let engine = Arc::new(Counted::new(Arc::new(MemoryEngine::new(EngineLimits::default()))));
        let ledger = Ledger::connect(&format!("sqlite://{}", dir.path().join("acclaim.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let app = App::start(engine.clone(), ledger, Settings::default()).await.unwrap();
        let api = Api::new(Hub::start(&app), DocumentLimits::default());
        Self { api, app, engine, _dir: dir }
    }

    /// A site whose board shows products `p0` (last) to `p<count - 1>` (first); returns when it does.
    pub async fn with_board(count: usize) -> Self {
        let site = Self::start().await;
        let products: Vec<_> =
            (0..count).map(|n| json!({ "id": format!("p{n}"), "name": format!("Product {n}") })).collect();
        let upsert =
            "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }";
        site.data(upsert, json!({ "products": products })).await;
        let events: Vec<_> = (0..count)
            .map(|n| json!({ "id": format!("e{n}"), "signal": "VIEW", "productId": format!("p{n}"), "count": n + 1 }))
            .collect();
        let record = "mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { recorded } }";
        site.data(record, json!({ "events": events })).await;
        until("the board shows every product", TIME_MAX, async || {
            let ranking = "{ ranking { totalCount period { freshness { source } } } }";
            let shown = json!({ "totalCount": count, "period": { "freshness": { "source": "ENGINE" } } });
            site.data(ranking, json!({})).await["ranking"] == shown
        })
        .await;
        site
    }

    fn request(query: &str, variables: Value) -> Request {
        Request::new(query).variables(Variables::from_json(variables))
    }

    fn ann() -> Caller {
        Caller { user: Some(UserId::new("ann").unwrap()), roles: Role::ALL.to_vec(), ..Caller::default() }
    }

    async fn ask(&self, query: &str, variables: Value) -> Value {
        let answer = self.api.run(self.api.prepare(Self::request(query, variables)), Self::ann(), "test").await;
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// What an operation of any kind answers, one after the other.
    pub async fn answers(&self, query: &str) -> BoxStream<'static, Value> {
        let payloads = self.payloads(query, json!({}), Self::ann()).await;
        payloads.map(|json| serde_json::from_slice(&json).unwrap()).boxed()
    }

    pub async fn payloads(&self, query: &str, variables: Value, caller: Caller) -> BoxStream<'static, Payload> {
        match self.api.operate(self.api.prepare(Self::request(query, variables)), caller, None, "test").await {
            Outcome::Answered(answer) => stream::once(future::ready(answer.payload)).boxed(),
            Outcome::Subscribed(member) => member.into_stream().map(|event| event.payload).boxed(),
        }
    }

    /// An operation that must succeed.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let answer = self.ask(query, variables).await;
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"].clone()
    }

    /// What an operation asked of the engine, and how often it looked into the catalogue.
    async fn cost(&self, query: &str, variables: Value) -> (Vec<String>, u64) {
        let before = self.app.product_lookups();
        let (_, calls) = calls_of(self.data(query, variables)).await;
        (calls, self.app.product_lookups() - before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_costs_the_same_few_calls_whatever_its_length() {
    let site = Site::with_board(100).await;
    let page = "query($first: Int) { ranking(first: $first) {
        totalCount pageInfo { hasNextPage } period { key freshness { source } }
        nodes { rank score product { name like { viewerHasLiked viewerLikedAt } } }
        edges { cursor node { id product { id } } } } }";
    site.data("{ product(id: \"p0\") { like { viewerHasLiked } } }", json!({})).await;
    for first in [1, 20, 100] {
        let (calls, lookups) = site.cost(page, json!({ "first": first })).await;
        assert_eq!(calls, ["page daily", "viewer_likes"], "first: {first}");
        assert!(lookups <= 1, "{lookups} look-ups for first: {first}");
    }
    let all = "{ ranking(first: 100) { nodes {
        product { name like { count viewerHasLiked } currentRank entry { rank score product { like { count } } } } } } }";
    let (calls, lookups) = site.cost(all, json!({})).await;
    assert_eq!(calls, ["entries _likes", "entries daily", "page daily", "viewer_likes"]);
    assert_eq!(lookups, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn product_movement_and_like_cost_a_page_one_look_up_each() {
    let site = Site::with_board(100).await;
    site.data("{ product(id: \"p0\") { like { viewerHasLiked } } }", json!({})).await;
    // Engine calls, look-ups of the catalogue, look-ups of results.
    let cost = async |of_row: &str| {
        let before = site.app.result_lookups();
        let (calls, lookups) =
            site.cost(&format!("{{ ranking(first: 20) {{ nodes {{ rank {of_row} }} }} }}"), json!({})).await;
        (calls, lookups, site.app.result_lookups() - before)
    };
    // What was written is forgotten, so the next who asks must look it up.
    let products: Vec<_> = (80..100).map(|n| json!({ "id": format!("p{n}"), "name": "New name" })).collect();
    let write = "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }";
    let page = "page daily".to_owned();
    assert_eq!(cost("score").await, (vec![page.clone()], 0, 0));
    assert_eq!(cost("movement { direction previousRank places }").await, (vec![page.clone()], 0, 1));
    site.data(write, json!({ "products": products })).await;
    assert_eq!(cost("product { name }").await, (vec![page.clone()], 1, 0));
    site.data(write, json!({ "products": products })).await;
    let all = "movement { direction } product { name like { viewerHasLiked } }";
    assert_eq!(cost(all).await, (vec![page, "viewer_likes".to_owned()], 1, 1));
    let new =
        site.data("{ ranking(first: 1) { nodes { movement { direction previousRank places } } } }", json!({})).await;
    assert_eq!(
        new["ranking"]["nodes"][0]["movement"],
        json!({ "direction": "NEW", "previousRank": null, "places": 0 })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_products_ask_together_too() {
    let site = Site::with_board(100).await;
    let ids: Vec<_> = (0..100).map(|n| format!("p{n}")).collect();
    let products = "query($ids: [ID!]!) { products(ids: $ids) { name currentRank entry { score } like { count viewerHasLiked } } }";
    let (calls, lookups) = site.cost(products, json!({ "ids": ids })).await;
    assert_eq!(
        calls,
        ["entries _likes", "entries daily", "viewer_likes", "viewer_likes"],
        "twice, since ann had to be loaded"
    );
    assert!(lookups <= 1);
    for product in 0..3 {
        let like = "mutation($id: ID!) { setLike(input: { productId: $id, liked: true }) { liked } }";
        site.data(like, json!({ "id": format!("p{product}") })).await;
    }
    let likes = "{ viewer { likes { totalCount nodes { name like { count viewerHasLiked } } edges { likedAt } } } }";
    let (calls, lookups) = site.cost(likes, json!({})).await;
    assert_eq!(calls.iter().filter(|call| call.starts_with("entries")).count(), 1, "{calls:?}");
    assert!(calls.iter().filter(|call| *call == "viewer_likes").count() <= 1, "{calls:?}");
    assert!(lookups <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_board_s_current_period_is_read_once() {
    let site = Site::with_board(5).await;
    let scalars = "{ board { title weights { version weights { signal weight } } nextRollAt
        current { id key startsAt endsAt status freshness { source degraded } board { id } } } }";
    assert_eq!(site.cost(scalars, json!({})).await.0, ["entries daily"]);
    let board = site.data(scalars, json!({})).await["board"].clone();
    let current = &board["current"];
    assert_eq!(current["id"], json!(format!("daily:{}", current["key"].as_str().unwrap())));
    assert_eq!((&current["status"], &current["endsAt"]), (&json!("OPEN"), &board["nextRollAt"]));
    assert_eq!(current["freshness"], json!({ "source": "ENGINE", "degraded": false }));
    assert_eq!(board["weights"][0]["version"], 0);
    assert_eq!(board["weights"][0]["weights"].as_array().unwrap().len(), 5);
    let nothing = "{ board { id current { board { id } } } boards { id } }";
    assert_eq!(site.cost(nothing, json!({})).await.0, [""; 0], "what nobody asks for is not read");
    let boards = site.data(nothing, json!({})).await["boards"].clone();
    let ids: Vec<_> = boards.as_array().unwrap().iter().map(|board| board["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["all-time", "daily", "hourly", "monthly", "trending", "weekly"], "the hidden board stays hidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_each_other() {
    let site = Site::with_board(7).await;
    let page = "query($first: Int, $after: String, $fromRank: Int) {
        ranking(first: $first, after: $after, fromRank: $fromRank) {
            nodes { rank productId } totalCount
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor } } }";
    let (mut after, mut seen) = (Value::Null, Vec::new());
    for (rows, has_next) in [(3, true), (3, true), (1, false)] {
        let ranking = site.data(page, json!({ "first": 3, "after": after })).await["ranking"].clone();
        let (nodes, info) = (ranking["nodes"].as_array().unwrap(), &ranking["pageInfo"]);
        assert_eq!((nodes.len(), &info["hasNextPage"]), (rows, &json!(has_next)));
        assert_eq!(info["hasPreviousPage"], json!(!seen.is_empty()));
        assert_eq!(info["endCursor"], ranking["edges"][rows - 1]["cursor"]);
        assert_eq!(info["startCursor"], ranking["edges"][0]["cursor"]);
        seen.extend(
            nodes.iter().map(|node| (node["rank"].as_u64().unwrap(), node["productId"].as_str().unwrap().to_owned())),
        );
        after = info["endCursor"].clone();
    }
    let expected: Vec<_> = (0..7).map(|n| (n + 1, format!("p{}", 6 - n))).collect();
    assert_eq!(seen, expected);
    let from = site.data(page, json!({ "first": 2, "fromRank": 4 })).await["ranking"].clone();
    assert_eq!(from["nodes"][0], json!({ "rank": 4, "productId": "p3" }));
    let beyond = site.data(page, json!({ "fromRank": 50 })).await["ranking"].clone();
    assert_eq!(
        beyond["pageInfo"],
        json!({ "hasNextPage": false, "hasPreviousPage": true, "startCursor": null, "endCursor": null })
    );
    assert_eq!(beyond["totalCount"], 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_shows_the_neighbours() {
    let site = Site::with_board(7).await;
    let around = async |product: &str, radius: u64| {
        let query =
            "query($id: ID!, $radius: Int) { board { current { around(productId: $id, radius: $radius) { rank } } } }";
        let data = site.data(query, json!({ "id": product, "radius": radius })).await;
        let ranks = data["board"]["current"]["around"].as_array().unwrap().clone();
        ranks.iter().map(|entry| entry["rank"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(around("p3", 2).await, [2, 3, 4, 5, 6]);
    assert_eq!(around("p6", 2).await, [1, 2, 3]);
    assert_eq!(around("p5", 2).await, [1, 2, 3, 4]);
    assert_eq!(around("p0", 1).await, [6, 7]);
    assert_eq!(around("p3", 0).await, [4]);
    assert_eq!(around("unknown", 2).await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_arguments_are_named() {
    let site = Site::with_board(1).await;
    let long = "x".repeat(65);
    let cases = [
        ("{ ranking(first: 0) { totalCount } }", "first"),
        ("{ ranking(first: 101) { totalCount } }", "first"),
        ("{ ranking(after: \"nonsense\") { totalCount } }", "after"),
        ("{ ranking(fromRank: 0) { totalCount } }", "fromRank"),
        ("{ ranking(board: \"yearly\") { totalCount } }", "board"),
        ("{ ranking(board: \"_likes\") { totalCount } }", "board"),
        ("{ product(id: \"\") { id } }", "id"),
        (&format!("{{ products(ids: [\"{long}\"]) {{ id }} }}"), "ids"),
        ("{ product(id: \"p0\") { currentRank(board: \"yearly\") } }", "board"),
        ("{ board { current { around(productId: \"p0\", radius: 51) { rank } } } }", "radius"),
        ("{ viewer { likes(first: 101) { totalCount } } }", "first"),
        ("{ viewer { likes(after: \"cDox\") { totalCount } } }", "after"),
        ("{ admin { weightRules(first: 0) { nodes { id } } } }", "first"),
        ("subscription { boardChanges(top: 0) { seq } }", "top"),
    ];
    for (query, argument) in cases {
        let error = site.answers(query).await.next().await.unwrap()["errors"][0].clone();
        assert_eq!(told(&error), json!({ "code": "BAD_USER_INPUT", "argument": argument }), "{query}: {error}");
    }
    let many: Vec<_> = (0..101).map(|n| format!("p{n}")).collect();
    let answer = site.ask("query($ids: [ID!]!) { products(ids: $ids) { id } }", json!({ "ids": many })).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    let unknown = site.data(
        "{ product(id: \"nothing\") { id } products(ids: [\"x\", \"p0\"]) { id }
            board(id: \"yearly\") { id } none: board(id: \"Daily\") { id } }",
        json!({}),
    );
    let nothing = json!({ "product": null, "products": [null, { "id": "p0" }], "board": null, "none": null });
    assert_eq!(unknown.await, nothing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_leave_the_good_ones() {
    let site = Site::with_board(1).await;
    let events = json!([
        { "id": "good", "signal": "ORDER", "productId": "p0" },
        { "id": "none", "signal": "ORDER", "productId": "nothing" },
        { "id": "many", "signal": "ORDER", "productId": "p0", "count": 1_000_001 },
        { "id": "like", "signal": "LIKE", "productId": "p0" },
        { "id": "back", "signal": "ORDER", "productId": "p0", "reverses": "never" },
        { "id": "good", "signal": "ORDER", "productId": "p0" },
    ]);
    let record = "mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) {
        recorded duplicates rejected durability results { eventId status error { code path } } } }";
    let answer = site.data(record, json!({ "events": events })).await["recordEvents"].clone();
    assert_eq!((&answer["recorded"], &answer["duplicates"], &answer["rejected"]), (&json!(1), &json!(1), &json!(4)));
    let error = |index: usize| answer["results"][index]["error"].clone();
    assert_eq!(error(1), json!({ "code": "NOT_FOUND", "path": ["events", "1", "productId"] }));
    assert_eq!(error(2), json!({ "code": "INVALID", "path": ["events", "2", "count"] }));
    assert_eq!(error(3), json!({ "code": "INVALID", "path": ["events", "3", "signal"] }));
    assert_eq!(error(4), json!({ "code": "NOT_FOUND", "path": ["events", "4", "reverses"] }));
    let products =
        json!([{ "id": "new", "name": "New", "price": "12.50", "currency": "EUR" }, { "id": "bad", "name": "" }]);
    let upsert = "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) {
        upserted userErrors { code path } } }";
    let answer = site.data(upsert, json!({ "products": products })).await["upsertProducts"].clone();
    assert_eq!(answer["upserted"], 1);
    assert_eq!(answer["userErrors"], json!([{ "code": "INVALID", "path": ["products", "1", "name"] }]));
    let price = site.data("{ product(id: \"new\") { price { amount currency } } }", json!({})).await;
    assert_eq!(price["product"]["price"], json!({ "amount": "12.50", "currency": "EUR" }));
    let flood: Vec<_> =
        (0..501).map(|n| json!({ "id": format!("f{n}"), "signal": "VIEW", "productId": "p0" })).collect();
    for (events, code) in [(json!(flood), "LIMIT_EXCEEDED"), (json!([]), "BAD_USER_INPUT")] {
        let answer = site.ask(record, json!({ "events": events })).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_that_can_not_be_are_user_errors() {
    let site = Site::with_board(1).await;
    let toggle =
        "mutation($product: ID!, $key: String) { toggleLike(input: { productId: $product, idempotencyKey: $key }) {
        liked changed product { id } userErrors { code path } } }";
    let refused = async |product: &str, key: Option<String>| {
        let answer = site.data(toggle, json!({ "product": product, "key": key })).await["toggleLike"].clone();
        assert_eq!(
            (&answer["liked"], &answer["changed"], &answer["product"]),
            (&Value::Null, &json!(false), &Value::Null)
        );
        answer["userErrors"].clone()
    };
    assert_eq!(refused("nothing", None).await, json!([{ "code": "NOT_FOUND", "path": ["productId"] }]));
    assert_eq!(refused("", None).await, json!([{ "code": "INVALID", "path": ["productId"] }]));
    let both = json!([{ "code": "INVALID", "path": ["productId"] }, { "code": "INVALID", "path": ["idempotencyKey"] }]);
    assert_eq!(refused("", Some("k".repeat(65))).await, both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_have_versions() {
    let site = Site::with_board(2).await;
    let adjust = "mutation($input: AdjustWeightsInput!) { adjustWeights(input: $input) {
        version rule { id version board createdBy note weights { signal weight } } userErrors { code message path } } }";
    let input = json!({ "board": "daily", "weights": [{ "signal": "VIEW", "weight": 2.5 }], "expectedVersion": 0, "note": "why" });
    let first = site.data(adjust, json!({ "input": input })).await["adjustWeights"].clone();
    let version = first["version"].as_i64().unwrap();
    assert_eq!(first["userErrors"], json!([]));
    assert_eq!(first["rule"]["weights"], json!([{ "signal": "VIEW", "weight": 2.5 }]));
    let late = site.data(adjust, json!({ "input": input })).await["adjustWeights"].clone();
    assert_eq!((&late["rule"], &late["version"]), (&Value::Null, &json!(version)));
    assert_eq!(late["userErrors"][0]["code"], "CONFLICT");
    assert!(late["userErrors"][0]["message"].as_str().unwrap().contains(&version.to_string()));
    let elsewhere = json!({ "board": "yearly", "weights": [{ "signal": "VIEW", "weight": 1 }], "note": "why" });
    let unknown = site.data(adjust, json!({ "input": elsewhere })).await["adjustWeights"]["userErrors"].clone();
    assert_eq!((&unknown[0]["code"], &unknown[0]["path"]), (&json!("NOT_FOUND"), &json!(["board"])));
    let again = json!({ "weights": [{ "signal": "ORDER", "weight": 5 }], "note": "again" });
    site.data(adjust, json!({ "input": again })).await;
    let rules = "query($after: String) { admin { weightRules(first: 1, after: $after) {
        nodes { note createdBy } pageInfo { hasNextPage hasPreviousPage endCursor } } } }";
    let newest = site.data(rules, json!({})).await["admin"]["weightRules"].clone();
    assert_eq!(newest["nodes"], json!([{ "note": "again", "createdBy": "ann" }]));
    assert_eq!(newest["pageInfo"]["hasNextPage"], true);
    let older =
        site.data(rules, json!({ "after": newest["pageInfo"]["endCursor"] })).await["admin"]["weightRules"].clone();
    assert_eq!(older["nodes"][0]["note"], "why");
    assert_eq!(
        (&older["pageInfo"]["hasNextPage"], &older["pageInfo"]["hasPreviousPage"]),
        (&json!(false), &json!(true))
    );
    let board = site.data("{ board { weights { note weights { signal weight } } } }", json!({})).await;
    let in_force: Vec<_> = board["board"]["weights"][0]["weights"]
        .as_array()
        .unwrap()
        .iter()
        .map(|weight| weight["weight"].as_f64().unwrap())
        .collect();
    assert_eq!(in_force, [2.5, 0.2, 0.3, 0.4, 5.0]);
    until("the board is scored anew", TIME_MAX, async || {
        site.data("{ ranking(first: 1) { nodes { score } } }", json!({})).await["ranking"]["nodes"][0]["score"] == 5.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_board_begins_whole_and_joins_the_catalogue() {
    let site = Site::with_board(3).await;
    let live = "subscription { boardChanges(top: 2) { __typename position seq at
        ... on BoardSnapshot { reason totalCount period { key freshness { source } } entries { rank productId product { name } } }
        ... on BoardDelta { fromSeq totalCount changes { kind productId fromRank toRank score product { name like { count } } } } } }";
    until("the filled board is published", TIME_MAX, async || {
        site.answers(live).await.next().await.unwrap()["data"]["boardChanges"]["totalCount"] == 3
    })
    .await;
    let mut events = site.answers(live).await;
    let mut next = async || {
        let answer = tokio::time::timeout(TIME_MAX, events.next()).await.expect("an event in time").unwrap();
        assert!(answer.get("errors").is_none(), "{answer}");
        answer["data"]["boardChanges"].clone()
    };
    let snapshot = next().await;
    assert_eq!((&snapshot["__typename"], &snapshot["reason"]), (&json!("BoardSnapshot"), &json!("INITIAL")));
    let seq = snapshot["position"].as_str().unwrap().split_once('-').unwrap().1;
    assert_eq!(seq, snapshot["seq"].to_string());
    assert_eq!(snapshot["entries"].as_array().unwrap().len(), 2);
    assert_eq!(snapshot["entries"][0], json!({ "rank": 1, "productId": "p2", "product": { "name": "Product 2" } }));
    let record =
        "mutation { recordEvents(input: { events: [{ id: \"x\", signal: ORDER, productId: \"p0\" }] }) { recorded } }";
    let before = site.engine.count("entries _likes");
    site.data(record, json!({})).await;
    let delta = next().await;
    assert_eq!(site.engine.count("entries _likes"), before + 1, "one for the whole delta");
    assert_eq!((&delta["__typename"], &delta["fromSeq"]), (&json!("BoardDelta"), &snapshot["seq"]));
    let entered = delta["changes"].as_array().unwrap().iter().find(|change| change["kind"] == "ENTERED").unwrap();
    assert_eq!((&entered["productId"], &entered["toRank"], &entered["score"]), (&json!("p0"), &json!(1), &json!(0.7)));
    assert_eq!(entered["product"]["name"], "Product 0");
}
