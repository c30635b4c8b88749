//! What goes when its time is up. These cases follow the real clock, because Redis does.
//!
//! That something is still there shows only if the machine was quick enough to ask in time; an attempt that was not is
//! made again.

use std::time::Instant;

use acclaim::domain::Signal;
use acclaim::engine::{Original, RecordOutcome, RecordRequest};

use super::*;

/// The lifetime of what is to expire.
const SPAN: Duration = Duration::from_millis(800);
const SPAN_MS: i64 = SPAN.as_millis() as i64;
/// After this much of the span it is still there.
const PART: Duration = Duration::from_millis(500);
/// After this it is gone; the rest is for clocks that round.
const OVER: Duration = Duration::from_millis(850);

/// Runs an attempt until one is not held up. An attempt gives `None` when it asked too late for the answer to say anything.
async fn unhurried(mut attempt: impl AsyncFnMut(usize) -> Option<()>) {
    for n in 0..20 {
        if attempt(n).await.is_some() {
            return;
        }
    }
    panic!("twenty times in a row the machine took longer than {SPAN:?}");
}

/// Whether what was renewed at an instant can not have expired yet.
fn in_time(renewed: Instant) -> Option<()> {
    (renewed.elapsed() < SPAN).then_some(())
}

pub async fn likes_stay_while_touched(make: Make) {
    let engine = &*make(EngineLimits { likes_idle_ms: SPAN_MS, ..plain() }).await;
    engine.open(1, 7, LEDGER).await.unwrap();
    unhurried(async |n| {
        let who = user(&format!("user{n}"));
        let likes = vec![(product("cup"), at(-1))];
        let loaded =
            UserLikes { as_of: Position::default(), user: who.clone(), likes, unliked: vec![], answers: vec![] };
        let is_loaded = async || {
            let likes = engine.viewer_likes(1, &who, &[product("cup")], Timestamp::now()).await.unwrap();
            likes.inspect(|likes| assert_eq!(likes, &[Some(at(-1))])).is_some()
        };
        let mut touched = Instant::now();
        engine.load_likes(1, &[loaded], Timestamp::now()).await.unwrap();
        // Looking keeps the user's likes, and so does liking.
        for _ in 0..2 {
            tokio::time::sleep(PART).await;
            let now = Instant::now();
            let still = is_loaded().await;
            in_time(touched)?;
            assert!(still);
            touched = now;
        }
        tokio::time::sleep(PART).await;
        let request = LikeRequest {
            is_key_new: false,
            user: who.clone(),
            product: product("jug"),
            key: key("k"),
            desired: Desired::Exactly(false),
            at: Timestamp::now(),
        };
        let now = Instant::now();
        let outcome = engine.like(1, &request).await.unwrap();
        in_time(touched)?;
        assert!(matches!(outcome, LikeOutcome::Done(_)), "{outcome:?}");
        tokio::time::sleep(PART).await;
        let still = is_loaded().await;
        in_time(now)?;
        assert!(still);
        tokio::time::sleep(OVER).await;
        assert!(!is_loaded().await);
        let request = LikeRequest { key: key("k2"), at: Timestamp::now(), ..request };
        assert_eq!(engine.like(1, &request).await.unwrap(), LikeOutcome::NotLoaded);
        Some(())
    })
    .await;
}

pub async fn answers_go_when_idle(make: Make) {
    let engine = &*make(EngineLimits { answers_idle_ms: SPAN_MS, ..plain() }).await;
    engine.open(1, 7, LEDGER).await.unwrap();
    let ann =
        UserLikes { as_of: Position::default(), user: user("ann"), likes: vec![], unliked: vec![], answers: vec![] };
    engine.load_likes(1, &[ann], Timestamp::now()).await.unwrap();
    unhurried(async |n| {
        let request = |id: &str| LikeRequest {
            is_key_new: false,
            user: user("ann"),
            product: product("cup"),
            key: key(&format!("{id}{n}")),
            desired: Desired::Toggled,
            at: Timestamp::now(),
        };
        let first = Instant::now();
        let answer = engine.like(1, &request("a")).await.unwrap();
        tokio::time::sleep(PART).await;
        let second = Instant::now();
        engine.like(1, &request("b")).await.unwrap();
        in_time(first)?;
        // The second answer has kept the first; being asked for does not.
        tokio::time::sleep(PART).await;
        let again = engine.like(1, &request("a")).await.unwrap();
        in_time(second)?;
        assert_eq!(again, replayed(&answer));
        tokio::time::sleep(OVER - PART).await;
        for id in ["a", "b"] {
            let outcome = engine.like(1, &request(id)).await.unwrap();
            assert!(matches!(outcome, LikeOutcome::Done(_)), "{outcome:?}");
        }
        Some(())
    })
    .await;
}

pub async fn events_are_forgotten(make: Make) {
    let engine = &*opened(make, EngineLimits { event_memory_ms: SPAN_MS, ..plain() }).await;
    let event = |id: String, reverses: Option<(String, Option<Original>)>| RecordRequest {
        id: event_id(&id),
        signal: Signal::Order,
        product: product("cup"),
        user: None,
        count: 2,
        occurred_at: at(-5),
        reverses: reverses.map(|(of, given)| (event_id(&of), given)),
    };
    let record = async |request| engine.record(1, 0, &[request], Timestamp::now()).await.unwrap()[0];
    let is_recorded = |outcome: RecordOutcome| matches!(outcome, RecordOutcome::Recorded(Position { .. }));
    unhurried(async |n| {
        let order = || event(format!("e{n}"), None);
        let reversal = |id: &str| event(format!("{id}{n}"), Some((format!("e{n}"), None)));
        let recorded = Instant::now();
        assert!(is_recorded(record(order()).await));
        let again = record(order()).await;
        in_time(recorded)?;
        assert_eq!(again, RecordOutcome::Duplicate);
        // A reversal remembers its original anew.
        tokio::time::sleep(PART).await;
        let reversed = Instant::now();
        let outcome = record(reversal("r")).await;
        in_time(recorded)?;
        assert!(is_recorded(outcome));
        tokio::time::sleep(PART).await;
        let outcome = record(reversal("s")).await;
        in_time(reversed)?;
        assert_eq!(outcome, RecordOutcome::Duplicate);
        tokio::time::sleep(OVER - PART).await;
        assert_eq!(record(reversal("s")).await, RecordOutcome::UnknownOriginal);
        assert!(is_recorded(record(order()).await));
        Some(())
    })
    .await;
}

pub async fn leases(make: Make) {
    let engine = &*make(plain()).await;
    let lease = async |name: &str, owner: &str, ttl| engine.lease(name, owner, ttl, Timestamp::now()).await.unwrap();
    let owner = async || engine.lease_owner("project", Timestamp::now()).await.unwrap();
    assert_eq!(owner().await, None);
    assert!(lease("project", "one", DEADLINE).await);
    assert_eq!(owner().await.as_deref(), Some("one"));
    assert!(lease("project", "one", DEADLINE).await, "renewed");
    assert!(!lease("project", "two", DEADLINE).await);
    assert!(lease("roll", "two", DEADLINE).await, "another task");
    engine.release("project", "two").await.unwrap();
    assert!(!lease("project", "two", DEADLINE).await, "not its own to give back");
    engine.release("project", "one").await.unwrap();
    assert!(lease("project", "two", DEADLINE).await);
    engine.release("never", "one").await.unwrap();

    unhurried(async |n| {
        let name = format!("task{n}");
        let taken = Instant::now();
        assert!(lease(&name, "one", SPAN).await);
        tokio::time::sleep(PART).await;
        let renewed = Instant::now();
        let kept = lease(&name, "one", SPAN).await;
        in_time(taken)?;
        assert!(kept);
        tokio::time::sleep(PART).await;
        let refused = !lease(&name, "two", SPAN).await;
        in_time(renewed)?;
        assert!(refused);
        tokio::time::sleep(OVER - PART).await;
        assert!(lease(&name, "two", DEADLINE).await, "expired");
        assert!(!lease(&name, "one", SPAN).await);
        Some(())
    })
    .await;
}
