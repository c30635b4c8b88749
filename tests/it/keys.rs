//! Keys of Redis: those of partitions, boards and everything else never meet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use acclaim::engine::redis::keys::{BoardKey, Key, Keys, slot_of};
use serde_json::json;

use crate::support::redis::RedisServer;
use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(a_board_may_be_named_like_a_partition);

async fn takes_likes(server: &Server, user: &str) {
    until("likes are taken", Duration::from_secs(30), async || {
        let answer = server.try_graphql(Some(user), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        answer.get("errors").is_none()
    })
    .await;
}

async fn a_board_may_be_named_like_a_partition(setup: Setup) {
    const SAVE: &str = "mutation($id: ID!) { saveBoard(input: { id: $id, title: \"Named\", window: DAY }) { userErrors { message } } }";
    const DELETE: &str =
        "mutation($id: ID!) { deleteBoard(input: { id: $id, note: \"why\" }) { userErrors { message } } }";
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    takes_likes(&server, "ann").await;
    for id in ["p0", "p1", "p2", "p3"] {
        let saved = server.graphql("ada", SAVE, json!({ "id": id })).await;
        assert_eq!(saved["saveBoard"]["userErrors"], json!([]));
        let deleted = server.graphql("ada", DELETE, json!({ "id": id })).await;
        assert_eq!(deleted["deleteBoard"]["userErrors"], json!([]));
    }
    assert_eq!(server.toggle("bob", "p0", None).await["durability"], "COMMITTED");
    server.assert_verified().await;
    assert_eq!(server.log().matches("an epoch begins").count(), 1, "{}", server.log());
    server.terminate().await;
    let server = stack.serve().await;
    // Memory is empty at each start.
    let begun = usize::from(setup == Setup::Embedded);
    assert_eq!(server.log().matches("an epoch begins").count(), begun, "{}", server.log());
    assert_eq!(server.toggle("cid", "p0", None).await["durability"], "COMMITTED");
    server.assert_verified().await;
}

/// Of a server with nothing set.
fn keys() -> Keys {
    Keys::new("acc", 0, 4)
}

fn names(redis: &RedisServer) -> Vec<String> {
    redis::from_redis_value(redis.command(&["KEYS", "*"])).unwrap()
}

/// What a key is called in the layout, and the type of what it holds.
fn kind(key: &Key) -> (&'static str, &'static str) {
    match key {
        Key::Owner => ("owner", "hash"),
        Key::Meta(_) => ("meta of a partition", "hash"),
        Key::Journal(_) => ("journal", "stream"),
        Key::Likes(..) => ("likes", "zset"),
        Key::Staged(..) => ("staged", "zset"),
        Key::Answers(..) => ("answers", "list"),
        Key::Rate(..) => ("rate", "string"),
        Key::Event(..) => ("event", "string"),
        Key::Board(_, BoardKey::Meta) => ("meta of a board", "hash"),
        Key::Board(_, BoardKey::Scores | BoardKey::NextScores) => ("scores", "zset"),
        Key::Board(_, BoardKey::Cursor | BoardKey::NextCursor) => ("cursor", "hash"),
        Key::Board(_, BoardKey::Beyond | BoardKey::NextBeyond) => ("beyond", "hash"),
        Key::Board(_, BoardKey::Top) => ("top", "string"),
        Key::Board(_, BoardKey::Feed) => ("feed", "stream"),
        Key::Lease(_) => ("lease", "string"),
        Key::Scratch(_) => ("scratch", "any"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_of_a_server_at_work_is_of_one_kind() {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    for board in ["p0", "p1", "p", "b", "owner", "lease", "0", "-", "meta", "next"] {
        let save = "mutation($id: ID!) { saveBoard(input: { id: $id, title: \"Named\", window: DAY }) { userErrors { message } } }";
        let saved = server.graphql("ada", save, json!({ "id": board })).await;
        assert_eq!(saved["saveBoard"]["userErrors"], json!([]), "{board}");
    }
    for user in ["ann", "p0", "meta", "{p:0}", "journal", "b:0", "lease:pipeline"] {
        takes_likes(&server, user).await;
    }
    let events = ["e1", "meta", "p0:journal"].map(|id| json!({ "id": id, "signal": "ORDER", "productId": "p1" }));
    let answer = server.graphql("shop", RECORD, json!({ "events": events })).await;
    assert_eq!(answer["recordEvents"]["recorded"], 3, "{answer}");
    // More points than a sorted set holds.
    let adjust = "mutation { adjustWeights(input: { weights: [{ signal: ORDER, weight: 1000 }], note: \"n\" }) { userErrors { message } } }";
    assert_eq!(server.graphql("ada", adjust, json!({})).await["adjustWeights"]["userErrors"], json!([]));
    let many = |n| json!({ "id": format!("many-{n}"), "signal": "ORDER", "productId": "p2", "count": 1_000_000 });
    let answer = server.graphql("shop", RECORD, json!({ "events": (0..10).map(many).collect::<Vec<_>>() })).await;
    assert_eq!(answer["recordEvents"]["recorded"], 10, "{answer}");
    let redis = stack.redis.as_ref().unwrap();
    let expected = BTreeSet::from([
        "owner",
        "meta of a partition",
        "journal",
        "likes",
        "answers",
        "rate",
        "event",
        "meta of a board",
        "scores",
        "cursor",
        "beyond",
        "top",
        "feed",
        "lease",
    ]);
    until("there is a key of each kind", Duration::from_secs(30), async || {
        let found: BTreeSet<_> = names(redis).iter().filter_map(|name| Some(kind(&keys().read(name)?).0)).collect();
        found.is_superset(&expected)
    })
    .await;
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes", "--save", "", "--appendonly", "no"]);
    let mut slots: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for name in names(redis) {
        let key = keys().read(&name).unwrap_or_else(|| panic!("{name} is of no kind"));
        let holds = redis.ask(&["TYPE", &name]).unwrap();
        // Some are there for a moment.
        assert!(holds == kind(&key).1 || holds == "none", "{name} is a {holds}");
        let slot: u16 = redis::from_redis_value(cluster.command(&["CLUSTER", "KEYSLOT", &name])).unwrap();
        assert_eq!(slot_of(&name), slot, "{name}");
        let together = match key {
            Key::Meta(of) | Key::Journal(of) => format!("partition {of}"),
            Key::Likes(of, _) | Key::Answers(of, _) | Key::Rate(of, _) | Key::Event(of, _) => format!("partition {of}"),
            Key::Board(board, _) => format!("board {board}"),
            other => format!("{other:?}"),
        };
        slots.entry(together).or_default().insert(slot);
    }
    assert!(slots.values().all(|slots| slots.len() == 1), "a step has its keys in one slot: {slots:?}");
}

/// What a version before this layout left in Redis: journals that the ledger does not have, likes, answers and boards.
const FORMER: &str = include_str!("../data/former-keys.jsonl");

/// Puts it there, for the stack's ledger.
async fn leave_former(stack: &Stack) {
    let redis = stack.redis.as_ref().unwrap();
    let ledger = stack.column("SELECT ledger_id AS value FROM meta").await.remove(0);
    let history = stack.column("SELECT CAST(history AS TEXT) AS value FROM meta").await.remove(0);
    redis.command(&["FLUSHALL"]);
    for line in FORMER.lines() {
        let line = line.replace("LEDGER", &ledger).replace("HISTORY", &history);
        let words: Vec<String> = serde_json::from_str(&line).unwrap();
        redis.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// What a server that stays out must leave as it is; the lease of the earlier version's leader expires.
fn lasting(redis: &RedisServer) -> BTreeSet<String> {
    names(redis).into_iter().filter(|name| name != "acc:lease:pipeline").collect()
}

/// A ledger in its first epoch, and the Redis as the earlier version left it.
async fn stack_of_former() -> Stack {
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(3).await;
    server.terminate().await;
    leave_former(&stack).await;
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_left_is_moved_by_an_epoch() {
    let stack = stack_of_former().await;
    let redis = stack.redis.as_ref().unwrap();
    let server = stack.serve().await;
    assert!(server.log().contains("an earlier version has left it"), "{}", server.log());
    assert_eq!(stack.count("SELECT epoch FROM meta").await, 2);
    assert_eq!(stack.count("SELECT COUNT(*) FROM events").await, 8);
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    let liked = "SELECT user_id || ' ' || product_id AS value FROM likes WHERE liked ORDER BY 1";
    assert_eq!(stack.column(liked).await, ["ann p0", "ann p1", "bob p0", "cid p0", "dan p1"]);
    let left: Vec<_> = names(redis).into_iter().filter(|name| keys().read(name).is_none()).collect();
    assert_eq!(left, [""; 0], "nothing is left of it");
    // What was answered before is answered again.
    let again = server.toggle("ann", "p0", Some("ann-p0")).await;
    assert_eq!((&again["liked"], &again["durability"]), (&json!(true), &json!("COMMITTED")));
    let order = json!({ "events": [{ "id": "order-1", "signal": "ORDER", "productId": "p2", "count": 3 }] });
    assert_eq!(server.graphql("shop", RECORD, order).await["recordEvents"]["duplicates"], 1);
    assert_eq!(server.toggle("eve", "p2", None).await["liked"], true);
    until("the ledger has what is new", Duration::from_secs(30), async || {
        stack.count("SELECT COUNT(*) FROM events").await == 9
    })
    .await;
    until("all is equal", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
    server.terminate().await;
    // Once.
    let server = stack.serve().await;
    assert_eq!(stack.count("SELECT epoch FROM meta").await, 2);
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_an_earlier_version_that_are_alive_are_left_alone() {
    let stack = stack_of_former().await;
    let before = lasting(stack.redis.as_ref().unwrap());
    stack
        .sql("INSERT INTO heartbeats (node, engine, epoch, beats, at) VALUES ('former', 'redis:it:0:acc', 1, 1, now())")
        .await;
    let alive = async {
        loop {
            stack.sql("UPDATE heartbeats SET beats = beats + 1, at = now() WHERE node = 'former'").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let mut command = stack.command();
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let serve = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::select! {
        output = serve => output.unwrap(),
        () = alive => unreachable!(),
    };
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("servers of an earlier version work on this ledger"), "{said}");
    assert_eq!(lasting(stack.redis.as_ref().unwrap()), before, "it left everything as it was");
    assert_eq!(stack.count("SELECT epoch FROM meta").await, 1);
}

/// A Redis that another ledger's servers of an earlier version have worked on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_left_for_another_ledger_is_not_touched() {
    let theirs = stack_of_former().await;
    let mut ours = Stack::new(Setup::Servers).await;
    ours.redis_url = theirs.redis.as_ref().map(RedisServer::url);
    let before = lasting(theirs.redis.as_ref().unwrap());
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["doctor"]] {
        let mut command = ours.command();
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && said.contains("another ledger's likes"), "{said}");
    }
    assert_eq!(lasting(theirs.redis.as_ref().unwrap()), before);
}
