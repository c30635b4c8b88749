//! Server-sent events as a client meets them on the wire.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::auth::{guarded_with, token};
use crate::support::stack::{RECORD, Server, Setup, Stack};
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
        let unbuffered = (header("cache-control"), header("x-accel-buffering"));
        assert_eq!(unbuffered, ("no-cache, no-transform".to_owned(), "no".to_owned()));
        let mut events = Self { response, read: String::new() };
        let start = events.next().await.unwrap();
        let retry_ms = start.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n:")).expect(&start);
        assert!((1_000..3_000).contains(&retry_ms.parse().unwrap()), "{start}");
        events
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
        self.event().await.1
    }

    /// The next payload, and its id, if it has one.
    async fn event(&mut self) -> (Option<String>, Value) {
        loop {
            let event = self.next().await.expect("an event");
            // A comment says that the stream is alive.
            if event == ":" {
                continue;
            }
            let rest = event.strip_prefix("event: next\n").unwrap_or_else(|| panic!("{event}"));
            let (head, data) = rest.split_once("data: ").unwrap();
            let id = head.strip_prefix("id: ").map(|id| id.trim_end().to_owned());
            assert_eq!(id.is_none(), head.is_empty(), "{event}");
            return (id, serde_json::from_str(data).unwrap());
        }
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
    assert_eq!(query.payload().await, json!({ "data": { "viewer": { "id": "ann" } } }));
    assert_eq!(query.next().await.as_deref(), Some("event: complete\ndata:"));
    assert_eq!(query.next().await, None);

    // As a browser's EventSource asks.
    let address = server.http.get(format!("{}/graphql/stream", server.url)).header("accept", "text/event-stream");
    let mut live = Events::of(address.query(&[("query", LIVE)])).await;
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
        let (id, change) = told.event().await;
        assert_eq!(id, None, "nothing to go on from");
        let expected = json!({ "version": 1, "cancelled": cancelled, "note": "less", "weights": [{ "signal": "VIEW", "weight": 0.01 }] });
        assert_eq!(change["data"]["weightsChanged"], expected);
    }
}

/// Clients come back from a stream that breaks off, and never from one that was said to be complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_break_off_when_the_server_stops() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let mut live = Events::of(ask(&server, LIVE)).await;
    live.payload().await;
    let (stopped, ()) = tokio::join!(server.terminate(), async {
        while let Some(event) = live.next().await {
            assert!(!event.contains("complete"), "{event}");
        }
    });
    assert!(stopped.0.success() && stopped.1 < Duration::from_secs(4), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_complete_when_its_board_is_deleted() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    let save =
        "mutation { saveBoard(input: { id: \"mine\", title: \"Mine\", window: DAY }) { userErrors { message } } }";
    server.graphql("boss", save, json!({})).await;
    let mut live = Events::of(ask(&server, "subscription { boardChanges(board: \"mine\") { seq } }")).await;
    live.payload().await;
    server
        .graphql(
            "boss",
            "mutation { deleteBoard(input: { id: \"mine\", note: \"why\" }) { userErrors { message } } }",
            json!({}),
        )
        .await;
    let why = loop {
        let event = live.payload().await;
        if event["data"].is_null() {
            break event;
        }
    };
    assert_eq!(why["errors"][0]["extensions"]["argument"], "board", "{why}");
    assert_eq!(live.next().await.as_deref(), Some("event: complete\ndata:"));
    assert_eq!(live.next().await, None);
}

crate::both_setups!(a_stream_goes_on_from_its_last_event);

/// An EventSource sends the document that it began with, and the last id that it has seen.
async fn a_stream_goes_on_from_its_last_event(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    let order = async |id: &str, product: &str| {
        let event = json!({ "id": id, "signal": "ORDER", "productId": product });
        server.graphql("shop", RECORD, json!({ "events": [event] })).await;
    };
    let query = "subscription { boardChanges { __typename seq
        ... on BoardSnapshot { reason } ... on BoardDelta { fromSeq changes { productId toRank } } } }";
    let open = async |last: Option<&str>| {
        let request = ask(&server, query);
        Events::of(last.map_or(request.try_clone().unwrap(), |last| request.header("last-event-id", last))).await
    };
    let mut live = open(None).await;
    order("one", "p0").await;
    let (id, seq) = loop {
        let (id, event) = live.event().await;
        let event = &event["data"]["boardChanges"];
        let id = id.expect("every state has a position");
        assert!(id.ends_with(&format!("-{}", event["seq"])), "{id} {event}");
        if event["__typename"] == "BoardDelta" || event["seq"] != 0 && event["reason"] != "INITIAL" {
            break (id, event["seq"].clone());
        }
    };
    // Heartbeats have the id of what is held already; they come once nothing else does.
    let (id, seq) = async {
        let (mut id, mut seq) = (id, seq);
        while let (Some(next), event) = live.event().await {
            let event = &event["data"]["boardChanges"];
            let is_settled = event["__typename"] == "BoardHeartbeat";
            assert!(!is_settled || next == id, "{event}");
            (id, seq) = (next, event["seq"].clone());
            if is_settled {
                break;
            }
        }
        (id, seq)
    }
    .await;
    drop(live);
    order("two", "p1").await;
    let is_there = "{ ranking { totalCount period { position } } }";
    until("what was missed is published", LIMIT, async || {
        let page = server.graphql("ann", is_there, json!({})).await["ranking"].clone();
        let position = page["period"]["position"].as_str().unwrap();
        page["totalCount"] == 2 && !position.ends_with('+')
    })
    .await;
    let mut back = open(Some(&id)).await;
    let (next, delta) = back.event().await;
    let delta = &delta["data"]["boardChanges"];
    assert_eq!(delta["fromSeq"], seq, "{delta}");
    let changes = json!([{ "productId": "p1", "toRank": 1 }, { "productId": "p0", "toRank": 2 }]);
    assert_eq!(delta["changes"], changes, "all that was missed, and no more");
    let next = next.unwrap();
    drop(back);
    // Nothing was missed: the first that is heard is the next change.
    let mut back = open(Some(&next)).await;
    order("three", "p2").await;
    assert_eq!(back.payload().await["data"]["boardChanges"]["__typename"], "BoardDelta");
    for (last, reason) in [("1-999999", "GAP"), ("0-7", "RECOVERED"), ("yesterday", "INITIAL")] {
        let first = open(Some(last)).await.payload().await;
        assert_eq!(first["data"]["boardChanges"]["reason"], reason, "{last}: {first}");
    }
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
