//! Likes without a client's key count before the ledger has them; those with one wait for their commit.

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::partition_of;
use serde_json::{Value, json};

use crate::support::hold::Hold;
use crate::support::postgres::{self, Stop};
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(
    a_like_without_a_key_counts_while_the_ledger_is_away,
    a_like_without_a_key_that_can_not_be_stored_is_taken_back,
);

const TIME_MAX: Duration = Duration::from_secs(60);

/// Keeps the ledger from committing anything, until `back`.
enum Away {
    Stopped(Arc<postgres::Server>),
    Held(Hold),
}

impl Away {
    async fn begin(stack: &Stack, postgres: Option<&Arc<postgres::Server>>) -> Self {
        match postgres {
            Some(postgres) => {
                let stopping = postgres.clone();
                tokio::task::spawn_blocking(move || stopping.stop(Stop::Fast)).await.unwrap();
                Self::Stopped(postgres.clone())
            }
            None => Self::Held(Hold::begin(stack).await),
        }
    }

    async fn back(self) {
        match self {
            Self::Stopped(postgres) => tokio::task::spawn_blocking(move || postgres.start_again()).await.unwrap(),
            Self::Held(hold) => hold.end().await,
        }
    }
}

async fn toggle(server: &Server, user: &str, product: &str, key: Option<&str>) -> Value {
    let answer = server.try_graphql(Some(user), TOGGLE, json!({ "product": product, "key": key })).await.unwrap();
    answer["data"]["toggleLike"].clone()
}

/// What of some products is on the board.
async fn shown(server: &Server) -> Vec<String> {
    server.ranking(10).await.into_iter().map(|(product, _)| product).collect()
}

/// Names of somebody in each partition.
fn somebody_in(partition: u16) -> String {
    (0..).map(|n| format!("user-{n}")).find(|name| partition_of(name, 4) == partition).unwrap()
}

async fn a_like_without_a_key_counts_while_the_ledger_is_away(setup: Setup) {
    let postgres = match setup {
        Setup::Servers => Some(Arc::new(tokio::task::spawn_blocking(postgres::Server::start).await.unwrap())),
        Setup::Embedded => None,
    };
    let mut stack = Stack::new(setup).await;
    if let Some(postgres) = &postgres {
        stack.postgres = Some(postgres.url("postgres"));
    }
    stack.ack_timeout_ms = 250;
    let server = stack.serve().await;
    server.with_products(6).await;
    let (keyless, keyed) = (somebody_in(1), somebody_in(2));
    for user in [&keyless, &keyed] {
        until("the user is loaded and a like committed", TIME_MAX, async || {
            toggle(&server, user, "p0", Some("before")).await["durability"] == "COMMITTED"
        })
        .await;
    }
    for product in 1..6 {
        // The server knows the products by then.
        toggle(&server, &keyless, &format!("p{product}"), None).await;
        toggle(&server, &keyless, &format!("p{product}"), None).await;
    }
    until("all of it is committed", TIME_MAX, async || stack.count("SELECT COUNT(*) FROM events").await == 12).await;
    until("the board follows", TIME_MAX, async || shown(&server).await == ["p0"]).await;

    let away = Away::begin(&stack, postgres.as_ref()).await;
    let liked = toggle(&server, &keyless, "p1", None).await;
    assert_eq!(liked["durability"], "ACCEPTED", "{liked}");
    until("it is shown", TIME_MAX, async || shown(&server).await == ["p0", "p1"]).await;
    let liked = toggle(&server, &keyed, "p2", Some("meanwhile")).await;
    assert_eq!(liked["durability"], "ACCEPTED", "{liked}");
    // One key after the other of somebody's own, and so they rest on nothing that may be refused.
    toggle(&server, &keyless, "p3", None).await;
    toggle(&server, &keyless, "p1", None).await;
    until("they are shown", TIME_MAX, async || shown(&server).await == ["p0", "p3"]).await;
    for _ in 0..10 {
        assert_eq!(shown(&server).await, ["p0", "p3"], "what has a key waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    away.back().await;
    until("the ledger has it, and so it counts", TIME_MAX, async || {
        let mut shown = shown(&server).await;
        shown.sort();
        shown == ["p0", "p2", "p3"]
    })
    .await;
    until("all of it is committed", TIME_MAX, async || stack.count("SELECT COUNT(*) FROM events").await == 16).await;
    server.assert_verified().await;
    drop(server);
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}

/// A rule that somebody has put on the table keeps it out.
async fn a_like_without_a_key_that_can_not_be_stored_is_taken_back(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(4).await;
    stack
        .sql(match setup {
            Setup::Servers => "ALTER TABLE events ADD CONSTRAINT no_p3 CHECK (product_id <> 'p3')",
            Setup::Embedded => {
                "CREATE TRIGGER no_p3 BEFORE INSERT ON events WHEN NEW.product_id = 'p3'
                 BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_p3'); END"
            }
        })
        .await;
    let liked = toggle(&server, "ann", "p3", None).await;
    assert_eq!((&liked["liked"], &liked["userErrors"][0]["code"]), (&Value::Null, &json!("INVALID")), "{liked}");
    toggle(&server, "ann", "p1", None).await;
    until("it is nowhere", TIME_MAX, async || {
        let query = "{ products(ids: [\"p3\"]) { like { count viewerHasLiked } } }";
        let like = server.graphql("ann", query, json!({})).await["products"][0]["like"].clone();
        shown(&server).await == ["p1"] && like == json!({ "count": 0, "viewerHasLiked": false })
    })
    .await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM rejections").await, 0);
    server.assert_verified().await;
}
