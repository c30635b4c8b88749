//! What a server leaves behind of people: in its log, in its file, and in what it says of its schema.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stack::{Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(nobody_is_named_in_warnings);

const LIMIT: Duration = Duration::from_secs(60);
/// Somebody whose name turns what follows it around.
const WHO: &str = "some-person\u{202e}\u{2028}";

async fn nobody_is_named_in_warnings(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(2).await;
    stack
        .sql(match setup {
            Setup::Servers => "ALTER TABLE events ADD CONSTRAINT no_p1 CHECK (product_id <> 'p1')",
            Setup::Embedded => {
                "CREATE TRIGGER no_p1 BEFORE INSERT ON events WHEN NEW.product_id = 'p1'
                 BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_p1'); END"
            }
        })
        .await;
    // A header takes only bytes of visible characters as a text; the rest goes as they are.
    let like = json!({ "query": TOGGLE, "variables": { "product": "p1", "key": "some-key" } });
    let name = reqwest::header::HeaderValue::from_bytes(WHO.as_bytes()).unwrap();
    until("the like is a dead letter", LIMIT, async || {
        let request = server.http.post(format!("{}/graphql", server.url)).header("x-acclaim-user", name.clone());
        let answer: Value = request.json(&like).send().await.unwrap().json().await.unwrap();
        answer["data"]["toggleLike"]["userErrors"][0]["code"] == "INVALID"
    })
    .await;
    let log = server.log();
    let loud: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).collect();
    assert!(loud.iter().any(|line| line.contains("dead letters")), "{log}");
    assert!(loud.iter().all(|line| !line.contains("some-person") && !line.contains("some-key")), "{loud:#?}");
    assert!(!log.contains(['\u{202e}', '\u{2028}']), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledgers_file_is_its_owners_alone() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    server.toggle("ann", "p0", None).await;
    let file = stack.sqlite_file();
    let folder = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap());
    let mut modes = Vec::new();
    for entry in folder.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Locks hold nothing.
        name.starts_with("acclaim.db") && !name.ends_with(".lock")
    }) {
        modes.push((entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777));
    }
    assert!(modes.len() >= 2 && modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_not_told_is_not_hinted_at() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = ["--introspection", "false"].map(ToString::to_string).to_vec();
    let server = stack.serve().await;
    for (query, kept) in [
        ("{ rankin { id } }", "ranking"),
        ("{ ranking(frist: 1) { totalCount } }", "first"),
        ("{ ranking { totalCoun } }", "totalCount"),
        ("{ ranking }", "totalCount"),
        ("{ node(nodeId: \"x\") { ... on Produc { id } } }", "Product"),
    ] {
        let answer = server.try_graphql(None, query, json!({})).await.unwrap().to_string();
        assert!(answer.contains("BAD_USER_INPUT"), "{answer}");
        assert!(!answer.contains("Did you mean") && !answer.contains(kept), "{query}: {answer}");
    }
}
