//! Dead letters, and what becomes of them.

use serde_json::{Value, json};

use super::{Desk, TIME_MAX};
use crate::support::stack::{RECORD, Setup};
use crate::support::until;

crate::both_setups!(a_dead_letter_counts_once_when_what_refused_it_is_gone);

const REPLAY: &str = "mutation($ids: [ID!]) { replayDeadLetters(input: { ids: $ids, note: \"they fit now\" }) { replayed userErrors { code path } } }";

async fn letters(desk: &Desk) -> Vec<Value> {
    let query = "{ admin { deadLetters { nodes { id entry error } } } }";
    let data = desk.server.graphql("ann", query, json!({})).await;
    data["admin"]["deadLetters"]["nodes"].as_array().unwrap().clone()
}

async fn a_dead_letter_counts_once_when_what_refused_it_is_gone(setup: Setup) {
    let desk = Desk::with_products(setup, &[("lamp", "Lighting"), ("pan", "Kitchen")]).await;
    // A rule of their own that somebody has put into the database.
    let (forbid, allow) = match setup {
        Setup::Servers => (
            "ALTER TABLE events ADD CONSTRAINT no_lamps CHECK (product_id <> 'lamp')",
            "ALTER TABLE events DROP CONSTRAINT no_lamps",
        ),
        Setup::Embedded => (
            "CREATE TRIGGER no_lamps BEFORE INSERT ON events WHEN NEW.product_id = 'lamp'
             BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_lamps'); END",
            "DROP TRIGGER no_lamps",
        ),
    };
    desk.stack.sql(forbid).await;
    let order = |id: &str, product: &str, count: u32| json!({ "id": id, "signal": "ORDER", "productId": product, "count": count });
    let events = json!({ "events": [order("1", "lamp", 5), order("2", "pan", 1), order("3", "lamp", 2)] });
    let recorded = desk.server.graphql("shop", RECORD, events.clone()).await["recordEvents"].clone();
    assert_eq!(recorded["rejected"], 2, "{recorded}");
    until("what the ledger refuses is in the dead letters", TIME_MAX, async || letters(&desk).await.len() == 2).await;
    for letter in letters(&desk).await {
        assert!(letter["error"].as_str().unwrap().contains("no_lamps"), "{letter}");
    }
    let lamps = "SELECT count(*) FROM events WHERE product_id = 'lamp'";
    assert_eq!(desk.stack.count(lamps).await, 0);

    // As long as the reason is there they stay where they are, and nothing is said to be done.
    let replay = async |ids: Value| desk.payload("ann", REPLAY, json!({ "ids": ids })).await;
    let refused = replay(Value::Null).await;
    let errors = json!([{ "code": "INVALID", "path": ["ids"] }, { "code": "INVALID", "path": ["ids"] }]);
    assert_eq!(refused, json!({ "replayed": 0, "userErrors": errors }));
    assert_eq!((letters(&desk).await.len(), desk.audit().await.len()), (2, 0));

    desk.stack.sql(allow).await;
    let first = letters(&desk).await[0]["id"].clone();
    assert_eq!(replay(json!([first])).await, json!({ "replayed": 1, "userErrors": [] }));
    let again = json!([{ "code": "INVALID", "path": ["ids", "0"] }]);
    assert_eq!(replay(json!([first])).await, json!({ "replayed": 0, "userErrors": again }));
    assert_eq!(replay(Value::Null).await, json!({ "replayed": 1, "userErrors": [] }));
    assert_eq!(replay(Value::Null).await, json!({ "replayed": 0, "userErrors": [] }));
    desk.until_shown("daily", &[("lamp", 4.2), ("pan", 0.6)]).await;
    desk.until_shown("all-time", &[("lamp", 4.2), ("pan", 0.6)]).await;
    // A producer that has heard nothing of it sends all of them again.
    let repeated = desk.server.graphql("shop", RECORD, events).await["recordEvents"].clone();
    assert_eq!((&repeated["recorded"], &repeated["duplicates"]), (&json!(0), &json!(3)), "{repeated}");
    desk.until_shown("daily", &[("lamp", 4.2), ("pan", 0.6)]).await;
    assert_eq!((desk.stack.count(lamps).await, letters(&desk).await.len()), (2, 0));
    let audit = desk.audit().await;
    assert!(
        audit.iter().all(|entry| entry["action"] == "replayDeadLetters" && entry["note"] == "they fit now")
            && audit.len() == 2,
        "{audit:?}"
    );
    desk.server.assert_verified().await;
}
