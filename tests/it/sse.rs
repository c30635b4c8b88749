//! Server-sent events as a client meets them on the wire.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::auth::{guarded_with, token};
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

const LIMIT: Duration = Duration::from_secs(20);
const LIVE: &str = "subscription { boardChanges { seq } }";

fn ask(server: &Server, query: &str) -> reqwest::RequestBuilder {
    let request = server.http.post(format!("{}/graphql/stream", server.url)).header("accept", "text/event-stream");
    request.json(&json!({ "query": query }))
}

/// A stream, read event by event.
struct Events {
    response: Response,
    read: String,
}

impl Events {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!((header("cache-control").as_str(), header("x-accel-buffering").as_str()), ("no-cache", "no"));
        Self { response, read: String::new() }
    }

    /// The next event or comment, as it is written; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(event);
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await.expect("an event in time").unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn payload(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        serde_json::from_str(event.strip_prefix("event: next\ndata: ").unwrap_or_else(|| panic!("{event}"))).unwrap()
    }
}

async fn refusal(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["errors"][0]["extensions"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_is_one_stream() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let mut query = Events::of(ask(&server, "{ viewer { id } }").header("x-acclaim-user", "ann")).await;
    assert_eq!(query.next().await.as_deref(), Some(":"));
    assert_eq!(query.payload().await, json!({ "data": { "viewer": { "id": "ann" } } }));
    assert_eq!(query.next().await.as_deref(), Some("event: complete\ndata:"));
    assert_eq!(query.next().await, None);

    // As a browser's EventSource asks.
    let address = server.http.get(format!("{}/graphql/stream", server.url)).header("accept", "text/event-stream");
    let mut live = Events::of(address.query(&[("query", LIVE)])).await;
    live.next().await;
    assert!(live.payload().await["data"]["boardChanges"]["seq"].is_number());

    let bad = |extensions: Value| (extensions["code"].clone(), extensions["argument"].clone());
    let json_only = server.http.post(format!("{}/graphql/stream", server.url)).header("accept", "application/json");
    let (status, error) = refusal(json_only.json(&json!({ "query": LIVE }))).await;
    assert_eq!((status, bad(error)), (406, (json!("BAD_USER_INPUT"), json!("accept"))));
    let (status, error) = refusal(ask(&server, LIVE).header("origin", "https://evil.example")).await;
    assert_eq!((status, bad(error)), (403, (json!("BAD_USER_INPUT"), json!("origin"))));
    let (status, error) = refusal(ask(&server, "")).await;
    assert_eq!((status, bad(error)), (400, (json!("BAD_USER_INPUT"), json!("query"))));
    let like = "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }";
    let by_get = server.http.get(format!("{}/graphql/stream", server.url)).query(&[("query", like)]);
    assert_eq!(refusal(by_get).await.0, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_weights_are_told_by_this_way_too() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let query = "subscription { weightsChanged { version cancelled note weights { signal weight } } }";
    let mut told = Events::of(ask(&server, query).header("x-acclaim-user", "ann")).await;
    assert_eq!(told.next().await.as_deref(), Some(":"));
    let open = "{ admin { system { subscriptions } } }";
    until("the stream is followed", LIMIT, async || {
        server.graphql("ann", open, json!({})).await["admin"]["system"]["subscriptions"] == 1
    })
    .await;
    let adjust = "mutation { adjustWeights(input: { weights: [{ signal: VIEW, weight: 0.01 }], note: \"less\" })
        { rule { id } userErrors { message } } }";
    let rule = server.graphql("ann", adjust, json!({})).await["adjustWeights"]["rule"]["id"].clone();
    let cancel = "mutation($id: ID!) { cancelWeights(input: { id: $id, note: \"no\" }) { userErrors { message } } }";
    server.graphql("ann", cancel, json!({ "id": rule })).await;
    for cancelled in [false, true] {
        let change = loop {
            let event = told.next().await.expect("an event");
            // A comment says that the stream is alive.
            if let Some(payload) = event.strip_prefix("event: next\ndata: ") {
                break serde_json::from_str::<Value>(payload).unwrap();
            }
        };
        let expected = json!({ "version": 1, "cancelled": cancelled, "note": "less", "weights": [{ "signal": "VIEW", "weight": 0.01 }] });
        assert_eq!(change["data"]["weightsChanged"], expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_complete_when_the_server_stops() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let mut live = Events::of(ask(&server, LIVE)).await;
    live.next().await;
    live.payload().await;
    let (stopped, ()) = tokio::join!(server.terminate(), async {
        while let Some(event) = live.next().await {
            if event == "event: complete\ndata:" {
                assert_eq!(live.next().await, None);
                return;
            }
        }
        panic!("the stream ended without a word");
    });
    assert!(stopped.0.success() && stopped.1 < Duration::from_secs(4), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_connections_are_counted_and_given_back() {
    let (stack, server) = guarded_with(&["--connections-per-user", "1", "--connections-per-address", "2"]).await;
    let (ann, bob) = (token(&stack, "ann", &["user"]), token(&stack, "bob", &["user"]));
    let by = |token: &str| ask(&server, LIVE).bearer_auth(token);
    let limit = async |request: reqwest::RequestBuilder| {
        let (status, extensions) = refusal(request).await;
        assert_eq!((status, &extensions["code"]), (429, &json!("LIMIT_EXCEEDED")));
        (extensions["limit"].clone(), extensions["value"].clone())
    };
    let first = Events::of(by(&ann)).await;
    assert_eq!(limit(by(&ann)).await, (json!("connectionsPerUser"), json!(1)));
    let _second = Events::of(by(&bob)).await;
    assert_eq!(limit(ask(&server, LIVE)).await, (json!("connectionsPerAddress"), json!(2)));
    // Queries are no live connections, and who goes makes room.
    assert_eq!(server.try_graphql(None, "{ __typename }", json!({})).await.unwrap()["data"]["__typename"], "Query");
    drop(first);
    until("ann's place is free", LIMIT, async || by(&ann).send().await.unwrap().status() == StatusCode::OK).await;
}
