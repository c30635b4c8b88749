//! The Redis user and the two Postgres roles that the README defines, taken from its text: a server works with them, and
//! they can do nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::live::Socket;
use crate::support::postgres;
use crate::support::redis::RedisServer;
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::until;

const README: &str = include_str!("../../../README.md");

/// The first block of a language in the README that holds a text.
pub fn block(language: &str, holds: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = README.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(holds)).unwrap_or_else(|| panic!("no {language} block with {holds}"))
}

/// The README's command, as Redis gets it from redis-cli.
fn make_redis_user(redis: &RedisServer) {
    let command =
        block("sh", "acl setuser acclaim").split("redis-cli ").find(|rest| rest.starts_with("acl setuser")).unwrap();
    let words: Vec<_> = command.replace("\\\n", " ").split_whitespace().map(|word| word.replace('\'', "")).collect();
    redis.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

async fn run_each(url: &str, block: &str) {
    // One by one: a database can't be made within a transaction.
    for statement in block.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        postgres::execute(url, statement).await;
    }
}

/// What a command of the stack prints, and whether it ended well.
fn run(stack: &Stack, arguments: &[&str], database: &str) -> (String, bool) {
    let output = stack.command().args(arguments).env("DATABASE_URL", database).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (text, output.status.success())
}

async fn admin(server: &Server, mutation: &str) -> Value {
    server.graphql("boss", &format!("mutation {{ {mutation} }}"), json!({})).await
}

/// The main job, from the catalogue to a verified board.
pub async fn work(server: &Server) {
    server.with_products(3).await;
    let mut socket = Socket::connect(&server.url, json!({ "x-acclaim-user": "ann" })).await;
    let mut view = socket.watch_board(10).await;
    assert_eq!(server.toggle("ann", "p1", Some("k1")).await["durability"], "COMMITTED");
    assert_eq!(server.toggle("ann", "p1", Some("k1")).await["changed"], false);
    server.toggle("bob", "p1", None).await;
    let old = (acclaim::domain::Timestamp::now().as_ms() - 900_000) / 1_000;
    let old = acclaim::domain::Timestamp::from_ms(old * 1_000).to_string();
    let events = json!([
        { "id": "o1", "signal": "ORDER", "productId": "p2" },
        { "id": "o2", "signal": "ORDER", "productId": "p2", "occurredAt": old },
        { "id": "x", "signal": "ORDER", "productId": "p2", "reverses": "o2" },
    ]);
    let recorded = server.graphql("shop", RECORD, json!({ "events": events })).await;
    assert_eq!(recorded["recordEvents"]["recorded"], 3, "{recorded}");
    view.follow_until(&mut socket, "the order leads", async |shown: &Vec<(String, f64)>| {
        shown.first().is_some_and(|(product, _)| product == "p2") && shown.len() == 2
    })
    .await;
    let liked = server.graphql("ann", "{ viewer { likes { nodes { id } } } }", json!({})).await;
    assert_eq!(liked["viewer"]["likes"]["nodes"][0]["id"], "p1");
    let adjusted =
        admin(server, "adjustWeights(input: { weights: [{ signal: LIKE, weight: 2 }], note: \"n\" }) { version }")
            .await;
    let version = adjusted["adjustWeights"]["version"].clone();
    admin(
        server,
        &format!("cancelWeights(input: {{ id: \"{}\", note: \"n\" }}) {{ version }}", version.as_u64().unwrap()),
    )
    .await;
    admin(
        server,
        "saveBoard(input: { id: \"mine\", title: \"Mine\", window: WEEK }) { board { id } userErrors { message } }",
    )
    .await;
    admin(server, "setProductRule(input: { productId: \"p0\", boost: 2, note: \"n\" }) { rule { id } }").await;
    let two_days_ago =
        acclaim::domain::Timestamp::from_ms(acclaim::domain::Timestamp::now().as_ms() - 2 * 86_400_000).to_string();
    admin(
        server,
        &format!("rebuildBoard(input: {{ id: \"daily\", fromPeriod: \"{}\" }}) {{ fromPeriod }}", &two_days_ago[..10]),
    )
    .await;
    admin(server, "replayDeadLetters(input: {}) { replayed }").await;
    admin(server, "deleteBoard(input: { id: \"mine\", note: \"n\" }) { board { id } }").await;
    let preview = "{ admin { weightPreview(input: { weights: [{ signal: VIEW, weight: 1 }], note: \"n\" }) { boards { topOverlap } } system { pending } auditLog { nodes { id } } } }";
    server.graphql("boss", preview, json!({})).await;
    admin(server, "repair(input: {}) { likes activity }").await;
    until("the board is current", Duration::from_secs(30), async || {
        server.graphql("boss", "{ board { isCurrent } }", json!({})).await["board"]["isCurrent"] == true
    })
    .await;
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_works_with_what_the_readme_allows_it() {
    let mut stack = Stack::new(Setup::Servers).await;
    let redis = stack.redis.as_ref().unwrap();
    make_redis_user(redis);
    stack.redis_url = Some(format!("redis://acclaim:choose-one@127.0.0.1:{}/", redis.port()));
    let database = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let root = database.url("postgres");
    run_each(&root, block("sql", "CREATE DATABASE")).await;
    run_each(&database.url("acclaim"), block("sql", "ON SCHEMA public")).await;
    postgres::ask_for_passwords(&root).await;
    let url =
        |role: &str, password: &str| format!("postgres://{role}:{password}@127.0.0.1:{}/acclaim", database.port());
    let (owner, own) = (url("acclaim_owner", "choose-one"), url("acclaim", "choose-another"));
    stack.postgres = Some(own.clone());

    // Without its tables, and without the right to make them.
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
        let (said, is_well) = run(&stack, arguments, &own);
        assert!(!is_well && said.contains("acclaim migrate") && said.contains("may not change them"), "{said}");
        assert!(said.contains("2026-11-22-000000_first"), "it names what is not applied: {said}");
    }
    let (said, is_well) = run(&stack, &["migrate"], &owner);
    assert!(is_well && said.contains("applied"), "{said}");
    let (said, is_well) = run(&stack, &["doctor"], &own);
    assert!(!is_well && said.contains("GRANT"), "{said}");
    run_each(&owner, block("sql", "ON ALL TABLES")).await;
    let (said, is_well) = run(&stack, &["doctor"], &own);
    assert!(is_well && !said.contains("fail "), "{said}");

    let server = stack.serve().await;
    work(&server).await;
    // A new epoch, with scripts and journals to be made anew.
    stack.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    stack.redis.as_ref().unwrap().command(&["SCRIPT", "FLUSH"]);
    until("likes are taken again", Duration::from_secs(30), async || {
        let like = "mutation { setLike(input: { productId: \"p0\", liked: true }) { liked } }";
        server.try_graphql(Some("eve"), like, json!({})).await.unwrap()["data"]["setLike"]["liked"] == true
    })
    .await;
    server.assert_verified().await;
    let log = server.log();
    assert!(!log.contains("NOPERM") && !log.contains("permission denied"), "{log}");
    assert!(server.terminate().await.0.success());
    let server = stack.serve().await;
    server.assert_verified().await;
    let (said, is_well) = run(&stack, &["doctor"], &own);
    assert!(is_well, "{said}");
    for subject in ["Redis permissions", "Postgres permissions", "Redis settings", "Redis clock"] {
        let wrong = said.lines().find(|line| line.contains(subject) && !line.starts_with("ok"));
        assert_eq!(wrong, None);
    }

    // A migration that is to come: whoever may not make it says so, and changes nothing.
    let forget =
        "DELETE FROM __diesel_schema_migrations WHERE version = (SELECT MAX(version) FROM __diesel_schema_migrations)";
    postgres::execute(&owner, forget).await;
    let (said, is_well) = run(&stack, &["serve", "--listen", "127.0.0.1:0"], &own);
    assert!(!is_well && said.contains("acclaim migrate") && said.contains("counted"), "{said}");
    drop(server);
    nothing_else_is_allowed(&stack, &own).await;
    tokio::task::spawn_blocking(move || drop(database)).await.unwrap();
}

async fn nothing_else_is_allowed(stack: &Stack, own: &str) {
    let client = redis::Client::open(stack.redis_url.clone().unwrap()).unwrap();
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(20)).unwrap();
    for command in [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG GET requirepass",
        "CONFIG SET dir /tmp",
        "ACL LIST",
        "ACL WHOAMI",
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "MODULE LIST",
        "MONITOR",
        "CLIENT LIST",
        "SAVE",
        "EVAL return 0",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "GET other:key",
        "SET other:key 1",
        "XADD other:journal * a b",
        "SUBSCRIBE other:feed",
        "PUBLISH other:feed x",
        "PSUBSCRIBE *",
        "MIGRATE h 1 k 0 1",
    ] {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        let refused = cmd.query::<redis::Value>(&mut connection).unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{command}: {refused}");
    }
    let (client, driver) = tokio_postgres::connect(own, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    for statement in [
        "CREATE TABLE t (a INT)",
        "CREATE SCHEMA s",
        "DROP TABLE events",
        "TRUNCATE events",
        "ALTER TABLE events ADD a INT",
        "DELETE FROM events",
        "UPDATE events SET count = 0",
        "UPDATE audit_log SET note = ''",
        "DELETE FROM audit_log",
        "DELETE FROM likes",
        "UPDATE weight_rules SET note = ''",
        "DELETE FROM __diesel_schema_migrations",
        "CREATE INDEX i ON events (user_id)",
        "CREATE ROLE r",
        "COPY events TO '/tmp/events'",
        "SELECT * FROM pg_authid",
    ] {
        let refused = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code().map(|code| code.code()), Some("42501"), "{statement}: {refused}");
    }
    drop(client);
    driver.await.unwrap().unwrap();
}
