//! Global ids: everything that has an identity is found again by its own, and by whoever may read it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{guarded, token};
use crate::support::stack::{RECORD, Setup, Stack};
use crate::support::{told, until};

crate::both_setups!(whatever_has_an_identity_is_found_again);

const LIMIT: Duration = Duration::from_secs(30);

/// One of each kind where it usually stands, with what people know it by.
const ALL: &str = "query($day: DateTime!) {
    product(id: \"p1\") { __typename nodeId id }
    board { __typename nodeId id
        current { __typename nodeId id key }
        weights { __typename nodeId id version }
        period(at: $day) { __typename nodeId id key entries { nodes { __typename nodeId id rank productId } } } }
    hourly: board(id: \"hourly\") { current { __typename nodeId id key } }
    ranking { nodes { __typename nodeId id rank productId } }
    trending: ranking(board: \"trending\") { nodes { __typename nodeId id rank productId } }
    viewer { __typename nodeId id }
    admin {
        weightRules { nodes { __typename nodeId id version } }
        productRules { __typename nodeId id }
        auditLog { nodes { __typename nodeId id action } }
        deadLetters { nodes { __typename nodeId id } } } }";

const NODES: &str = "query($ids: [ID!]!) { nodes(nodeIds: $ids) { __typename nodeId
    ... on Product { id } ... on Board { id } ... on Period { id key } ... on RankingEntry { id rank productId } ... on Viewer { id }
    ... on WeightRule { id version } ... on ProductRule { id } ... on AuditEntry { id action } ... on DeadLetter { id } } }";

/// Every object with a global id in an answer, without what else it holds.
fn objects(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("nodeId") {
                let own = fields.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
                found.push(own.map(|(name, value)| (name.clone(), value.clone())).collect());
            }
            fields.values().for_each(|value| objects(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

async fn whatever_has_an_identity_is_found_again(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    let admin = async |mutation: &str| server.graphql("ann", &format!("mutation {{ {mutation} }}"), json!({})).await;
    admin("a: adjustWeights(input: { weights: [{ signal: ORDER, weight: 1 }], note: \"n\" }) { version }").await;
    admin("adjustWeights(input: { weights: [{ signal: VIEW, weight: 1 }], from: \"2999-01-01T00:00:00Z\", note: \"n\" }) { version }").await;
    admin("setProductRule(input: { productId: \"p2\", boost: 2, note: \"n\" }) { rule { id } }").await;
    admin("saveBoard(input: { id: \"mine\", title: \"Mine\", window: DAY }) { board { id } }").await;
    let day = "2020-05-31T12:00:00Z";
    let order = |id: &str, product: &str, at: Option<&str>| json!({ "id": id, "signal": "ORDER", "productId": product, "occurredAt": at });
    let events = [order("1", "p1", None), order("2", "p2", None), order("3", "p0", Some(day))];
    server.graphql("shop", RECORD, json!({ "events": events })).await;
    let at = acclaim::domain::Timestamp::now();
    let at = if stack.postgres.is_some() { format!("'{at}'") } else { (at.as_ms() * 1_000).to_string() };
    stack.sql(&format!("INSERT INTO dead_letters VALUES ('0:1-7', 0, 1, 7, 'odd', 'it is odd', {at})")).await;
    until("both orders are shown", LIMIT, async || server.ranking(10).await.len() == 2).await;

    let shown = server.graphql("ann", ALL, json!({ "day": day })).await;
    let mut known = Vec::new();
    objects(&shown, &mut known);
    // An id names one object, wherever it stands, and no two.
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    for object in &known {
        let same = by_id.insert(object["nodeId"].as_str().unwrap(), object);
        assert!(same.is_none_or(|same| same == object), "{object} and {same:?}");
    }
    let ids: Vec<_> = known.iter().map(|object| object["nodeId"].clone()).collect();
    let found = server.graphql("ann", NODES, json!({ "ids": ids })).await["nodes"].clone();
    assert_eq!(found, json!(known));
    // Whatever says that it is a node was among them.
    let kinds: BTreeSet<_> = known.iter().map(|object| object["__typename"].as_str().unwrap()).collect();
    let schema = "{ __type(name: \"Node\") { possibleTypes { name } } }";
    let schema = server.graphql("ann", schema, json!({})).await;
    let nodes = schema["__type"]["possibleTypes"].as_array().unwrap();
    assert_eq!(kinds, nodes.iter().map(|kind| kind["name"].as_str().unwrap()).collect());

    // What an id leads to is whole: it can be asked for everything.
    let period = shown["board"]["period"]["nodeId"].clone();
    let query = "query($id: ID!) { node(nodeId: $id) { nodeId ... on Period { status entries { nodes { productId } } board { id } }
        ... on Board { ranking: current { position entries(first: 1) { totalCount } } } } }";
    let node = server.graphql("ann", query, json!({ "id": period })).await["node"].clone();
    let entries = json!({ "nodes": [{ "productId": "p0" }] });
    assert_eq!(node, json!({ "nodeId": period, "status": "CLOSED", "entries": entries, "board": { "id": "daily" } }));
    let board = server.graphql("ann", query, json!({ "id": shown["board"]["nodeId"] })).await["node"].clone();
    assert_eq!(board["ranking"]["entries"]["totalCount"], 2);

    // What is gone, never was, or is somebody else's.
    let mine = server.graphql("ann", "{ board(id: \"mine\") { nodeId current { nodeId } } }", json!({})).await["board"]
        .clone();
    admin("deleteBoard(input: { id: \"mine\", note: \"n\" }) { board { id } }").await;
    let gone = [
        mine["nodeId"].clone(),
        mine["current"]["nodeId"].clone(),
        json!(""),
        json!("p1"),
        json!("daily"),
        json!("WyIxcCJd"),
    ];
    let ids = json!({ "ids": gone });
    assert_eq!(server.graphql("ann", NODES, ids).await["nodes"], json!([null, null, null, null, null, null]));
    let viewer = json!({ "ids": [shown["viewer"]["nodeId"], shown["product"]["nodeId"]] });
    let others = server.graphql("bob", NODES, viewer).await["nodes"].clone();
    assert_eq!(others, json!([null, { "__typename": "Product", "nodeId": shown["product"]["nodeId"], "id": "p1" }]));
    let many =
        server.try_graphql(Some("ann"), NODES, json!({ "ids": vec![shown["product"]["nodeId"].clone(); 101] })).await;
    assert_eq!(told(&many.unwrap()["errors"][0])["code"], "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_admins_is_so_by_its_global_id_too() {
    let (stack, server) = guarded().await;
    let boss = token(&stack, "boss", &["admin", "ingest"]);
    let user = token(&stack, "ann", &["user"]);
    let ask = async |token: &str, query: &str, variables: Value| -> Value {
        let request = server.http.post(format!("{}/graphql", server.url)).bearer_auth(token);
        request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap().json().await.unwrap()
    };
    let change = "mutation {
        upsertProducts(input: { products: [{ id: \"p0\", name: \"Mug\" }] }) { upserted }
        setProductRule(input: { productId: \"p0\", boost: 2, note: \"n\" }) { rule { id } } }";
    assert!(ask(&boss, change, json!({})).await.get("errors").is_none());
    stack.sql("INSERT INTO dead_letters VALUES ('0:1-7', 0, 1, 7, 'odd', 'it is odd', 0)").await;
    let all = "{ product(id: \"p0\") { nodeId } admin { productRules { nodeId } auditLog { nodes { nodeId } } deadLetters { nodes { nodeId } } } }";
    let mut objects_of_admins = Vec::new();
    objects(&ask(&boss, all, json!({})).await, &mut objects_of_admins);
    let ids: Vec<_> = objects_of_admins.iter().map(|object| object["nodeId"].clone()).collect();
    assert_eq!(ids.len(), 4);
    let nodes = "query($ids: [ID!]!) { nodes(nodeIds: $ids) { nodeId } }";
    let whole = ask(&boss, nodes, json!({ "ids": ids })).await;
    assert_eq!(whole, json!({ "data": { "nodes": objects_of_admins } }));
    // The product is there, and each other one is refused by itself.
    let own = ask(&user, nodes, json!({ "ids": ids })).await;
    let errors = own["errors"].as_array().unwrap();
    let mut refused = 0;
    for (index, id) in ids.iter().enumerate() {
        let error = errors.iter().find(|error| error["path"] == json!(["nodes", index]));
        match error {
            None => assert_eq!(&own["data"]["nodes"][index]["nodeId"], id, "{own}"),
            Some(error) => {
                refused += 1;
                assert_eq!(
                    (&own["data"]["nodes"][index], &error["extensions"]["code"]),
                    (&Value::Null, &json!("FORBIDDEN"))
                );
            }
        }
    }
    assert_eq!((refused, errors.len()), (3, 3), "{own}");
}
