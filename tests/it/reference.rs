//! Documents answered as graphql-js, the reference implementation, answers them: a table of cases, and documents at random.

use std::collections::BTreeSet;
use std::fmt::Formatter;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::auth::{guarded_with, token};
use crate::npm::run;
use crate::support::stack::{Server, Setup, Stack};

/// JSON in which an object keeps the order of its keys.
#[derive(PartialEq, Debug, Clone)]
enum Ordered {
    Object(Vec<(String, Ordered)>),
    List(Vec<Ordered>),
    Leaf(Value),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl<'de> Visitor<'de> for Whole {
            type Value = Ordered;

            fn expecting(&self, formatter: &mut Formatter) -> std::fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered::Object(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::List(items))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(json!(value)))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(json!(value)))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(json!(value)))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(json!(value)))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(json!(value)))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(Value::Null))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}

impl Ordered {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Without the order.
    fn plain(&self) -> Value {
        match self {
            Self::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), value.plain())).collect(),
            Self::List(items) => items.iter().map(Self::plain).collect(),
            Self::Leaf(value) => value.clone(),
        }
    }

    /// Whether these keys come first, with these values, at every depth.
    fn begins_as(&self, prefix: &Self) -> bool {
        match (self, prefix) {
            (Self::Object(all), Self::Object(first)) => {
                all.len() >= first.len()
                    && all.iter().zip(first).all(|((key, value), (name, start))| key == name && value.begins_as(start))
            }
            (value, start) => value == start,
        }
    }
}

fn case(case: &Ordered, key: &str) -> Option<Value> {
    case.get(key).map(Ordered::plain)
}

async fn with_catalogue(setup: Setup, cases: &Ordered) -> (Stack, Server) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    let upsert =
        "mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }";
    server.graphql("shop", upsert, json!({ "products": case(cases, "catalogue") })).await;
    (stack, server)
}

/// The answer to a case's document, or to a query about what it has left.
async fn answer(server: &Server, viewer: &str, case: &Ordered) -> Ordered {
    let mut parts = serde_json::Map::new();
    for key in ["query", "variables", "operationName"] {
        parts.extend(case.get(key).map(|value| (key.to_owned(), value.plain())));
    }
    let url = format!("{}/graphql", server.url);
    let request = match case.get("method") {
        Some(method) => {
            assert_eq!(method.plain(), "GET");
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let address: Vec<_> = parts.iter().map(|(key, value)| (key, text(value))).collect();
            server.http.get(url).query(&address)
        }
        None => server.http.post(url).json(&parts),
    };
    let request = request.header("accept", "application/graphql-response+json").header("x-acclaim-user", viewer);
    let text = request.send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What an answer has wrong, if anything.
fn wrong(answer: &Ordered, expected: &Ordered) -> Option<String> {
    let errors = answer.get("errors").map_or_else(|| json!([]), Ordered::plain);
    let errors = errors.as_array().unwrap();
    if expected.get("refused").is_some() {
        return (answer.get("data").is_some() || errors.is_empty()).then(|| format!("was not refused: {answer:?}"));
    }
    let Some(data) = answer.get("data") else { return Some(format!("was refused: {errors:?}")) };
    let is_right = match (expected.get("data"), expected.get("prefix")) {
        (Some(whole), _) => data == whole,
        (None, prefix) => data.begins_as(prefix.expect("a case says what is answered")),
    };
    let told: BTreeSet<_> = errors.iter().map(|error| error["path"].to_string()).collect();
    let paths = expected.get("errorAt").map_or_else(|| json!([]), Ordered::plain);
    let paths: BTreeSet<_> = paths.as_array().unwrap().iter().map(Value::to_string).collect();
    (!is_right || told != paths).then(|| format!("answered {data:?}, errors at {told:?}"))
}

crate::both_setups!(
    every_case_is_answered_as_the_specification_has_it,
    documents_at_random_are_answered_as_by_graphql_js
);

async fn every_case_is_answered_as_the_specification_has_it(setup: Setup) {
    let cases: Ordered = serde_json::from_str(include_str!("../data/graphql-cases.json")).unwrap();
    let Some(Ordered::List(all)) = cases.get("cases") else { panic!("no cases") };
    assert!(all.len() > 30, "{} cases", all.len());
    let viewer = case(&cases, "viewer").unwrap();
    let viewer = viewer.as_str().unwrap();
    let (_stack, shared) = with_catalogue(setup, &cases).await;
    let mut failed = Vec::new();
    for one in all {
        let name = case(one, "name").unwrap();
        let changes = case(one, "query").unwrap().as_str().unwrap().starts_with("mutation");
        let own = if changes { Some(with_catalogue(setup, &cases).await) } else { None };
        let server = own.as_ref().map_or(&shared, |(_, server)| server);
        let expected = one.get("expect").unwrap();
        for _ in 0..case(one, "times").map_or(1, |times| times.as_u64().unwrap()) {
            failed.extend(wrong(&answer(server, viewer, one).await, expected).map(|why| format!("{name} {why}")));
        }
        if let Some(afterwards) = one.get("afterwards") {
            let left = answer(server, viewer, afterwards).await;
            failed.extend(wrong(&left, afterwards).map(|why| format!("{name}, afterwards: {why}")));
        }
    }
    assert!(failed.is_empty(), "{} are wrong:\n{}", failed.len(), failed.join("\n"));
}

/// Ten thousand for each set-up. Mutations stand in the table of cases.
async fn documents_at_random_are_answered_as_by_graphql_js(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    let named = |user: &str| json!({ "x-acclaim-user": user }).to_string();
    run("reference.mjs", vec![server.url.clone(), "10000".to_owned(), named("shop"), named("ann")]).await;
}

/// Fields that fail for want of a role, non-null ones of the root among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_a_user_without_roles_are_answered_as_by_graphql_js() {
    let (stack, server) = guarded_with(&["--budget", "0"]).await;
    let bearer = |user: &str, roles: &[&str]| {
        json!({ "authorization": format!("Bearer {}", token(&stack, user, roles)) }).to_string()
    };
    let everything = bearer("shop", &["user", "ingest", "admin"]);
    run("reference.mjs", vec![server.url.clone(), "2000".to_owned(), everything, bearer("ann", &["user"])]).await;
}
