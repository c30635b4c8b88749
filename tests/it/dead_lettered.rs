//! What the ledger's database can't store: told to who sent it, taken back from boards, counts and users' likes, and
//! counted once when what kept it out is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(
    an_entry_that_can_not_be_stored_is_told_and_counts_nowhere,
    whatever_a_trigger_does_to_keep_a_row_out_makes_a_dead_letter,
    a_server_killed_before_it_corrects_the_engine_leaves_that_to_the_next,
);

/// What takes a correction on a loaded machine.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A rule that somebody has put on the table, and what takes it back.
fn rule(setup: Setup) -> (&'static str, &'static str) {
    match setup {
        Setup::Servers => (
            "CREATE FUNCTION no_p3() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF NEW.product_id = 'p3' THEN RAISE 'p3 is not for sale'; END IF; RETURN NEW; END$$;
             CREATE TRIGGER no_p3 BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_p3()",
            "DROP FUNCTION no_p3 CASCADE",
        ),
        Setup::Embedded => (
            "CREATE TRIGGER no_p3 BEFORE INSERT ON events WHEN NEW.product_id = 'p3'
             BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_p3'); END",
            "DROP TRIGGER no_p3",
        ),
    }
}

fn order(id: &str, product: &str) -> Value {
    json!({ "id": id, "signal": "ORDER", "productId": product })
}

/// Sends it again, as a client does, for as long as something is away, or it is only accepted: on a loaded machine that
/// happens.
async fn ask(server: &Server, user: &str, query: &str, variables: Value) -> Value {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let answer = server.try_graphql(Some(user), query, variables.clone()).await.unwrap();
        if answer.get("errors").is_some() {
            assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
        } else {
            let payload = answer["data"].as_object().unwrap().values().next().unwrap();
            if payload["durability"] != "ACCEPTED" {
                return payload.clone();
            }
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn record(server: &Server, events: &[Value]) -> Value {
    ask(server, "shop", RECORD, json!({ "events": events })).await
}

async fn toggle(server: &Server, user: &str, product: &str, key: &str) -> Value {
    ask(server, user, TOGGLE, json!({ "product": product, "key": key })).await
}

fn statuses(recorded: &Value) -> Vec<&str> {
    recorded["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect()
}

async fn shown(server: &Server, user: &str) -> Value {
    let query =
        "{ products(ids: [\"p3\"]) { like { count viewerHasLiked } } ranking(first: 10) { nodes { productId } } }";
    server.try_graphql(Some(user), query, json!({})).await.unwrap()["data"].clone()
}

/// Nothing of p3 is seen anywhere.
async fn until_nowhere(server: &Server, user: &str) {
    until("what was not stored is taken back everywhere", TIME_MAX, async || {
        let shown = shown(server, user).await;
        let ranked = shown["ranking"]["nodes"].as_array();
        let is_nowhere = ranked.is_some_and(|nodes| nodes.iter().all(|node| node["productId"] != "p3"));
        is_nowhere && shown["products"][0]["like"] == json!({ "count": 0, "viewerHasLiked": false })
    })
    .await;
    until("verification finds nothing", TIME_MAX, async || server.verify().await["differing"] == 0).await;
}

/// Likes and events of other products, until told to stop; each must be taken.
fn load(server: &Arc<Server>, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> Vec<tokio::task::JoinHandle<()>> {
    let task = |n: usize| {
        let (server, stop, done) = (server.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let product = format!("p{}", round % 3);
                let liked = toggle(&server, &format!("user-{n}-{round}"), &product, "key").await;
                assert_eq!((&liked["liked"], &liked["userErrors"]), (&json!(true), &json!([])), "{liked}");
                let events: Vec<_> = (0..10).map(|k| order(&format!("load-{n}-{round}-{k}"), &product)).collect();
                let recorded = record(&server, &events).await;
                assert_eq!(recorded["rejected"], 0, "{recorded}");
                done.fetch_add(11, Ordering::Relaxed);
                round += 1;
            }
        })
    };
    (0..4).map(task).collect()
}

async fn an_entry_that_can_not_be_stored_is_told_and_counts_nowhere(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = Arc::new(stack.serve().await);
    server.with_products(4).await;
    let (forbid, allow) = rule(setup);
    stack.sql(forbid).await;
    let (stop, done) = (Arc::default(), Arc::default());
    let loads = load(&server, &stop, &done);
    until("the load runs", TIME_MAX, async || done.load(Ordering::Relaxed) > 100).await;

    let alone = record(&server, &[order("bad-1", "p3")]).await;
    let error = json!({ "code": "INVALID", "path": ["events", "0"] });
    let told = &alone["results"][0]["error"];
    assert_eq!((&told["code"], &told["path"]), (&error["code"], &error["path"]), "{alone}");
    assert_eq!((&alone["rejected"], &alone["durability"]), (&json!(1), &Value::Null), "{alone}");
    let mixed = record(&server, &[order("good-1", "p0"), order("bad-2", "p3"), order("good-2", "p1")]).await;
    assert_eq!((statuses(&mixed)[1], &mixed["rejected"]), ("REJECTED", &json!(1)), "{mixed}");
    assert_eq!(mixed["durability"], "COMMITTED", "of what was recorded");
    let liked = toggle(&server, "ann", "p3", "key-1").await;
    let told = (&liked["durability"], &liked["liked"], &liked["userErrors"][0]["code"]);
    assert_eq!(told, (&Value::Null, &Value::Null, &json!("INVALID")), "{liked}");
    // Sent again it is judged again, and never taken for a duplicate of something that was committed.
    let again = record(&server, &[order("bad-1", "p3")]).await;
    assert_eq!((statuses(&again), &again["durability"]), (vec!["REJECTED"], &Value::Null), "{again}");
    let again = toggle(&server, "ann", "p3", "key-1").await;
    assert_eq!(again["userErrors"][0]["code"], "INVALID", "{again}");
    // A reversal of what is not there finds nothing to take back.
    let reversal = json!({ "id": "back-1", "signal": "ORDER", "productId": "p3", "reverses": "bad-2" });
    let reversed = record(&server, &[reversal]).await;
    assert_eq!(statuses(&reversed), ["REJECTED"], "{reversed}");

    until_nowhere(&server, "ann").await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    assert_eq!(stack.count("SELECT COUNT(*) FROM events WHERE product_id = 'p3'").await, 0);
    assert_eq!(stack.count("SELECT COUNT(*) FROM rejections").await, 0);
    let committed = done.load(Ordering::Relaxed) + 2;
    assert_eq!(stack.count("SELECT COUNT(*) FROM events").await, committed, "nothing else was held up");

    stack.sql(allow).await;
    let replay = "mutation { replayDeadLetters(input: {}) { replayed userErrors { message } } }";
    server.graphql("admin", replay, json!({})).await;
    let events = "SELECT COUNT(*) FROM events WHERE product_id = 'p3'";
    assert_eq!(stack.count(events).await, 3, "bad-1, bad-2 and the like, each once");
    until("it is counted once", TIME_MAX, async || {
        shown(&server, "ann").await["products"][0]["like"] == json!({ "count": 1, "viewerHasLiked": true })
    })
    .await;
    let again = record(&server, &[order("bad-1", "p3"), order("bad-2", "p3")]).await;
    assert_eq!((statuses(&again), &again["durability"]), (vec!["DUPLICATE"; 2], &json!("COMMITTED")), "{again}");
    let again = toggle(&server, "ann", "p3", "key-1").await;
    assert_eq!((&again["liked"], &again["durability"]), (&json!(true), &json!("COMMITTED")), "{again}");
    assert_eq!(stack.count(events).await, 3);
    until("verification finds nothing", TIME_MAX, async || server.verify().await["differing"] == 0).await;
}

/// What keeps p3 out of the table of events, with or without an error.
fn triggers(setup: Setup) -> Vec<String> {
    match setup {
        Setup::Servers => ["RAISE 'p3 is not for sale'", "RAISE SQLSTATE 'AC001'", "RETURN NULL"]
            .map(|refuses| {
                format!(
                    "CREATE FUNCTION no_p3() RETURNS trigger LANGUAGE plpgsql AS
                     $$BEGIN IF NEW.product_id = 'p3' THEN {refuses}; END IF; RETURN NEW; END$$;
                     CREATE TRIGGER no_p3 BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_p3()"
                )
            })
            .to_vec(),
        Setup::Embedded => [
            "ABORT, 'p3 is not for sale'",
            "FAIL, 'it''s not for sale'",
            "ROLLBACK, 'no such product is for sale'",
            "ABORT, 'database is locked'",
            "ABORT, NEW.product_id || ' is not for sale'",
            "IGNORE",
        ]
        .map(|refuses| {
            format!(
                "CREATE TRIGGER no_p3 BEFORE INSERT ON events WHEN NEW.product_id = 'p3'
                 BEGIN SELECT RAISE({refuses}); END"
            )
        })
        .to_vec(),
    }
}

async fn whatever_a_trigger_does_to_keep_a_row_out_makes_a_dead_letter(setup: Setup) {
    let mut stack = Stack::new(setup).await;
    stack.arguments = ["--like-rate", "0"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    server.with_products(4).await;
    let (_, allow) = rule(setup);
    for (n, trigger) in triggers(setup).iter().enumerate() {
        stack.sql(trigger).await;
        let alone = record(&server, &[order(&format!("bad-{n}"), "p3")]).await;
        assert_eq!((statuses(&alone), &alone["durability"]), (vec!["REJECTED"], &Value::Null), "{trigger}: {alone}");
        assert_eq!(alone["results"][0]["error"]["code"], "INVALID", "{trigger}: {alone}");
        for user in ["ann", "bob"] {
            // Sent again, it is judged again.
            for _ in 0..2 {
                let liked = toggle(&server, user, "p3", &format!("key-{n}")).await;
                assert_eq!(
                    (&liked["liked"], &liked["userErrors"][0]["code"]),
                    (&Value::Null, &json!("INVALID")),
                    "{trigger}: {liked}"
                );
            }
        }
        let keyless = ask(&server, "cat", TOGGLE, json!({ "product": "p3" })).await;
        assert_eq!(keyless["userErrors"][0]["code"], "INVALID", "{trigger}: {keyless}");
        let events =
            [order(&format!("good-{n}"), "p0"), order(&format!("worse-{n}"), "p3"), order(&format!("fine-{n}"), "p1")];
        let mixed = record(&server, &events).await;
        assert_eq!((statuses(&mixed)[1], &mixed["rejected"]), ("REJECTED", &json!(1)), "{trigger}: {mixed}");
        assert_eq!(mixed["durability"], "COMMITTED", "of what was recorded");
        // The same again is a duplicate, and no dead letter.
        let again = record(&server, &events[..1]).await;
        assert_eq!((statuses(&again), &again["durability"]), (vec!["DUPLICATE"], &json!("COMMITTED")), "{again}");
        until_nowhere(&server, "ann").await;
        stack.sql(allow).await;
    }
    assert_eq!(stack.count("SELECT COUNT(*) FROM events WHERE product_id = 'p3'").await, 0);
    assert_eq!(stack.count("SELECT COUNT(*) FROM rejections").await, 0);
    let letters = "SELECT COUNT(*) FROM dead_letters";
    let (each, all) = (7, stack.count(letters).await);
    assert!(all >= each * triggers(setup).len() as u64, "two orders and five likes each: {all}");
    let replay = "mutation { replayDeadLetters(input: {}) { replayed userErrors { message } } }";
    server.graphql("admin", replay, json!({})).await;
    until("ann, bob and cat like it", TIME_MAX, async || {
        shown(&server, "ann").await["products"][0]["like"] == json!({ "count": 3, "viewerHasLiked": true })
    })
    .await;
    until("verification finds nothing", TIME_MAX, async || server.verify().await["differing"] == 0).await;
}

/// The commit itself keeps what the engine is to be corrected of.
async fn a_server_killed_before_it_corrects_the_engine_leaves_that_to_the_next(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(4).await;
    toggle(&server, "ann", "p0", "key-1").await;
    let Setup::Servers = setup else {
        // The memory engine goes with its server; what the commit has kept must not keep the next one from starting.
        server.kill();
        stack.sql("INSERT INTO rejections (partition, epoch, seq, event_id, user_id) VALUES (0, 1, 1, 'like:1:k:ann', 'ann')").await;
        let server = stack.serve().await;
        until("it is settled", TIME_MAX, async || stack.count("SELECT COUNT(*) FROM rejections").await == 0).await;
        server.assert_verified().await;
        return;
    };
    // What a commit leaves that was cut off behind its end: the engine has a like that the ledger has not.
    server.kill();
    stack
        .sql(
            "WITH gone AS (DELETE FROM events RETURNING partition, epoch, seq, id, user_id),
                 unliked AS (DELETE FROM likes), uncounted AS (DELETE FROM activity),
                 revised AS (UPDATE boards SET revision = revision + 1)
             INSERT INTO rejections (partition, epoch, seq, event_id, user_id) SELECT * FROM gone",
        )
        .await;
    let server = stack.serve().await;
    until("the user's likes are the ledger's", TIME_MAX, async || {
        let query = "{ products(ids: [\"p0\"]) { like { count viewerHasLiked } } }";
        let shown = server.try_graphql(Some("ann"), query, json!({})).await.unwrap();
        shown["data"]["products"][0]["like"] == json!({ "count": 0, "viewerHasLiked": false })
    })
    .await;
    assert_eq!(stack.count("SELECT COUNT(*) FROM rejections").await, 0);
    let liked = toggle(&server, "ann", "p0", "key-2").await;
    assert_eq!((&liked["liked"], &liked["durability"]), (&json!(true), &json!("COMMITTED")), "{liked}");
    until("verification finds nothing", TIME_MAX, async || server.verify().await["differing"] == 0).await;
}
