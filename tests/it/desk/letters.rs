//! Dead letters, from what kept an event out of the ledger to its counting once.

use serde_json::{Value, json};

use super::{Desk, TIME_MAX};
use crate::support::stack::{RECORD, Setup};
use crate::support::until;

crate::both_setups!(what_the_database_refused_counts_once_when_its_reason_has_gone);

const LETTERS: &str = "{ admin { deadLetters { nodes { id entry error } } } }";
const REPLAY: &str =
    "mutation($ids: [ID!]) { replayDeadLetters(ids: $ids) { replayed userErrors { code message path } } }";

/// Somebody who works on the database forbids a product for a while.
async fn forbid(desk: &Desk, setup: Setup, product: &str) {
    let forbid = match setup {
        Setup::Servers => {
            format!("ALTER TABLE events ADD CONSTRAINT forbidden CHECK (product_id <> '{product}') NOT VALID")
        }
        Setup::Embedded => format!(
            "CREATE TRIGGER forbidden BEFORE INSERT ON events WHEN NEW.product_id = '{product}'
             BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: forbidden'); END"
        ),
    };
    desk.stack.sql(&forbid).await;
}

async fn allow(desk: &Desk, setup: Setup) {
    let allow = match setup {
        Setup::Servers => "ALTER TABLE events DROP CONSTRAINT forbidden",
        Setup::Embedded => "DROP TRIGGER forbidden",
    };
    desk.stack.sql(allow).await;
}

async fn letters(desk: &Desk) -> Vec<Value> {
    let data = desk.server.graphql("ann", LETTERS, json!({})).await;
    data["admin"]["deadLetters"]["nodes"].as_array().unwrap().clone()
}

async fn what_the_database_refused_counts_once_when_its_reason_has_gone(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    desk.orders("1", "lamp", 1, None).await;
    forbid(&desk, setup, "pan").await;
    let event = |id: &str, product: &str, count: u32| json!({ "id": id, "signal": "ORDER", "productId": product, "count": count });
    let events = json!({ "events": [event("2", "pan", 5), event("3", "lamp", 1), event("4", "pan", 2)] });
    desk.server.graphql("shop", RECORD, events.clone()).await;
    until("both orders of the pan are dead letters", TIME_MAX, async || letters(&desk).await.len() == 2).await;
    // What was refused alone is missing.
    desk.until_shown("daily", &[("lamp", 1.2)]).await;
    let found = letters(&desk).await;
    for letter in &found {
        assert!(letter["error"].as_str().unwrap().contains("forbidden"), "{letter}");
        assert!(letter["entry"].as_str().unwrap().contains("pan"), "{letter}");
    }
    let ids: Vec<Value> = found.iter().map(|letter| letter["id"].clone()).collect();
    // As long as the reason is there, they stay, and nothing is said to have been done.
    let audited = desk.audit().await.len();
    let tried = desk.payload("ann", REPLAY, json!({ "ids": ids })).await;
    assert_eq!(tried["replayed"], 0);
    assert_eq!(tried["userErrors"].as_array().unwrap().len(), 2, "{tried}");
    assert_eq!((letters(&desk).await.len(), desk.audit().await.len()), (2, audited));
    allow(&desk, setup).await;
    let replayed = desk.done(REPLAY, json!({ "ids": ids[..1] })).await;
    assert_eq!(replayed["replayed"], 1);
    assert_eq!(desk.done(REPLAY, json!({})).await["replayed"], 1, "all that is left");
    desk.until_shown("daily", &[("pan", 4.2), ("lamp", 1.2)]).await;
    assert_eq!(letters(&desk).await, [] as [Value; 0]);
    let audit = desk.audit().await;
    assert_eq!(audit.len(), audited + 2);
    assert!(
        audit[..2].iter().all(|entry| entry["action"] == "replayDeadLetters" && entry["actor"] == "ann"),
        "{audit:?}"
    );
    // Neither a second replay nor the shop's retry counts again.
    let again = desk.payload("ann", REPLAY, json!({ "ids": ids })).await;
    assert_eq!((&again["replayed"], again["userErrors"].as_array().unwrap().len()), (&json!(0), 2), "{again}");
    desk.server.graphql("shop", RECORD, events).await;
    desk.orders("5", "lamp", 1, None).await;
    desk.until_shown("daily", &[("pan", 4.2), ("lamp", 1.8)]).await;
    desk.server.assert_verified().await;
}
