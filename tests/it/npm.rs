//! Clients from npm that people use, against a running server. `scripts/test` installs them into tests/clients.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::auth::{SECRET, guarded, token};
use crate::support::stack::{Setup, Stack};

/// Runs a script of tests/clients, which fails by its exit code.
pub async fn run(script: &str, arguments: Vec<String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(folder.join("node_modules").is_dir(), "no clients are installed: run npm ci --prefix tests/clients");
    let mut command = Command::new("node");
    command.arg(folder.join(script)).args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("node is in PATH");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}:\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_audit_of_graphql_over_http_passes() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    run("http-audits.mjs", vec![server.url.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_sse_reads_streams() {
    run_signed_in("sse.mjs").await;
}

/// Runs a script against a server that wants tokens, with one of the roles that it needs.
async fn run_signed_in(script: &str) {
    let (stack, server) = guarded().await;
    let token = token(&stack, "ann", &["user", "ingest"]);
    run(script, vec![server.url.clone(), token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_ws_comes_back_and_misses_nothing() {
    run_signed_in("ws.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_source_comes_back_and_misses_nothing() {
    run_signed_in("eventsource.mjs").await;
}

/// Every client as its authors made it, without a word about reconnecting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_back_after_a_stop_and_after_their_token() {
    let mut stack = Stack::new(Setup::Servers).await;
    stack.arguments = ["--jwt-secret", SECRET].map(str::to_owned).to_vec();
    let (first, second) = (stack.serve().await, stack.serve().await);
    let arguments = [first.url.clone(), first.pid().to_string(), second.url.clone(), SECRET.to_owned()];
    run("back.mjs", arguments.to_vec()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apollo_client_keeps_a_page_up_to_date() {
    run_signed_in("apollo.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_js_builds_the_schema() {
    run("sdl.mjs", vec![concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql").to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_compiles_the_schema_and_refetches_by_global_ids() {
    let (stack, server) = guarded().await;
    let (own, another) = (token(&stack, "ann", &["user", "ingest"]), token(&stack, "bob", &["user"]));
    run("relay.mjs", vec![server.url.clone(), own, another]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urql_shows_what_changes() {
    run_signed_in("urql.mjs").await;
}
