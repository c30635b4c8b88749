//! What was sent and what was answered: all that the checker knows of the clients' side.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acclaim::domain::{EventId, IdempotencyKey, UserId};
use hdrhistogram::Histogram;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    Accepted,
    Committed,
}

impl Durability {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ACCEPTED" => Some(Self::Accepted),
            "COMMITTED" => Some(Self::Committed),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Toggle,
    Set(bool),
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Instant,
    pub liked: bool,
    pub changed: bool,
    /// When the like was done, as the answer says.
    pub done_at: jiff::Timestamp,
    pub durability: Durability,
}

/// A like with its key: all attempts and all answers.
#[derive(Clone, Debug)]
pub struct Like {
    pub user: String,
    pub product: String,
    pub key: String,
    pub wish: Wish,
    pub sent_at: Instant,
    pub answers: Vec<Answer>,
    /// Attempts without an answer; each may have had its effect, or may have it still.
    pub unanswered: usize,
    /// Whether it was answered that the ledger can't store it.
    pub is_dead_lettered: bool,
}

impl Like {
    /// The name of its event in the ledger.
    pub fn event_id(&self) -> String {
        let user = UserId::new(&self.user).expect("a user of ours");
        let key = IdempotencyKey::new(&self.key).expect("a key of ours");
        EventId::of_like(&user, &key).as_str().to_owned()
    }

    pub fn is_committed(&self) -> bool {
        self.answers.iter().any(|answer| answer.durability == Durability::Committed)
    }

    /// Whether an answer says that it had an effect; a toggle always has one.
    pub fn had_effect(&self) -> bool {
        !self.answers.is_empty() && self.wish == Wish::Toggle || self.answers.iter().any(|answer| answer.changed)
    }
}

/// An event of a producer: what it was sent as, and the best that was answered.
#[derive(Clone, Debug)]
pub struct Sent {
    pub product: String,
    pub count: i64,
    pub reverses: Option<String>,
    pub sent_at: Instant,
    /// When it was answered RECORDED or DUPLICATE, and the best durability of those answers.
    pub taken: Option<(Instant, Durability)>,
    pub is_rejected: bool,
    /// Whether it was answered that the ledger can't store it.
    pub is_dead_lettered: bool,
}

#[derive(Default)]
pub struct Record {
    likes: Mutex<Vec<Like>>,
    events: Mutex<HashMap<String, Sent>>,
    outcomes: Mutex<BTreeMap<String, u64>>,
    /// Times at which the engine's state was taken back or away, each until service was back.
    losses: Mutex<Vec<(Instant, Instant)>>,
    /// Times from a dump until the ledger that it was restored to works again.
    undone: Mutex<Vec<(Instant, Instant)>>,
    /// Times at which Redis forgot what it should remember for 10 minutes.
    lapses: Mutex<Vec<(Instant, Instant)>>,
    violations: Mutex<Vec<String>>,
    violations_count: AtomicU64,
    /// Journal entries that can not be events.
    pub poisoned: AtomicU64,
    /// Likes and events with an answer.
    pub acknowledged: AtomicU64,
    recoveries: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    to_commit: Mutex<Vec<Duration>>,
    refusals: Mutex<BTreeMap<String, Histogram<u64>>>,
}

/// How much later than it was answered an ACCEPTED entry may still be lost with the engine: the journal is to be empty 30 s
/// after the last fault, so whatever is older is in the ledger.
const EXPOSED_FOR: Duration = Duration::from_secs(30);
/// Violations that are kept with their text.
const VIOLATIONS_MAX: usize = 30;

impl Record {
    pub fn add_like(&self, like: Like) {
        if !like.answers.is_empty() {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.likes.lock().expect("nothing panics while it holds this").push(like);
    }

    pub fn likes(&self) -> Vec<Like> {
        self.likes.lock().expect("as above").clone()
    }

    pub fn events(&self) -> HashMap<String, Sent> {
        self.events.lock().expect("as above").clone()
    }

    pub fn with_event<T>(&self, id: &str, with: impl FnOnce(&mut Option<Sent>) -> T) -> T {
        let mut events = self.events.lock().expect("as above");
        let mut slot = events.remove(id);
        let result = with(&mut slot);
        slot.into_iter().for_each(|sent| {
            events.insert(id.to_owned(), sent);
        });
        result
    }

    pub fn count(&self, outcome: &str, many: u64) {
        *self.outcomes.lock().expect("as above").entry(outcome.to_owned()).or_default() += many;
    }

    pub fn outcomes(&self) -> BTreeMap<String, u64> {
        self.outcomes.lock().expect("as above").clone()
    }

    pub fn engine_lost(&self, from: Instant, until: Instant) {
        self.losses.lock().expect("as above").push((from, until));
    }

    /// Whether the engine was lost at a time when something sent and answered then may have been in it alone.
    pub fn was_exposed(&self, sent_at: Instant, answered_at: Instant) -> bool {
        let losses = self.losses.lock().expect("as above");
        losses.iter().any(|(from, until)| sent_at <= *until && *from <= answered_at + EXPOSED_FOR)
    }

    /// What was committed since `from` may be gone.
    pub fn ledger_went_back(&self, from: Instant, until: Instant) {
        self.undone.lock().expect("as above").push((from, until));
    }

    /// Whether something that was COMMITTED by then may be gone with a ledger that went back.
    pub fn was_undone(&self, answered_at: Instant) -> bool {
        self.undone.lock().expect("as above").iter().any(|(from, until)| *from <= answered_at && answered_at <= *until)
    }

    /// Redis forgot keys before their time.
    pub fn lapsed(&self, from: Instant, until: Instant) {
        self.lapses.lock().expect("as above").push((from, until));
    }

    /// Whether Redis may have forgotten, before the last answer, a key that was sent first by then.
    pub fn was_forgotten(&self, sent_at: Instant, answered_at: Instant) -> bool {
        self.lapses.lock().expect("as above").iter().any(|(from, until)| sent_at <= *until && *from <= answered_at)
    }

    pub fn losses(&self) -> usize {
        self.losses.lock().expect("as above").len()
    }

    /// Something that must not be.
    pub fn violation(&self, what: String) {
        if self.violations_count.fetch_add(1, Ordering::Relaxed) < VIOLATIONS_MAX as u64 {
            self.violations.lock().expect("as above").push(what);
        }
    }

    pub fn violations(&self) -> (u64, Vec<String>) {
        (self.violations_count.load(Ordering::Relaxed), self.violations.lock().expect("as above").clone())
    }

    /// After a fault: when a like was answered again, and when one was COMMITTED again.
    pub fn recovered(&self, kind: &'static str, answered: Duration, committed: Duration) {
        self.recoveries.lock().expect("as above").entry(kind).or_default().push(answered);
        self.to_commit.lock().expect("as above").push(committed);
    }

    pub fn recoveries(&self) -> BTreeMap<&'static str, Vec<Duration>> {
        self.recoveries.lock().expect("as above").clone()
    }

    pub fn to_commit(&self) -> Vec<Duration> {
        self.to_commit.lock().expect("as above").clone()
    }

    /// How long a client waited to hear UNAVAILABLE, with this outcome or none.
    pub fn refused_after(&self, outcome: &str, took: Duration) {
        let mut refusals = self.refusals.lock().expect("as above");
        let new = || Histogram::new(3).expect("three digits are allowed");
        let histogram = refusals.entry(outcome.to_owned()).or_insert_with(new);
        histogram.saturating_record(took.as_millis() as u64);
    }

    /// By outcome, in ms.
    pub fn refusals(&self) -> BTreeMap<String, Histogram<u64>> {
        self.refusals.lock().expect("as above").clone()
    }
}
