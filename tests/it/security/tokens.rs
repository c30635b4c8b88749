//! Tokens that must let nobody in, over every transport, and those that stop doing so.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use futures_util::{SinkExt, StreamExt};

use super::ask::{Live, Transport, bearer, code};
use crate::auth::{SECRET, guarded_with};
use crate::support::live::Socket;
use crate::support::stack::Server;
use crate::support::until;

const LIMIT: Duration = Duration::from_secs(20);
/// Made for these tests, and used nowhere else.
const RSA: &str = include_str!("rsa.pem");
const RSA_PUBLIC: &str = include_str!("rsa_public.pem");
pub const ED: &str = include_str!("ed25519.pem");
pub const ED_OF_ANOTHER: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIOucvCWfRr5VRMfUQITwULIDTMMm95d7UVK24Bh4fd/P
-----END PRIVATE KEY-----";
/// Beyond that a server reads no further.
const HEADERS_LEN_MAX: usize = 32 << 10;
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "acclaim";

/// What a good token says, by somebody with every role.
pub fn claims(sub: &str) -> Value {
    json!({ "sub": sub, "exp": get_current_timestamp() + 3_600, "roles": ["USER", "INGEST", "ADMIN"] })
}

pub fn signed_by_secret(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header { kid: kid(algorithm), ..Header::new(algorithm) }, claims, key).unwrap()
}

fn kid(algorithm: Algorithm) -> Option<String> {
    match algorithm {
        Algorithm::RS256 => Some("r".to_owned()),
        Algorithm::EdDSA => Some("e".to_owned()),
        _ => None,
    }
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()
}

fn ed(pem: &str) -> EncodingKey {
    EncodingKey::from_ed_pem(pem.as_bytes()).unwrap()
}

fn jwks() -> Value {
    let keys = [(rsa(), Algorithm::RS256), (ed(ED), Algorithm::EdDSA)].map(|(key, algorithm)| {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = kid(algorithm).into();
        jwk
    });
    json!({ "keys": keys })
}

/// A token with any header, and whatever stands for its signature.
fn written(header: Value, claims: &Value, signature: &[u8]) -> String {
    let parts = [header.to_string().into_bytes(), claims.to_string().into_bytes(), signature.to_vec()];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

/// What a server must refuse that takes HS256, RS256 and EdDSA, from one issuer, for one audience.
fn bad_tokens(good: &Value) -> Vec<(String, String)> {
    let mut bad = Vec::new();
    let mut add = |what: &str, token: String| bad.push((what.to_owned(), token));
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        add("no algorithm", written(json!({ "alg": algorithm, "typ": "JWT" }), good, b""));
        add("no algorithm, signed", written(json!({ "alg": algorithm }), good, &[7; 32]));
    }
    add("no alg at all", written(json!({ "typ": "JWT" }), good, b""));
    add("a secret of another", signed(Algorithm::HS256, &EncodingKey::from_secret(&[9; 32]), good));
    add("an empty secret", signed(Algorithm::HS256, &EncodingKey::from_secret(b""), good));
    add("a key of another", signed(Algorithm::EdDSA, &ed(ED_OF_ANOTHER), good));
    for other in [Algorithm::HS384, Algorithm::HS512] {
        add("another hash", signed(other, &EncodingKey::from_secret(SECRET.as_bytes()), good));
    }
    for other in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        add("another way of RSA", signed(other, &rsa(), good));
    }
    // What everybody may know, taken for a secret.
    let (n, x) = (jwks()["keys"][0]["n"].clone(), jwks()["keys"][1]["x"].clone());
    let public = [&n, &x].map(|part| part.as_str().unwrap().to_owned());
    let decoded = public.clone().map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let texts = [RSA_PUBLIC.to_owned(), RSA_PUBLIC.trim().to_owned(), jwks().to_string()].map(String::into_bytes);
    for secret in public.map(String::into_bytes).into_iter().chain(decoded).chain(texts) {
        for kid in [None, Some("r".to_owned()), Some("e".to_owned())] {
            let header = Header { kid, ..Header::new(Algorithm::HS256) };
            add("a public key for a secret", encode(&header, good, &EncodingKey::from_secret(&secret)).unwrap());
        }
    }
    let whole = signed(Algorithm::RS256, &rsa(), good);
    let parts: Vec<_> = whole.split('.').collect();
    let other = written(json!({}), &claims("root"), b"");
    add("other claims", [parts[0], other.split('.').nth(1).unwrap(), parts[2]].join("."));
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("two parts", format!("{}.{}", parts[0], parts[1]));
    add("another key by its id", {
        let header = Header { kid: Some("e".to_owned()), ..Header::new(Algorithm::RS256) };
        encode(&header, good, &rsa()).unwrap()
    });
    add("a key that it brings along", {
        let jwk = Jwk::from_encoding_key(&ed(ED_OF_ANOTHER), Algorithm::EdDSA).unwrap();
        let header = Header { jwk: Some(jwk), ..Header::new(Algorithm::EdDSA) };
        encode(&header, good, &ed(ED_OF_ANOTHER)).unwrap()
    });
    add("an extension", {
        let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
        encode(&header, good, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    });
    let now = get_current_timestamp();
    for (claim, value) in [
        ("exp", Value::Null),
        ("exp", json!((now + 600).to_string())),
        ("exp", json!("2099-01-01T00:00:00Z")),
        ("exp", json!([now + 600])),
        ("exp", json!(true)),
        ("exp", json!(-1)),
        ("exp", json!(0)),
        ("exp", json!(now - 60)),
        ("nbf", json!(now + 600)),
        ("nbf", json!("now")),
        ("aud", Value::Null),
        ("aud", json!("shop")),
        ("aud", json!(["shop", "acclaim.example"])),
        ("aud", json!("")),
        ("iss", Value::Null),
        ("iss", json!("https://evil.example")),
        ("iss", json!("https://id.example/")),
        ("iss", json!([ISSUER, "https://evil.example"])),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!("x".repeat(129))),
        ("roles", Value::Null),
        ("roles", json!("ADMIN")),
        ("roles", json!(["ADMIN", 7])),
        ("roles", json!({ "acclaim": ["ADMIN"] })),
        ("padding", json!("x".repeat(8 << 10))),
        ("padding", json!("x".repeat(40 << 10))),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        let shown = claims[claim].to_string();
        add(&format!("{claim}: {}", &shown[..shown.len().min(40)]), signed_by_secret(&claims));
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("exp");
    for (algorithm, key) in [(Algorithm::RS256, rsa()), (Algorithm::EdDSA, ed(ED))] {
        add("without exp", signed(algorithm, &key, &without));
    }
    bad
}

/// The socket, or the status with which the upgrade was refused.
async fn upgrade(server: &Server, token: Option<&str>) -> Result<WebSocketStream<TcpStream>, u16> {
    let mut request = format!("{}/graphql/ws", server.url.replace("http", "ws")).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// A socket whose connection_init was acknowledged, or the code of the close.
pub async fn initialised_socket(server: &Server, token: &str) -> Result<WebSocketStream<TcpStream>, u16> {
    let mut socket = upgrade(server, None).await.unwrap();
    let init = json!({ "type": "connection_init", "payload": bearer(Some(token)) });
    socket.send(Message::text(init.to_string())).await.unwrap();
    match tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap() {
        Message::Text(text) => {
            assert!(text.contains("connection_ack"), "{text}");
            Ok(socket)
        }
        Message::Close(Some(frame)) => Err(frame.code.into()),
        other => panic!("{other:?}"),
    }
}

/// Each of the ways a token can take, and whether it was let in; otherwise the status or close code.
pub async fn on_every_way(server: &Server, token: &str) -> Vec<(&'static str, Result<(), u16>)> {
    let query = "{ viewer { id } }";
    let of = async |request: reqwest::RequestBuilder| {
        let response = request.bearer_auth(token).send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.text().await.unwrap();
        // Whoever sends a token knows it; whoever reads answers of others shall not.
        assert!(!body.contains(token), "{body}");
        if status == 401 {
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code(&body), body.get("data")), (Some("UNAUTHENTICATED"), None), "{body}");
        }
        if status == 200 { Ok(()) } else { Err(status) }
    };
    let (graphql, stream) = (format!("{}/graphql", server.url), format!("{}/graphql/stream", server.url));
    let operation = json!({ "query": query });
    let events = |request: reqwest::RequestBuilder| request.header("accept", "text/event-stream");
    vec![
        ("POST", of(server.http.post(&graphql).json(&operation)).await),
        ("GET", of(server.http.get(&graphql).query(&[("query", query)])).await),
        ("events by POST", of(events(server.http.post(&stream).json(&operation))).await),
        ("events by GET", of(events(server.http.get(&stream).query(&[("query", query)]))).await),
        ("metrics", of(server.http.get(format!("{}/metrics", server.url))).await),
        ("upgrade", upgrade(server, Some(token)).await.map(drop)),
        ("connection_init", initialised_socket(server, token).await.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_are_refused_on_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, jwks().to_string()).unwrap();
    let settings = [
        ["--jwks-file", file.to_str().unwrap()],
        ["--jwt-issuer", ISSUER],
        ["--jwt-audience", AUDIENCE],
        ["--connections-per-user", "0"],
        ["--connections-per-address", "0"],
    ];
    let (stack, server) = guarded_with(settings.as_flattened()).await;
    let mut good = claims("ann");
    good["iss"] = json!(ISSUER);
    good["aud"] = json!([AUDIENCE, "shop"]);
    for token in
        [signed_by_secret(&good), signed(Algorithm::RS256, &rsa(), &good), signed(Algorithm::EdDSA, &ed(ED), &good)]
    {
        for (way, answer) in on_every_way(&server, &token).await {
            assert_eq!(answer, Ok(()), "{way}");
        }
    }
    for (what, token) in bad_tokens(&good) {
        for (way, answer) in on_every_way(&server, &token).await {
            let refused = match way {
                "connection_init" => 4403,
                // Longer than all headers may be.
                _ if token.len() > HEADERS_LEN_MAX => 431,
                _ => 401,
            };
            assert_eq!(answer, Err(refused), "{what}, {way}");
        }
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.is_empty() || !server.log().contains(signature), "{what} is in the log");
    }
    // Longer than any header may be.
    let absurd = "x".repeat(2 << 20);
    let answer =
        server.http.get(format!("{}/graphql?query={{__typename}}", server.url)).bearer_auth(absurd).send().await;
    assert!(answer.is_err() || !answer.unwrap().status().is_success());
    // The command's own tokens say what the server expects.
    let mut command = stack.command();
    command.args(["token", "--user", "ann", "--role", "admin"]).args(&stack.arguments[..2]);
    let output = command.args(["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE]).output().unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(on_every_way(&server, token.trim()).await.iter().all(|(_, answer)| answer.is_ok()), "{token}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_stays_until_the_token_expires() {
    let (_stack, server) = guarded_with(&[]).await;
    // With half a minute of leeway it holds for some seconds more.
    let mut soon = claims("ann");
    soon["exp"] = json!(get_current_timestamp() - 27);
    let token = signed_by_secret(&soon);
    let live = "subscription { boardChanges { seq } }";
    let mut socket = Socket::connect(&server.url, bearer(Some(&token))).await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": live } })).await;
    assert_eq!(socket.receive().await["type"], "next");
    let mut by_header = upgrade(&server, Some(&token)).await.unwrap();
    by_header.send(Message::text(json!({ "type": "connection_init" }).to_string())).await.unwrap();
    let mut events = Live::open(Transport::EventStream, &server, Some(&token), live).await;
    assert!(events.next().await["data"]["boardChanges"]["seq"].is_number());

    assert_eq!(socket.closed_with().await, Some(4403));
    let closed = async {
        while let Some(message) = by_header.next().await {
            if let Message::Close(frame) = message.unwrap() {
                return frame.map(|frame| u16::from(frame.code));
            }
        }
        None
    };
    assert_eq!(tokio::time::timeout(LIMIT, closed).await.unwrap(), Some(4403));
    let Live::Events(response, read) = events else { panic!("it is a stream of events") };
    let rest = read + &tokio::time::timeout(LIMIT, response.text()).await.unwrap().unwrap();
    assert!(!rest.contains("complete"), "clients come back from a stream that breaks off: {rest}");
    until("the token is refused", LIMIT, async || {
        let answers = on_every_way(&server, &token).await;
        answers.iter().all(|(_, answer)| matches!(answer, Err(401 | 4403)))
    })
    .await;
}
