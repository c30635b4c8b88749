//! The day that the demo replays: its catalogue and orders, embedded, and when each order is due.

use std::collections::VecDeque;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::client::rows::{Form, Row, Rows};
use crate::domain::Timestamp;

const PRODUCTS: &str = include_str!("../../../demo/products.csv");
const ORDERS: &str = include_str!("../../../demo/orders.csv");

/// The day's first third passes in this many seconds, however slow the rest is, so that the board fills at once.
const OPENING_SECONDS: f64 = 15.0;
/// Shoppers look at what sold in the last so many orders.
const RECENT_MAX: usize = 300;
/// Of what they look at, the share that sold just now; the rest is anything in the shop.
const RECENT_SHARE: f64 = 0.85;

pub(super) struct Day {
    /// `ProductInput`s.
    pub catalogue: Vec<Value>,
    /// In order of time.
    pub orders: Vec<Order>,
    product_ids: Vec<String>,
    /// How many orders the opening has.
    opening: usize,
}

pub(super) struct Order {
    pub at: Timestamp,
    pub product: String,
    id: String,
    user: Value,
    reverses: Option<String>,
}

impl Order {
    fn new(row: Row) -> Self {
        Self {
            // The source knows every order's minute, so the demo's files do too.
            at: row.occurred_at.expect("every order of the demo has a time"),
            product: row.input["productId"].as_str().expect("every event has a product").to_owned(),
            user: row.input["userId"].clone(),
            id: row.id,
            reverses: row.reverses,
        }
    }

    /// The order as an `EventInput` that happens now. Each lap has ids of its own, so that it counts anew.
    pub fn input(&self, lap: u64) -> Value {
        let named = |id: &String| if lap == 1 { id.clone() } else { format!("lap{lap}-{id}") };
        json!({
            "id": named(&self.id),
            "signal": "ORDER",
            "productId": self.product,
            "userId": self.user,
            "reverses": self.reverses.as_ref().map(named),
        })
    }
}

impl Day {
    pub fn embedded() -> anyhow::Result<Self> {
        let products = read(PRODUCTS, Form::Products)?;
        let orders: Vec<Order> = read(ORDERS, Form::Events { shift_ms: 0 })?.into_iter().map(Order::new).collect();
        let product_ids = products.iter().map(|row| row.id.clone()).collect();
        let catalogue = products.into_iter().map(|row| row.input).collect();
        Ok(Self { catalogue, product_ids, opening: orders.len() / 3, orders })
    }

    /// How many orders are due this many seconds after the day began.
    pub fn due(&self, seconds: f64, speed: f64) -> usize {
        if seconds < OPENING_SECONDS {
            return (self.opening as f64 * seconds / OPENING_SECONDS) as usize;
        }
        let clock = self.orders[self.opening].at.plus_ms(((seconds - OPENING_SECONDS) * speed * 1000.0) as i64);
        // The source has whole minutes: the orders of one are spread over it.
        let begun = self.orders.partition_point(|order| order.at <= clock);
        let minute = self.orders[..begun].last().map_or(clock, |order| order.at);
        let first = self.orders.partition_point(|order| order.at < minute);
        let share = (clock.since_ms(minute) as f64 / 60_000.0).min(1.0);
        (first + ((begun - first) as f64 * share).ceil() as usize).max(self.opening)
    }

    /// How long a lap takes, in seconds.
    pub fn lap_seconds(&self, speed: f64) -> f64 {
        let last = self.orders.last().map_or(0, |last| last.at.since_ms(self.orders[self.opening].at) + 60_000);
        OPENING_SECONDS + last as f64 / 1000.0 / speed
    }
}

fn read(text: &str, form: Form) -> anyhow::Result<Vec<Row>> {
    let mut rows = Rows::new(text.as_bytes(), form)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next_row()? {
        all.push(row.map_err(|bad| anyhow::anyhow!("the demo's own files: line {}: {}", bad.line, bad.reason))?);
    }
    Ok(all)
}

/// What goes on in the shop: what sells, and what was counted since the demo began.
pub(super) struct Floor {
    /// When, on the day, the last order was.
    pub clock: Timestamp,
    pub orders: u64,
    pub views: u64,
    pub likes: u64,
    pub unlikes: u64,
    recent: VecDeque<String>,
    all: Vec<String>,
}

impl Floor {
    pub fn new(day: &Day) -> Self {
        Self {
            clock: day.orders[0].at,
            orders: 0,
            views: 0,
            likes: 0,
            unlikes: 0,
            recent: VecDeque::new(),
            all: day.product_ids.clone(),
        }
    }

    pub fn sell(&mut self, orders: &[Order]) {
        for order in orders {
            self.clock = order.at;
            self.orders += 1;
            self.recent.push_back(order.product.clone());
        }
        let surplus = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..surplus);
    }

    /// What a shopper looks at: the more it sold just now, the likelier.
    pub fn pick(&self, rng: &mut StdRng) -> String {
        if !self.recent.is_empty() && rng.random_bool(RECENT_SHARE) {
            self.recent[rng.random_range(0..self.recent.len())].clone()
        } else {
            self.all[rng.random_range(0..self.all.len())].clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_order_has_its_product_and_every_reversal_comes_after_its_original() {
        let day = Day::embedded().unwrap();
        let products: HashSet<_> = day.product_ids.iter().collect();
        let mut seen = HashSet::new();
        for order in &day.orders {
            assert!(products.contains(&order.product), "{}", order.id);
            assert!(order.reverses.as_ref().is_none_or(|original| seen.contains(original)), "{}", order.id);
            assert!(seen.insert(order.id.clone()), "{} twice", order.id);
        }
        assert!(day.orders.is_sorted_by_key(|order| order.at));
        assert!(day.orders.len() > 3_000 && day.orders.iter().any(|order| order.reverses.is_some()));
    }

    #[test]
    fn the_board_moves_from_the_first_second_and_the_whole_day_passes_in_a_lap() {
        let day = Day::embedded().unwrap();
        assert!(day.due(1.0, 45.0) > 50);
        let mut before = 0;
        for tick in 0..=(day.lap_seconds(45.0) * 5.0) as u64 + 1 {
            let due = day.due(tick as f64 / 5.0, 45.0);
            assert!(due >= before && due <= day.orders.len());
            // What is due in a tick fits into a call, or nearly: the largest minute of the day has 674 orders.
            assert!(due - before < 250, "{} orders in one tick", due - before);
            before = due;
        }
        assert_eq!(before, day.orders.len());
        assert!((540.0..660.0).contains(&day.lap_seconds(45.0)), "about ten minutes: {}", day.lap_seconds(45.0));
    }

    #[test]
    fn a_later_lap_reverses_its_own_orders() {
        let day = Day::embedded().unwrap();
        let reversal = day.orders.iter().find(|order| order.reverses.is_some()).unwrap();
        let original = reversal.reverses.as_ref().unwrap();
        assert_eq!(reversal.input(1)["reverses"], json!(original));
        assert_eq!(reversal.input(2)["reverses"], json!(format!("lap2-{original}")));
        assert_ne!(reversal.input(2)["id"], reversal.input(3)["id"]);
    }

    #[test]
    fn shoppers_look_at_what_sells() {
        let day = Day::embedded().unwrap();
        let mut floor = Floor::new(&day);
        let mut rng = StdRng::seed_from_u64(1);
        floor.pick(&mut rng);
        let hot = &day.orders[..1];
        floor.sell(hot);
        let share = (0..1000).filter(|_| floor.pick(&mut rng) == hot[0].product).count();
        assert!((800..900).contains(&share), "{share}");
    }
}
