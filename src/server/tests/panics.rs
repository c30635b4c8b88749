//! A panic in a resolver: the server goes on.
//!
//! Whoever asked is told INTERNAL and the request's id, and nobody the reason.

use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextResolve, ResolveInfo};
use async_graphql::{ServerResult, Value as Resolved};

use super::*;

/// A server whose schema lacks the node behind it, so that whichever resolver asks for it panics; and one that lacks only
/// the count of subscriptions, for which `system` asks.
async fn servers() -> [Server; 2] {
    let bare = Server::with_api(Auth::Open, |hub, limits| {
        Api::over(graphql::builder().finish(), hub, limits, OpenSubscriptions::default())
    });
    let uncounted = Server::with_api(Auth::Open, |hub, limits| {
        Api::over(graphql::builder().data(hub.app().clone()).finish(), hub, limits, OpenSubscriptions::default())
    });
    [bare.await, uncounted.await]
}

const QUERY: [&str; 2] = ["{ boards { id } }", "{ admin { system { subscriptions } } }"];
const LIKE: &str = "mutation { toggleLike(input: { productId: \"p0\" }) { liked } }";
const LIVE: &str = "subscription { boardChanges { seq } }";

/// Asserts that nothing but the code and an id is told; returns the id.
fn id_of(errors: &Value) -> String {
    let told = &errors[0];
    assert_eq!((errors.as_array().unwrap().len(), &told["extensions"]["code"]), (1, &json!("INTERNAL")), "{errors}");
    let id = told["extensions"]["requestId"].as_str().unwrap();
    assert_eq!((id.len(), told["extensions"].as_object().unwrap().len()), (16, 2), "{errors}");
    let message = "something went wrong inside; the log has the details under this requestId";
    assert_eq!(told["message"], message);
    assert!(told.get("path").is_none() && told.get("locations").is_none(), "{told}");
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told_as_internal() {
    for (server, query) in servers().await.into_iter().zip(QUERY) {
        for path in ["graphql", "graphql/stream"] {
            let panics = json!({ "query": query });
            let url = format!("http://{}/{path}", server.address);
            let response = reqwest::Client::new().post(url).json(&panics).send().await.unwrap();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            let text = response.text().await.unwrap();
            // A stream's first event, or the whole answer.
            let json = text.split_once("data: ").map_or(text.as_str(), |(_, event)| event.lines().next().unwrap());
            let body: Value = serde_json::from_str(json).unwrap();
            assert_eq!(id_of(&body["errors"]), id);
            assert!(body.get("data").is_none_or(Value::is_null), "{body}");
        }
        for _ in 0..2 {
            assert_eq!(server.query("{ __typename }", None).await.1["data"]["__typename"], "Query");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_outlives_a_panic() {
    let [server, _] = servers().await;
    let mut socket = server.socket(None).await.unwrap();
    socket.send(json!({ "type": "connection_init", "payload": { "x-acclaim-user": "ann" } })).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    let mut ids = std::collections::BTreeSet::new();
    // Twice, since whoever subscribes to the same joins what the first began.
    for (number, query) in [QUERY[0], LIKE, LIVE, LIVE].into_iter().enumerate() {
        let id = number.to_string();
        socket.send(json!({ "type": "subscribe", "id": id, "payload": { "query": query } })).await;
        let answer = socket.json().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("error"), &json!(id)), "{query}: {answer}");
        assert!(ids.insert(id_of(&answer["payload"])), "{query}: an id names one request");
    }
    socket.send(json!({ "type": "subscribe", "id": "9", "payload": { "query": "{ __typename }" } })).await;
    assert_eq!(socket.json().await["payload"]["data"]["__typename"], "Query");
    assert_eq!(socket.json().await, json!({ "type": "complete", "id": "9" }));
}

/// Has the field `seq` panic from when it is set.
#[derive(Clone, Default)]
struct Trap(Arc<AtomicBool>);

impl ExtensionFactory for Trap {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Extension for Trap {
    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Resolved>> {
        assert!(info.name != "seq" || !self.0.load(Ordering::Relaxed), "postgres://acclaim:password@10.0.0.1");
        next.run(ctx, info).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_in_which_something_panics_ends_and_can_be_begun_again() {
    let trap = Trap::default();
    let set = trap.clone();
    let server = Server::with_api(Auth::Open, |hub, limits| {
        let open = OpenSubscriptions::default();
        let schema = graphql::builder().data(hub.app().clone()).data(open.clone()).extension(trap).finish();
        Api::over(schema, hub, limits, open)
    })
    .await;
    let mut sockets = [server.socket(None).await.unwrap(), server.socket(None).await.unwrap()];
    let subscribe = |id: &str| json!({ "type": "subscribe", "id": id, "payload": { "query": LIVE } });
    for socket in &mut sockets {
        socket.send(json!({ "type": "connection_init" })).await;
        assert_eq!(socket.json().await["type"], "connection_ack");
        socket.send(subscribe("1")).await;
        let first = socket.json().await;
        assert!(first["payload"]["data"]["boardChanges"]["seq"].is_number(), "{first}");
    }
    // Meets the next heartbeat.
    set.0.store(true, Ordering::Relaxed);
    for socket in &mut sockets {
        let next = socket.json().await;
        assert_eq!(next["type"], "next", "{next}");
        id_of(&next["payload"]["errors"]);
        assert!(next["payload"].get("data").is_none_or(Value::is_null), "{next}");
        // The one after finds nothing that could answer it.
        let end = socket.json().await;
        assert_eq!((&end["type"], &end["id"]), (&json!("error"), &json!("1")), "{end}");
        assert_eq!(end["payload"][0]["extensions"]["code"], "UNAVAILABLE", "{end}");
    }
    set.0.store(false, Ordering::Relaxed);
    for socket in &mut sockets {
        socket.send(subscribe("2")).await;
        let again = socket.json().await;
        assert!(again["payload"]["data"]["boardChanges"]["seq"].is_number(), "{again}");
    }
}
