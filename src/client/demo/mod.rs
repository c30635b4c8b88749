//! What happens in the demo's shop: a real day of orders, replayed, and simulated shoppers who look and like.
//!
//! It drives a server from outside, through the API alone, as a shop would. Orders are real and keep their order;
//! views and likes are made up here, and whatever is printed says so.

mod day;
mod screen;

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use self::day::{Day, Floor};
use super::{Caller, Client};

/// Rows in one call: what the server takes at most.
const BATCH_LEN_MAX: usize = 500;
/// The server is started beside the demo, on an empty database.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server that does not answer is waited for before the demo ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// Short enough that orders come in a stream, long enough that a call carries several.
const TICK: Duration = Duration::from_millis(200);
/// Simulated people: so many that none comes near the limit on a user's likes.
const SHOPPERS: u32 = 150;
/// Likes and unlikes a second, by all shoppers together; the day's orders come at about five a second.
const LIKES_PER_SECOND: u32 = 6;
/// Of likes and unlikes, the share of unlikes.
const UNLIKE_SHARE: f64 = 0.15;
/// Likes kept in mind so that some can be taken back; the oldest stay for good.
const LIKED_MAX: usize = 2_000;
/// Views for each tick, at most.
const VIEWS_MAX: u32 = 4;

const UPSERT: &str = "mutation Stock($rows: [ProductInput!]!) {
  upsertProducts(input: { products: $rows }) { userErrors { message } }
}";
const RECORD: &str = "mutation Sell($rows: [EventInput!]!) {
  recordEvents(input: { events: $rows }) { recorded }
}";
const SET_LIKE: &str = "mutation Like($product: ID!, $liked: Boolean!) {
  setLike(input: { productId: $product, liked: $liked }) { changed }
}";

/// Waits for the server at `url`, fills its catalogue, and then plays the day over and over until it is dropped. Returns
/// only when the server is gone. `speed` is how many times faster than the clock the day passes.
pub async fn run(url: &str, speed: f64) -> anyhow::Result<Infallible> {
    let staff = Client::new(url, Caller::Name("demo-shop".to_owned()))?;
    let day = Day::embedded()?;
    await_ready(&staff).await?;
    for rows in day.catalogue.chunks(BATCH_LEN_MAX) {
        send(&staff, UPSERT, json!({ "rows": rows })).await?;
    }
    println!("{}", screen::welcome(&day, speed));
    let floor = Mutex::new(Floor::new(&day));
    let (never, _, _) =
        tokio::try_join!(replay(&staff, &day, speed, &floor), shop(&staff, &floor), screen::show(&staff, &floor))?;
    Ok(never)
}

async fn await_ready(client: &Client) -> anyhow::Result<()> {
    let began = Instant::now();
    while !client.is_ready().await {
        if began.elapsed() > START_TIMEOUT {
            bail!("{} was not ready within {} s", client.url(), START_TIMEOUT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn send(client: &Client, operation: &str, variables: Value) -> anyhow::Result<()> {
    let _: IgnoredAny = client.call_patiently(operation, &variables, PATIENCE, |_| ()).await?;
    Ok(())
}

fn lock<'a>(floor: &'a Mutex<Floor>) -> MutexGuard<'a, Floor> {
    floor.lock().expect("nothing panics while it holds the lock")
}

/// Sends the orders when they are due, and some views with them.
async fn replay(staff: &Client, day: &Day, speed: f64, floor: &Mutex<Floor>) -> anyhow::Result<Infallible> {
    let mut rng = StdRng::from_os_rng();
    for lap in 1u64.. {
        let began = Instant::now();
        let mut sent = 0;
        while sent < day.orders.len() {
            // Half a call at most, so that the views have room.
            let due = day.due(began.elapsed().as_secs_f64(), speed).min(sent + BATCH_LEN_MAX / 2);
            let orders = &day.orders[sent..due.max(sent)];
            sent += orders.len();
            let mut rows: Vec<Value> = orders.iter().map(|order| order.input(lap)).collect();
            {
                let mut floor = lock(floor);
                floor.sell(orders);
                for _ in 0..rng.random_range(0..=VIEWS_MAX) {
                    floor.views += 1;
                    rows.push(json!({
                        "id": format!("view-{}", floor.views),
                        "signal": "VIEW",
                        "productId": floor.pick(&mut rng),
                        "userId": shopper(&mut rng),
                    }));
                }
            }
            if !rows.is_empty() {
                send(staff, RECORD, json!({ "rows": rows })).await?;
            }
            tokio::time::sleep(TICK).await;
        }
    }
    unreachable!("2^64 laps take longer than anyone watches")
}

fn shopper(rng: &mut StdRng) -> String {
    format!("shopper-{}", rng.random_range(1..=SHOPPERS))
}

/// Shoppers like what sells, and change their mind now and then.
async fn shop(staff: &Client, floor: &Mutex<Floor>) -> anyhow::Result<Infallible> {
    let mut rng = StdRng::from_os_rng();
    let mut liked: Vec<(String, String)> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LIKES_PER_SECOND);
    loop {
        ticks.tick().await;
        let unlike = !liked.is_empty() && rng.random_bool(UNLIKE_SHARE);
        let (who, product) = if unlike {
            liked.swap_remove(rng.random_range(0..liked.len()))
        } else {
            let product = lock(floor).pick(&mut rng);
            (shopper(&mut rng), product)
        };
        let caller = staff.called_by(Caller::Name(who.clone()));
        let variables = json!({ "product": product, "liked": !unlike });
        let answer: Value = caller.call_patiently(SET_LIKE, &variables, PATIENCE, |_| ()).await?;
        if answer["setLike"]["changed"] == json!(true) {
            let mut floor = lock(floor);
            let count = if unlike { &mut floor.unlikes } else { &mut floor.likes };
            *count += 1;
        }
        if !unlike && liked.len() < LIKED_MAX {
            liked.push((who, product));
        }
    }
}
