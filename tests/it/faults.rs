//! What is promised when things fail: a killed server, an engine that forgets everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acclaim::domain::partition_of;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::live::Socket;
use crate::support::stack::{RECORD, Server, Setup, Stack, TOGGLE};
use crate::support::until;

crate::both_setups!(
    a_server_killed_in_the_middle_of_ten_thousand_likes_loses_no_committed_one,
    events_sent_again_to_a_new_engine_are_duplicates,
);

pub const PRODUCTS: usize = 40;
const CLIENTS: usize = 64;

/// What was sent and what was answered, by event id.
#[derive(Default)]
pub struct Record {
    pub sent: Mutex<HashMap<String, Option<String>>>,
    pub answered: AtomicUsize,
}

impl Record {
    pub fn committed(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(_, answer)| answer.as_deref() == Some("COMMITTED")).map(|(id, _)| id.clone()).collect()
    }
}

/// Sends likes of ever new users until told to stop or `likes` were sent; a refused or unanswered like is left at that.
pub fn load(server: &Server, record: &Arc<Record>, likes: usize, stop: &Arc<AtomicBool>, round: usize) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..CLIENTS {
        let (url, http) = (server.url.clone(), server.http.clone());
        let (record, stop, next) = (record.clone(), stop.clone(), next.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= likes {
                    return;
                }
                let (user, key) = (format!("user-{round}-{}", n / 4), format!("key-{n}"));
                let product = format!("p{}", n % PRODUCTS);
                let id = format!("like:{}:{key}:{user}", key.len());
                record.sent.lock().unwrap().insert(id.clone(), None);
                let request = http
                    .post(format!("{url}/graphql"))
                    .header("x-acclaim-user", &user)
                    .json(&json!({ "query": TOGGLE, "variables": { "product": product, "key": key } }));
                let Ok(answer) = request.send().await else { continue };
                let Ok(answer) = answer.json::<Value>().await else { continue };
                if let Some(durability) = answer["data"]["toggleLike"]["durability"].as_str() {
                    record.sent.lock().unwrap().insert(id, Some(durability.to_owned()));
                    record.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    clients
}

/// Every COMMITTED answer is in the ledger, nothing that was not sent is there, and everything served equals the sum of it.
pub async fn assert_nothing_lost(stack: &Stack, server: &Server, record: &Record) {
    until("the journal is synced", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
    let events = stack.column("SELECT id AS value FROM events").await;
    let sent = record.sent.lock().unwrap().clone();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for id in &events {
        assert!(sent.contains_key(id), "{id} was never sent");
        *times.entry(id).or_default() += 1;
    }
    let lost: Vec<_> = record.committed().into_iter().filter(|id| times.get(id.as_str()) != Some(&1)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} COMMITTED likes are not there once: {:?}",
        lost.len(),
        events.len(),
        &lost[..lost.len().min(5)]
    );

    // What is still in the journal arrives in both meanwhile.
    until("the board equals the events", Duration::from_secs(30), async || {
        let mut likes: BTreeMap<String, i64> = BTreeMap::new();
        for row in stack.column("SELECT product_id || ' ' || count AS value FROM events").await {
            let (product, count) = row.split_once(' ').unwrap();
            *likes.entry(product.to_owned()).or_default() += count.parse::<i64>().unwrap();
        }
        let shown: BTreeMap<_, _> = server.ranking(100).await.into_iter().collect();
        shown == likes.into_iter().map(|(product, likes)| (product, likes as f64 / 5.0)).collect()
    })
    .await;
    server.assert_verified().await;
}

async fn a_server_killed_in_the_middle_of_ten_thousand_likes_loses_no_committed_one(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(PRODUCTS).await;
    let record = Arc::new(Record::default());
    let clients = load(&server, &record, 10_000, &Arc::default(), 0);
    until("half of the likes are answered", Duration::from_secs(120), async || {
        record.answered.load(Ordering::Relaxed) >= 5_000
    })
    .await;
    server.kill();
    clients.join_all().await;
    let answered = record.answered.load(Ordering::Relaxed);
    assert!((5_000..10_000).contains(&answered), "{answered} were answered: the kill came too late");
    assert!(!record.committed().is_empty());
    let server = stack.serve().await;
    assert_nothing_lost(&stack, &server, &record).await;
}

/// Likes go on while the engine is made to forget; the node must heal by itself and serve likes again.
async fn heals_from(forget: impl AsyncFnOnce(&mut Stack, &Record)) {
    let mut stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(PRODUCTS).await;
    let mut socket = Socket::connect(&server.url, json!({})).await;
    let mut view = socket.watch_board(10).await;
    let (record, stop) = (Arc::new(Record::default()), Arc::new(AtomicBool::new(false)));
    let clients = load(&server, &record, usize::MAX, &stop, 0);
    let answered = || record.answered.load(Ordering::Relaxed);
    until("likes are flowing", Duration::from_secs(60), async || answered() >= 500).await;
    forget(&mut stack, &record).await;
    let before = answered();
    until("likes are flowing again", Duration::from_secs(30), async || answered() >= before + 500).await;
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    assert_nothing_lost(&stack, &server, &record).await;
    let expected = server.ranking(10).await;
    view.follow_until(&mut socket, "the subscriber sees the healed board", async |shown| *shown == expected).await;
    assert!(view.reasons.contains(&"RECOVERED".to_owned()), "{:?}", view.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_under_load_heals_by_itself() {
    heals_from(async |stack, _| {
        stack.redis.as_ref().unwrap().command(&["FLUSHALL"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_restarted_without_its_data_heals_by_itself() {
    heals_from(async |stack, _| stack.redis.as_mut().unwrap().restart_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_redis_heals_by_itself() {
    heals_from(async |stack, record| {
        let redis = stack.redis.as_mut().unwrap();
        redis.command(&["SAVE"]);
        // Likes go on, so that the copy is older than what the ledger has.
        let copied = record.committed().len();
        until("the ledger is ahead of the copy", Duration::from_secs(30), async || {
            record.committed().len() >= copied + 100
        })
        .await;
        redis.restart_from_copy();
    })
    .await;
}

/// A server whose engine has been at work for longer than it remembers events: what it does not remember then is taken for
/// new without asking the ledger.
async fn long_at_work(stack: &Stack) -> Server {
    stack.serve().await.terminate().await;
    stack.sql("UPDATE meta SET epoch_began_at = epoch_began_at - INTERVAL '1 day'").await;
    stack.serve().await
}

/// Makes the engine forget an event.
fn forget(stack: &Stack, event: &str) {
    let script = format!("for _, key in ipairs(redis.call('KEYS', '*:event:{event}')) do redis.call('DEL', key) end");
    stack.redis.as_ref().unwrap().command(&["EVAL", &script, "0"]);
}

/// What becomes of an event: its status and durability.
async fn record(server: &Server, event: &Value) -> (String, Value) {
    let answer = server.try_graphql(Some("shop"), RECORD, json!({ "events": [event] })).await.unwrap();
    let recorded = &answer["data"]["recordEvents"];
    (recorded["results"][0]["status"].as_str().unwrap_or_default().to_owned(), recorded["durability"].clone())
}

/// Records an event that the engine then forgets and takes once more, which the ledger refuses: the producer hears of a
/// duplicate, and never that it is committed as another one.
async fn refuse_again(stack: &Stack, server: &Server, event: &Value) {
    until("the event is committed", Duration::from_secs(30), async || record(server, event).await.1 == "COMMITTED")
        .await;
    forget(stack, event["id"].as_str().unwrap());
    until("the ledger refuses what the engine took again", Duration::from_secs(30), async || {
        let (status, durability) = record(server, event).await;
        assert!((status.as_str(), &durability) != ("RECORDED", &json!("COMMITTED")), "one id counts once");
        let is_refused = server.metric("acclaim_refused_entries_total").await == Some(1.0);
        is_refused && (status.as_str(), &durability) == ("DUPLICATE", &json!("COMMITTED"))
    })
    .await;
}

/// The engine forgot the event and took it again, as of now; the ledger kept the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reversal_takes_back_what_the_ledger_counted() {
    let stack = Stack::new(Setup::Servers).await;
    let server = long_at_work(&stack).await;
    server.with_products(1).await;
    let event = json!({ "id": "e1", "signal": "VIEW", "productId": "p0" });
    refuse_again(&stack, &server, &event).await;
    let reversal = json!({ "id": "r1", "signal": "VIEW", "productId": "p0", "reverses": "e1" });
    assert_eq!(record(&server, &reversal).await.0, "RECORDED");
    let same = "SELECT count(*) FROM events e JOIN events r ON r.reverses = e.id AND r.occurred_at = e.occurred_at";
    assert_eq!(stack.count(same).await, 1);
    until("all is equal", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
}

/// A like that finds things as it wants them waits for the last entry before it; that the ledger refused that one is not its
/// concern, however often it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_like_that_changes_nothing_is_committed_behind_a_refused_entry() {
    const UNLIKE: &str = "mutation { setLike(input: { productId: \"p0\", liked: false, idempotencyKey: \"k\" }) { liked changed durability } }";
    let mut stack = Stack::new(Setup::Servers).await;
    stack.arguments = ["--partitions", "1"].map(str::to_owned).to_vec();
    let server = long_at_work(&stack).await;
    server.with_products(1).await;
    refuse_again(&stack, &server, &json!({ "id": "e1", "signal": "VIEW", "productId": "p0" })).await;
    assert_eq!(stack.count("SELECT count(*) FROM events").await, 1, "the ledger refused it");
    for _ in 0..2 {
        let answer = server.graphql("ann", UNLIKE, json!({})).await;
        assert_eq!(answer["setLike"], json!({ "liked": false, "changed": false, "durability": "COMMITTED" }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_away_is_said_at_once_and_rankings_go_on() {
    let mut stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    server.toggle("ann", "p0", None).await;
    until("the like is ranked", Duration::from_secs(5), async || server.ranking(1).await == [("p0".into(), 0.2)]).await;
    stack.redis.as_mut().unwrap().kill();
    for _ in 0..5 {
        let began = std::time::Instant::now();
        let answer = server.try_graphql(Some("ann"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
        assert!(answer["errors"][0]["extensions"]["retryAfterMs"].as_u64().unwrap() > 0);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let read = server
        .graphql(
            "ann",
            "{ board { current { freshness { source degraded } } } ranking { nodes { productId score } } }",
            json!({}),
        )
        .await;
    assert_eq!(read["ranking"]["nodes"], json!([{ "productId": "p0", "score": 0.2 }]));
    assert_eq!(read["board"]["current"]["freshness"], json!({ "source": "LEDGER", "degraded": true }));
}

/// Redis that hangs, as long as it takes a client to hear so: a like, and as many events as a call may hold, all at home in
/// one partition. Each time counts what this machine does beside; so a few attempts may be late, but not all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_engine_is_said_within_250_ms() {
    const ROUNDS: usize = 8;
    let stack = Stack::new(Setup::Servers).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    // New ones in each round: of those that were recorded after all the ledger would tell.
    let events = |round: usize| {
        let ids = (0..).map(|n| format!("view-{round}-{n}")).filter(|id| partition_of(id, 4) == 0).take(500);
        ids.map(|id| json!({ "id": id, "signal": "VIEW", "productId": "p0" })).collect::<Vec<_>>()
    };
    let redis = stack.redis.as_ref().unwrap();
    for query in [TOGGLE, RECORD] {
        let mut quickest = Duration::MAX;
        for round in 0..ROUNDS {
            let variables = json!({ "product": "p0", "events": events(round) });
            until("likes are taken", Duration::from_secs(30), async || {
                server
                    .try_graphql(Some("ann"), TOGGLE, json!({ "product": "p0" }))
                    .await
                    .unwrap()
                    .get("errors")
                    .is_none()
            })
            .await;
            redis.freeze();
            let began = std::time::Instant::now();
            let answer = server.try_graphql(Some("ann"), query, variables).await.unwrap();
            let took = began.elapsed();
            redis.thaw();
            assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
            assert!(took < Duration::from_secs(2), "{took:?}");
            quickest = took.min(quickest);
            if quickest < Duration::from_millis(250) {
                break;
            }
        }
        assert!(quickest < Duration::from_millis(250), "{quickest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_addresses_are_one_plain_line_at_start() {
    let stack = Stack::new(Setup::Embedded).await;
    let wrong =
        [("REDIS_URL", "redis://127.0.0.1:1"), ("DATABASE_URL", "postgres://nobody:hunter2@127.0.0.1:1/acclaim")];
    for (variable, address) in wrong {
        let output =
            stack.command().arg("serve").args(["--listen", "127.0.0.1:0"]).env(variable, address).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let error: Vec<_> = said.lines().filter(|line| line.contains(variable)).collect();
        assert_eq!(error.len(), 1, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let first = stack.serve().await;
    let second = stack.command().arg("serve").args(["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another process"), "{said}");
    drop(first);
}

async fn events_sent_again_to_a_new_engine_are_duplicates(setup: Setup) {
    let stack = Stack::new(setup).await;
    let server = stack.serve().await;
    server.with_products(1).await;
    let record = "mutation { recordEvents(input: { events: [{ id: \"once\", signal: ORDER, productId: \"p0\" }] }) {
        results { status } durability } }";
    let told = |status: &str| json!({ "results": [{ "status": status }], "durability": "COMMITTED" });
    assert_eq!(server.graphql("shop", record, json!({})).await["recordEvents"], told("RECORDED"));
    server.kill();
    if let Some(redis) = &stack.redis {
        redis.command(&["FLUSHALL"]);
    }
    let server = stack.serve().await;
    assert_eq!(server.graphql("shop", record, json!({})).await["recordEvents"], told("DUPLICATE"));
    assert_eq!(server.ranking(1).await, [("p0".to_owned(), 0.6)]);
    server.assert_verified().await;
}
