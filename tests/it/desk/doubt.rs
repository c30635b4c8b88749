//! Changes of which nobody can say whether they were made, since the request timeout cut them off.
//!
//! What only reads is simply unavailable.

use serde_json::{Value, json};

use super::TIME_MAX;
use crate::support::gate::{Gate, Side};
use crate::support::live::Socket;
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

const ADJUST: &str = "mutation { adjustWeights(input: { board: \"daily\", note: \"test\",
    weights: [{ signal: ORDER, weight: 2 }] }) { version userErrors { code } } }";
const RULES: &str = "{ admin { weightRules { edges { node { id } } } } }";

/// Longer than the request timeout by enough for four requests on a loaded machine.
const LOCK: &str = "BEGIN; LOCK TABLE weight_rules IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(10); ROLLBACK";
const HELD: &str = "SELECT COUNT(*) FROM pg_locks WHERE relation = 'weight_rules'::regclass AND granted
    AND mode = 'AccessExclusiveLock'";

async fn over_http(server: &Server, path: &str, query: &str) -> Value {
    let request = server.http.post(format!("{}/{path}", server.url)).header("x-acclaim-user", "ada");
    let answer = request.json(&json!({ "query": query })).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    answer.json().await.unwrap()
}

async fn over_socket(server: &Server, query: &str) -> Value {
    let mut socket = Socket::connect(&server.url, json!({ "x-acclaim-user": "ada" })).await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": query } })).await;
    let mut message = socket.receive().await;
    assert_eq!(message["type"], "error", "{message}");
    json!({ "errors": message["payload"].take() })
}

/// Asserts that it is UNAVAILABLE with that outcome, and that nothing else is told.
fn assert_told(answer: &Value, outcome: &Value, way: &str) {
    let told = &answer["errors"][0]["extensions"];
    assert_eq!((&told["code"], &told["outcome"]), (&json!("UNAVAILABLE"), outcome), "{way}: {answer}");
    assert!(told["retryAfterMs"].is_number() && answer.get("data").is_none_or(Value::is_null), "{way}: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_request_timeout_cuts_off_may_have_been_made() {
    let mut stack = Stack::new(Setup::Servers).await;
    stack.arguments = ["--request-timeout", "2"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    let cut_off = async {
        until("the table is locked", TIME_MAX, async || stack.count(HELD).await == 1).await;
        let (http, sse, socket, read) = tokio::join!(
            over_http(&server, "graphql", ADJUST),
            over_http(&server, "graphql/stream", ADJUST),
            over_socket(&server, ADJUST),
            over_http(&server, "graphql", RULES),
        );
        assert_eq!(stack.count(HELD).await, 1, "the lock outlasts the requests");
        for (answer, way) in [(http, "HTTP"), (sse, "SSE"), (socket, "WebSocket")] {
            assert_told(&answer, &json!("UNKNOWN"), way);
        }
        assert_told(&read, &Value::Null, "a query");
    };
    tokio::join!(stack.sql(LOCK), cut_off);
    // They say the truth: a write that had begun when it was cut off is made all the same.
    until("a change is made", TIME_MAX, async || stack.count("SELECT COUNT(*) FROM weight_rules").await > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_commit_is_not_answered_may_have_been_made() {
    let mut stack = Stack::new(Setup::Servers).await;
    let url = stack.postgres.take().unwrap();
    let port = |url: &str| url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse::<u16>().unwrap();
    let gate = Gate::start(port(&url)).await;
    stack.postgres = Some(url.replace(&format!(":{}/", port(&url)), &format!(":{}/", gate.port())));
    let server = stack.serve().await;
    for (side, made) in [(Side::Request, 0), (Side::Answer, 1)] {
        gate.cut(side, "COMMIT", usize::MAX);
        let answer = server.try_graphql(Some("ada"), ADJUST, json!({})).await.unwrap();
        gate.cut(side, "COMMIT", 0);
        assert_told(&answer, &json!("UNKNOWN"), "a lost COMMIT");
        assert_eq!(stack.count("SELECT COUNT(*) FROM weight_rules").await, made, "{side:?}");
    }
    // Where the connection breaks before that, nothing was made.
    gate.cut(Side::Answer, "INSERT INTO \"weight_rules\"", 1);
    let answer = server.try_graphql(Some("ada"), ADJUST, json!({})).await.unwrap();
    assert_told(&answer, &Value::Null, "a lost statement");
    assert_eq!((gate.cuts_left(), stack.count("SELECT COUNT(*) FROM weight_rules").await), (0, 1));
}
