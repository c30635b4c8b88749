//! A ledger that answers and takes nothing.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::hold::Hold;
use crate::support::node::{Node, order};
use crate::support::postgres;
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;
use acclaim::domain::Timestamp;
use acclaim::engine::EngineLimits;
use acclaim::pipeline::{Durability, EventResult};

crate::both_setups!(a_ledger_that_takes_nothing_is_down, an_event_in_flight_is_no_refused_one);

const TIME_MAX: Duration = Duration::from_secs(60);

/// What keeps the server from writing, until it is let.
enum Barred {
    /// Its role lacks a right.
    Role {
        owner: String,
    },
    Held(Hold),
}

impl Barred {
    async fn begin(stack: &Stack, owner: Option<&String>) -> Self {
        match owner {
            Some(owner) => {
                postgres::execute(owner, "REVOKE INSERT ON events FROM clerk").await;
                Self::Role { owner: owner.clone() }
            }
            None => Self::Held(Hold::begin(stack).await),
        }
    }

    async fn end(self) {
        match self {
            Self::Role { owner } => postgres::execute(&owner, "GRANT INSERT ON events TO clerk").await,
            Self::Held(hold) => hold.end().await,
        }
    }
}

/// Whether the server says that its ledger is up, to probes and to admins; `None` where the two differ for the moment.
async fn is_up(server: &Server) -> Option<bool> {
    let probe = server.http.get(format!("{}/readyz", server.url)).send().await.unwrap();
    let (status, told): (_, Value) = (probe.status(), probe.json().await.unwrap());
    assert_eq!(status == StatusCode::OK, told["ledger"]["up"] == true, "{told}");
    let query = "{ admin { system { ledger { up } } } }";
    let system = server.graphql("admin", query, json!({})).await;
    Some(status == StatusCode::OK).filter(|up| system["admin"]["system"]["ledger"]["up"] == *up)
}

/// The durability of a like; null where it is refused, as on a loaded machine it may be.
async fn like(server: &Server, product: &str) -> Value {
    let variables = json!({ "product": product, "key": product });
    let answer = server.try_graphql(Some("ann"), TOGGLE, variables).await.unwrap();
    answer["data"]["toggleLike"]["durability"].clone()
}

async fn a_ledger_that_takes_nothing_is_down(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    stack.ack_timeout_ms = 250;
    let own = match setup {
        Setup::Embedded => None,
        Setup::Servers => Some(tokio::task::spawn_blocking(postgres::Server::start).await.unwrap()),
    };
    let owner = own.as_ref().map(|own| own.url("postgres"));
    if let Some(owner) = &owner {
        stack.postgres = Some(owner.clone());
        assert!(stack.command().arg("migrate").output().unwrap().status.success());
        stack
            .sql(
                "CREATE ROLE clerk LOGIN;
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk",
            )
            .await;
        stack.postgres = Some(owner.replace("postgres@", "clerk@"));
    }
    let server = stack.serve().await;
    server.with_products(4).await;
    until("a like is committed", TIME_MAX, async || like(&server, "p0").await == "COMMITTED").await;
    until("it is up", TIME_MAX, async || is_up(&server).await == Some(true)).await;

    let barred = Barred::begin(&stack, owner.as_ref()).await;
    until("a like is accepted", TIME_MAX, async || like(&server, "p1").await == "ACCEPTED").await;
    until("it is down", TIME_MAX, async || is_up(&server).await == Some(false)).await;
    for _ in 0..10 {
        assert_eq!(is_up(&server).await, Some(false), "for as long as nothing is committed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    barred.end().await;
    let began = Instant::now();
    until("it is up again", TIME_MAX, async || is_up(&server).await == Some(true)).await;
    // It is promised within 2 s; on a loaded machine all takes longer.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    until("all is committed", TIME_MAX, async || stack.count("SELECT COUNT(*) FROM events").await == 2).await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    server.assert_verified().await;
    drop(server);
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}

/// The ledger has refused something before, and is slow now: what is sent twice meanwhile is a duplicate, of which more will be
/// known.
async fn an_event_in_flight_is_no_refused_one(setup: Setup) {
    let limits = EngineLimits { partitions: 1, ..EngineLimits::default() };
    let node = Node::start(setup, limits, Timestamp::now()).await;
    node.with_products(&["p0", "p1"]).await;
    let forbid = match setup {
        Setup::Servers => "ALTER TABLE events ADD CONSTRAINT no_p1 CHECK (product_id <> 'p1')",
        Setup::Embedded => {
            "CREATE TRIGGER no_p1 BEFORE INSERT ON events WHEN NEW.product_id = 'p1'
             BEGIN SELECT RAISE(ABORT, 'p1 is not for sale'); END"
        }
    };
    node.stack.sql(forbid).await;
    until("an event is refused", TIME_MAX, async || {
        let recorded = node.app.record(&[order("o1", "p1", None)]).await;
        recorded.is_ok_and(|(results, _)| results == [EventResult::DeadLettered])
    })
    .await;
    let hold = Hold::begin(&node.stack).await;
    let mut told = Vec::new();
    until("it is taken, and told three times as a duplicate", TIME_MAX, async || {
        match node.app.record(&[order("o2", "p0", None)]).await {
            Ok((results, durability)) => {
                assert_eq!(durability, Some(Durability::Accepted));
                told.extend(results);
            }
            // As on a loaded machine anything may be.
            Err(error) => assert!(!error.to_string().contains("has refused"), "{error}"),
        }
        told.len() == 4
    })
    .await;
    assert_eq!(told[1..], [const { EventResult::Duplicate }; 3]);
    hold.end().await;
    until("it is committed", TIME_MAX, async || {
        let again = node.app.record(&[order("o2", "p0", None)]).await;
        again.is_ok_and(|again| again == (vec![EventResult::Duplicate], Some(Durability::Committed)))
    })
    .await;
    assert_eq!(node.stack.count("SELECT COUNT(*) FROM events").await, 1);
    node.stop().await;
}
