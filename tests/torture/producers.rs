//! Those who record events: views, carts, shares and orders, some of them twice, some taken back, some long past.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::node::Node;
use crate::record::{Durability, Record, Sent};
use crate::world::World;
use crate::writers::{is_dead_lettered, note_failure, skewed};

const RECORD: &str = "mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { durability results { eventId status error { code message } } } }";

const SIGNALS: [&str; 4] = ["VIEW", "CART", "SHARE", "ORDER"];
/// Events of a call: few enough that calls stay alike.
const EVENTS_MAX: usize = 12;
/// Producers, each of which waits for its answer before it goes on.
pub const PRODUCERS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(25);
/// Events of a producer that it may send again or take back.
const REMEMBERED: usize = 200;

pub struct Producer {
    n: usize,
    random: StdRng,
    world: Arc<World>,
    events: u64,
    recent: Vec<Value>,
}

impl Producer {
    pub fn new(n: usize, world: &Arc<World>) -> Self {
        let random = StdRng::seed_from_u64(world.options.seed ^ ((n as u64 + 1) << 48));
        Self { n, random, world: world.clone(), events: 0, recent: Vec::new() }
    }

    pub async fn run(mut self) {
        let world = self.world.clone();
        let pause = Duration::from_secs_f64(PRODUCERS as f64 / (f64::from(world.options.rate) / 3.0));
        while world.load_is_on().await {
            let began = Instant::now();
            let running = world.running();
            let batch: Vec<_> = (0..self.random.random_range(1..=EVENTS_MAX)).map(|_| self.event()).collect();
            self.send(batch).await;
            drop(running);
            let pause = pause.mul_f64(self.random.random_range(0.5..1.5));
            sleep(pause.saturating_sub(began.elapsed())).await;
        }
    }

    /// A new event, an earlier one again, or one that takes an earlier one back.
    fn event(&mut self) -> Value {
        let earlier = match self.recent.len() {
            0 => None,
            len => Some(self.recent[self.random.random_range(0..len)].clone()),
        };
        match (self.random.random_range(0..20), earlier) {
            (0, Some(earlier)) => return earlier,
            (1, Some(earlier)) if earlier.get("reverses").is_none() => {
                let reversal = json!({
                    "id": format!("r-{}", earlier["id"].as_str().expect("an id")),
                    "signal": earlier["signal"],
                    "productId": earlier["productId"],
                    "reverses": earlier["id"],
                });
                return self.remember(reversal);
            }
            _ => {}
        }
        self.events += 1;
        let product = skewed(&mut self.random, self.world.options.products);
        let mut event = json!({
            "id": format!("e{}-{}", self.n, self.events),
            "signal": SIGNALS[self.random.random_range(0..SIGNALS.len())],
            "productId": format!("p{product}"),
            "count": if self.random.random_ratio(1, 5) { self.random.random_range(2..50) } else { 1 },
        });
        // A producer that was away sends what happened an hour ago, which the ledger is asked about.
        if self.random.random_ratio(1, 25) {
            let past =
                SystemTime::now() + self.world.ahead - Duration::from_secs(self.random.random_range(1_200..7_200));
            let ms = past.duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_millis() as i64;
            let at = jiff::Timestamp::from_millisecond(ms).expect("it is before the year 10,000");
            event["occurredAt"] = json!(at.to_string());
        }
        self.remember(event)
    }

    fn remember(&mut self, event: Value) -> Value {
        if self.recent.len() < REMEMBERED {
            self.recent.push(event.clone());
        } else {
            let place = self.random.random_range(0..REMEMBERED);
            self.recent[place] = event.clone();
        }
        event
    }

    async fn send(&mut self, batch: Vec<Value>) {
        let world = self.world.clone();
        let began = Instant::now();
        for event in &batch {
            note_sent(&world.record, event, began);
        }
        let first = self.random.random_range(0..world.nodes.len());
        for node in world.nodes.iter().cycle().skip(first) {
            if began.elapsed() > DEADLINE {
                world.record.count("calls of recordEvents given up", 1);
                world.record.violation(format!("events are not answered within {DEADLINE:?}: {batch:?}"));
                return;
            }
            if attempt(node, &world.record, &batch).await {
                return;
            }
        }
    }
}

fn note_sent(record: &Record, event: &Value, at: Instant) {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let id = text("id").expect("an event has an id");
    let sent = || Sent {
        product: text("productId").expect("an event has a product"),
        count: event["count"].as_i64().unwrap_or(1),
        reverses: text("reverses"),
        sent_at: at,
        taken: None,
        is_rejected: false,
        is_dead_lettered: false,
    };
    record.with_event(&id, |slot| {
        slot.get_or_insert_with(sent);
    });
}

/// Whether there was an answer.
async fn attempt(node: &Node, record: &Record, batch: &[Value]) -> bool {
    let began = Instant::now();
    let data = match node.graphql("shop", RECORD, json!({ "events": batch })).await {
        Ok(data) => data,
        Err(failed) => {
            let pause = note_failure(record, "calls of recordEvents", began, failed);
            sleep(Duration::from_millis(pause)).await;
            return false;
        }
    };
    let payload = &data["recordEvents"];
    let durability = payload["durability"].as_str().and_then(Durability::from_name);
    for result in payload["results"].as_array().into_iter().flatten() {
        let id = result["eventId"].as_str().unwrap_or_default();
        let status = result["status"].as_str().unwrap_or_default();
        record.count(&format!("events {status}"), 1);
        record.with_event(id, |slot| {
            let Some(sent) = slot else { return record.violation(format!("an answer names {id:?}: {result}")) };
            match (status, durability) {
                ("RECORDED" | "DUPLICATE", Some(durability)) => {
                    record.acknowledged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let is_better = sent.taken.is_none_or(|(_, known)| known == Durability::Accepted);
                    if is_better {
                        sent.taken = Some((Instant::now(), durability));
                    }
                }
                ("REJECTED", _) if is_dead_lettered(&result["error"]) => sent.is_dead_lettered = true,
                // What it takes back was never taken itself, or was lost with the engine.
                ("REJECTED", _) if sent.reverses.is_some() => sent.is_rejected = true,
                _ => record.violation(format!("the event {id} was answered {result}")),
            }
        });
    }
    true
}
