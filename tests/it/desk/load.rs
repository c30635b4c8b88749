//! Boards that are scored anew while everybody likes and many look.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::{Desk, TIME_MAX};
use crate::support::live::{Socket, View};
use crate::support::stack::{Server, Setup};
use crate::support::until;

crate::both_setups!(a_board_is_scored_anew_under_load_without_mixing_weights);

const PRODUCTS: usize = 20;
const SUBSCRIBERS: usize = 200;
const LIKES_PER_SECOND: u32 = 500;
/// Given under each of the weights before they change again: those of a second.
const LIKES_PER_ROUND: usize = LIKES_PER_SECOND as usize;
/// In tenths of a point. A score that is a whole number of both is a multiple of 14, which a mixed board of 20 products
/// does not consist of.
const OLD: i64 = 2;
const NEW: i64 = 7;

/// Whether every score can be of one weight.
fn is_of_one_weight(shown: &[(String, f64)]) -> bool {
    let is_of = |weight: i64| {
        shown.iter().all(|(_, score)| {
            let tenths = (score * 10.0).round();
            (score * 10.0 - tenths).abs() < 1e-6 && tenths as i64 % weight == 0
        })
    };
    is_of(OLD) || is_of(NEW)
}

/// Likes of ever new users, so many a second, up to `planned`. A machine that can't keep up sends them later; none is left
/// out.
async fn likes(server: Arc<Server>, planned: Arc<AtomicUsize>, given: Arc<AtomicUsize>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LIKES_PER_SECOND);
    // What could not be sent in time is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = JoinSet::new();
    for n in 0.. {
        if n >= planned.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        // As many as a shop's servers would have under way.
        while sent.len() >= 64 {
            sent.join_next().await.unwrap().unwrap();
        }
        let (server, given) = (server.clone(), given.clone());
        sent.spawn(async move {
            let query = "mutation($product: ID!, $key: String!) {
                setLike(input: { productId: $product, liked: true, idempotencyKey: $key }) { liked } }";
            // The first products are liked most, so that ranks differ.
            let product = format!("p{}", (n % PRODUCTS).min(n / PRODUCTS % PRODUCTS));
            let (user, variables) = (format!("user-{n}"), json!({ "product": product, "key": format!("key-{n}") }));
            // On a loaded machine Redis may not answer in time; whoever hears so asks again with the same key.
            loop {
                let answer = server.try_graphql(Some(&user), query, variables.clone()).await.unwrap();
                let Some(error) = answer["errors"].get(0) else {
                    assert_eq!(answer["data"]["setLike"]["liked"], true);
                    break;
                };
                assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
                tokio::time::sleep(Duration::from_millis(error["extensions"]["retryAfterMs"].as_u64().unwrap())).await;
            }
            given.fetch_add(1, Ordering::Relaxed);
        });
    }
    sent.join_all().await;
}

/// A subscriber that looks at every state it is shown.
struct Subscriber {
    view: Arc<Mutex<View>>,
    task: AbortOnDropHandle<()>,
}

impl Subscriber {
    async fn start(server: &Server) -> Self {
        let mut socket = Socket::connect(&server.url, json!({})).await;
        let mut first = socket.watch_board(PRODUCTS).await;
        first.reasons.clear();
        let view = Arc::new(Mutex::new(first));
        let shared = view.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let message = socket.receive().await;
                let mut view = shared.lock().unwrap();
                view.take(&message);
                assert!(is_of_one_weight(&view.shown), "a mix of weights: {:?}", view.shown);
            }
        }));
        Self { view, task }
    }

    fn looks<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        assert!(!self.task.is_finished(), "the subscriber has ended: its panic says why");
        look(&self.view.lock().unwrap())
    }
}

async fn a_board_is_scored_anew_under_load_without_mixing_weights(setup: Setup) {
    let desk = Desk::new(setup).await;
    desk.server.with_products(PRODUCTS).await;
    let Desk { stack: _stack, server } = desk;
    let server = Arc::new(server);
    let (planned, given) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let liking = tokio::spawn(likes(server.clone(), planned.clone(), given.clone()));
    until("every product is liked", TIME_MAX, async || server.ranking(PRODUCTS).await.len() == PRODUCTS).await;
    let subscribers = join_all((0..SUBSCRIBERS).map(|_| Subscriber::start(&server))).await;
    let weigh = async |tenths: i64, note: &str| {
        let input = json!({ "weights": [{ "signal": "LIKE", "weight": tenths as f64 / 10.0 }], "note": note });
        let before = given.load(Ordering::Relaxed);
        let data = server.graphql("ann", super::ADJUST, json!({ "input": input })).await;
        assert_eq!(data["adjustWeights"]["userErrors"], json!([]));
        // The answer comes when boards show the new weight.
        let shown = server.ranking(PRODUCTS).await;
        let is_new = shown.iter().all(|(_, score)| (score * 10.0).round() as i64 % tenths == 0);
        assert!(is_new, "{note}: {shown:?}");
        // Everybody likes on under the new weight.
        until("likes go on", TIME_MAX, async || given.load(Ordering::Relaxed) - before >= LIKES_PER_ROUND).await;
    };
    let rounds = [(NEW, "up"), (OLD, "down"), (NEW, "up again")];
    for (tenths, note) in rounds {
        weigh(tenths, note).await;
    }
    // As many as the rate comes to in the time that the rounds took, however fast the machine gave them.
    let wanted = (began.elapsed().as_secs_f64() * f64::from(LIKES_PER_SECOND)) as usize;
    planned.store(wanted, Ordering::Relaxed);
    liking.await.unwrap();
    let likes = given.load(Ordering::Relaxed);
    println!("{likes} likes in {:?}, {} subscribers", began.elapsed(), subscribers.len());
    assert!(likes >= wanted && wanted > rounds.len() * LIKES_PER_ROUND, "{likes} of {wanted} likes");
    let query = "{ ranking(first: 100) { nodes { productId score product { like { count } } } } }";
    let mut board: Value = Value::Null;
    until("every like is counted", TIME_MAX, async || {
        board = server.graphql("reader", query, json!({})).await["ranking"]["nodes"].clone();
        let sum: f64 = board.as_array().unwrap().iter().map(|node| node["score"].as_f64().unwrap()).sum();
        (sum * 10.0).round() as usize == likes * NEW as usize
    })
    .await;
    for node in board.as_array().unwrap() {
        let count = node["product"]["like"]["count"].as_f64().unwrap();
        assert_eq!((node["score"].as_f64().unwrap() * 10.0).round(), (count * NEW as f64).round(), "{node}");
    }
    let expected = server.ranking(PRODUCTS).await;
    until("every view is what the query shows", TIME_MAX, async || {
        subscribers.iter().all(|subscriber| subscriber.looks(|view| view.shown == expected))
    })
    .await;
    for subscriber in &subscribers {
        let reasons = subscriber.looks(|view| view.reasons.clone());
        let reweighted = reasons.iter().filter(|reason| *reason == "REWEIGHTED").count();
        assert!((1..=rounds.len()).contains(&reweighted), "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason == "REWEIGHTED" || reason == "LAGGED"), "{reasons:?}");
    }
    server.assert_verified().await;
}
