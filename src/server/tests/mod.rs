//! The transports, over real sockets, with an empty node behind them: what needs more belongs to `tests/it`.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

mod panics;
mod preflight;

use super::*;
use crate::engine::EngineLimits;
use crate::engine::memory::MemoryEngine;
use crate::graphql::{self, DocumentLimits, OpenSubscriptions};
use crate::ledger::Ledger;
use crate::pipeline::Settings;
use auth::{Claims, Keys, sign};

const SECRET: &str = "a secret of thirty-two bytes or more";
const TIME_MAX: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(auth: Auth) -> Self {
        Self::with_api(auth, Api::new).await
    }

    async fn with_api(auth: Auth, api: impl FnOnce(Arc<Hub>, DocumentLimits) -> Api) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::connect(&format!("sqlite://{}", folder.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let engine = Arc::new(MemoryEngine::new(EngineLimits::default()));
        let app = App::start(engine, ledger, Settings::default()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let limits = Limits { body_len: 10_000, ..Limits::default() };
        let api = api(Hub::start(&app), limits.documents);
        let origins = Origins::new(&["https://shop.example".to_owned()]).unwrap();
        let site = Site::new(api, auth, origins, limits, Proxies::default(), Readers::Admins, shutdown.clone());
        let ended = tokio::spawn(run(listener, routes(site.clone()), site));
        Self { address, shutdown, ended, _folder: folder }
    }

    async fn open() -> Self {
        Self::start(Auth::Open).await
    }

    async fn with_tokens() -> Self {
        Self::start(Auth::Tokens(Keys::new(Some(SECRET), None).unwrap())).await
    }

    fn post(&self) -> reqwest::RequestBuilder {
        reqwest::Client::new().post(format!("http://{}/graphql", self.address))
    }

    async fn query(&self, query: &str, header: Option<(&str, &str)>) -> (u16, Value) {
        let mut request = self.post().json(&json!({ "query": query }));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn socket(&self, origin: Option<&str>) -> Result<Socket, Error> {
        let mut request = format!("ws://{}/graphql/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Socket(socket))
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(TIME_MAX, self.0.next()).await.expect("an answer in time").unwrap().unwrap()
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.unwrap().code.into();
            }
        }
    }
}

/// What the first error says besides its message and the request's id.
fn told(body: &Value) -> Value {
    let mut extensions = body["errors"][0]["extensions"].clone();
    let id = extensions.as_object_mut().and_then(|fields| fields.remove("requestId"));
    assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| id.len() == 16)), "{body}");
    extensions
}

fn code(body: &Value) -> &str {
    body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none")
}

fn bearer(roles: &[&str]) -> String {
    let roles = roles.iter().map(ToString::to_string).collect();
    let claims =
        Claims { sub: "ann".into(), exp: jsonwebtoken::get_current_timestamp() + 60, roles, ..Claims::default() };
    format!("Bearer {}", sign(SECRET, &claims).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_mode_takes_the_header_s_word() {
    let server = Server::open().await;
    let (status, body) = server.query("{ viewer { id roles } }", Some(("x-acclaim-user", "ann"))).await;
    assert_eq!((status, &body["data"]["viewer"]["id"]), (200, &json!("ann")));
    assert_eq!(body["data"]["viewer"]["roles"], json!(["USER", "INGEST", "ADMIN", "METRICS"]));
    assert_eq!(server.query("{ viewer { id } }", None).await.1, json!({ "data": { "viewer": null } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_come_before_arguments() {
    let server = Server::with_tokens().await;
    let like = r#"mutation { toggleLike(input: { productId: "" }) { changed } }"#;
    let record = "mutation { recordEvents(input: { events: [] }) { recorded } }";
    let adjust = r#"mutation { adjustWeights(input: { weights: [], note: "" }) { version } }"#;
    for query in [like, record, adjust, "{ admin { __typename } }"] {
        assert_eq!(code(&server.query(query, None).await.1), "UNAUTHENTICATED", "{query}");
    }
    let user = bearer(&["USER"]);
    for query in [record, adjust, "{ admin { __typename } }"] {
        assert_eq!(code(&server.query(query, Some(("authorization", &user))).await.1), "FORBIDDEN", "{query}");
    }
    let ingest = bearer(&["INGEST"]);
    assert_eq!(code(&server.query(record, Some(("authorization", &ingest))).await.1), "BAD_USER_INPUT");
    let admin = bearer(&["ADMIN"]);
    let (_, body) = server.query("{ admin { __typename } }", Some(("authorization", &admin))).await;
    assert_eq!(body["data"]["admin"]["__typename"], "Admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_no_anonymous_caller() {
    let server = Server::with_tokens().await;
    let (status, body) = server.query("{ __typename }", Some(("authorization", "Bearer nonsense"))).await;
    assert_eq!((status, code(&body)), (401, "UNAUTHENTICATED"));
    assert!(body.get("data").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_requests_are_told_so() {
    let server = Server::open().await;
    let sent = async |content_type: &str, body: String| {
        let response = server.post().header("content-type", content_type).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, code(&body).to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let json = "application/json";
    assert_eq!(sent(json, "{".to_owned()).await, is(400, "BAD_USER_INPUT"));
    assert_eq!(sent(json, "{}".to_owned()).await, is(400, "BAD_USER_INPUT"));
    assert_eq!(sent(json, "[]".to_owned()).await, is(400, "BAD_USER_INPUT"));
    assert_eq!(sent("text/plain", r#"{"query":"{__typename}"}"#.to_owned()).await, is(415, "BAD_USER_INPUT"));
    let large = json!({ "query": "{__typename}", "variables": { "x": "x".repeat(10_000) } });
    assert_eq!(sent(json, large.to_string()).await, is(413, "LIMIT_EXCEEDED"));
    assert_eq!(
        sent("Application/JSON; charset=utf-8", r#"{"query":"{__typename}"}"#.to_owned()).await,
        is(200, "none")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_can_not_run_have_no_data() {
    let server = Server::open().await;
    for (query, expected) in [
        ("{ nothing }", "BAD_USER_INPUT"),
        ("{ viewer { id }", "BAD_USER_INPUT"),
        ("{ ranking(first: \"x\") { totalCount } }", "BAD_USER_INPUT"),
    ] {
        let (status, body) = server.query(query, None).await;
        assert_eq!((status, code(&body)), (200, expected), "{query}");
        assert!(body.get("data").is_none(), "{query}");
        let response = server
            .post()
            .header("accept", "application/graphql-response+json, application/json;q=0.9")
            .json(&json!({ "query": query }));
        let response = response.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{query}");
        assert_eq!(response.headers()["content-type"], "application/graphql-response+json; charset=utf-8");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_limited_but_not_for_tools() {
    let server = Server::open().await;
    let nested = |levels: usize| {
        let (open, close) = (" product { entry {".repeat(levels), "}}".repeat(levels));
        format!("{{ ranking {{ nodes {{ {open} rank {close} }} }} }}")
    };
    for (levels, limit, value) in [(5, "depth", 12), (15, "nesting", 30), (40, "brackets", 50)] {
        let (_, body) = server.query(&nested(levels), None).await;
        let expected = json!({ "code": "LIMIT_EXCEEDED", "limit": limit, "value": value });
        assert_eq!(told(&body), expected, "{body}");
    }
    let types = "ofType {".repeat(9);
    let introspection =
        format!("{{ __schema {{ types {{ fields {{ args {{ type {{ {types} name {} }} }} }} }} }} }}", "}".repeat(9));
    let (_, body) = server.query(&introspection, None).await;
    assert!(body["data"]["__schema"]["types"].is_array(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_request_s_trouble() {
    // Without a node behind the schema, these resolvers panic.
    let server = Server::with_api(Auth::Open, |hub, limits| {
        Api::over(graphql::builder().finish(), hub, limits, OpenSubscriptions::default())
    })
    .await;
    let internal = |error: &Value, id: Option<&str>| {
        let told = &error["extensions"];
        assert_eq!(told["code"], "INTERNAL", "{error}");
        assert!(id.is_none_or(|id| told["requestId"] == id) && told["requestId"].is_string(), "{error}");
        // Nothing of what it said, and of where it was.
        assert!(["Data", "panic", ".rs", "Arc<"].iter().all(|inner| !error.to_string().contains(inner)), "{error}");
    };
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    for (number, query) in [
        "{ boards { id } }",
        "mutation { replayDeadLetters(input: {}) { replayed } }",
        "subscription { boardChanges { seq } }",
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "query": query });
        if !query.starts_with("subscription") {
            let response = server.post().json(&body).send().await.unwrap();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            let answer: Value = response.json().await.unwrap();
            internal(&answer["errors"][0], Some(&id));
        }
        let stream = format!("http://{}/graphql/stream", server.address);
        let events = reqwest::Client::new().post(stream).header("accept", "text/event-stream").json(&body);
        let events = tokio::time::timeout(TIME_MAX, async { events.send().await.unwrap().text().await.unwrap() });
        let events = events.await.unwrap();
        let payload =
            events.lines().find_map(|line| line.strip_prefix("data: {")).unwrap_or_else(|| panic!("{events}"));
        internal(&serde_json::from_str::<Value>(&format!("{{{payload}")).unwrap()["errors"][0], None);
        let id = number.to_string();
        socket.send(json!({ "id": id, "type": "subscribe", "payload": body })).await;
        let message = loop {
            let message = socket.json().await;
            if message["type"] != "complete" {
                break message;
            }
        };
        let error = if message["type"] == "error" { &message["payload"][0] } else { &message["payload"]["errors"][0] };
        internal(error, None);
    }
    for _ in 0..2 {
        assert_eq!(server.query("{ __typename }", None).await.1["data"]["__typename"], "Query");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_pages_may_call_and_others_may_not() {
    let server = Server::open().await;
    assert!(server.socket(Some("https://shop.example")).await.is_ok());
    match server.socket(Some("https://evil.example")).await {
        Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 403),
        _ => panic!("a foreign page must not open a socket"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_knows_its_viewer() {
    let server = Server::with_tokens().await;
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init", "payload": { "Authorization": bearer(&["USER"]) } })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.json().await["type"], "pong");
    let query = json!({ "query": "{ viewer { id } }" });
    socket.send(json!({ "type": "subscribe", "id": "1", "payload": query })).await;
    let next = socket.json().await;
    assert_eq!(next["payload"]["data"]["viewer"]["id"], "ann", "{next}");
    assert_eq!(socket.json().await, json!({ "type": "complete", "id": "1" }));
    let bad = json!({ "query": "subscription { boardChanges(board: \"daily\", top: \"x\") { seq } }" });
    socket.send(json!({ "type": "subscribe", "id": "2", "payload": bad })).await;
    let refused = socket.json().await;
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("2")));
    assert_eq!(refused["payload"][0]["extensions"]["code"], "BAD_USER_INPUT", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_break_the_protocol_learn_why() {
    let server = Server::with_tokens().await;
    let close_after = async |message: Value| {
        let mut socket = server.socket(None).await.unwrap();
        socket.send(message).await;
        socket.close_code().await
    };
    let wrong = json!({ "type": "connection_init", "payload": { "authorization": "Bearer nonsense" } });
    assert_eq!(close_after(wrong).await, 4403);
    let early = json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }" } });
    assert_eq!(close_after(early).await, 4401);
    assert_eq!(close_after(json!({ "type": "nonsense" })).await, 4400);
    let mut socket = server.socket(None).await.unwrap();
    socket.0.send(Message::binary("{}")).await.unwrap();
    assert_eq!(socket.close_code().await, 4400);

    let mut socket = server.socket(None).await.unwrap();
    socket.0.send(Message::text("x".repeat(Limits::default().message_len + 1))).await.unwrap();
    assert_eq!(socket.close_code().await, 1009);

    let init = json!({ "type": "connection_init" });
    let mut socket = server.socket(None).await.unwrap();
    socket.send(init.clone()).await;
    socket.send(json!({ "type": "subscribe", "id": "i".repeat(129), "payload": { "query": "{ __typename }" } })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    assert_eq!(socket.close_code().await, 4400);
    let mut socket = server.socket(None).await.unwrap();
    socket.send(init.clone()).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket.send(init).await;
    assert_eq!(socket.close_code().await, 4429);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_closed_in_time() {
    let server = Server::open().await;
    let began = std::time::Instant::now();
    let mut silent = server.socket(None).await.unwrap();
    assert_eq!(silent.close_code().await, 4408);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < TIME_MAX, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_lives_as_long_as_its_token() {
    let server = Server::with_tokens().await;
    // Clocks may differ by 30 s, so this token has some 2 s to live.
    let exp = jsonwebtoken::get_current_timestamp() - 28;
    let claims = Claims { sub: "ann".into(), exp, roles: vec!["USER".into()], ..Claims::default() };
    let token = format!("Bearer {}", sign(SECRET, &claims).unwrap());
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init", "payload": { "authorization": token } })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    let live = json!({ "query": "subscription { boardChanges { seq } }" });
    socket.send(json!({ "type": "subscribe", "id": "1", "payload": live })).await;
    assert_eq!(socket.json().await["type"], "next");
    assert_eq!(socket.close_code().await, 4403);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_one_operation_each_and_no_more_than_twenty() {
    let server = Server::open().await;
    let subscribe = |id: &str, query: &str| json!({ "type": "subscribe", "id": id, "payload": { "query": query } });
    let stock = r#"mutation { upsertProducts(input: { products: [{ id: "p0", name: "Mug" }] }) { upserted } }"#;
    assert_eq!(server.query(stock, None).await.1["data"]["upsertProducts"]["upserted"], 1);
    let live = "subscription { likes(productIds: [\"p0\"]) { count } }";
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    for n in 0..20 {
        socket.send(subscribe(&n.to_string(), live)).await;
    }
    for _ in 0..20 {
        assert_eq!(socket.json().await["type"], "next");
    }
    // One too many is refused by itself, and the others go on.
    socket.send(subscribe("more", "{ __typename }")).await;
    let refused = socket.json().await;
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("more")));
    assert_eq!(refused["payload"][0]["extensions"]["code"], "LIMIT_EXCEEDED", "{refused}");
    socket.send(json!({ "type": "complete", "id": "7" })).await;
    socket.send(subscribe("7", "{ __typename }")).await;
    let next = socket.json().await;
    assert_eq!((&next["id"], &next["payload"]["data"]["__typename"]), (&json!("7"), &json!("Query")));
    assert_eq!(socket.json().await, json!({ "type": "complete", "id": "7" }));
    socket.send(subscribe("3", live)).await;
    assert_eq!(socket.close_code().await, 4409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_close_is_answered() {
    let server = Server::open().await;
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.0.close(Some(frame)).await.unwrap();
    assert_eq!(socket.close_code().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_what_is_in_flight_and_closes_sockets() {
    let server = Server::open().await;
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    let body = r#"{"query":"{ __typename }"}"#;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        body.len(),
        &body[..5]
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // The next request is accepted after the slow one, so that one is in flight when the server stops.
    server.query("{ __typename }", None).await;
    server.shutdown.cancel();
    assert_eq!(socket.close_code().await, 1001);
    slow.write_all(&body.as_bytes()[5..]).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(TIME_MAX, slow.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains(r#"{"data":{"__typename":"Query"}}"#), "{answer}");
    drop(socket);
    tokio::time::timeout(DRAIN_TIME_MAX, server.ended).await.expect("nothing is left to wait for").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_does_not_wait_for_ever() {
    let server = Server::open().await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n").await.unwrap();
    server.query("{ __typename }", None).await;
    server.shutdown.cancel();
    let most = DRAIN_TIME_MAX + Duration::from_secs(2);
    tokio::time::timeout(most, server.ended).await.expect("bounded").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_too_much_is_refused_and_a_full_page_is_not() {
    let server = Server::open().await;
    let ranking = |first: u32, selection: &str| format!("{{ ranking(first: {first}) {{ {selection} }} }}");
    // All that a shop's page shows, as Apollo's clients ask for it.
    let page = "__typename totalCount period { __typename id key endsAt }
        pageInfo { __typename hasNextPage endCursor } edges { cursor } nodes { __typename id rank score productId
        product { __typename id name imageUrl price { __typename amount currency } category brand createdAt
        like { __typename count viewerHasLiked viewerLikedAt } } }";
    assert_eq!(server.query(&ranking(100, page), None).await.1["data"]["ranking"]["totalCount"], 0);
    let pages_of_pages = "query($n: Int) { board { periods(first: $n) { nodes { entries(first: $n) { nodes {
        product { name } } } } } } }";
    let expected = json!({ "code": "LIMIT_EXCEEDED", "limit": "cost", "value": 3_000 });
    let (_, body) = server.query(&pages_of_pages.replace("$n)", "100)").replace("query($n: Int)", ""), None).await;
    assert_eq!(told(&body), expected);
    assert!(body["errors"][0]["message"].as_str().unwrap().contains("(limit cost: 3000)"), "{body}");
    let query = json!({ "query": pages_of_pages, "variables": { "n": 100 } });
    let body: Value = server.post().json(&query).send().await.unwrap().json().await.unwrap();
    assert_eq!(told(&body), expected, "variables count");
}
