//! The journal: numbered without a gap, read in order by readers that wait, trimmed, closed and opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use acclaim::domain::{Signal, partition_of};
use acclaim::engine::{Progress, RecordRequest};

use super::*;

async fn record(engine: &dyn Engine, partition: u16, ids: impl IntoIterator<Item = usize>) {
    let requests: Vec<_> = ids
        .into_iter()
        .map(|n| RecordRequest {
            id: event_id(&format!("e{n}")),
            signal: Signal::View,
            product: product("cup"),
            user: None,
            count: 1 + n as i64,
            occurred_at: at(0),
            reverses: None,
        })
        .collect();
    engine.record(1, partition, &requests, at(0)).await.unwrap();
}

fn positions(epoch: u64, seqs: impl IntoIterator<Item = u64>) -> Vec<Position> {
    seqs.into_iter().map(|seq| Position::new(epoch, seq)).collect()
}

fn positions_of(entries: &[Entry]) -> Vec<Position> {
    entries.iter().map(|entry| entry.position).collect()
}

/// A partition that was opened for history 7, and of which no commit was announced.
fn surveyed(epoch: Option<u64>, last: Position, len: u64) -> PartitionSurvey {
    PartitionSurvey { epoch, history: Some(7), last: Some(last), len, committed: Some(Position::new(last.epoch, 0)) }
}

/// Histories are kept until another one is opened; commits that are announced belong to the epoch that is open.
pub async fn keeps_whose_it_is_and_what_was_announced(make: Make) {
    let engine = &*make(EngineLimits { partitions: 2, ..plain() }).await;
    let announce = async |partition, position| {
        engine.announce(&[Progress::Ledger { partition, from: Position::default(), position }]).await.unwrap();
    };
    let kept = async || {
        let kept = partition_surveys(engine).await;
        kept.iter().map(|here| (here.history, here.committed)).collect::<Vec<_>>()
    };
    assert_eq!(kept().await, [(None, None); 2]);
    engine.open(1, 11, LEDGER).await.unwrap();
    announce(0, Position::new(1, 5)).await;
    announce(0, Position::new(1, 3)).await;
    announce(0, Position::new(2, 9)).await;
    announce(1, Position::new(0, 9)).await;
    let told = [(Some(11), Some(Position::new(1, 5))), (Some(11), Some(Position::new(1, 0)))];
    assert_eq!(kept().await, told);
    engine.close().await.unwrap();
    announce(0, Position::new(1, 6)).await;
    assert_eq!(kept().await, told);
    engine.open(2, 12, LEDGER).await.unwrap();
    assert_eq!(kept().await, [(Some(12), Some(Position::new(2, 0))); 2]);
}

pub async fn is_closed_and_empty_at_first(make: Make) {
    let engine = &*make(EngineLimits { partitions: 3, ..plain() }).await;
    engine.ping().await.unwrap();
    assert_eq!(partition_surveys(engine).await, [PartitionSurvey::default(); 3]);
    assert_eq!(entries(engine, 2).await, []);
    // Nothing to close, trim or announce is no error.
    engine.close().await.unwrap();
    engine.trim(0, Position::new(5, 5)).await.unwrap();
    assert_eq!(partition_surveys(engine).await, [PartitionSurvey::default(); 3]);
    engine.open(7, 7, LEDGER).await.unwrap();
    let survey = engine.survey().await.unwrap();
    assert!(survey.has_witness);
    assert_eq!(survey.partitions, [surveyed(Some(7), Position::new(7, 0), 0); 3]);
    assert_eq!(entries(engine, 2).await, []);
}

pub async fn belongs_to_one_ledger(make: Make) {
    let engine = &*make(EngineLimits { partitions: 2, ..plain() }).await;
    let ledgers = async || engine.survey().await.unwrap().ledgers.into_iter().collect::<Vec<_>>();
    assert!(ledgers().await.is_empty());
    engine.open(1, 7, LEDGER).await.unwrap();
    assert_eq!(ledgers().await, [LEDGER]);
    record(engine, 0, 0..3).await;
    // Another's is refused whole, whether this one works or is closed.
    let before = partition_surveys(engine).await;
    assert!(is_lost(engine.open(2, 7, "another").await));
    assert_eq!(partition_surveys(engine).await, before);
    engine.close().await.unwrap();
    assert_eq!(ledgers().await, [LEDGER]);
    let closed = partition_surveys(engine).await;
    assert!(is_lost(engine.open(2, 7, "another").await));
    assert_eq!((partition_surveys(engine).await, ledgers().await), (closed, vec![LEDGER.to_owned()]));
    assert_eq!(entries(engine, 0).await.len(), 3);
    engine.open(2, 7, LEDGER).await.unwrap();
    assert_eq!((ledgers().await, entries(engine, 0).await.len()), (vec![LEDGER.to_owned()], 0));
}

pub async fn fences_epochs(make: Make) {
    let engine = &*make(plain()).await;
    let request = LikeRequest {
        is_key_new: false,
        user: user("ann"),
        product: product("cup"),
        key: key("k"),
        desired: Desired::Toggled,
        at: at(0),
    };
    let ann = UserLikes {
        as_of: Position::default(),
        user: user("ann"),
        likes: vec![(product("jug"), at(-1))],
        unliked: vec![],
        answers: vec![],
    };
    let all_lost = async |epoch| {
        is_lost(engine.like(epoch, &request).await)
            && is_lost(engine.load_likes(epoch, std::slice::from_ref(&ann), at(0)).await)
            && is_lost(engine.viewer_likes(epoch, &ann.user, &[product("jug")], at(0)).await)
            && is_lost(engine.record(epoch, 0, &[], at(0)).await)
    };
    assert!(all_lost(0).await && all_lost(1).await, "never opened");
    engine.open(3, 7, LEDGER).await.unwrap();
    assert!(all_lost(2).await && all_lost(4).await);
    assert_eq!(engine.viewer_likes(3, &ann.user, &[product("jug")], at(0)).await.unwrap(), None);
    engine.load_likes(3, std::slice::from_ref(&ann), at(0)).await.unwrap();
    engine.close().await.unwrap();
    assert!(all_lost(3).await, "closed");
    engine.open(4, 7, LEDGER).await.unwrap();
    assert!(all_lost(3).await);
    assert_eq!(engine.like(4, &request).await.unwrap(), LikeOutcome::NotLoaded);
    assert_eq!(entries(engine, 0).await, []);
}

pub async fn numbers_each_partition(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 4, ..plain() }).await;
    let (ann, bob) = (partition_of("ann", 4), partition_of("bob", 4));
    assert_ne!(ann, bob, "the case needs users of two partitions");
    for n in 0..3 {
        toggle(engine, "ann", "cup", &format!("k{n}"), n).await;
    }
    toggle(engine, "bob", "cup", "k", 9).await;
    record(engine, bob, 0..2).await;
    assert_eq!(positions_of(&entries(engine, ann).await), positions(1, 1..=3));
    assert_eq!(positions_of(&entries(engine, bob).await), positions(1, 1..=3));
    let counts: Vec<_> = events(engine, bob).await.into_iter().map(|(_, event)| (event.signal, event.count)).collect();
    assert_eq!(counts, [(Signal::Like, 1), (Signal::View, 1), (Signal::View, 2)]);
    let untouched = surveyed(Some(1), Position::new(1, 0), 0);
    let mut expected = vec![untouched; 4];
    for partition in [ann, bob] {
        let here = &mut expected[usize::from(partition)];
        (here.last, here.len) = (Some(Position::new(1, 3)), 3);
    }
    assert_eq!(partition_surveys(engine).await, expected);
}

pub async fn reads_in_pieces(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 3, ..plain() }).await;
    record(engine, 0, 0..5).await;
    record(engine, 2, 5..7).await;
    let mut reader = engine.journal_reader().await.unwrap();
    let mut read = async |after: &[(u16, u64)], count| {
        let after: Vec<_> = after.iter().map(|(partition, seq)| (*partition, Position::new(1, *seq))).collect();
        let mut found = reader.read(&after, count, Duration::ZERO).await.unwrap();
        found.sort_by_key(|(partition, _)| *partition);
        found.into_iter().map(|(partition, entries)| (partition, positions_of(&entries))).collect::<Vec<_>>()
    };
    let all = [(0, 0), (1, 0), (2, 0)];
    assert_eq!(read(&all, 100).await, [(0, positions(1, 1..=5)), (2, positions(1, 1..=2))]);
    assert_eq!(read(&all, 2).await, [(0, positions(1, 1..=2)), (2, positions(1, 1..=2))]);
    assert_eq!(read(&[(2, 1), (0, 4)], 2).await, [(0, positions(1, [5])), (2, positions(1, [2]))]);
    assert_eq!(read(&[(0, 5), (1, 0)], 2).await, []);
    assert_eq!(read(&[(0, 3)], 1).await, [(0, positions(1, [4]))]);
    // A cursor ahead of the journal reads nothing, and fails nothing.
    assert_eq!(read(&[(0, 50)], 10).await, []);
}

pub async fn waits_no_longer_than_asked(make: Make) {
    let engine = &*opened(make, plain()).await;
    let mut reader = engine.journal_reader().await.unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(150)] {
        let started = Instant::now();
        let after = [(0, Position::new(1, 0))];
        let read = reader.read(&after, 10, wait);
        let found = tokio::time::timeout(DEADLINE, read).await.expect("a wait of zero is no wait").unwrap();
        assert_eq!(found, []);
        // Redis counts whole milliseconds.
        assert!(started.elapsed() + Duration::from_millis(2) >= wait);
    }
    // A reader is good for more than one wait.
    record(engine, 0, 0..1).await;
    let found = reader.read(&[(0, Position::new(1, 0))], 10, DEADLINE).await.unwrap();
    assert_eq!(positions_of(&found[0].1), positions(1, [1]));
}

pub async fn wakes_every_reader(make: Make) {
    let engine = opened(make, EngineLimits { partitions: 2, ..plain() }).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut reader = engine.journal_reader().await.unwrap();
        waiting.push(tokio::spawn(async move {
            let started = Instant::now();
            let beginning = Position::new(1, 0);
            let found = reader.read(&[(0, beginning), (1, beginning)], 10, DEADLINE).await.unwrap();
            (found, started.elapsed())
        }));
    }
    record(&*engine, 1, 0..1).await;
    for reader in waiting {
        let (found, waited) = reader.await.unwrap();
        assert!(waited < DEADLINE);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, positions_of(&found[0].1)), (1, positions(1, [1])));
    }
}

/// Reader and writer in step: each entry is written just as the reader, done with the one before, begins to wait. A
/// reader deaf for some microseconds between its look and its wait would miss one, and nothing comes after it.
pub async fn loses_no_wake_up(make: Make) {
    const ENTRIES: u64 = 2_000;
    let engine = opened(make, plain()).await;
    let begun = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn({
        let (engine, begun) = (engine.clone(), begun.clone());
        async move {
            for seq in 1..=ENTRIES {
                // Spinning, since being woken takes longer than the moment that is to be met; but not for ever.
                let mut spins = 0;
                while begun.load(Ordering::Acquire) < seq {
                    std::hint::spin_loop();
                    spins += 1;
                    if spins > 10_000 {
                        tokio::task::yield_now().await;
                    }
                }
                record(&*engine, 0, [seq as usize]).await;
            }
        }
    });
    let mut reader = engine.journal_reader().await.unwrap();
    for seq in 1..=ENTRIES {
        begun.store(seq, Ordering::Release);
        // Another moment each time, to meet every one of the writer's.
        (0..seq % 150).for_each(|_| std::hint::spin_loop());
        let found = reader.read(&[(0, Position::new(1, seq - 1))], 10, DEADLINE).await.unwrap();
        assert_eq!(found.len(), 1, "entry {seq} was not told");
        assert_eq!(positions_of(&found[0].1), positions(1, [seq]));
    }
    writer.await.unwrap();
}

pub async fn trims(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 2, ..plain() }).await;
    record(engine, 0, 0..5).await;
    record(engine, 1, 5..7).await;
    let trim = async |seq| engine.trim(0, Position::new(1, seq)).await.unwrap();
    trim(0).await;
    assert_eq!(entries(engine, 0).await.len(), 5);
    trim(2).await;
    trim(1).await;
    assert_eq!(positions_of(&entries(engine, 0).await), positions(1, 3..=5));
    trim(5).await;
    assert_eq!(entries(engine, 0).await, []);
    assert_eq!(entries(engine, 1).await.len(), 2);
    // The position last written stays, and numbering goes on from it.
    assert_eq!(partition_surveys(engine).await[0].last, Some(Position::new(1, 5)));
    record(engine, 0, 7..8).await;
    assert_eq!(positions_of(&entries(engine, 0).await), positions(1, [6]));
}

pub async fn closes_and_opens(make: Make) {
    let engine = &*opened(make, plain()).await;
    record(engine, 0, 0..3).await;
    engine.close().await.unwrap();
    engine.close().await.unwrap();
    // What is there can still be read and trimmed: recovery drains it.
    let survey = surveyed(None, Position::new(1, 3), 3);
    assert_eq!(partition_surveys(engine).await, [survey]);
    engine.trim(0, Position::new(1, 1)).await.unwrap();
    assert_eq!(positions_of(&entries(engine, 0).await), positions(1, 2..=3));
    assert_eq!(partition_surveys(engine).await[0].len, 2);

    engine.open(5, 7, LEDGER).await.unwrap();
    let survey = surveyed(Some(5), Position::new(5, 0), 0);
    assert_eq!(partition_surveys(engine).await, [survey]);
    assert_eq!(entries(engine, 0).await, []);
    load(engine, 5, "ann", &[]).await;
    let request = LikeRequest {
        is_key_new: false,
        user: user("ann"),
        product: product("cup"),
        key: key("k"),
        desired: Desired::Exactly(false),
        at: at(1),
    };
    let LikeOutcome::Done(answer) = engine.like(5, &request).await.unwrap() else { panic!("not done") };
    assert_eq!(answer.position, Position::new(5, 0));
    let request = LikeRequest { key: key("k2"), desired: Desired::Toggled, ..request };
    engine.like(5, &request).await.unwrap();
    // The first entry is 1, so that a cursor at the beginning does not skip it; a cursor of the old epoch finds it too.
    let mut reader = engine.journal_reader().await.unwrap();
    for after in [Position::new(5, 0), Position::new(1, 3), Position::default()] {
        let found = reader.read(&[(0, after)], 10, Duration::ZERO).await.unwrap();
        assert_eq!(positions_of(&found[0].1), positions(5, [1]), "after {after}");
    }
    engine.trim(0, Position::new(1, 99)).await.unwrap();
    assert_eq!(entries(engine, 0).await.len(), 1);
}
