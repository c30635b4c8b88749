//! The feed: states published in sequence, and what listeners hear.

use std::collections::HashSet;

use acclaim::domain::{Basis, BoardId, Cursors, FeedState, PageStart, Place, SnapshotReason};
use acclaim::engine::{Notice, Progress};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::boards::{build, points, show};
use super::*;

pub fn state(generation: u64, seq: u64) -> FeedState {
    let places = (0..FeedState::PLACES_MAX)
        .map(|n| Place { product: product(&format!("\"é{n}\"")), points: points((1 << 90) - i128::from(n)) })
        .collect();
    FeedState {
        board: BoardId::daily(),
        epoch: 1,
        history: None,
        seq,
        generation,
        reason: SnapshotReason::Recovered,
        period: "2026-11-22".to_owned(),
        at: at(seq as i64),
        basis: Basis::default(),
        cursors: Cursors::new(),
        total: 12_345,
        places,
    }
}

pub async fn publishes_in_sequence(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    assert!(!engine.publish(&state(1, 1)).await.unwrap(), "no generation is shown");
    assert_eq!(show(engine, &[("cup", 5)]).await, 1);
    assert!(!engine.publish(&state(1, 0)).await.unwrap());
    assert!(!engine.publish(&state(1, 2)).await.unwrap());
    assert_eq!(engine.published(&board).await.unwrap(), None);
    assert!(engine.publish(&state(1, 1)).await.unwrap());
    assert!(!engine.publish(&state(1, 1)).await.unwrap(), "the same again");
    assert!(!engine.publish(&state(1, 3)).await.unwrap());
    assert!(!engine.publish(&state(2, 2)).await.unwrap());
    assert_eq!(engine.published(&board).await.unwrap(), Some(state(1, 1)));
    // The sequence is the board's: it goes on over a switch of generations and a new epoch.
    assert_eq!(show(engine, &[("cup", 6)]).await, 2);
    assert_eq!(engine.published(&board).await.unwrap(), Some(state(1, 1)));
    assert!(!engine.publish(&state(1, 2)).await.unwrap(), "no longer shown");
    engine.open(2, 7, LEDGER).await.unwrap();
    assert!(engine.publish(&state(2, 2)).await.unwrap());
    assert_eq!(engine.published(&board).await.unwrap(), Some(state(2, 2)));
    let page = engine.page(&board, &PageStart::Rank(1), 1).await.unwrap().unwrap();
    assert_eq!((page.seq, page.generation.build), (2, build(1)));
    assert_eq!(engine.published(&BoardId::likes()).await.unwrap(), None);
    // Those before it are kept for clients that come back.
    assert_eq!(engine.published_at(&board, 1).await.unwrap(), Some(state(1, 1)));
    assert_eq!(engine.published_at(&board, 2).await.unwrap(), Some(state(2, 2)));
    assert_eq!(engine.published_at(&board, 0).await.unwrap(), None);
    assert_eq!(engine.published_at(&board, 3).await.unwrap(), None);
    assert_eq!(engine.published_at(&BoardId::likes(), 1).await.unwrap(), None);
}

async fn hear(heard: &mut BoxStream<'static, Notice>) -> Notice {
    let next = tokio::time::timeout(DEADLINE, heard.next()).await;
    next.expect("what was told is heard").expect("the stream does not end")
}

pub async fn tells_listeners(make: Make) {
    let engine = &*opened(make, plain()).await;
    show(engine, &[("cup", 5)]).await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let mut heard = engine.listen().await.unwrap();
        assert_eq!(hear(&mut heard).await, Notice::Missed, "whoever comes late has missed what was before");
        listeners.push(heard);
    }
    let progress = [
        Progress::Refused { partition: 0, position: Position::new(1, 6) },
        Progress::Ledger { partition: 0, from: Position::default(), position: Position::new(1, 7) },
        Progress::Likes { partition: 0, position: Position::new(1, 5) },
    ];
    assert!(!engine.publish(&state(1, 5)).await.unwrap(), "refused, so nobody is told");
    assert!(engine.publish(&state(1, 1)).await.unwrap());
    engine.announce(&progress).await.unwrap();
    engine.announce_definitions().await.unwrap();
    for heard in &mut listeners {
        // In any order: each kind may have a channel of its own.
        let mut expected = vec![
            Notice::Feed(state(1, 1)),
            Notice::Definitions,
            Notice::Progress(progress[0]),
            Notice::Progress(progress[1]),
            Notice::Progress(progress[2]),
        ];
        while !expected.is_empty() {
            let notice = hear(heard).await;
            let passed = notice == Notice::Progress(progress[1]);
            assert!(!passed || !expected.contains(&Notice::Progress(progress[0])), "refused is heard before passed");
            let index = expected.iter().position(|one| *one == notice);
            expected.swap_remove(index.unwrap_or_else(|| panic!("{notice:?} is not among {expected:?}")));
        }
    }
}

/// Whoever does not listen for a while may miss states, in order, but always hears the newest.
pub async fn a_slow_listener_hears_the_end(make: Make) {
    let engine = &*opened(make, plain()).await;
    show(engine, &[("cup", 5)]).await;
    let mut heard = engine.listen().await.unwrap();
    const LAST: u64 = 2_000;
    for seq in 1..=LAST {
        let small = FeedState { places: vec![], ..state(1, seq) };
        assert!(engine.publish(&small).await.unwrap());
        if seq % 100 == 0 {
            let position = Position::new(1, seq);
            engine.announce(&[Progress::Ledger { partition: 0, from: Position::default(), position }]).await.unwrap();
        }
    }
    let mut seqs = Vec::new();
    let mut awaited = HashSet::from(["feed", "progress"]);
    while !awaited.is_empty() {
        match hear(&mut heard).await {
            Notice::Feed(state) => seqs.push(state.seq),
            Notice::Progress(progress) => {
                let Progress::Ledger { position, .. } = progress else { panic!("{progress:?}") };
                if position.seq == LAST {
                    awaited.remove("progress");
                }
            }
            Notice::Missed => {}
            Notice::Definitions | Notice::Foreign { .. } => panic!("never announced"),
        }
        if seqs.last() == Some(&LAST) {
            awaited.remove("feed");
        }
    }
    assert!(seqs.is_sorted_by(|before, after| before < after), "never back, never twice");
    // And goes on.
    assert!(engine.publish(&state(1, LAST + 1)).await.unwrap());
    assert_eq!(hear(&mut heard).await, Notice::Feed(state(1, LAST + 1)));
}
