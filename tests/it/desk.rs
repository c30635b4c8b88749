//! The admin's desk from outside, on both set-ups: boards, weights, product rules, and what is refused.

mod boards;
mod doubt;
mod graphiql;
mod letters;
mod load;
mod preview;
mod refused;
mod weights;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stack::{RECORD, Server, Setup, Stack};

/// Nothing that is awaited here takes longer on a loaded machine.
const TIME_MAX: Duration = Duration::from_secs(30);

const SAVE: &str = "mutation($input: BoardInput!) { saveBoard(input: $input) {
    board { id title window halfLife category brand timeZone carryOver isCurrent } userErrors { code message path } } }";
const DELETE: &str = "mutation($id: ID!, $note: String!) { deleteBoard(input: { id: $id, note: $note }) {
    board { id } userErrors { code message path } } }";
const ADJUST: &str = "mutation($input: AdjustWeightsInput!) { adjustWeights(input: $input) {
    version rule { id version board from until hours cancelled weights { signal weight } } userErrors { code message path } } }";
const CANCEL: &str = "mutation($id: ID!, $note: String!) { cancelWeights(input: { id: $id, note: $note }) {
    version rule { id cancelled } userErrors { code message path } } }";
const RULE: &str = "mutation($input: ProductRuleInput!) { setProductRule(input: $input) {
    rule { id productId board excluded boost until createdBy note } userErrors { code message path } } }";
const REBUILD: &str = "mutation($id: ID!, $from: String, $note: String) { rebuildBoard(input: { id: $id, fromPeriod: $from, note: $note }) {
    board { id } fromPeriod userErrors { code message path } } }";

/// A server, and an admin at its desk.
struct Desk {
    stack: Stack,
    server: Server,
}

impl Desk {
    async fn new(setup: Setup) -> Self {
        let stack = Stack::new(setup).await;
        let server = stack.serve().await;
        Self { stack, server }
    }

    /// A desk of a shop whose products are given with their categories.
    async fn with_products(setup: Setup, products: &[(&str, &str)]) -> Self {
        let desk = Self::new(setup).await;
        desk.stock(products).await;
        desk
    }

    async fn stock(&self, products: &[(&str, &str)]) {
        let rows = products.iter().map(|(id, category)| json!({ "id": id, "name": id, "category": category }));
        let upsert = "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted userErrors { message } } }";
        let payload = self.server.graphql("shop", upsert, json!({ "products": rows.collect::<Vec<_>>() })).await;
        assert_eq!(payload["upsertProducts"]["upserted"], products.len(), "{payload}");
    }

    /// Orders of a product, at an instant or now. The id must be new.
    async fn orders(&self, id: &str, product: &str, count: u32, at: Option<&str>) {
        let event = json!({ "id": id, "signal": "ORDER", "productId": product, "count": count, "occurredAt": at });
        let recorded = self.server.graphql("shop", RECORD, json!({ "events": [event] })).await;
        assert_eq!(recorded["recordEvents"]["recorded"], 1, "{recorded}");
    }

    /// The payload of an admin's mutation.
    async fn payload(&self, admin: &str, mutation: &str, variables: Value) -> Value {
        let data = self.server.graphql(admin, mutation, variables).await;
        data.as_object().unwrap().values().next().unwrap().clone()
    }

    /// The payload of a mutation that is done.
    async fn done(&self, mutation: &str, variables: Value) -> Value {
        let payload = self.payload("ann", mutation, variables).await;
        assert_eq!(payload["userErrors"], json!([]), "{mutation}");
        payload
    }

    async fn adjust(&self, input: Value) -> Value {
        self.done(ADJUST, json!({ "input": input })).await
    }

    async fn save(&self, input: Value) -> Value {
        self.done(SAVE, json!({ "input": input })).await
    }

    /// A board's first places as (product, score), and where they were read.
    async fn page(&self, board: &str) -> (Vec<(String, f64)>, String) {
        let query = "query($board: ID!) { ranking(board: $board) { nodes { productId score } period { freshness { source } } } }";
        let ranking = self.server.graphql("reader", query, json!({ "board": board })).await["ranking"].clone();
        let place = |node: &Value| (node["productId"].as_str().unwrap().to_owned(), node["score"].as_f64().unwrap());
        let places = ranking["nodes"].as_array().unwrap().iter().map(place).collect();
        (places, ranking["period"]["freshness"]["source"].as_str().unwrap().to_owned())
    }

    async fn places(&self, board: &str) -> Vec<(String, f64)> {
        self.page(board).await.0
    }

    /// Waits until the engine shows these places.
    async fn until_shown(&self, board: &str, places: &[(&str, f64)]) {
        let wanted: Vec<_> = places.iter().map(|(product, score)| ((*product).to_owned(), *score)).collect();
        let mut shown = Default::default();
        let deadline = tokio::time::Instant::now() + TIME_MAX;
        while shown != (wanted.clone(), "ENGINE".to_owned()) {
            assert!(tokio::time::Instant::now() < deadline, "{board} shows {shown:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            shown = self.page(board).await;
        }
    }

    /// The audit log, newest first.
    async fn audit(&self) -> Vec<Value> {
        let query = "{ admin { auditLog(first: 100) { nodes { id at actor action target before after note } } } }";
        let data = self.server.graphql("auditor", query, json!({})).await;
        data["admin"]["auditLog"]["nodes"].as_array().unwrap().clone()
    }
}
