//! What visitors, users and admins are told of what admins decide, and of what scores are made of, where tokens say who calls.

use serde_json::{Value, json};

use super::ask::{Asking, Live, Transport, code};
use crate::auth::{guarded, guarded_with, token};
use crate::support::stack::Server;
use crate::support::until;

/// Nobody, a user, and an admin, each with the code with which it is refused what only admins may see.
fn callers(user: &str, admin: &str) -> [(Option<String>, Option<&'static str>); 3] {
    [(None, Some("UNAUTHENTICATED")), (Some(user.to_owned()), Some("FORBIDDEN")), (Some(admin.to_owned()), None)]
}

async fn ask(server: &Server, token: Option<&str>, query: &str) -> Value {
    Asking::over(Transport::Http, server, token).await.ask(query).await
}

/// Makes a rule, and says which version it is.
async fn adjust(server: &Server, admin: &str, more: &str) -> i64 {
    let mutation = format!(
        "mutation {{ adjustWeights(input: {{ weights: [{{ signal: ORDER, weight: 2 }}], note: \"our secret\" {more} }}) {{ version userErrors {{ message }} }} }}"
    );
    let answer = ask(server, Some(admin), &mutation).await;
    answer["data"]["adjustWeights"]["version"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authors_notes_and_rules_to_come_are_for_admins() {
    let (stack, server) = guarded().await;
    let (user, admin) = (token(&stack, "ann", &["user"]), token(&stack, "boss", &["admin"]));
    let counts = adjust(&server, &admin, "").await;
    let to_come = adjust(&server, &admin, ", from: \"2999-01-01T00:00:00Z\"").await;
    let at_dawn = adjust(&server, &admin, ", hours: [5], from: \"2020-01-01T00:00:00Z\"").await;
    let query = "{ board { title weights { version nodeId createdBy note from } } }";
    for (token, refused) in callers(&user, &admin) {
        let answer = ask(&server, token.as_deref(), query).await;
        let board = &answer["data"]["board"];
        assert_eq!(board["title"], "Daily", "the rest is there: {answer}");
        let rules = board["weights"].as_array().unwrap();
        let mut versions: Vec<_> = rules.iter().map(|rule| rule["version"].as_i64().unwrap()).collect();
        versions.sort_unstable();
        let Some(refused) = refused else {
            assert!(answer.get("errors").is_none(), "{answer}");
            assert!(versions.contains(&to_come), "{answer}");
            assert!(rules.iter().all(|rule| rule["note"] == "our secret" && rule["createdBy"] == "boss"), "{answer}");
            continue;
        };
        // At dawn, the rule for dawn is the newest that counts.
        assert!(versions.iter().all(|version| [counts, at_dawn].contains(version)), "{answer}");
        assert!(!answer.to_string().contains("our secret") && !answer.to_string().contains("boss"), "{answer}");
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 2 * rules.len(), "an author and a note of each: {answer}");
        for error in errors {
            assert_eq!(error["extensions"]["code"], refused);
            assert!(
                ["createdBy", "note"].contains(&error["path"].as_array().unwrap().last().unwrap().as_str().unwrap())
            );
        }
        let plain = ask(&server, token.as_deref(), "{ board { weights { version from weights { weight } } } }").await;
        assert!(plain.get("errors").is_none(), "what anyone may read comes without an error: {plain}");
    }
    // By its global id a rule is found by whom it is listed for.
    let answer = ask(&server, Some(&admin), "{ admin { weightRules { nodes { version nodeId } } } }").await;
    for rule in answer["data"]["admin"]["weightRules"]["nodes"].as_array().unwrap() {
        let query = format!("{{ node(nodeId: {}) {{ ... on WeightRule {{ version }} }} }}", rule["nodeId"]);
        for (token, refused) in callers(&user, &admin) {
            let found = ask(&server, token.as_deref(), &query).await;
            let is_hidden = rule["version"] == to_come && refused.is_some();
            let expected = if is_hidden { Value::Null } else { json!({ "version": rule["version"] }) };
            assert_eq!(found, json!({ "data": { "node": expected } }), "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_told_what_they_may_read_whoever_listens_beside_them() {
    let (stack, server) = guarded().await;
    let (user, admin) = (token(&stack, "ann", &["user"]), token(&stack, "boss", &["admin"]));
    let rules = "subscription { weightsChanged { version note } }";
    let board = "subscription { boardChanges { ... on BoardSnapshot { period { board { weights { note } } } } } }";
    adjust(&server, &admin, "").await;
    let mut listeners = Vec::new();
    for transport in [Transport::WebSocket, Transport::EventStream] {
        for (token, refused) in callers(&user, &admin) {
            let mut shown = Live::open(transport, &server, token.as_deref(), board).await;
            let first = shown.next().await;
            let note = &first["data"]["boardChanges"]["period"]["board"]["weights"][0]["note"];
            assert_eq!((code(&first), note.as_str()), (refused, refused.is_none().then_some("our secret")), "{first}");
            listeners.push((Live::open(transport, &server, token.as_deref(), rules).await, refused));
        }
    }
    until("all listen", std::time::Duration::from_secs(20), async || {
        let open = ask(&server, Some(&admin), "{ admin { system { subscriptions } } }").await;
        open["data"]["admin"]["system"]["subscriptions"].as_u64() >= Some(listeners.len() as u64)
    })
    .await;
    let to_come = adjust(&server, &admin, ", from: \"2999-01-01T00:00:00Z\"").await;
    let cancel = format!("mutation {{ cancelWeights(input: {{ id: \"{to_come}\", note: \"no\" }}) {{ version }} }}");
    assert!(ask(&server, Some(&admin), &cancel).await.get("errors").is_none());
    let counts = adjust(&server, &admin, "").await;
    for (mut listener, refused) in listeners {
        let versions = if refused.is_none() { vec![to_come, to_come, counts] } else { vec![counts] };
        for version in versions {
            let told = listener.next().await;
            assert_eq!(told["data"]["weightsChanged"]["version"], version, "{told}");
            assert_eq!(code(&told), refused, "{told}");
            assert_eq!(told["data"]["weightsChanged"]["note"].as_str(), refused.is_none().then_some("our secret"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanations_are_for_whom_the_setting_says() {
    // Of nobody, a user and an admin, how many are refused.
    for (setting, refused) in [(&[][..], 2), (&["--explanations", "users"], 1), (&["--explanations", "anyone"], 0)] {
        let (stack, server) = guarded_with(setting).await;
        let (user, admin) = (token(&stack, "ann", &["user"]), token(&stack, "boss", &["admin", "ingest"]));
        let stock = "mutation { upsertProducts(input: { products: [{ id: \"p0\", name: \"Mug\" }] }) { upserted }
            recordEvents(input: { events: [{ id: \"o\", signal: ORDER, productId: \"p0\" }] }) { recorded } }";
        assert!(ask(&server, Some(&admin), stock).await.get("errors").is_none());
        adjust(&server, &admin, "").await;
        let query = "{ ranking { nodes { productId explanation { lines { count note } } } } }";
        until("the order is ranked", std::time::Duration::from_secs(20), async || {
            ask(&server, None, "{ ranking { nodes { score } } }").await["data"]["ranking"]["nodes"][0]["score"] == 2.0
        })
        .await;
        let live =
            "subscription { boardChanges { ... on BoardSnapshot { entries { explanation { lines { note } } } } } }";
        for (number, (token, code_of_refusal)) in callers(&user, &admin).into_iter().enumerate() {
            let answer = ask(&server, token.as_deref(), query).await;
            let node = &answer["data"]["ranking"]["nodes"][0];
            assert_eq!(node["productId"], "p0", "the rest is there: {setting:?}: {answer}");
            if number < refused {
                assert_eq!((code(&answer), &node["explanation"]), (code_of_refusal, &Value::Null), "{answer}");
            } else {
                // What an admin has noted is for admins all the same.
                let note = if code_of_refusal.is_none() { "rule 1: our secret" } else { "rule 1" };
                let expected = json!({ "lines": [{ "count": 1, "note": note }] });
                assert_eq!((answer.get("errors"), &node["explanation"]), (None, &expected), "{setting:?}: {answer}");
            }
            let mut live = Live::open(Transport::WebSocket, &server, token.as_deref(), live).await;
            let shown = live.next().await;
            let explained = &shown["data"]["boardChanges"]["entries"][0]["explanation"];
            assert_eq!(explained["lines"][0]["note"], node["explanation"]["lines"][0]["note"], "{setting:?}: {shown}");
        }
    }
}
