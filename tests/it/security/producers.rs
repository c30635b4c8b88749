//! Events belong to their producer: nobody takes another's ids, and nobody reverses another's events.

use serde_json::{Value, json};

use super::tokens::{claims, signed_by_secret};
use crate::auth::SECRET;
use crate::support::stack::{RECORD, Server, Setup, Stack};

crate::both_setups!(events_belong_to_their_producer,);

/// The status of each event.
async fn record(server: &Server, token: &str, events: Value) -> Vec<String> {
    let body = json!({ "query": RECORD, "variables": { "events": events } });
    let answer = server.http.post(format!("{}/graphql", server.url)).bearer_auth(token).json(&body).send().await;
    let answer: Value = answer.unwrap().json().await.unwrap();
    let recorded = &answer["data"]["recordEvents"];
    assert!(recorded["durability"] == "COMMITTED" || recorded["durability"].is_null(), "{answer}");
    let results = recorded["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results.iter().map(|result| result["status"].as_str().unwrap().to_owned()).collect()
}

fn order(id: &str) -> Value {
    json!({ "id": id, "signal": "ORDER", "productId": "p0" })
}

fn reversal(id: &str, of: &str) -> Value {
    json!({ "id": id, "signal": "ORDER", "productId": "p0", "reverses": of })
}

fn token(sub: &str, producer: Option<&str>, roles: &[&str]) -> String {
    let mut claims = claims(sub);
    claims["roles"] = json!(roles);
    if let Some(producer) = producer {
        claims["producer"] = json!(producer);
    }
    signed_by_secret(&claims)
}

async fn events_belong_to_their_producer(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    // In open mode they belong to nobody.
    let recorded = server.graphql("shop", RECORD, json!({ "events": [order("old-1"), order("old-2")] })).await;
    assert_eq!(
        (&recorded["recordEvents"]["recorded"], &recorded["recordEvents"]["durability"]),
        (&json!(2), &json!("COMMITTED"))
    );
    server.terminate().await;
    stack.arguments = ["--jwt-secret", SECRET].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    let till = token("till-1", Some("shop"), &["INGEST"]);
    let mut command = stack.command();
    command.args(["token", "--user", "till-2", "--producer", "shop", "--role", "ingest"]);
    let printed = command.env("ACCLAIM_JWT_SECRET", SECRET).output().unwrap();
    let other_till = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    // Named as the shop's ids begin, and as what is stored of them does.
    let thief = token("shop:", None, &["INGEST"]);
    let admin = token("root", None, &["INGEST", "ADMIN"]);

    assert_eq!(record(&server, &till, json!([order("o1"), order("o2")])).await, ["RECORDED"; 2]);
    assert_eq!(record(&server, &other_till, json!([order("o1")])).await, ["DUPLICATE"], "the same producer's");
    assert_eq!(record(&server, &thief, json!([order("o1")])).await, ["RECORDED"], "an id of its own");
    for whose in [&thief, &admin] {
        assert_eq!(record(&server, whose, json!([reversal("r1", "o2")])).await, ["REJECTED"], "it has no such event");
    }
    for mistaken in ["by:4:shop:o2", "by:5:shop::o2"] {
        assert_eq!(record(&server, &thief, json!([reversal("r1", mistaken), order(mistaken)])).await, ["REJECTED"; 2]);
    }
    assert_eq!(record(&server, &other_till, json!([reversal("r1", "o2")])).await, ["RECORDED"]);
    assert_eq!(record(&server, &till, json!([reversal("r2", "o2")])).await, ["DUPLICATE"]);

    // What belongs to nobody is taken for everybody, and an admin's to reverse.
    for whose in [&till, &thief, &admin] {
        assert_eq!(record(&server, whose, json!([order("old-1")])).await, ["DUPLICATE"]);
    }
    for whose in [&till, &thief] {
        assert_eq!(record(&server, whose, json!([reversal("r3", "old-1")])).await, ["REJECTED"]);
    }
    assert_eq!(record(&server, &admin, json!([reversal("r3", "old-1")])).await, ["RECORDED"]);
    assert_eq!(record(&server, &admin, json!([reversal("r4", "old-1")])).await, ["DUPLICATE"]);

    // Left: old-2, and an o1 of each.
    assert_eq!(stack.count("SELECT SUM(count) FROM events").await, 3);
    assert_eq!(stack.count("SELECT COUNT(*) FROM events WHERE id = 'by:4:shop:o1'").await, 1);
    for bad in [json!(7), json!(""), json!("x".repeat(129))] {
        let mut claims = claims("till-1");
        claims["producer"] = bad;
        let body = json!({ "query": "{ __typename }" });
        let refused = server.http.post(format!("{}/graphql", server.url)).bearer_auth(signed_by_secret(&claims));
        assert_eq!(refused.json(&body).send().await.unwrap().status(), 401, "{claims}");
    }
}
