//! Sessions of Postgres: those that wait for a locked table, those that only read, and those that a pooler shares.

use std::process::Stdio;
use std::time::{Duration, Instant};

use acclaim::domain::UserId;
use acclaim::ledger::{Ledger, LedgerError};
use serde_json::json;

use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres;
use crate::support::stack::{Server, Setup, Stack};
use crate::support::until;

/// Sessions of ours that wait for somebody else's lock.
const WAITING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'acclaim' AND wait_event_type = 'Lock'";

async fn held(stack: &Stack, table: &str) {
    let held = format!(
        "SELECT COUNT(*) FROM pg_locks WHERE relation = '{table}'::regclass AND granted AND mode = 'AccessExclusiveLock'"
    );
    until("the table is locked", Duration::from_secs(10), async || stack.count(&held).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_keeps_no_connection_busy_for_those_who_have_gone() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    for product in ["p0", "p1", "p2"] {
        server.toggle("ann", product, None).await;
    }
    let unlock = std::sync::Arc::new(tokio::sync::Notify::new());
    let locked = async {
        let url = stack.postgres.as_ref().unwrap();
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE products IN ACCESS EXCLUSIVE MODE").await.unwrap();
        unlock.notified().await;
        client.batch_execute("ROLLBACK").await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
    };
    let read = |n: usize| {
        let body = json!({ "query": format!("{{ product(id: \"unknown-{n}\") {{ name }} }}") });
        let request = server.http.post(format!("{}/graphql", server.url)).header("x-acclaim-user", "reader");
        request.json(&body)
    };
    let meanwhile = async {
        held(&stack, "products").await;
        let given_up = futures_util::future::join_all(
            (0..200).map(async |n| read(n).timeout(Duration::from_secs(1)).send().await.is_err()),
        );
        let liked = async {
            until("reads wait for the lock", Duration::from_secs(5), async || stack.count(WAITING).await > 1).await;
            for n in 0..10 {
                assert_eq!(server.toggle(&format!("new-{n}"), "p1", None).await["durability"], "COMMITTED");
            }
        };
        let (given_up, ()) = tokio::join!(given_up, liked);
        assert!(given_up.iter().filter(|given_up| **given_up).count() > 100, "most were given up");
        until("no session waits for nobody", Duration::from_secs(4), async || stack.count(WAITING).await == 0).await;
        assert_eq!(server.toggle("late", "p2", None).await["durability"], "COMMITTED");
        unlock.notify_one();
    };
    tokio::join!(locked, meanwhile);
    let began = Instant::now();
    let answers = futures_util::future::join_all((0..20).map(async |n| {
        let answer: serde_json::Value = read(n).send().await.unwrap().json().await.unwrap();
        assert!(answer["data"]["product"].is_null() && answer.get("errors").is_none(), "{answer}");
    }));
    answers.await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    server.assert_verified().await;
}

/// Where nobody gives up, Postgres does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_has_a_limit_of_its_own() {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.postgres = Some(postgres::database().await);
    let ledger = Ledger::connect(&stack.ledger_url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let locked = stack.sql("BEGIN; LOCK TABLE likes IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(5); ROLLBACK");
    let meanwhile = async {
        held(&stack, "likes").await;
        let began = Instant::now();
        let user = UserId::new("ann").unwrap();
        let late = ledger.user_likes(&[user], acclaim::domain::Timestamp::now()).await;
        assert!(matches!(&late, Err(LedgerError::Unavailable(why)) if why.contains("statement timeout")), "{late:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    };
    tokio::join!(locked, meanwhile);
}

async fn is_up(server: &Server) -> (bool, bool) {
    let ready = server.http.get(format!("{}/readyz", server.url)).send().await.unwrap().status().is_success();
    let asked = server.try_graphql(Some("admin"), "{ admin { system { ledger { up } } } }", json!({})).await.unwrap();
    (ready, asked["data"]["admin"]["system"]["ledger"]["up"].as_bool().unwrap_or_else(|| panic!("{asked}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_only_reads_is_down_and_comes_back() {
    let postgres = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let mut stack = Stack::new(Setup::Servers).await;
    stack.postgres = Some(postgres.url("postgres"));
    stack.ack_timeout_ms = 1_000;
    // Whoever sets it right must be able to write.
    let writer = format!("{}?options=-c%20default_transaction_read_only%3Doff", postgres.url("postgres"));
    let server = stack.serve().await;
    server.with_products(3).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'acclaim'";
    // The first holds for sessions that are open; the second only for those that are opened, and as long as they are.
    let ways = [
        (
            "p0",
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        ),
        (
            "p1",
            "ALTER ROLE postgres SET default_transaction_read_only = on",
            "ALTER ROLE postgres RESET default_transaction_read_only",
            end,
        ),
    ];
    let mut fastest = [Duration::MAX; 2];
    // Twice each, since a busy machine is late by itself.
    for (way, (product, set, reset, then)) in ways.into_iter().enumerate().cycle().take(4) {
        assert_eq!(server.toggle("ann", product, None).await["durability"], "COMMITTED");
        postgres::execute(&writer, set).await;
        postgres::execute(&writer, then).await;
        until("it is told to be down", Duration::from_secs(10), async || is_up(&server).await == (false, false)).await;
        assert!(server.log().contains("Postgres only reads"), "{}", server.log());
        assert_eq!(server.toggle("ann", product, None).await["durability"], "ACCEPTED");
        postgres::execute(&writer, reset).await;
        if then != end {
            postgres::execute(&writer, then).await;
        }
        let began = Instant::now();
        until("it is back", Duration::from_secs(5), async || is_up(&server).await == (true, true)).await;
        until("likes are committed", Duration::from_secs(5), async || {
            server.toggle("bob", product, None).await["durability"] == "COMMITTED"
        })
        .await;
        fastest[way] = fastest[way].min(began.elapsed());
    }
    assert!(fastest.iter().all(|back| *back < Duration::from_secs(2)), "{fastest:?}");
    server.assert_verified().await;
    drop(server);
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}

/// What a command says within 10 s, and whether it ends well.
async fn said(stack: &Stack, arguments: &[&str]) -> (String, bool) {
    let mut command = stack.command();
    command.args(arguments).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    assert!(Instant::now() < deadline, "{arguments:?} does not end within 10 s");
    (String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_sessions_is_refused_in_one_sentence() {
    let postgres = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    for (mode, more) in [
        ("transaction", ""),
        ("transaction", "server_round_robin = 1"),
        ("transaction", "default_pool_size = 1"),
        ("statement", ""),
    ] {
        let pooler = PgBouncer::start(postgres.port(), mode, more).await;
        let mut stack = Stack::new(Setup::Embedded).await;
        stack.postgres = Some(pooler.url("postgres"));
        for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["doctor"]] {
            let (said, is_well) = said(&stack, arguments).await;
            let told: Vec<_> = said.lines().filter(|line| line.contains("pool_mode = session")).collect();
            assert!(!is_well && told.len() == 1, "{mode} {more} {arguments:?}: {said}");
        }
    }
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_pools_sessions_is_as_good_as_none() {
    let postgres = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let pooler = PgBouncer::start(postgres.port(), "session", "").await;
    let mut stack = Stack::new(Setup::Servers).await;
    stack.postgres = Some(pooler.url("postgres"));
    for round in 0..2 {
        let server = stack.serve().await;
        server.with_products(3).await;
        for user in 0..10 {
            let liked = server.toggle(&format!("user-{user}"), &format!("p{round}"), None).await;
            assert_eq!(liked["durability"], "COMMITTED");
        }
        server.assert_verified().await;
        // Killed, so that whatever it held would be left behind.
        server.kill();
    }
    let (said, is_well) = said(&stack, &["doctor"]).await;
    assert!(is_well, "{said}");
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}
