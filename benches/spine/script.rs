//! The like script: our engine with 64 likes in flight, beside redis-benchmark calling the very same script.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use acclaim::domain::{IdempotencyKey, ProductId, Timestamp, UserId};
use acclaim::engine::redis::RedisEngine;
use acclaim::engine::{Desired, Engine, EngineLimits, LikeOutcome, LikeRequest, UserLikes};

use crate::support::redis::RedisServer;
use crate::{number, row, table};

const USERS: u64 = 10_000;
const LIKES: u64 = 200_000;
const IN_FLIGHT: u64 = 64;
const ROUNDS: usize = 3;

pub async fn run() {
    let server = RedisServer::start();
    // One partition, so that redis-benchmark's random users are at home in it.
    let limits =
        EngineLimits { partitions: 1, like_rate: 0, journal_len_max: u64::MAX >> 12, ..EngineLimits::default() };
    let engine = Arc::new(RedisEngine::connect(&server.url(), "acc", limits).await.unwrap());
    engine.open(1, 7, "a ledger").await.unwrap();
    let users: Vec<_> = (0..USERS)
        .map(|n| UserLikes {
            as_of: acclaim::domain::Position::default(),
            user: user(n),
            likes: Vec::new(),
            unliked: Vec::new(),
            answers: Vec::new(),
        })
        .collect();
    engine.load_likes(1, &users, Timestamp::now()).await.unwrap();
    let command = what_a_like_sends(&server, &engine).await;

    let mut rows = vec![row!["likes/s", "our engine, 64 in flight", "redis-benchmark -c 64", "ratio"]];
    for round in 1..=ROUNDS {
        let ours = ours(&engine).await;
        let theirs = theirs(&server, &command);
        rows.push(row![
            format!("round {round}"),
            number(ours),
            number(theirs),
            format!("{:.0} %", 100.0 * ours / theirs)
        ]);
    }
    table("The like script on Redis without AOF", &rows);
}

fn user(n: u64) -> UserId {
    // As redis-benchmark writes its random numbers.
    UserId::new(&format!("{n:012}")).unwrap()
}

async fn like(engine: &RedisEngine, n: u64) -> LikeOutcome {
    let request = LikeRequest {
        is_key_new: false,
        user: user(rand::random_range(0..USERS)),
        product: ProductId::new("product-1").unwrap(),
        key: IdempotencyKey::new(&format!("{n:012}")).unwrap(),
        desired: Desired::Toggled,
        at: Timestamp::now(),
    };
    engine.like(1, &request).await.unwrap()
}

async fn ours(engine: &Arc<RedisEngine>) -> f64 {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(rand::random_range(0..1 << 30)));
    let last = next.load(Ordering::Relaxed) + LIKES;
    let tasks = (0..IN_FLIGHT).map(|_| {
        let (engine, next) = (engine.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= last {
                    return;
                }
                assert!(matches!(like(&engine, n).await, LikeOutcome::Done(_) | LikeOutcome::Replayed(_)));
            }
        })
    });
    futures_util::future::try_join_all(tasks).await.unwrap();
    LIKES as f64 / began.elapsed().as_secs_f64()
}

/// The words of one like as Redis receives them, seen with MONITOR; users and keys as redis-benchmark's random numbers.
async fn what_a_like_sends(server: &RedisServer, engine: &RedisEngine) -> Vec<String> {
    let client = redis::Client::open(server.url()).unwrap();
    let seen = client.get_async_monitor().await.unwrap();
    let mut stream = seen.into_on_message::<String>();
    like(engine, 999_999_999_999).await;
    loop {
        let line = futures_util::StreamExt::next(&mut stream).await.expect("what MONITOR tells");
        if !line.contains("\"EVALSHA\"") {
            continue;
        }
        let (_, words) = line.split_once("] ").unwrap();
        let words = words.trim_matches('"').split("\" \"").map(str::to_owned);
        return words.map(|word| randomised(&word)).collect();
    }
}

/// Replaces numbers of twelve digits. The key's length in the event's id stays true.
fn randomised(word: &str) -> String {
    let digits = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    word.split(':').map(|part| if digits(part) { "__rand_int__" } else { part }).collect::<Vec<_>>().join(":")
}

fn theirs(server: &RedisServer, command: &[String]) -> f64 {
    let output = std::process::Command::new("redis-benchmark")
        .args(["-p", &server.port().to_string(), "-c", &IN_FLIGHT.to_string(), "-n", &LIKES.to_string()])
        .args(["-r", &USERS.to_string(), "--csv"])
        .args(command)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rate =
        text.lines().last().and_then(|line| line.rsplit("\",\"").nth(6)).expect("a line of redis-benchmark's CSV");
    rate.trim_matches('"').parse().unwrap_or_else(|_| panic!("{text}"))
}
