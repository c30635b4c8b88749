//! What names a foreign origin, sent by hand: refused on every way, whatever it carries.

use reqwest::header::{CONTENT_TYPE, ORIGIN};
use serde_json::{Value, json};

use crate::auth::guarded_with;
use crate::support::stack::{Setup, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_origin_is_refused_on_every_way() {
    let (stack, guarded) = guarded_with(&[]).await;
    let token = crate::auth::token(&stack, "boss", &["admin", "ingest"]);
    let open_stack = Stack::new(Setup::Embedded).await;
    let open = open_stack.serve().await;
    for server in [&open, &guarded] {
        let (graphql, stream) = (format!("{}/graphql", server.url), format!("{}/graphql/stream", server.url));
        let body = json!({ "query": "{ __typename }" }).to_string();
        let query = [("query", "{ __typename }")];
        let requests = || {
            [
                server.http.post(&graphql).header(CONTENT_TYPE, "application/json").body(body.clone()),
                server.http.post(&graphql).header(CONTENT_TYPE, "text/plain").body(body.clone()),
                server.http.get(&graphql).query(&query),
                server.http.post(&stream).header(CONTENT_TYPE, "application/json").body(body.clone()),
                server.http.get(&stream).query(&query).header("accept", "text/event-stream"),
                server
                    .http
                    .get(format!("{}/graphql/ws", server.url))
                    .header("connection", "upgrade")
                    .header("upgrade", "websocket")
                    .header("sec-websocket-version", "13")
                    .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                    .header("sec-websocket-protocol", "graphql-transport-ws"),
            ]
        };
        let own = server.url.clone();
        for origin in ["https://evil.example", "null", "http://localhost"] {
            // Even where the page has got hold of a token.
            for request in requests() {
                let answer = request.header(ORIGIN, origin).bearer_auth(&token).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 403, "{origin}");
                assert!(answer.headers().get("access-control-allow-origin").is_none());
                assert!(answer.headers().contains_key("x-request-id"));
                let body: Value = answer.json().await.unwrap();
                let told = &body["errors"][0]["extensions"];
                assert_eq!((&told["code"], &told["argument"]), (&json!("BAD_USER_INPUT"), &json!("origin")), "{body}");
            }
        }
        // A proxy may call the server by another name than the page does; whose page it is says the browser, which no page can.
        for (site, status) in [("same-origin", 200), ("same-site", 403), ("cross-site", 403)] {
            let [request, ..] = requests();
            let request = request.header(ORIGIN, "https://shop.example").header("sec-fetch-site", site);
            assert_eq!(request.bearer_auth(&token).send().await.unwrap().status().as_u16(), status, "{site}");
        }
        let statuses = [200, 415, 200, 200, 200, 101];
        for (request, status) in requests().into_iter().zip(statuses) {
            let answer = request.header(ORIGIN, &own).bearer_auth(&token).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
        }
    }
}
