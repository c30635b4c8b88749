//! GraphQL over HTTP as a client meets it: methods, media types, statuses, persisted queries, and the limits that are
//! settings.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::stack::{Server, Setup, Stack};

/// Status, `Allow`, and the code of the first error.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    allow: Option<String>,
    code: String,
}

impl Answer {
    fn new(status: u16, allow: Option<&str>, code: &str) -> Self {
        Self { status, allow: allow.map(str::to_owned), code: code.to_owned() }
    }

    /// Every answer is JSON, or it is none.
    async fn of(request: reqwest::RequestBuilder) -> (Self, Value) {
        let response = request.send().await.unwrap();
        let allow = response.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
        let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(media_type.contains("json; charset=utf-8"), "{media_type}");
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        let code = body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none").to_owned();
        (Self { status, allow, code }, body)
    }
}

async fn server(arguments: &[&str]) -> (Stack, Server) {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = arguments.iter().map(ToString::to_string).collect();
    let server = stack.serve().await;
    (stack, server)
}

fn get(server: &Server, parameters: &[(&str, &str)]) -> reqwest::RequestBuilder {
    server.http.get(format!("{}/graphql", server.url)).query(parameters)
}

fn post(server: &Server) -> reqwest::RequestBuilder {
    server.http.post(format!("{}/graphql", server.url))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_reads_and_nothing_else() {
    let (_stack, server) = server(&[]).await;
    let query = "query A($id: ID!) { product(id: $id) { id } } query B { viewer { id } }";
    let variables = json!({ "id": "p0" }).to_string();
    let named = [("query", query), ("operationName", "A"), ("variables", &variables), ("extensions", "")];
    let (answer, body) = Answer::of(get(&server, &named)).await;
    assert_eq!((answer, &body["data"]), (Answer::new(200, None, "none"), &json!({ "product": null })));

    let like = "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }";
    let refused = Answer::new(405, Some("POST"), "BAD_USER_INPUT");
    assert_eq!(Answer::of(get(&server, &[("query", like)])).await.0, refused);
    let both = format!("query A {{ __typename }} {}", like.replace("mutation", "mutation B"));
    assert_eq!(Answer::of(get(&server, &[("query", &both), ("operationName", "B")])).await.0, refused);
    let read = Answer::of(get(&server, &[("query", &both), ("operationName", "A")])).await;
    assert_eq!(read.1["data"]["__typename"], "Query");

    for bad in [
        [("query", "{ __typename }"), ("variables", "{")],
        [("query", "{ __typename }"), ("variables", "[1]")],
        [("query", "{ __typename }"), ("extensions", "1")],
        [("query", ""), ("operationName", "A")],
        [("query", "{ __typename }"), ("query", "{ __typename }")],
    ] {
        assert_eq!(Answer::of(get(&server, &bad)).await.0, Answer::new(400, None, "BAD_USER_INPUT"), "{bad:?}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let request = server.http.request(method, format!("{}/graphql", server.url));
        assert_eq!(Answer::of(request).await.0, Answer::new(405, Some("GET, POST"), "BAD_USER_INPUT"));
    }
    let head = server.http.head(format!("{}/graphql?query={{__typename}}", server.url)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_parameter_of_an_address_is_none() {
    let (_stack, server) = server(&[]).await;
    let (query, like) = ("query A { __typename }", "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }");
    let read = json!({ "data": { "__typename": "Query" } });
    for rest in [
        "&operationName=",
        "&variables=",
        "&extensions=",
        "&operationName=&variables=&extensions=",
        "&variables=null&extensions=null",
        "&variables={}&extensions={}",
        "&operationName=A&variables=&raw=1",
        "&operationName",
    ] {
        let request = server.http.get(format!("{}/graphql?query={query}{rest}", server.url));
        assert_eq!(Answer::of(request).await, (Answer::new(200, None, "none"), read.clone()), "{rest}");
    }
    // The same of an event stream.
    let request = server.http.get(format!("{}/graphql/stream?query={query}&operationName=&variables=null", server.url));
    let events = request.header("accept", "text/event-stream").send().await.unwrap().text().await.unwrap();
    assert!(events.contains("\"__typename\":\"Query\""), "{events}");
    // An address without a query has none, even where a document could be known by its name.
    for address in ["", "?query=", "?query=&extensions=", "?extensions={\"persistedQuery\":null}"] {
        let request = server.http.get(format!("{}/graphql{address}", server.url));
        let (refused, body) = Answer::of(request).await;
        assert_eq!(refused, Answer::new(400, None, "BAD_USER_INPUT"), "{address}");
        assert_eq!(body["errors"][0]["extensions"]["argument"], "query", "{body}");
    }
    // The address of a POST says nothing.
    for address in [format!("?query={like}"), "?variables=[".to_owned(), "?operationName=B".to_owned()] {
        let request = server.http.post(format!("{}/graphql{address}", server.url)).json(&json!({ "query": query }));
        assert_eq!(Answer::of(request).await.1, read, "{address}");
    }
    // Null is none in a body, and an empty name is a name there, as for graphql-js.
    let null = json!({ "query": query, "operationName": null, "variables": null, "extensions": null });
    assert_eq!(Answer::of(post(&server).json(&null)).await.1, read);
    let unknown = json!({ "query": query, "operationName": "" });
    assert_eq!(Answer::of(post(&server).json(&unknown)).await.0, Answer::new(200, None, "BAD_USER_INPUT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_and_what_is_sent_are_looked_at() {
    let (_stack, server) = server(&[]).await;
    let operation = json!({ "query": "{ __typename }" });
    for (accept, status) in [
        ("application/graphql-response+json", 200),
        ("application/json;q=0.1, text/html", 200),
        ("text/html, application/xml;q=0.9", 406),
        ("application/json;q=0", 406),
    ] {
        let request = post(&server).header("accept", accept).json(&operation);
        assert_eq!(Answer::of(request).await.0.status, status, "{accept}");
    }
    for (content_type, status) in [
        ("application/json; charset=UTF-8", 200),
        ("application/json; charset=iso-8859-1", 415),
        ("application/graphql", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
    ] {
        let request = post(&server).header("content-type", content_type).body(operation.to_string());
        assert_eq!(Answer::of(request).await.0.status, status, "{content_type}");
    }
    let (batch, body) = Answer::of(post(&server).json(&json!([operation]))).await;
    assert_eq!(batch, Answer::new(400, None, "BAD_USER_INPUT"));
    assert!(body["errors"][0]["message"].as_str().unwrap().contains("batches are not taken"), "{body}");
    let odd = [json!({ "query": "{ __typename }", "operationName": 1 }), json!({ "query": ["{ __typename }"] })];
    for parameters in odd {
        assert_eq!(Answer::of(post(&server).json(&parameters)).await.0, Answer::new(400, None, "BAD_USER_INPUT"));
    }
    let (unknown, _) =
        Answer::of(post(&server).json(&json!({ "query": "query A { __typename }", "operationName": "B" }))).await;
    assert_eq!(unknown, Answer::new(200, None, "BAD_USER_INPUT"));
    let live = json!({ "query": "subscription { boardChanges { seq } }" });
    assert_eq!(Answer::of(post(&server).json(&live)).await.0, Answer::new(200, None, "BAD_USER_INPUT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_can_be_sent_once_and_named_ever_after() {
    let (_stack, server) = server(&[]).await;
    let query = "query($id: ID!) { product(id: $id) { id } }";
    let hash: String = Sha256::digest(query).iter().map(|byte| format!("{byte:02x}")).collect();
    let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
    let variables = json!({ "id": "p0" });
    let named = json!({ "extensions": extensions, "variables": variables });
    let in_address = [("extensions", extensions.to_string()), ("variables", variables.to_string())];
    let in_address = in_address.each_ref().map(|(name, value)| (*name, value.as_str()));

    let (unknown, body) = Answer::of(post(&server).json(&named)).await;
    assert_eq!(unknown, Answer::new(200, None, "PERSISTED_QUERY_NOT_FOUND"));
    assert_eq!(body["errors"][0]["message"], "PersistedQueryNotFound");
    let strict = get(&server, &in_address).header("accept", "application/graphql-response+json");
    assert_eq!(Answer::of(strict).await.0, Answer::new(400, None, "PERSISTED_QUERY_NOT_FOUND"));
    let wrong = json!({ "query": "{ __typename }", "extensions": extensions });
    assert_eq!(Answer::of(post(&server).json(&wrong)).await.0, Answer::new(400, None, "BAD_USER_INPUT"));

    let mut whole = named.clone();
    whole["query"] = json!(query);
    for request in [post(&server).json(&whole), post(&server).json(&named), get(&server, &in_address)] {
        assert_eq!(Answer::of(request).await.1, json!({ "data": { "product": null } }));
    }
    // A mutation that is known by its name is one all the same.
    let like = "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }";
    let hash: String = Sha256::digest(like).iter().map(|byte| format!("{byte:02x}")).collect();
    let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
    Answer::of(post(&server).json(&json!({ "query": like, "extensions": extensions }))).await;
    let request = get(&server, &[("extensions", &extensions.to_string())]);
    assert_eq!(Answer::of(request).await.0, Answer::new(405, Some("POST"), "BAD_USER_INPUT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_settings_and_are_named() {
    let settings = ["--tokens-max", "100", "--nodes-max", "100", "--depth-max", "5", "--aliases-max", "1"];
    let more = ["--directives-max", "1", "--cost-max", "40", "--body-len-max", "2000", "--introspection", "false"];
    let (_stack, server) = server(&[&settings[..], &more].concat()).await;
    let refused_by = async |query: String| {
        let body = Answer::of(post(&server).json(&json!({ "query": query }))).await.1;
        let error = &body["errors"][0];
        let (limit, value) = (error["extensions"]["limit"].clone(), error["extensions"]["value"].clone());
        let named = format!("(limit {}: {value})", limit.as_str().unwrap_or_default());
        assert_eq!(error["extensions"]["code"] == "LIMIT_EXCEEDED", !limit.is_null(), "{body}");
        assert!(limit.is_null() || error["message"].as_str().unwrap().ends_with(&named), "{body}");
        (limit, value)
    };
    let fragments = "fragment F on Query { __typename __typename __typename __typename }";
    for (query, limit, value) in [
        (format!("{{ {} }}", "__typename ".repeat(99)), "tokens", 100),
        (format!("{{ {} }} {fragments}", "...F ".repeat(21)), "nodes", 100),
        ("{ ranking { nodes { product { like { count { a } } } } } }".to_owned(), "depth", 5),
        ("{ a: __typename b: __typename }".to_owned(), "aliases", 1),
        ("{ viewer { id @skip(if: true) roles @skip(if: true) } }".to_owned(), "directives", 1),
        ("{ ranking(first: 100) { nodes { product { currentRank } } } }".to_owned(), "cost", 40),
        (format!("{{ __typename }} # {}", "x".repeat(2_000)), "body", 2_000),
    ] {
        assert_eq!(refused_by(query.clone()).await, (json!(limit), json!(value)), "{query}");
    }
    assert_eq!(
        refused_by("{ ranking(first: 20) { nodes { product { currentRank } } } }".to_owned()).await.0,
        Value::Null
    );
    let (closed, body) = Answer::of(post(&server).json(&json!({ "query": "{ __schema { types { name } } }" }))).await;
    assert_eq!(closed, Answer::new(200, None, "BAD_USER_INPUT"), "{body}");
    assert_eq!(Answer::of(post(&server).json(&json!({ "query": "{ __typename }" }))).await.0.code, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tools_ask_of_the_schema_is_within_the_limits() {
    let (_stack, server) = server(&[]).await;
    let of_type = format!("{}kind name{}", "kind name ofType { ".repeat(9), " }".repeat(9));
    let query = format!(
        "query IntrospectionQuery {{ __schema {{ queryType {{ name }} mutationType {{ name }} subscriptionType {{ name }}
          types {{ ...FullType }} directives {{ name description locations args {{ ...InputValue }} }} }} }}
        fragment FullType on __Type {{ kind name description
          fields(includeDeprecated: true) {{ name description args {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason }}
          inputFields {{ ...InputValue }} interfaces {{ ...TypeRef }}
          enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} possibleTypes {{ ...TypeRef }} }}
        fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue }}
        fragment TypeRef on __Type {{ {of_type} }}"
    );
    let schema = server.graphql("ann", &query, json!({})).await;
    assert!(schema["__schema"]["types"].as_array().unwrap().len() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_trickles_is_closed() {
    let (_stack, server) = server(&["--header-timeout", "1"]).await;
    let mut slow = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let began = Instant::now();
    slow.write_all(b"POST /graphql HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Closed or reset: there is nothing more to read either way.
    tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut rest)).await.expect("closed in time").ok();
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    // Over a connection of its own: one that has been idle for a second may be closed just now.
    let fresh = reqwest::Client::new().post(format!("{}/graphql", server.url));
    assert_eq!(Answer::of(fresh.json(&json!({ "query": "{ __typename }" }))).await.0.status, 200);
}
