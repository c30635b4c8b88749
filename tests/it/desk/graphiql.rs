//! What the tabs of `/graphiql` hold works as it stands: each is run in the order in which the page shows them.

use std::collections::BTreeMap;

use async_graphql::parser::parse_query;
use async_graphql::parser::types::OperationType;
use serde_json::{Value, json};

use super::Desk;
use crate::support::live::Socket;
use crate::support::stack::Setup;

crate::both_setups!(every_tab_of_graphiql_works);

/// The documents of the page's tabs, with their variables.
fn tabs(page: &str) -> Vec<(String, Value)> {
    let tab = |text: &str| {
        let (document, rest) = text.split_once('`').unwrap();
        let variables = rest.strip_prefix(", ").map_or(json!({}), |rest| {
            // What follows the value is the page's.
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            values.next().unwrap().unwrap_or_else(|error| panic!("the variables are no JSON: {error}: {rest}"))
        });
        (document.to_owned(), variables)
    };
    page.split("tab(`").skip(1).map(tab).collect()
}

/// Puts instants in the place of what the page's own script replaces.
fn in_time(variables: Value) -> Value {
    match variables {
        Value::String(text) => match text.strip_prefix("<in ").and_then(|rest| rest.strip_suffix(" h>")) {
            Some(hours) => {
                let later = jiff::SignedDuration::from_hours(hours.parse().unwrap());
                json!((jiff::Timestamp::now() + later).to_string())
            }
            None => json!(text),
        },
        Value::Array(values) => values.into_iter().map(in_time).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, in_time(value))).collect(),
        other => other,
    }
}

fn errors_within(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Array(errors) if name == "userErrors" => found.extend(errors.clone()),
                    value => errors_within(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| errors_within(value, found)),
        _ => {}
    }
}

async fn every_tab_of_graphiql_works(setup: Setup) {
    let desk = Desk::new(setup).await;
    let page = desk
        .server
        .http
        .get(format!("{}/graphiql/page.js", desk.server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let tabs = tabs(&page);
    // The catalogue comes from a tab that stands after those that like and look.
    let stock = tabs.iter().position(|(document, _)| document.contains("mutation Stock")).unwrap();
    let order = std::iter::once(stock).chain((0..tabs.len()).filter(|tab| *tab != stock));
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    for (document, variables) in order.map(|tab| tabs[tab].clone()) {
        let parsed = parse_query(&document).unwrap();
        let mut operations: Vec<_> = parsed.operations.iter().collect();
        operations.sort_by_key(|(_, operation)| operation.pos);
        for (name, operation) in operations {
            let name = name.unwrap_or_else(|| panic!("a tab is named after its operation: {document}")).to_string();
            let mut payload =
                json!({ "query": document, "variables": in_time(variables.clone()), "operationName": name });
            let declared = &operation.node.variable_definitions;
            let is_declared =
                |variable: &String| declared.iter().any(|known| known.node.name.node == variable.as_str());
            payload["variables"].as_object_mut().unwrap().retain(|variable, _| is_declared(variable));
            let answer = if operation.node.ty == OperationType::Subscription {
                let mut socket = Socket::connect(&desk.server.url, json!({})).await;
                socket.send(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
                socket.receive().await["payload"].clone()
            } else {
                let request =
                    desk.server.http.post(format!("{}/graphql", desk.server.url)).header("x-acclaim-user", "ann");
                request.json(&payload).send().await.unwrap().json().await.unwrap()
            };
            assert!(answer.get("errors").is_none() && !answer["data"].is_null(), "{name}: {answer}");
            let mut refused = Vec::new();
            errors_within(&answer["data"], &mut refused);
            assert!(refused.is_empty(), "{name}: {refused:?}");
            assert!(done.insert(name.clone(), answer["data"].clone()).is_none(), "two tabs are named {name}");
        }
    }
    for wanted in ["Preview", "ChangeWeight", "Revert", "Campaign", "Explain", "System"] {
        assert!(done.contains_key(wanted), "no tab {wanted}: {:?}", done.keys());
    }
    assert_eq!(done["Revert"]["cancelWeights"]["rule"]["cancelled"], true, "{}", done["Revert"]);
    let campaign = &done["Campaign"]["adjustWeights"]["rule"];
    assert!(campaign["from"].is_string() && campaign["until"].is_string(), "{campaign}");
    assert!(!done["Explain"]["ranking"]["nodes"][0]["explanation"]["lines"].as_array().unwrap().is_empty());
    let moves = &done["Preview"]["admin"]["weightPreview"]["moves"];
    assert!(!moves.as_array().unwrap().is_empty(), "{}", done["Preview"]);
}
