//! Servers with ledgers of their own that are pointed to one Redis, under one prefix.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

/// Two ledgers, and the first one's Redis for both.
async fn stacks() -> (Stack, Stack) {
    let first = Stack::new(Setup::Servers).await;
    let mut second = Stack::new(Setup::Servers).await;
    second.redis_url = first.redis.as_ref().map(|redis| redis.url());
    (first, second)
}

/// What `acclaim` says on both ways, and whether it ends well.
fn run(stack: &Stack, arguments: &[&str]) -> (String, bool) {
    let output = stack.command().args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (said, output.status.success())
}

/// Lines that say that the Redis is another ledger's.
fn refusals(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains("another ledger's likes")).collect()
}

async fn assert_commits(server: &Server, user: &str) {
    let liked = server.toggle(user, "p0", None).await;
    assert_eq!((&liked["liked"], &liked["durability"]), (&json!(true), &json!("COMMITTED")));
}

async fn is_refused(server: &Server) -> bool {
    let answer = server.try_graphql(Some("cat"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
    answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_is_refused_in_one_line_and_the_first_goes_on() {
    let (first, mut second) = stacks().await;
    let server = first.serve().await;
    server.with_products(1).await;
    assert_commits(&server, "ann").await;

    let (said, is_well) = run(&second, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well);
    let lines = refusals(&said);
    assert_eq!(lines.len(), 1, "{said}");
    for words in ["--redis-prefix", "DATABASE_URL", "redis-cli", "'acc:*'"] {
        assert!(lines[0].contains(words), "{words} is not in {said}");
    }
    let (said, is_well) = run(&second, &["doctor"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
    assert!(refusals(&said)[0].starts_with("fail  Redis's ledger"), "{said}");
    let (said, is_well) = run(&second, &["doctor", "--database-url", "sqlite://yet-to-come.db"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
    let (said, is_well) = run(&first, &["doctor"]);
    assert!(is_well && said.contains("Redis's ledger"), "{said}");

    assert!(!server.log().contains("must be recovered"), "it was not disturbed:\n{}", server.log());
    assert_commits(&server, "bob").await;
    assert_eq!(
        (first.count("SELECT count(*) FROM events").await, second.count("SELECT count(*) FROM events").await),
        (2, 0)
    );
    server.assert_verified().await;

    // What the line proposes helps: a prefix of its own, or the keys deleted once their ledger is gone for good.
    second.arguments = ["--redis-prefix", "other"].map(str::to_owned).to_vec();
    let beside = second.serve().await;
    beside.with_products(1).await;
    assert_commits(&beside, "ann").await;
    assert_commits(&server, "cat").await;
    drop((server, beside));
    second.arguments.clear();
    let (said, is_well) = run(&second, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well, "a Redis that nobody works on is its ledger's still");
    let (_, command) = refusals(&said)[0].split_once("delete its keys with ").unwrap();
    let url = first.redis.as_ref().unwrap().url();
    assert!(Command::new("sh").args(["-c", command]).env("REDIS_URL", url).status().unwrap().success(), "{command}");
    let server = second.serve().await;
    assert_commits(&server, "bob").await;
    server.assert_verified().await;
    let (said, is_well) = run(&first, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!is_well && refusals(&said).len() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_hears_that_its_redis_has_become_another_ledgers() {
    let (first, second) = stacks().await;
    let server = first.serve().await;
    server.with_products(1).await;
    assert_commits(&server, "ann").await;
    // The other one comes first after Redis was emptied.
    server.signal("STOP");
    first.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    let other = second.serve().await;
    other.with_products(1).await;
    server.signal("CONT");
    until("the first hears of it", Duration::from_secs(30), async || !refusals(&server.log()).is_empty()).await;
    assert!(is_refused(&server).await);
    for document in ["mutation { repair(input: {}) { likes } }", "{ admin { verify { differing } } }"] {
        let answer = server.try_graphql(Some("ada"), document, json!({})).await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    }
    assert_commits(&other, "bob").await;
    other.assert_verified().await;
    assert_eq!(
        (first.count("SELECT count(*) FROM events").await, second.count("SELECT count(*) FROM events").await),
        (1, 1)
    );

    other.kill();
    assert!(is_refused(&server).await, "it is the other one's still");
    first.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    until("the first works again", Duration::from_secs(30), async || !is_refused(&server).await).await;
    assert_commits(&server, "dan").await;
    server.assert_verified().await;
}
