//! Many users who toggle likes at random: likes a second, how long an answer takes, and how many are in the ledger by
//! then.
//!
//! Each user belongs to one client, which waits for every answer, so that a user's last answer is what the user must
//! find at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board;
use super::meter::{self, Meter};
use super::table::{Latencies, Table, number, rate};
use super::{Faults, Outcome, Target};
use crate::client::{Caller, Client, ClientError};

/// Users whose last answers are compared with what they find at the end.
const CHECKED_USERS: usize = 200;
/// Ids in one query: what the server takes at most.
const IDS_MAX: usize = 100;
/// After a refusal that passes; a client that came again at once would measure refusals.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

const TOGGLE: &str = "mutation Toggle($product: ID!, $key: String!) {
  toggleLike(input: { productId: $product, idempotencyKey: $key }) { liked durability userErrors { message } }
}";
const LIKED: &str = "query Liked($ids: [ID!]!) { products(ids: $ids) { id like { viewerHasLiked } } }";

/// How the caller that bears a user's name signs in.
pub type CallerOf = dyn Fn(&str) -> anyhow::Result<Caller> + Send + Sync;

pub struct Settings {
    pub clients: usize,
    pub users: usize,
    pub caller_of: Box<CallerOf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    toggle_like: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    liked: Option<bool>,
    durability: Option<String>,
    user_errors: Vec<crate::client::UserError>,
}

/// What a user was told last about each product.
type LastAnswers = BTreeMap<String, bool>;

/// What all clients share.
struct Clicking {
    client: Client,
    products: Vec<String>,
    clients: usize,
    users: usize,
    caller_of: Box<CallerOf>,
    run: u64,
    likes: AtomicU64,
    committed: AtomicU64,
    latencies: Latencies,
    refused: Mutex<BTreeMap<String, u64>>,
    stop: CancellationToken,
}

/// Loads the target until its time is over or `stop` is cancelled.
pub async fn run(target: &Target, settings: Settings, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let server = target.look().await?;
    let clicking = Arc::new(Clicking {
        products: board::products(target, 1, IDS_MAX).await?,
        client: target.client.clone(),
        clients: settings.clients,
        users: settings.users,
        caller_of: settings.caller_of,
        run: rand::random(),
        likes: AtomicU64::new(0),
        committed: AtomicU64::new(0),
        latencies: Latencies::new(),
        refused: Mutex::default(),
        stop: stop.child_token(),
    });
    let meter = Meter::start(server);
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let clicking = clicking.clone();
        clients.spawn(async move { clicking.click(number).await });
    }
    let state = || format!("{} likes", number(clicking.likes.load(Ordering::Relaxed) as f64));
    let ends = async {
        meter::pass(target.duration, stop, state).await;
        clicking.stop.cancel();
        std::future::pending().await
    };
    let all = async {
        let mut answers = BTreeMap::new();
        while let Some(ended) = clients.join_next().await {
            answers.extend(ended??);
        }
        Ok::<_, anyhow::Error>(answers)
    };
    let answers: BTreeMap<usize, LastAnswers> = tokio::select! {
        answers = all => answers?,
        () = ends => BTreeMap::new(),
    };
    let (spent, likes) = (meter.stop(), clicking.likes.load(Ordering::Relaxed));
    let faults = Faults::default();
    let compared = clicking.compare(&answers, &faults).await?;
    let mut table = Table::new(format!(
        "likes: {} clients, {} users, {} products, {:.0} s",
        settings.clients,
        number(settings.users as f64),
        number(clicking.products.len() as f64),
        spent.time.as_secs_f64()
    ));
    table.row("likes", rate(likes, spent.time));
    let committed = clicking.committed.load(Ordering::Relaxed) as f64 / likes.max(1) as f64;
    table.row("COMMITTED", format!("{:.1} %", committed * 100.0));
    table.row("latency", &clicking.latencies);
    table.row("refused", clicking.refusals());
    table.row("server memory", meter::memory(server));
    spent.rows(&mut table, likes, "like");
    table.row("checked", format!("{compared} likes of {} users against what they find", answers.len()));
    Ok(Outcome { table, faults: faults.told() })
}

impl Clicking {
    fn user(number: usize) -> String {
        format!("bench-user-{number}")
    }

    /// Toggles likes of this client's users until the run ends; the last answers of those that are checked.
    async fn click(&self, client: usize) -> anyhow::Result<BTreeMap<usize, LastAnswers>> {
        let mut rng = StdRng::from_os_rng();
        let mut answers: BTreeMap<usize, LastAnswers> = BTreeMap::new();
        // Its users are those whose number leaves `client` when divided by the number of clients.
        let users = (self.users - client).div_ceil(self.clients);
        for click in 0u64.. {
            if self.stop.is_cancelled() {
                break;
            }
            let user = rng.random_range(0..users) * self.clients + client;
            let product = &self.products[rng.random_range(0..self.products.len())];
            let caller = self.client.called_by((self.caller_of)(&Self::user(user))?);
            let key = format!("bench-{:016x}-{client}-{click}", self.run);
            let sent = Instant::now();
            let answer = caller.call::<Answer>(TOGGLE, &json!({ "product": product, "key": key })).await;
            let liked = match answer {
                Ok(Answer { toggle_like: Payload { liked: Some(liked), durability, .. } }) => {
                    self.latencies.record(sent.elapsed());
                    self.likes.fetch_add(1, Ordering::Relaxed);
                    let committed = durability.as_deref() == Some("COMMITTED");
                    self.committed.fetch_add(u64::from(committed), Ordering::Relaxed);
                    Some(liked)
                }
                Ok(Answer { toggle_like: Payload { user_errors, .. } }) => {
                    let message = user_errors.into_iter().next().map(|error| error.message);
                    anyhow::bail!("a like of {product} is refused: {}", message.unwrap_or_default());
                }
                Err(ClientError::Refused { code, .. }) if code == "UNAVAILABLE" || code == "RATE_LIMITED" => {
                    *self.refused.lock().expect("nothing panics while it holds the lock").entry(code).or_default() += 1;
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    // Whether it took effect is not known.
                    None
                }
                Err(error) => return Err(error.into()),
            };
            if user < CHECKED_USERS {
                let answers = answers.entry(user).or_default();
                match liked {
                    Some(liked) => answers.insert(product.clone(), liked),
                    None => answers.remove(product),
                };
            }
        }
        Ok(answers)
    }

    fn refusals(&self) -> String {
        let refused = self.refused.lock().expect("as above");
        if refused.is_empty() {
            return "0".to_owned();
        }
        let said: Vec<String> = refused.iter().map(|(code, count)| format!("{count} {code}")).collect();
        said.join(", ")
    }

    /// Compares last answers with what the users find now; how many were compared.
    async fn compare(&self, answers: &BTreeMap<usize, LastAnswers>, faults: &Faults) -> anyhow::Result<usize> {
        #[derive(Deserialize)]
        struct Found {
            products: Vec<Option<Product>>,
        }
        #[derive(Deserialize)]
        struct Product {
            id: String,
            like: Like,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Like {
            viewer_has_liked: Option<bool>,
        }
        let mut compared = 0;
        for (user, answers) in answers {
            let name = Self::user(*user);
            let client = self.client.called_by((self.caller_of)(&name)?);
            let ids: Vec<&String> = answers.keys().collect();
            for ids in ids.chunks(IDS_MAX) {
                let found: Found = client.call(LIKED, &json!({ "ids": ids })).await?;
                for product in found.products.into_iter().flatten() {
                    let (told, finds) = (answers.get(&product.id).copied(), product.like.viewer_has_liked);
                    compared += 1;
                    if told != finds {
                        let said = |liked: Option<bool>| match liked {
                            None => "nothing",
                            Some(true) => "liked",
                            Some(false) => "not liked",
                        };
                        let (told, finds) = (said(told), said(finds));
                        faults.add(format!("{name} was told that {} is {told}, and finds it {finds}", product.id));
                    }
                }
            }
        }
        Ok(compared)
    }
}
