//! Tokens that are taken back, and keys that change, while a server runs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::json;

use super::ask::{Live, Transport, bearer};
use super::tls::Authority;
use super::tokens::{ED, ED_OF_ANOTHER, claims, on_every_way, signed_by_secret};
use crate::auth::{guarded_with, token};
use crate::support::live::Socket;
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

const LIMIT: Duration = Duration::from_secs(30);
const LIVE: &str = "subscription { boardChanges { seq } }";

async fn is_let_in(server: &Server, token: &str) -> bool {
    let answers = on_every_way(server, token).await;
    let is_let_in = answers[0].1.is_ok();
    // Somebody may have written the file just then.
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Ok(()) | Err(401 | 4403))), "{answers:?}");
    is_let_in && answers.iter().all(|(_, answer)| answer.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_lets_nobody_in_and_puts_out_who_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked.json");
    std::fs::write(&file, "{}").unwrap();
    let (_stack, server) = guarded_with(&["--revoked", file.to_str().unwrap()]).await;
    let of = |sub: &str, jti: &str, iat: u64| {
        let mut claims = claims(sub);
        (claims["jti"], claims["iat"]) = (json!(jti), json!(iat));
        signed_by_secret(&claims)
    };
    let now = get_current_timestamp();
    let (stolen, own) = (of("ann", "stolen", now), of("ann", "own", now));
    let (older, newer, undated) = (of("bob", "1", now - 100), of("bob", "2", now), signed_by_secret(&claims("bob")));
    for token in [&stolen, &own, &older, &newer, &undated] {
        assert!(is_let_in(&server, token).await);
    }
    let mut open = Vec::new();
    for token in [&stolen, &older] {
        let mut socket = Socket::connect(&server.url, bearer(Some(token))).await;
        socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": LIVE } })).await;
        assert_eq!(socket.receive().await["type"], "next");
        let mut events = Live::open(Transport::EventStream, &server, Some(token), LIVE).await;
        assert!(events.next().await["data"]["boardChanges"]["seq"].is_number());
        open.push((socket, events));
    }
    let mut stays = Socket::connect(&server.url, bearer(Some(&own))).await;

    std::fs::write(&file, json!({ "jti": ["stolen"], "notBefore": { "bob": now - 50 } }).to_string()).unwrap();
    for (mut socket, events) in open {
        assert_eq!(socket.closed_with().await, Some(4403));
        let Live::Events(response, _) = events else { panic!("it is a stream of events") };
        let rest = tokio::time::timeout(LIMIT, response.text()).await.unwrap().unwrap();
        assert!(!rest.contains("complete"), "{rest}");
    }
    for (token, expected) in [(&stolen, false), (&own, true), (&older, false), (&newer, true), (&undated, false)] {
        assert_eq!(is_let_in(&server, token).await, expected);
    }
    stays.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": "{ viewer { id } }" } })).await;
    assert_eq!(stays.receive().await["payload"]["data"]["viewer"]["id"], "ann");

    // A slip gives nothing back.
    std::fs::write(&file, "{\"jti\": [").unwrap();
    until("the slip is seen", LIMIT, async || server.log().contains("stay as they were")).await;
    assert!(!is_let_in(&server, &stolen).await && is_let_in(&server, &own).await);
    std::fs::write(&file, "{}").unwrap();
    until("it is mended", LIMIT, async || is_let_in(&server, &stolen).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_metrics_reads_nothing_else() {
    let (stack, server) = guarded_with(&[]).await;
    let prometheus = token(&stack, "prometheus", &["metrics"]);
    for (way, answer) in on_every_way(&server, &prometheus).await {
        let expected = match way {
            "metrics" => Ok(()),
            "connection_init" => Err(4403),
            _ => Err(403),
        };
        assert_eq!(answer, expected, "{way}");
    }
    assert!(is_let_in(&server, &token(&stack, "ann", &["metrics", "admin"])).await);
}

/// A key set with some of two keys, `a` and `b`.
fn key_set(names: &[&str]) -> String {
    let keys = names.iter().map(|name| {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key(name), Algorithm::EdDSA).unwrap()).unwrap();
        jwk["kid"] = json!(name);
        jwk
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

fn key(name: &str) -> EncodingKey {
    EncodingKey::from_ed_pem(if name == "a" { ED } else { ED_OF_ANOTHER }.as_bytes()).unwrap()
}

fn signed_by(name: &str) -> String {
    let header = Header { kid: Some(name.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims("ann"), &key(name)).unwrap()
}

/// Serves a text by https for ever, and counts how often.
fn provider(folder: &Path, authority: &Authority, text: Arc<Mutex<String>>) -> (u16, Arc<Mutex<usize>>) {
    let (certificate, key) = authority.certify(folder, "localhost");
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let (config, asked) = (Arc::new(config), Arc::new(Mutex::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), asked.clone());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = Stream::new(&mut connection, &mut socket);
            // A request fits into one read; one that is broken off is asked again.
            if stream.read(&mut [0; 4096]).is_ok() {
                *count.lock().unwrap() += 1;
                let text = text.lock().unwrap().clone();
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                    .ok();
            }
        }
    });
    (port, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_read_again_when_a_token_names_an_unknown_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, key_set(&["a"])).unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let text = Arc::new(Mutex::new(key_set(&["a"])));
    let (port, asked) = provider(folder.path(), &authority, text.clone());
    let url = format!("https://localhost:{port}/jwks.json");
    let mut by_file = Stack::new(Setup::Embedded).await;
    by_file.arguments = ["--jwks-file", file.to_str().unwrap()].map(ToString::to_string).to_vec();
    let mut by_url = Stack::new(Setup::Embedded).await;
    by_url.arguments = ["--jwks-url", &url, "--jwks-ca-file", authority.path()].map(ToString::to_string).to_vec();
    let servers = [by_file.serve().await, by_url.serve().await];
    let post = async |server: &Server, token: &str| {
        let request = server.http.post(format!("{}/graphql", server.url)).bearer_auth(token);
        request.json(&json!({ "query": "{ viewer { id } }" })).send().await.unwrap().status().as_u16()
    };
    for server in &servers {
        assert_eq!((post(server, &signed_by("a")).await, post(server, &signed_by("b")).await), (200, 401));
    }
    std::fs::write(&file, key_set(&["b"])).unwrap();
    *text.lock().unwrap() = key_set(&["b"]);
    for server in &servers {
        until("the new key is found", LIMIT, async || post(server, &signed_by("b")).await == 200).await;
        assert_eq!(post(server, &signed_by("a")).await, 401, "and the old one is gone");
    }
    // Made-up keys lead to no flood.
    let before = *asked.lock().unwrap();
    for _ in 0..100 {
        assert_eq!(post(&servers[1], &signed_by("a")).await, 401);
    }
    assert!(*asked.lock().unwrap() <= before + 2);
    // What is no set of keys changes nothing.
    *text.lock().unwrap() = "{}".to_owned();
    until("the slip is seen", LIMIT, async || {
        post(&servers[1], &signed_by("a")).await;
        servers[1].log().contains("stay as they were")
    })
    .await;
    assert_eq!(post(&servers[1], &signed_by("b")).await, 200);

    // Nobody's authority but the one that is named.
    let mut command = by_url.command();
    let refused = command.args(["serve", "--listen", "127.0.0.1:0", "--jwks-url", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&url), "{said}");
}
