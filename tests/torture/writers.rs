//! Those who like: each has users of its own, so that what one user does happens one after the other, and each knows what
//! it was answered. A like without an answer is sent again with the same key until its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::node::{Failed, Node};
use crate::record::{Answer, Durability, Like, Record, Wish};
use crate::world::World;

const TOGGLE: &str = "mutation($product: ID!, $key: String!) { like: toggleLike(input: { productId: $product, idempotencyKey: $key }) { liked changed at durability userErrors { code message } } }";
const SET: &str = "mutation($product: ID!, $liked: Boolean!, $key: String!) { like: setLike(input: { productId: $product, liked: $liked, idempotencyKey: $key }) { liked changed at durability userErrors { code message } } }";

/// How long a like is tried: longer than a fault and its recovery.
const DEADLINE: Duration = Duration::from_secs(25);

/// How the answer to one attempt came out.
pub enum Attempt {
    Answered(Answer),
    /// The ledger can't store it, which is final.
    DeadLettered,
    /// There is none, and the pause that the client is told to make is over.
    Unanswered,
}

/// Whether an error says that the ledger can't store what was sent.
pub fn is_dead_lettered(error: &Value) -> bool {
    error["code"] == "INVALID" && error["message"].as_str().is_some_and(|said| said.contains("dead letters"))
}

pub async fn attempt(node: &Node, record: &Record, like: &Like) -> Attempt {
    let (query, variables) = match like.wish {
        Wish::Toggle => (TOGGLE, json!({ "product": like.product, "key": like.key })),
        Wish::Set(liked) => (SET, json!({ "product": like.product, "key": like.key, "liked": liked })),
    };
    let began = Instant::now();
    let pause = match node.graphql(&like.user, query, variables).await {
        Ok(data) => {
            let payload = &data["like"];
            let durability = payload["durability"].as_str().and_then(Durability::from_name);
            let answered = (payload["liked"].as_bool(), payload["changed"].as_bool(), durability);
            let done_at = payload["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            if let ((Some(liked), Some(changed), Some(durability)), Some(done_at)) = (answered, done_at) {
                let outcome = match durability {
                    Durability::Accepted => "likes ACCEPTED",
                    Durability::Committed => "likes COMMITTED",
                };
                record.count(outcome, 1);
                return Attempt::Answered(Answer { at: Instant::now(), liked, changed, done_at, durability });
            }
            if is_dead_lettered(&payload["userErrors"][0]) {
                record.count("likes dead-lettered", 1);
                return Attempt::DeadLettered;
            }
            record.violation(format!("a like of {} for {} was answered {payload}", like.user, like.product));
            500
        }
        Err(failed) => note_failure(record, "likes", began, failed),
    };
    sleep(Duration::from_millis(pause)).await;
    Attempt::Unanswered
}

impl Like {
    /// Takes down what an attempt came to.
    pub fn note(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Answered(answer) => self.answers.push(answer),
            Attempt::DeadLettered => self.is_dead_lettered = true,
            Attempt::Unanswered => self.unanswered += 1,
        }
    }
}

/// Counts a failure; how many ms to wait. Only what passes by itself may be said to a client that does nothing wrong.
pub fn note_failure(record: &Record, what: &str, began: Instant, failed: Failed) -> u64 {
    let (code, pause) = match failed {
        Failed::Transport => ("without an answer".to_owned(), 100),
        Failed::Error { code, outcome, retry_after_ms, text } => {
            match &*code {
                "UNAVAILABLE" => record.refused_after(&outcome, began.elapsed()),
                "RATE_LIMITED" => {}
                _ => record.violation(format!("{what}: {text}")),
            }
            (code, retry_after_ms.clamp(50, 1_000))
        }
    };
    record.count(&format!("{what} {code}"), 1);
    pause
}

pub struct Writer {
    n: usize,
    random: StdRng,
    world: Arc<World>,
    likes: u64,
}

impl Writer {
    pub fn new(n: usize, world: &Arc<World>) -> Self {
        let random = StdRng::seed_from_u64(world.options.seed ^ ((n as u64 + 1) << 32));
        Self { n, random, world: world.clone(), likes: 0 }
    }

    /// Likes while the load is on, until the end.
    pub async fn run(mut self) {
        let options = &self.world.options;
        // A third of all operations are calls that record events.
        let pause = Duration::from_secs_f64(options.writers as f64 / (f64::from(options.rate) * 2.0 / 3.0));
        let world = self.world.clone();
        while world.load_is_on().await {
            let began = Instant::now();
            let _running = world.running();
            self.like().await;
            drop(_running);
            let pause = pause.mul_f64(self.random.random_range(0.5..1.5));
            sleep(pause.saturating_sub(began.elapsed())).await;
        }
    }

    async fn like(&mut self) {
        let world = self.world.clone();
        let options = &world.options;
        let mine = options.users.div_ceil(options.writers);
        let user = self.n + options.writers * self.random.random_range(0..mine);
        // A few products get most of the likes, and a few users come often.
        let user = if self.random.random_ratio(1, 4) { self.n } else { user };
        let product = skewed(&mut self.random, options.products);
        self.likes += 1;
        let wish = match self.random.random_range(0..10) {
            0 => Wish::Set(false),
            1 | 2 => Wish::Set(true),
            _ => Wish::Toggle,
        };
        let mut like = Like {
            user: format!("u{user}"),
            product: format!("p{product}"),
            key: format!("k{}-{}", self.n, self.likes),
            wish,
            sent_at: Instant::now(),
            answers: Vec::new(),
            unanswered: 0,
            is_dead_lettered: false,
        };
        let first = self.random.random_range(0..world.nodes.len());
        let turns = world.nodes.iter().cycle().skip(first);
        // Somebody clicks twice, and the second click goes another way.
        if self.random.random_ratio(1, 30) {
            let (one, other) = tokio::join!(
                attempt(&world.nodes[0], &world.record, &like),
                attempt(&world.nodes[1], &world.record, &like)
            );
            like.note(one);
            like.note(other);
        }
        for node in turns {
            if !like.answers.is_empty() || like.is_dead_lettered || like.sent_at.elapsed() > DEADLINE {
                break;
            }
            let done = attempt(node, &world.record, &like).await;
            like.note(done);
        }
        if like.answers.is_empty() && !like.is_dead_lettered {
            world.record.count("likes given up", 1);
            world.record.violation(format!("not answered within {DEADLINE:?}: {like:?}"));
        } else if self.random.random_ratio(1, 30) {
            // An answer that came is asked for once more.
            let done = attempt(&world.nodes[1 - first], &world.record, &like).await;
            like.note(done);
        }
        world.record.add_like(like);
    }
}

/// The smaller of two, so that small numbers come more often.
pub fn skewed(random: &mut StdRng, below: usize) -> usize {
    random.random_range(0..below).min(random.random_range(0..below))
}
