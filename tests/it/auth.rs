//! Who may do what, with tokens that the command line makes.

use serde_json::{Value, json};

use crate::support::live::Socket;
use crate::support::stack::{Server, Setup, Stack, TOGGLE};

pub const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

/// A server that wants tokens, and tokens for it.
pub async fn guarded() -> (Stack, Server) {
    guarded_with(&[]).await
}

/// The same with more arguments.
pub async fn guarded_with(arguments: &[&str]) -> (Stack, Server) {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = ["--jwt-secret", SECRET].iter().chain(arguments).map(ToString::to_string).collect();
    let server = stack.serve().await;
    (stack, server)
}

pub fn token(stack: &Stack, user: &str, roles: &[&str]) -> String {
    let output = stack
        .command()
        .args(["token", "--user", user])
        .args(roles.iter().flat_map(|role| ["--role", role]))
        .env("ACCLAIM_JWT_SECRET", SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn call(server: &Server, token: Option<&str>, query: &str, variables: Value) -> Value {
    let mut request = server.http.post(format!("{}/graphql", server.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap().json().await.unwrap()
}

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_its_own() {
    let (stack, server) = guarded().await;
    let (user, ingest, admin) =
        (token(&stack, "ann", &["user"]), token(&stack, "shop", &["ingest"]), token(&stack, "boss", &["admin"]));
    let like = json!({ "product": "p0" });
    let stock = "mutation { upsertProducts(input: { products: [{ id: \"p0\", name: \"Mug\" }] }) { upserted } }";
    let adjust =
        "mutation { adjustWeights(input: { weights: [{ signal: VIEW, weight: 0.2 }], note: \"n\" }) { version } }";
    let rules = "{ admin { weightRules { nodes { version } } } }";

    // Whoever says nothing may read, and a name in a header proves nothing.
    let anonymous = call(&server, None, "{ viewer { id } ranking { totalCount } }", json!({})).await;
    assert_eq!(anonymous["data"], json!({ "viewer": null, "ranking": { "totalCount": 0 } }));
    let pretended = server.try_graphql(Some("ann"), TOGGLE, like.clone()).await.unwrap();
    assert_eq!(code(&pretended), "UNAUTHENTICATED");

    for (who, may_stock, may_adjust) in [(&user, false, false), (&ingest, true, false), (&admin, false, true)] {
        let expected = |may: bool| if may { "none" } else { "FORBIDDEN" };
        assert_eq!(code(&call(&server, Some(who), stock, json!({})).await), expected(may_stock));
        assert_eq!(code(&call(&server, Some(who), adjust, json!({})).await), expected(may_adjust));
        assert_eq!(code(&call(&server, Some(who), rules, json!({})).await), expected(may_adjust));
    }
    let liked = call(&server, Some(&user), TOGGLE, like).await;
    assert_eq!(liked["data"]["toggleLike"]["liked"], true, "{liked}");
    let viewer = call(&server, Some(&user), "{ viewer { id roles likes { nodes { id } } } }", json!({})).await;
    assert_eq!(
        viewer["data"]["viewer"],
        json!({ "id": "ann", "roles": ["USER"], "likes": { "nodes": [{ "id": "p0" }] } })
    );

    let forged = format!("{}x", user.rsplit_once('.').unwrap().0);
    assert_eq!(code(&call(&server, Some(&forged), "{ viewer { id } }", json!({})).await), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_takes_its_token_with_connection_init() {
    let (stack, server) = guarded().await;
    let user = token(&stack, "ann", &["user"]);
    let mut socket = Socket::connect(&server.url, json!({ "Authorization": format!("Bearer {user}") })).await;
    socket.send(json!({ "id": "1", "type": "subscribe", "payload": { "query": "{ viewer { id } }" } })).await;
    assert_eq!(socket.receive().await["payload"]["data"]["viewer"]["id"], "ann");
}
