//! The ledger over SQLite and Postgres: every case runs over both.

mod boards;
mod commit;
mod dead_letters;
mod faults;
mod reads;
mod results;
mod rules;
mod scopes;
mod snapshot;

use std::time::Duration;

use acclaim::domain::{
    BoardId, Event, EventId, IdempotencyKey, Position, ProductId, Signal, Timestamp, UserId, partition_of,
};
use acclaim::ledger::{Author, Batch, Commit, Ledger, NewProduct};

use crate::support::postgres;

const PARTITIONS: u16 = 4;

/// A migrated ledger of its own, with its cursors at (0, 0).
struct Fresh {
    ledger: Ledger,
    url: String,
    /// The folder of a SQLite file.
    _folder: Option<tempfile::TempDir>,
}

impl std::ops::Deref for Fresh {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl Fresh {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("acclaim.db").display());
        Self::new(url, Some(folder)).await
    }

    async fn postgres() -> Self {
        Self::new(postgres::database().await, None).await
    }

    async fn new(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let ledger = Ledger::connect(&url).await.unwrap();
        ledger.migrate().await.unwrap();
        ledger.state(PARTITIONS).await.unwrap();
        Self { ledger, url, _folder: folder }
    }

    /// Runs SQL behind the ledger's back.
    async fn tamper(&self, sql: &str) {
        if self.url.starts_with("postgres") {
            postgres::execute(&self.url, sql).await;
        } else {
            use diesel::connection::SimpleConnection;
            use diesel::prelude::*;
            let mut conn = SqliteConnection::establish(self.url.strip_prefix("sqlite://").unwrap()).unwrap();
            conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
        }
    }

    /// Commits events in one partition behind its cursor, and expects it to be done.
    async fn push(&self, partition: u16, events: Vec<Event>) -> Vec<Event> {
        let from = self.state(PARTITIONS).await.unwrap().cursors[&partition];
        match self.commit(&[batch(partition, from, events)]).await.unwrap() {
            Commit::Done { rejected: refused, .. } => refused.into_iter().map(|refused| refused.event).collect(),
            Commit::CursorMoved => panic!("nobody else commits"),
        }
    }

    /// Both folds are what they should be.
    async fn assert_sound(&self) {
        let (likes, activity) = (self.check_likes().await.unwrap(), self.check_activity().await.unwrap());
        assert_eq!((likes.differing, likes.rows), (0, vec![]));
        assert_eq!((activity.differing, activity.rows), (0, vec![]));
    }
}

/// Makes a test of each case for each database.
macro_rules! over_both {
    ($($(#[$doc:meta])* async fn $case:ident($ledger:ident: Fresh) $body:block)+) => {
        $($(#[$doc])* async fn $case($ledger: Fresh) $body)+

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Fresh::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Fresh::postgres().await).await;
            })+
        }
    };
}
use over_both;

fn ada() -> Author {
    Author { name: "ada".to_owned(), at: at(1), note: "it's a \"sale\"".to_owned() }
}

fn board_id(id: &str) -> BoardId {
    BoardId::from_stored(id.to_owned())
}

fn new_product(id: &str) -> NewProduct {
    NewProduct { id: product(id), name: format!("The {id}"), image_url: None, price: None, category: None, brand: None }
}

/// Of the boards named, in their order.
async fn revisions<const N: usize>(ledger: &Ledger, boards: [&str; N]) -> [i64; N] {
    let definitions = ledger.definitions().await.unwrap();
    boards.map(|id| definitions.board(&board_id(id)).unwrap().revision)
}

/// What the audit log says, newest first: (action, target, before, after).
async fn audited(ledger: &Ledger) -> Vec<(String, String, Option<String>, Option<String>)> {
    let log = ledger.audit_log(None, 100).await.unwrap().rows;
    assert!(log.iter().all(|entry| (entry.actor.as_str(), entry.at) == ("ada", at(1))));
    assert!(log.iter().all(|entry| entry.note.as_deref() == Some("it's a \"sale\"")));
    assert!(log.iter().rev().map(|entry| entry.id).eq(1..=log.len() as i64), "numbered without a gap");
    log.into_iter().map(|entry| (entry.action, entry.target, entry.before, entry.after)).collect()
}

/// As [`audited`] gives it.
fn deed(action: &str, target: &str, before: &str, after: &str) -> (String, String, Option<String>, Option<String>) {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (action.to_owned(), target.to_owned(), text(before), text(after))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn product(name: &str) -> ProductId {
    ProductId::new(name).unwrap()
}

fn at(ms: i64) -> Timestamp {
    Timestamp::parse("2026-11-22T10:00:00Z").unwrap().plus_ms(ms)
}

/// A producer's event of one signal.
fn event(id: &str, signal: Signal, of: &str, count: i64, ms: i64) -> Event {
    Event {
        id: EventId::new(id).unwrap(),
        signal,
        product: product(of),
        user: None,
        count,
        occurred_at: at(ms),
        recorded_at: at(ms),
        reverses: None,
        is_new: false,
    }
}

/// A like at `ms`, or the unlike at `ms` of a like at `since`.
fn like(who: &str, key: &str, of: &str, ms: i64) -> Event {
    let id = EventId::of_like(&user(who), &IdempotencyKey::new(key).unwrap());
    Event { id, user: Some(user(who)), ..event("-", Signal::Like, of, 1, ms) }
}

fn unlike(who: &str, key: &str, of: &str, ms: i64, since: i64) -> Event {
    Event { count: -1, occurred_at: at(since), ..like(who, key, of, ms) }
}

/// Entries that follow a cursor without gap.
fn batch(partition: u16, from: Position, events: Vec<Event>) -> Batch {
    let position = |n: u64| Position::new(from.epoch, from.seq + n);
    let to = position(events.len() as u64);
    let events = events.into_iter().zip(1..).map(|(event, n)| (position(n), event)).collect();
    Batch { partition, from, to, events, dead_letters: Vec::new() }
}

fn partition_of_user(name: &str) -> u16 {
    partition_of(name, PARTITIONS)
}

/// Waits until something holds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
