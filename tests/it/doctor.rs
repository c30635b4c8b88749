//! `acclaim doctor` against real servers, sound and unsound.

use std::time::Duration;

use acclaim::engine::redis::keys::Key;

use crate::support::postgres::{self, Stop};
use crate::support::redis::{RedisServer, named};
use crate::support::stack::{Setup, Stack};
use crate::support::until;

/// What it prints, as (verdict, the rest of the line), and whether it ends well.
fn examine(stack: &Stack, environment: &[(&str, &str)]) -> (Vec<(String, String)>, bool) {
    let output = stack.command().arg("doctor").envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let wrong = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("hunter2") && !wrong.contains("hunter2"), "a password is shown: {said}{wrong}");
    let lines = said.lines().map(|line| {
        let (verdict, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} in {said}{wrong}"));
        (verdict.to_owned(), rest.trim().to_owned())
    });
    (lines.collect(), output.status.success())
}

/// The verdict of the line that is about `subject` and says `words`.
fn verdict(lines: &[(String, String)], subject: &str, words: &str) -> String {
    let found = lines.iter().find(|(_, rest)| rest.starts_with(subject) && rest.contains(words));
    found.unwrap_or_else(|| panic!("nothing about {subject}: {words} in {lines:#?}")).0.clone()
}

crate::both_setups!(a_sound_set_up_is_told_to_be_sound);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_can_not_be_told_apart_are_named() {
    let stack = Stack::new(Setup::Embedded).await;
    let (secret, private) = (("ACCLAIM_JWT_SECRET", crate::auth::SECRET), ("ACCLAIM_LISTEN", "10.0.0.1:8080"));
    let named = ("ACCLAIM_TRUSTED_PROXY", "10.0.0.0/8,192.0.2.1");
    for (environment, told) in [
        (&[][..], "ok"),
        (&[secret], "warn"),
        (&[secret, private], "warn"),
        (&[secret, private, named], "ok"),
        (&[secret, ("ACCLAIM_LISTEN", "0.0.0.0:8080")], "ok"),
    ] {
        let (lines, is_well) = examine(&stack, environment);
        assert_eq!((verdict(&lines, "callers", "").as_str(), is_well), (told, true), "{environment:?}: {lines:#?}");
    }
}

async fn a_sound_set_up_is_told_to_be_sound(setup: Setup) {
    let stack = Stack::new(setup).await;
    let (before, is_well) = examine(&stack, &[]);
    assert!(is_well, "{before:#?}");
    match setup {
        Setup::Embedded => {
            assert_eq!(verdict(&before, "SQLite file", "there is no"), "warn");
            assert!(!stack.sqlite_file().exists(), "it is not made");
            let (lines, is_well) = examine(&stack, &[("DATABASE_URL", "sqlite://nowhere/acclaim.db")]);
            assert!(!is_well, "{lines:#?}");
            assert_eq!(verdict(&lines, "ledger", "does not exist; create it"), "fail");
        }
        Setup::Servers => assert_eq!(verdict(&before, "ledger's tables", "acclaim migrate"), "warn"),
    }
    let server = stack.serve().await;
    server.with_products(1).await;
    server.toggle("ann", "p0", None).await;
    let (lines, is_well) = examine(&stack, &[]);
    assert!(is_well, "{lines:#?}");
    // The machine's own limits are its owner's.
    let wrong: Vec<_> =
        lines.iter().filter(|(verdict, rest)| verdict != "ok" && !rest.starts_with("open files")).collect();
    let summary = lines.last().unwrap();
    assert_eq!(wrong, [summary], "{lines:#?}");
    assert_eq!(verdict(&lines, "ledger's tables", "up to date"), "ok");
    match setup {
        Setup::Embedded => assert_eq!(verdict(&lines, "engine", "memory"), "ok"),
        Setup::Servers => {
            for subject in ["Redis version", "Redis eviction", "Redis persistence", "Redis clock", "Redis permissions"]
            {
                assert_eq!(verdict(&lines, subject, ""), "ok");
            }
            for subject in ["Postgres version", "Postgres persistence", "Postgres permissions", "Postgres clock", "lag"]
            {
                assert_eq!(verdict(&lines, subject, ""), "ok");
            }
            // It leaves nothing behind.
            let keys: Vec<String> =
                redis::from_redis_value(stack.redis.as_ref().unwrap().command(&["KEYS", "acc:{doctor:}*"])).unwrap();
            assert_eq!(keys, [""; 0]);
        }
    }
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_told_to_be_damaged() {
    const PAGE_LEN: usize = 4_096;
    let stack = Stack::new(Setup::Embedded).await;
    let server = stack.serve().await;
    server.with_products(1_000).await;
    server.terminate().await;
    let (lines, is_well) = examine(&stack, &[]);
    assert!(is_well, "{lines:#?}");
    assert_eq!(verdict(&lines, "SQLite file", "is sound"), "ok");
    let file = stack.sqlite_file();
    let mut bytes = std::fs::read(&file).unwrap();
    // The last pages, which are the products'; without the first ones SQLite would not open it.
    let from = bytes.len() - 8 * PAGE_LEN;
    bytes[from..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let (lines, is_well) = examine(&stack, &[]);
    assert!(!is_well, "{lines:#?}");
    assert_eq!(verdict(&lines, "SQLite file", "is damaged"), "fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_set_up_badly_is_told_what_to_do() {
    let stack = Stack::new(Setup::Servers).await;
    drop(stack.serve().await);
    let redis = stack.redis.as_ref().unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.command(&["CONFIG", "SET", "appendonly", "no"]);
    redis.command(&["ACL", "SETUSER", "narrow", "on", ">hunter2", "~acc:*", "&acc:*", "+@all", "-xadd", "-subscribe"]);
    redis.command(&["ACL", "SETUSER", "elsewhere", "on", ">hunter2", "~other:*", "&other:*", "+@all"]);
    let (lines, is_well) = examine(&stack, &[]);
    assert!(!is_well, "{lines:#?}");
    assert_eq!(verdict(&lines, "Redis eviction", "CONFIG SET maxmemory-policy noeviction"), "fail");
    assert_eq!(verdict(&lines, "Redis persistence", "CONFIG SET appendonly yes"), "warn");
    let url = |user: &str| format!("redis://{user}:hunter2@127.0.0.1:{}/", redis.port());
    let (lines, _) = examine(&stack, &[("REDIS_URL", &url("narrow"))]);
    assert_eq!(verdict(&lines, "Redis permissions", "may not use XADD, SUBSCRIBE on acc:*"), "fail");
    let (lines, _) = examine(&stack, &[("REDIS_URL", &url("elsewhere"))]);
    assert_eq!(verdict(&lines, "Redis permissions", "HSET"), "fail");
    let (lines, is_well) = examine(&stack, &[("REDIS_URL", &url("nobody"))]);
    assert!(!is_well);
    assert_eq!(verdict(&lines, "Redis ", "127.0.0.1"), "fail");

    let port = redis.port().to_string();
    let replica = RedisServer::start_with(&["--save", "", "--appendonly", "no", "--replicaof", "127.0.0.1", &port]);
    let (lines, is_well) = examine(&stack, &[("REDIS_URL", &replica.url())]);
    assert!(!is_well);
    assert_eq!(verdict(&lines, "Redis role", "replica"), "fail");
    // An empty one, beside a ledger that has been worked on.
    let empty = RedisServer::start();
    let (lines, _) = examine(&stack, &[("REDIS_URL", &empty.url())]);
    assert_eq!(verdict(&lines, "lag", "epoch none"), "warn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_set_up_badly_is_told_what_to_do() {
    let server = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let mut stack = Stack::new(Setup::Servers).await;
    stack.postgres = Some(server.url("postgres"));
    drop(stack.serve().await);
    stack.sql("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader").await;
    stack.sql("ALTER SYSTEM SET fsync = off").await;
    stack.sql("ALTER ROLE reader SET synchronous_commit = off").await;
    stack.sql("DELETE FROM __diesel_schema_migrations WHERE version = (SELECT MAX(version) FROM __diesel_schema_migrations)").await;
    stack.sql("SELECT pg_reload_conf()").await;
    let reader = server.url("postgres").replace("postgres@", "reader@");
    until("the setting is taken up", Duration::from_secs(20), async || {
        let (lines, is_well) = examine(&stack, &[("DATABASE_URL", &reader)]);
        assert!(!is_well);
        assert_eq!(verdict(&lines, "Postgres permissions", "INSERT on events"), "fail");
        assert_eq!(verdict(&lines, "ledger's tables", "1 migrations are not applied"), "warn");
        lines.iter().any(|(verdict, rest)| verdict == "fail" && rest.contains("fsync is off"))
    })
    .await;
    stack.sql("ALTER SYSTEM RESET fsync").await;
    stack.sql("ALTER SYSTEM SET max_connections = 12").await;
    stack.sql("ALTER ROLE reader SET default_transaction_read_only = on").await;
    let server = tokio::task::spawn_blocking(move || {
        server.stop(Stop::Fast);
        server
    });
    let server = server.await.unwrap();
    let closed = examine(&stack, &[]);
    assert!(!closed.1);
    assert_eq!(verdict(&closed.0, "ledger", "start Postgres there"), "fail");
    // What Redis has to say is said all the same.
    assert_eq!(verdict(&closed.0, "Redis version", ""), "ok");
    let server = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let server = server.await.unwrap();
    let (lines, _) = examine(&stack, &[("DATABASE_URL", &reader)]);
    assert_eq!(verdict(&lines, "Postgres persistence", "synchronous_commit is off"), "warn");
    assert_eq!(verdict(&lines, "Postgres role", "only reads"), "fail");
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

/// Entries that nobody takes over, since no server runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_wait_for_long_are_told() {
    let stack = Stack::new(Setup::Servers).await;
    drop(stack.serve().await);
    let long_ago_ms = (acclaim::domain::Timestamp::now().as_ms() - 3_600_000).to_string();
    let fields = ["id", "e", "signal", "2", "product", "p", "user", "", "count", "1", "reverses", ""];
    let journal = named(Key::Journal(0));
    let mut entry = vec!["XADD", &journal, "1-*", "occurred_at", &long_ago_ms, "recorded_at", &long_ago_ms];
    entry.extend(fields);
    stack.redis.as_ref().unwrap().command(&entry);
    let (lines, is_well) = examine(&stack, &[]);
    assert!(!is_well, "{lines:#?}");
    assert_eq!(verdict(&lines, "lag", "1 entries"), "fail");
}

#[test]
fn help_says_what_it_looks_at() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_acclaim")).args(["doctor", "--help"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for word in ["eviction", "permissions", "Exit code", "DATABASE_URL", "REDIS_URL"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
