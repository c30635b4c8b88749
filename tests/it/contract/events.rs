//! Producers' events: one effect for each id, and reversals.

use acclaim::domain::{Signal, Undo};
use acclaim::engine::RecordOutcome::{self, Busy, Duplicate, Mismatch, Recorded, UnknownOriginal};
use acclaim::engine::{Original, RecordRequest};

use super::*;

fn order(id: &str, count: i64, occurred_ms: i64) -> RecordRequest {
    RecordRequest {
        id: event_id(id),
        signal: Signal::Order,
        product: product("cup"),
        user: None,
        count,
        occurred_at: at(occurred_ms),
        reverses: None,
    }
}

/// The count and time of a reversal are ignored, so these are wrong.
fn reversal(id: &str, of: &str, given: Option<Original>) -> RecordRequest {
    RecordRequest { reverses: Some((event_id(of), given)), ..order(id, 77, 77) }
}

fn original(count: i64) -> Original {
    Original { signal: Signal::Order, product: product("cup"), count, occurred_at: at(-900), reversed: false }
}

async fn record(engine: &dyn Engine, requests: &[RecordRequest], ms: i64) -> Vec<RecordOutcome> {
    engine.record(1, 0, requests, at(ms)).await.unwrap()
}

fn recorded(seq: u64) -> RecordOutcome {
    Recorded(Position::new(1, seq))
}

pub async fn records_in_order(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 2, ..plain() }).await;
    let view = RecordRequest {
        signal: Signal::View,
        product: product("é jug"),
        user: Some(user("ann")),
        ..order("e:2 ü", 1_000_000, 20)
    };
    assert_eq!(record(engine, &[order("e1", 3, -5), view], 100).await, [recorded(1), recorded(2)]);
    assert_eq!(engine.record(1, 1, &[order("e3", 1, 30)], at(101)).await.unwrap(), [recorded(1)]);
    assert_eq!(record(engine, &[], 102).await, []);
    assert_eq!(record(engine, &[order("e4", 1, 40)], 103).await, [recorded(3)]);
    let event = |id: &str, count, occurred, recorded| Event {
        id: event_id(id),
        signal: Signal::Order,
        product: product("cup"),
        user: None,
        count,
        occurred_at: at(occurred),
        recorded_at: at(recorded),
        reverses: None,
        is_new: false,
    };
    let view = Event {
        signal: Signal::View,
        product: product("é jug"),
        user: Some(user("ann")),
        ..event("e:2 ü", 1_000_000, 20, 100)
    };
    let expected = [event("e1", 3, -5, 100), view, event("e4", 1, 40, 103)];
    let expected: Vec<_> = (1..).map(|seq| Position::new(1, seq)).zip(expected).collect();
    assert_eq!(events(engine, 0).await, expected);
    assert_eq!(events(engine, 1).await, [(Position::new(1, 1), event("e3", 1, 30, 101))]);
}

pub async fn knows_duplicates(make: Make) {
    let engine = &*opened(make, plain()).await;
    let batch = [order("e1", 1, 0), order("e1", 2, 0), order("e2", 1, 0), order("e1", 1, 0)];
    assert_eq!(record(engine, &batch, 0).await, [recorded(1), Duplicate, recorded(2), Duplicate]);
    let other = RecordRequest { product: product("jug"), ..order("e2", 9, 5) };
    assert_eq!(record(engine, &[other, order("e3", 1, 0)], 10).await, [Duplicate, recorded(3)]);
    assert_eq!(entries(engine, 0).await.len(), 3);
}

pub async fn reverses_once(make: Make) {
    let engine = &*opened(make, plain()).await;
    // In one call with its original, and in a later one.
    let batch = [order("e1", 5, -100), reversal("r1", "e1", None), order("e2", 2, -200)];
    assert_eq!(record(engine, &batch, 0).await, [recorded(1), recorded(2), recorded(3)]);
    let by = RecordRequest { user: Some(user("bob")), ..reversal("r2", "e2", None) };
    assert_eq!(record(engine, &[by], 10).await, [recorded(4)]);
    let again = [reversal("r1", "e1", None), reversal("r3", "e1", None), order("e1", 5, -100), order("r3", 1, 0)];
    assert_eq!(record(engine, &again, 20).await, [Duplicate, Duplicate, Duplicate, recorded(5)]);

    let events = events(engine, 0).await;
    let brief = |(_, event): &(Position, Event)| {
        (event.id.clone(), event.count, event.occurred_at, event.recorded_at, event.reverses.clone())
    };
    assert_eq!(brief(&events[1]), (event_id("r1"), -5, at(-100), at(0), Some(event_id("e1"))));
    assert_eq!(brief(&events[3]), (event_id("r2"), -2, at(-200), at(10), Some(event_id("e2"))));
    assert_eq!((events[3].1.user.clone(), events[3].1.signal), (Some(user("bob")), Signal::Order));
    assert_eq!(events[3].1.product, product("cup"));
}

pub async fn reverses_what_is_given(make: Make) {
    let engine = &*opened(make, plain()).await;
    assert_eq!(record(engine, &[reversal("r1", "old", Some(original(4)))], 0).await, [recorded(1)]);
    // From then on the original is remembered, as reversed, whatever is given.
    let again = [reversal("r2", "old", None), reversal("r3", "old", Some(original(4))), order("old", 4, -900)];
    assert_eq!(record(engine, &again, 1).await, [Duplicate; 3]);
    let reversed = Original { reversed: true, ..original(1) };
    assert_eq!(record(engine, &[reversal("r4", "older", Some(reversed))], 2).await, [Duplicate]);
    // What is remembered goes before what is given.
    record(engine, &[order("e1", 6, -50)], 3).await;
    assert_eq!(record(engine, &[reversal("r5", "e1", Some(original(1)))], 4).await, [recorded(3)]);
    let counts: Vec<_> = events(engine, 0).await.iter().map(|(_, event)| (event.count, event.occurred_at)).collect();
    assert_eq!(counts, [(-4, at(-900)), (6, at(-50)), (-6, at(-50))]);
}

pub async fn refuses_what_it_can_not_reverse(make: Make) {
    let engine = &*opened(make, plain()).await;
    record(engine, &[order("e1", 5, -100)], 0).await;
    let other_product = RecordRequest { product: product("jug"), ..reversal("r1", "e1", None) };
    let other_signal = RecordRequest { signal: Signal::Cart, ..reversal("r1", "e1", None) };
    let given = Original { product: product("jug"), ..original(1) };
    let batch =
        [reversal("r1", "nothing", None), other_product.clone(), other_signal, reversal("r1", "nothing", Some(given))];
    assert_eq!(record(engine, &batch, 1).await, [UnknownOriginal, Mismatch, Mismatch, Mismatch]);
    assert_eq!(entries(engine, 0).await.len(), 1);
    // None of them was remembered, and nothing was marked.
    assert_eq!(record(engine, &[reversal("r1", "e1", None)], 2).await, [recorded(2)]);
    // A mismatch is told even where a reversal came before.
    assert_eq!(record(engine, &[RecordRequest { id: event_id("r2"), ..other_product }], 3).await, [Mismatch]);
    assert_eq!(record(engine, &[order("nothing", 1, 0)], 4).await, [recorded(3)]);
}

pub async fn remembers_across_epochs(make: Make) {
    let engine = &*opened(make, plain()).await;
    record(engine, &[order("e1", 5, -100), order("e2", 1, 0)], 0).await;
    engine.close().await.unwrap();
    assert!(is_lost(engine.record(1, 0, &[order("e3", 1, 0)], at(1)).await));
    engine.open(2, 7, LEDGER).await.unwrap();
    assert!(is_lost(engine.record(1, 0, &[order("e3", 1, 0)], at(2)).await));
    let batch = [order("e1", 5, -100), reversal("r1", "e1", None), order("e3", 1, 0), reversal("r2", "e1", None)];
    let outcomes = engine.record(2, 0, &batch, at(3)).await.unwrap();
    let recorded = |seq| Recorded(Position::new(2, seq));
    assert_eq!(outcomes, [Duplicate, recorded(1), recorded(2), Duplicate]);
    assert_eq!(events(engine, 0).await[0].1.count, -5);
}

pub async fn remembers_what_the_ledger_has(make: Make) {
    let engine = &*opened(make, plain()).await;
    record(engine, &[order("e1", 5, -100)], 0).await;
    engine.remember_events(&[(event_id("e1"), original(4)), (event_id("e2"), original(3))], at(1)).await.unwrap();
    let batch = [reversal("r1", "e1", None), reversal("r2", "e2", None), order("e2", 3, 0), reversal("r3", "e1", None)];
    assert_eq!(record(engine, &batch, 2).await, [recorded(2), recorded(3), Duplicate, Duplicate]);
    let counts: Vec<_> = events(engine, 0).await.iter().map(|(_, event)| (event.count, event.occurred_at)).collect();
    assert_eq!(counts, [(5, at(-100)), (-4, at(-900)), (-3, at(-900))]);
}

pub async fn busy_stands_alone(make: Make) {
    let limits = EngineLimits { journal_len_max: 2, journal_age_ms_max: 1_000, ..plain() };
    let engine = &*opened(make, limits).await;
    let batch =
        [order("e1", 1, 0), order("e2", 1, 0), order("e3", 1, 0), order("e1", 1, 0), reversal("r1", "e1", None)];
    assert_eq!(record(engine, &batch, 0).await, [recorded(1), recorded(2), Busy, Duplicate, Busy]);
    engine.trim(0, Position::new(1, 1)).await.unwrap();
    assert_eq!(record(engine, &[order("e3", 1, 0)], 1_000).await, [Busy], "the second event is a second old");
    assert_eq!(record(engine, &[order("e3", 1, 0)], 999).await, [recorded(3)]);
    engine.trim(0, Position::new(1, 3)).await.unwrap();
    assert_eq!(record(engine, &[reversal("r1", "e1", None)], 5_000).await, [recorded(4)]);
}

pub async fn forgets_what_the_ledger_has_not(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 2, ..plain() }).await;
    assert_eq!(record(engine, &[order("e1", 3, 0), order("e2", 5, 0)], 1).await, [recorded(1), recorded(2)]);
    // Where it is not, there is nothing to forget.
    engine.forget_events(&[(1, event_id("e1")), (0, event_id("unheard"))]).await.unwrap();
    assert_eq!(record(engine, &[order("e1", 3, 0)], 2).await, [Duplicate]);
    engine.forget_events(&[(0, event_id("e1"))]).await.unwrap();
    assert_eq!(record(engine, &[reversal("r1", "e1", None), order("e2", 5, 0)], 3).await, [UnknownOriginal, Duplicate]);
    assert_eq!(record(engine, &[order("e1", 4, 0)], 4).await, [recorded(3)], "it is recorded anew");
}

/// Each refused entry is taken back once, however often that is asked.
pub async fn undoes_once(make: Make) {
    let engine = &*opened(make, EngineLimits { journal_len_max: 4, ..plain() }).await;
    record(engine, &[order("e1", 3, -5), order("e2", 1, -4), order("e3", 2, -3), order("e4", 1, -2)], 100).await;
    let undo = |seq, count, ms| Undo {
        refused: Position::new(1, seq),
        signal: Signal::Order,
        product: product("cup"),
        count,
        occurred_at: at(ms),
        recorded_at: at(0),
    };
    // Also where the journal is full.
    engine.undo(1, 0, &[undo(1, 3, -5), undo(3, 2, -3)], at(200)).await.unwrap();
    engine.undo(1, 0, &[undo(1, 3, -5), undo(3, 2, -3), undo(4, 1, -2)], at(300)).await.unwrap();
    engine.undo(1, 0, &[undo(2, 1, -4)], at(400)).await.unwrap();
    engine.undo(1, 0, &[], at(500)).await.unwrap();
    assert!(is_lost(engine.undo(2, 0, &[undo(4, 1, -2)], at(500)).await));
    let written: Vec<_> = entries(engine, 0).await.split_off(4);
    let expected = [(5, undo(1, 3, -5), 200), (6, undo(3, 2, -3), 200), (7, undo(4, 1, -2), 300)];
    let expected = expected.map(|(seq, undo, ms)| Entry {
        position: Position::new(1, seq),
        body: EntryBody::Undo(Undo { recorded_at: at(ms), ..undo }),
    });
    assert_eq!(written, expected);
    // Another epoch has entries of its own.
    engine.open(2, 7, LEDGER).await.unwrap();
    let first = Undo { refused: Position::new(2, 1), ..undo(1, 1, 0) };
    engine.undo(2, 0, &[first], at(600)).await.unwrap();
    assert_eq!(entries(engine, 0).await.len(), 1);
}
