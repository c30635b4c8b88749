//! What a browser asks before a page of another origin may send a request.

use super::Server;

/// Headers that Apollo Client, tracers and clients of event streams send, which a browser first asks for.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_known_origins_may_send_any_header() {
    const WANTED: &str = "apollographql-client-name,apollographql-client-version,authorization,baggage,content-type,\
        last-event-id,sentry-trace,traceparent,tracestate,x-acclaim-user,x-apollo-operation-name,x-request-id";
    let server = Server::open().await;
    let ask = async |method: &str, path: &str, origin: &str| {
        let url = format!("http://{}{path}", server.address);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url).header("origin", origin);
        let preflight =
            request.header("access-control-request-method", "POST").header("access-control-request-headers", WANTED);
        let response = preflight.send().await.unwrap();
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let named = ["origin", "headers", "methods"].map(|what| header(format!("access-control-allow-{what}")));
        (response.status().as_u16(), named, header("access-control-expose-headers".to_owned()))
    };
    for path in ["/graphql", "/graphql/stream"] {
        let (status, allowed, _) = ask("OPTIONS", path, "https://shop.example").await;
        let allowed = allowed.map(Option::unwrap);
        assert_eq!(
            (status, &allowed[0][..], &allowed[1][..], &allowed[2][..]),
            (200, "https://shop.example", WANTED, "GET,POST")
        );
        let (_, _, exposed) = ask("GET", path, "https://shop.example").await;
        assert_eq!(exposed.as_deref(), Some("x-request-id,retry-after,acclaim-cost"));
        assert_eq!(ask("OPTIONS", path, "https://evil.example").await, (403, [None, None, None], None));
        assert_eq!(ask("OPTIONS", path, "null").await, (403, [None, None, None], None));
    }
}
