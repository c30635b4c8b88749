//! A server whose engine is its own memory has its ledger for itself, whatever happens to Postgres or to a server.

use std::process::{Output, Stdio};
use std::time::Duration;

use acclaim::ledger::Ledger;

use crate::support::postgres::{self, Stop};
use crate::support::stack::{Setup, Stack, TOGGLE};
use crate::support::until;

/// Postgres and no Redis.
async fn stack(url: String) -> Stack {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.postgres = Some(url);
    stack
}

/// A server that is started beside another, until it ends by itself.
async fn second(stack: &Stack) -> Output {
    let mut command = stack.command();
    command.args(["serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn epoch(stack: &Stack) -> u64 {
    stack.count("SELECT epoch FROM meta").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_though_postgres_was_restarted() {
    let postgres = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let stack = stack(postgres.url("postgres")).await;
    let first = stack.serve().await;
    first.with_products(3).await;
    assert_eq!(first.toggle("ann", "p0", None).await["durability"], "COMMITTED");
    let before = epoch(&stack).await;
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.stop(Stop::Fast);
        postgres.start_again();
        postgres
    })
    .await
    .unwrap();
    let refused = second(&stack).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    let refusals: Vec<_> = said.lines().filter(|line| line.starts_with("acclaim: ")).collect();
    assert_eq!((refused.status.code(), refusals.len()), (Some(1), 1), "{said}");
    assert!(refusals[0].contains("another process works on this ledger"), "{said}");
    until("the first commits again", Duration::from_secs(10), async || {
        first.toggle("ann", "p1", None).await["durability"] == "COMMITTED"
    })
    .await;
    assert_eq!(epoch(&stack).await, before, "nobody has taken it over");
    first.assert_verified().await;
    // Who stops gives the ledger back at once.
    assert!(first.terminate().await.0.success());
    let next = stack.serve().await;
    assert!(!next.log().contains("lease to end"), "{}", next.log());
    drop(next);
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_next_server_waits_for_the_lease_and_says_so() {
    let stack = stack(postgres::database().await).await;
    let first = stack.serve().await;
    first.with_products(1).await;
    assert_eq!(first.toggle("ann", "p0", None).await["durability"], "COMMITTED");
    first.kill();
    let next = stack.serve().await;
    assert!(next.log().contains("waiting for the ledger's lease to end"), "{}", next.log());
    assert_eq!(next.toggle("bob", "p0", None).await["likeCount"], 2);
}

/// As when a machine was suspended: it does not know that it was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_given_up_does_not_take_the_ledger_back() {
    let stack = stack(postgres::database().await).await;
    let first = stack.serve().await;
    first.with_products(1).await;
    assert_eq!(first.toggle("ann", "p0", None).await["durability"], "COMMITTED");
    first.signal("STOP");
    let next = stack.serve().await;
    let taken = epoch(&stack).await;
    first.signal("CONT");
    // Until it has heard of that, it accepts likes that the ledger will not have.
    let mut accepted = 0;
    until("the first refuses likes", Duration::from_secs(20), async || {
        let answer = first.try_graphql(Some("cat"), TOGGLE, serde_json::json!({ "product": "p0" })).await.unwrap();
        let durability = &answer["data"]["toggleLike"]["durability"];
        assert_ne!(durability, "COMMITTED", "{answer}");
        accepted += u64::from(durability == "ACCEPTED");
        answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    })
    .await;
    for user in 0..20 {
        assert_eq!(next.toggle(&format!("user-{user}"), "p0", None).await["durability"], "COMMITTED");
    }
    until("the first says why", Duration::from_secs(10), async || {
        first.log().contains("another server has taken this ledger for itself")
    })
    .await;
    assert_eq!(epoch(&stack).await, taken, "the second one's epoch stands");
    next.assert_verified().await;
    assert!(next.terminate().await.0.success());
    until("the first goes on", Duration::from_secs(20), async || {
        let answer = first.try_graphql(Some("dan"), TOGGLE, serde_json::json!({ "product": "p0" })).await.unwrap();
        answer["data"]["toggleLike"]["durability"] == "COMMITTED"
    })
    .await;
    let stranded = stack.count("SELECT COUNT(*) FROM dead_letters WHERE error LIKE 'stranded%'").await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, stranded);
    assert!(stranded <= accepted, "{stranded} of {accepted} are kept");
    first.assert_verified().await;
}

/// A start that takes longer than a lease lasts is no reason to give it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_start_keeps_its_lease() {
    let stack = stack(postgres::database().await).await;
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let held = ledger.lock("recovery").await.unwrap();
    let beside = async {
        until("the first has the lease", Duration::from_secs(20), async || {
            stack.count("SELECT COUNT(*) FROM lease WHERE held").await == 1
        })
        .await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let refused = second(&stack).await;
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
        drop(held);
    };
    let (first, ()) = tokio::join!(stack.serve(), beside);
    first.with_products(1).await;
    assert_eq!(first.toggle("ann", "p0", None).await["durability"], "COMMITTED");
}

/// A file has one lock, by whatever link it is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_on_a_link_to_the_file() {
    let stack = Stack::new(Setup::Embedded).await;
    let first = stack.serve().await;
    let file = stack.ledger_url().strip_prefix("sqlite://").unwrap().to_owned();
    let link = format!("{file}.link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let mut command = stack.command();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("DATABASE_URL", format!("sqlite://{link}"));
    let refused = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("another process works on this ledger"), "{said}");
    first.with_products(1).await;
    assert_eq!(first.toggle("ann", "p0", None).await["durability"], "COMMITTED");
}

/// A lock that was left behind, as on a pooled connection, is named and not waited for in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_says_what_it_waits_for() {
    let stack = stack(postgres::database().await).await;
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    for (name, words) in
        [("recovery", "waiting for the lock \"recovery\""), ("migrations", "waiting for the lock \"migrations\"")]
    {
        let held = ledger.lock(name).await.unwrap();
        let freed = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            drop(held);
        };
        let (server, ()) = tokio::join!(stack.serve(), freed);
        let log = server.log();
        assert!(log.contains(words) && log.contains("SELECT pg_terminate_backend("), "{log}");
        assert!(server.terminate().await.0.success());
    }
    let locked = stack.sql("BEGIN; LOCK TABLE meta; SELECT pg_sleep(5); COMMIT");
    let (server, ()) = tokio::join!(stack.serve(), locked);
    assert!(server.log().contains("waiting for "), "{}", server.log());
}
