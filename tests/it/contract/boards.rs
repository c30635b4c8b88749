//! Boards: generations that are built, folded into and switched, each with its cursors.

use acclaim::domain::{Basis, BoardId, Cursors, FeedState, PageStart, Place, Points, SnapshotReason};
use acclaim::engine::{Apply, BoardSurvey, Build, Generation, Move};

use super::*;

pub fn points(millionths: i128) -> Points {
    Points::from_millionths(millionths)
}

pub fn build(epoch: u64) -> Build {
    Build {
        epoch,
        period: "2026-11-22".to_owned(),
        revision: 7,
        basis: Basis { rules_version: 3, at: Timestamp::from_ms(3) },
        reason: SnapshotReason::Reweighted,
    }
}

pub fn scores(rows: &[(&str, i128)]) -> Vec<(ProductId, Points)> {
    rows.iter().map(|(id, millionths)| (product(id), points(*millionths))).collect()
}

pub fn places(rows: &[(&str, i128)]) -> Vec<Place> {
    scores(rows).into_iter().map(|(product, points)| Place { product, points }).collect()
}

pub fn cursors(seqs: [u64; 2]) -> Cursors {
    (0..).zip(seqs.map(|seq| Position::new(1, seq))).collect()
}

/// Moves a cursor of epoch 1 from one sequence number to another.
pub fn step(partition: u16, from: u64, to: u64) -> Move {
    Move { partition, from: Position::new(1, from), to: Position::new(1, to) }
}

/// Partition 0 of `daily` from one sequence number to another.
pub fn batch(generation: u64, from: u64, to: u64, deltas: &[(&str, i128)]) -> Apply {
    Apply { board: BoardId::daily(), generation, moves: vec![step(0, from, to)], deltas: scores(deltas) }
}

/// Shows a first generation of `daily`.
pub async fn show(engine: &dyn Engine, rows: &[(&str, i128)]) -> u64 {
    let board = BoardId::daily();
    let generation = engine.begin_generation(&board, &cursors([0, 0])).await.unwrap();
    assert!(engine.load_scores(&board, generation, &scores(rows)).await.unwrap());
    assert!(engine.switch(&board, generation, &build(1)).await.unwrap());
    generation
}

async fn rows(engine: &dyn Engine) -> Vec<Place> {
    engine.whole(&BoardId::daily()).await.unwrap().expect("shown").2
}

pub async fn begins_empty(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    assert_eq!(engine.board(&board).await.unwrap(), BoardSurvey::default());
    assert_eq!(engine.page(&board, &PageStart::Rank(1), 10).await.unwrap(), None);
    assert_eq!(engine.entries(&board, &[product("cup")]).await.unwrap(), None);
    assert_eq!(engine.whole(&board).await.unwrap(), None);
    assert_eq!(engine.published(&board).await.unwrap(), None);
    assert!(!engine.load_scores(&board, 1, &[]).await.unwrap());
    assert!(!engine.set_cursors(&board, 1, &cursors([0, 0])).await.unwrap());
    assert!(!engine.apply(&batch(1, 0, 1, &[])).await.unwrap());
    assert!(!engine.switch(&board, 1, &build(1)).await.unwrap());
    assert_eq!(engine.board(&board).await.unwrap(), BoardSurvey::default());
}

pub async fn builds_and_switches(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    assert_eq!(engine.begin_generation(&board, &cursors([1, 2])).await.unwrap(), 1);
    assert!(engine.load_scores(&board, 1, &scores(&[("cup", 5), ("jug", 9)])).await.unwrap());
    assert!(engine.load_scores(&board, 1, &scores(&[("cup", 6), ("pot", 1)])).await.unwrap());
    assert_eq!(engine.whole(&board).await.unwrap(), None, "not shown yet");
    let survey = engine.board(&board).await.unwrap();
    assert_eq!(survey, BoardSurvey { cursors: vec![(1, cursors([1, 2]))], ..BoardSurvey::default() });
    assert!(engine.set_cursors(&board, 1, &cursors([3, 4])).await.unwrap());
    assert!(engine.switch(&board, 1, &build(1)).await.unwrap());

    let first = Generation { number: 1, build: build(1) };
    let expected = (first.clone(), cursors([3, 4]), places(&[("jug", 9), ("cup", 6), ("pot", 1)]));
    assert_eq!(engine.whole(&board).await.unwrap(), Some(expected.clone()));
    assert!(!engine.load_scores(&board, 1, &scores(&[("cup", 7)])).await.unwrap(), "shown, so no longer built");
    assert!(!engine.set_cursors(&board, 1, &cursors([9, 9])).await.unwrap());
    assert!(!engine.switch(&board, 1, &build(2)).await.unwrap());

    // The next one is built beside it; nobody sees that, until the switch drops the first.
    assert_eq!(engine.begin_generation(&board, &cursors([5, 5])).await.unwrap(), 2);
    assert!(engine.load_scores(&board, 2, &scores(&[("tin", 2)])).await.unwrap());
    assert_eq!(engine.whole(&board).await.unwrap(), Some(expected));
    let mut survey = engine.board(&board).await.unwrap();
    survey.cursors.sort();
    let both = vec![(1, cursors([3, 4])), (2, cursors([5, 5]))];
    assert_eq!(survey, BoardSurvey { shown: Some(first), computed_at: cursors([3, 4]), cursors: both });
    assert!(!engine.switch(&board, 3, &build(9)).await.unwrap());
    let reason = SnapshotReason::Rolled;
    let rolled = Build {
        epoch: 9,
        period: "2026-11-23".to_owned(),
        revision: 8,
        basis: Basis { rules_version: 4, at: Timestamp::from_ms(4) },
        reason,
    };
    assert!(engine.switch(&board, 2, &rolled).await.unwrap());
    let second = Generation { number: 2, build: rolled };
    assert_eq!(engine.whole(&board).await.unwrap(), Some((second.clone(), cursors([5, 5]), places(&[("tin", 2)]))));
    let survey = engine.board(&board).await.unwrap();
    assert_eq!(
        survey,
        BoardSurvey { shown: Some(second), cursors: vec![(2, cursors([5, 5]))], ..BoardSurvey::default() }
    );
    // Boards share nothing.
    assert_eq!(engine.board(&BoardId::likes()).await.unwrap(), BoardSurvey::default());
}

pub async fn drops_what_was_never_shown(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    assert_eq!(show(engine, &[("cup", 5)]).await, 1);
    assert_eq!(engine.begin_generation(&board, &cursors([1, 1])).await.unwrap(), 2);
    assert!(engine.load_scores(&board, 2, &scores(&[("jug", 5)])).await.unwrap());
    assert_eq!(engine.begin_generation(&board, &cursors([2, 2])).await.unwrap(), 3);
    assert!(!engine.load_scores(&board, 2, &scores(&[("jug", 6)])).await.unwrap());
    assert!(!engine.set_cursors(&board, 2, &cursors([3, 3])).await.unwrap());
    assert!(!engine.apply(&batch(2, 1, 2, &[("jug", 1)])).await.unwrap());
    assert!(!engine.switch(&board, 2, &build(1)).await.unwrap());
    let mut survey = engine.board(&board).await.unwrap();
    survey.cursors.sort();
    assert_eq!(survey.cursors, [(1, cursors([0, 0])), (3, cursors([2, 2]))]);
    assert!(engine.switch(&board, 3, &build(1)).await.unwrap());
    assert_eq!(rows(engine).await, [], "nothing of the one dropped is in the next");
}

pub async fn applies_once(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    let generation = show(engine, &[("cup", 5), ("jug", 3)]).await;
    let first = batch(generation, 0, 10, &[("cup", -1), ("pot", 7)]);
    assert!(engine.apply(&first).await.unwrap());
    assert!(!engine.apply(&first).await.unwrap(), "the same batch again");
    assert!(!engine.apply(&batch(generation, 9, 11, &[("cup", 1)])).await.unwrap());
    assert!(!engine.apply(&batch(generation, 11, 12, &[("cup", 1)])).await.unwrap());
    assert!(!engine.apply(&batch(generation + 1, 10, 11, &[("cup", 1)])).await.unwrap());
    let moving = |moves: &[Move]| Apply { moves: moves.to_vec(), ..batch(generation, 0, 0, &[("cup", 1)]) };
    let elsewhere = Move { from: Position::new(2, 10), ..step(0, 10, 11) };
    assert!(!engine.apply(&moving(&[elsewhere])).await.unwrap(), "another epoch");
    assert!(!engine.apply(&moving(&[step(5, 10, 11)])).await.unwrap(), "a partition without a cursor");
    // Of several, all or none: the other partition has a cursor of its own.
    assert!(!engine.apply(&moving(&[step(0, 10, 11), step(1, 1, 2)])).await.unwrap());
    assert!(!engine.apply(&moving(&[step(1, 1, 2), step(0, 10, 11)])).await.unwrap());
    assert!(!engine.apply(&moving(&[step(0, 10, 11), step(5, 0, 1)])).await.unwrap());
    // And without deltas they move as well.
    assert!(engine.apply(&Apply { deltas: vec![], ..moving(&[step(1, 0, 3)]) }).await.unwrap());
    let (_, stands_at, rows) = engine.whole(&board).await.unwrap().unwrap();
    assert_eq!(stands_at, cursors([10, 3]));
    assert_eq!(rows, places(&[("pot", 7), ("cup", 4), ("jug", 3)]));
    assert!(
        engine
            .apply(&Apply { deltas: scores(&[("jug", 1)]), ..moving(&[step(0, 10, 11), step(1, 3, 4)]) })
            .await
            .unwrap()
    );
    let (_, stands_at, rows) = engine.whole(&board).await.unwrap().unwrap();
    assert_eq!(stands_at, cursors([11, 4]));
    assert_eq!(rows, places(&[("pot", 7), ("jug", 4), ("cup", 4)]));
    // Cursors follow the journal into a new epoch.
    assert!(engine.apply(&moving(&[Move { to: Position::new(2, 3), ..step(0, 11, 0) }])).await.unwrap());
    assert_eq!(engine.board(&board).await.unwrap().cursors[0].1[&0], Position::new(2, 3));
}

pub async fn applies_to_both_generations(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    let shown = show(engine, &[("cup", 5)]).await;
    let next = engine.begin_generation(&board, &cursors([4, 0])).await.unwrap();
    engine.load_scores(&board, next, &scores(&[("cup", 50)])).await.unwrap();
    assert!(engine.apply(&batch(shown, 0, 6, &[("cup", 1)])).await.unwrap());
    assert!(engine.apply(&batch(next, 4, 6, &[("cup", 10)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", 6)]));
    assert!(engine.switch(&board, next, &build(1)).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", 60)]));
    assert!(!engine.apply(&batch(shown, 6, 7, &[("cup", 1)])).await.unwrap(), "the first one is gone");
    assert!(engine.apply(&batch(next, 6, 7, &[("cup", 1)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", 61)]));
}

/// The largest points that are told apart by rank.
pub const MAX: i128 = Points::RANKED_MAX as i128;

pub async fn points_that_come_to_nothing_vanish(make: Make) {
    let engine = &*opened(make, plain()).await;
    let generation = show(engine, &[("cup", 5), ("jug", MAX - 1), ("none", 0), ("pot", -MAX + 1)]).await;
    assert_eq!(rows(engine).await, places(&[("jug", MAX - 1), ("cup", 5), ("pot", -MAX + 1)]));
    let deltas = [("cup", -5), ("jug", 1), ("pot", -1), ("tin", -2), ("zero", 0)];
    assert!(engine.apply(&batch(generation, 0, 1, &deltas)).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("jug", MAX), ("tin", -2), ("pot", -MAX)]));
    // Exact to the last millionth.
    assert!(engine.apply(&batch(generation, 1, 2, &[("jug", -1), ("pot", 1), ("tin", 2), ("cup", 1)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("jug", MAX - 1), ("cup", 1), ("pot", -MAX + 1)]));
    assert!(engine.apply(&batch(generation, 2, 3, &[("jug", -MAX + 1), ("pot", MAX - 1)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", 1)]));
}

/// Whatever is added and taken back, and however far beyond what ranks tell apart: the sum is right to the millionth.
pub async fn points_are_exact_at_any_size(make: Make) {
    let engine = &*opened(make, plain()).await;
    let ids = ["a", "b", "c", "d", "e"];
    let begin = [MAX, -MAX, MAX + 7, -(1_i128 << 100), 3];
    let generation = show(engine, &ids.into_iter().zip(begin).collect::<Vec<_>>()).await;
    let mut sums = begin;
    let steps = [
        [1, -1, MAX, 5, MAX - 3],
        [MAX, -MAX, -1, 1 << 99, 1],
        [-1, 1, -MAX, -(1 << 99), 1],
        [1 << 110, -(1 << 110), -MAX - 8, 1 << 48, -2],
        [(1 << 96) + (1 << 48) + 1, -(1 << 96) - (1 << 48) - 1, 1, -(1 << 48), MAX],
        [-(1 << 110), 1 << 110, -1, (1 << 100) - 6, -MAX],
        [-(1 << 96) - (1 << 48), (1 << 96) + (1 << 48), 0, 1, -MAX],
        [-MAX, MAX, 0, -2 * MAX, MAX + 1],
        [0, 0, MAX + 1, 2 * MAX + 1, 0],
        [-1, 1, -MAX - 1, -1, 1 << 126],
        [-MAX, MAX, 0, 0, -(1 << 126)],
    ];
    for (n, deltas) in (0..).zip(steps) {
        assert!(
            engine.apply(&batch(generation, n, n + 1, &ids.into_iter().zip(deltas).collect::<Vec<_>>())).await.unwrap()
        );
        sums.iter_mut().zip(deltas).for_each(|(sum, delta)| *sum += delta);
        let mut expected: Vec<_> = ids.into_iter().zip(sums).filter(|(_, sum)| *sum != 0).collect();
        expected.sort_by_key(|(id, sum)| std::cmp::Reverse(((*sum).clamp(-MAX, MAX), *id)));
        assert_eq!(rows(engine).await, places(&expected), "after step {n}");
        let listed = engine.entries(&BoardId::daily(), &ids.map(product)).await.unwrap().unwrap().entries;
        let listed = listed.into_iter().map(|entry| entry.map_or(0, |(_, points)| points.millionths()));
        assert_eq!(listed.collect::<Vec<_>>(), sums, "after step {n}");
    }
}

/// What lies beyond belongs to its generation, and to its board.
pub async fn points_beyond_go_with_their_generation(make: Make) {
    let engine = &*opened(make, plain()).await;
    let (board, other) = (BoardId::daily(), BoardId::likes());
    let shown = show(engine, &[("cup", MAX + 5), ("jug", -MAX - 5)]).await;
    let beside = engine.begin_generation(&other, &cursors([0, 0])).await.unwrap();
    assert!(engine.load_scores(&other, beside, &scores(&[("cup", MAX + 9)])).await.unwrap());
    assert!(engine.switch(&other, beside, &build(1)).await.unwrap());
    // One that is never shown leaves nothing to the next, and a product that is loaded again has what came last.
    let never = engine.begin_generation(&board, &cursors([0, 0])).await.unwrap();
    assert!(engine.load_scores(&board, never, &scores(&[("cup", 1 << 70), ("tin", 1 << 80)])).await.unwrap());
    let next = engine.begin_generation(&board, &cursors([0, 0])).await.unwrap();
    assert!(engine.load_scores(&board, next, &scores(&[("cup", MAX), ("tin", MAX), ("jug", 1 << 90)])).await.unwrap());
    assert!(
        engine.load_scores(&board, next, &scores(&[("jug", MAX), ("pot", 1 << 60), ("pan", 1 << 60)])).await.unwrap()
    );
    assert!(engine.load_scores(&board, next, &scores(&[("pan", 0)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", MAX + 5), ("jug", -MAX - 5)]));
    // Both are folded into meanwhile.
    assert!(engine.apply(&batch(shown, 0, 1, &[("cup", -10), ("jug", -1)])).await.unwrap());
    assert!(engine.apply(&batch(next, 0, 1, &[("pot", -1), ("cup", 1), ("tin", -1)])).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("cup", MAX - 5), ("jug", -MAX - 6)]));
    assert!(engine.switch(&board, next, &build(1)).await.unwrap());
    assert_eq!(rows(engine).await, places(&[("pot", (1 << 60) - 1), ("jug", MAX), ("cup", MAX + 1), ("tin", MAX - 1)]));
    engine.drop_board(&board).await.unwrap();
    show(engine, &[("pot", MAX), ("cup", MAX)]).await;
    assert_eq!(rows(engine).await, places(&[("pot", MAX), ("cup", MAX)]));
    assert_eq!(engine.whole(&other).await.unwrap().unwrap().2, places(&[("cup", MAX + 9)]), "of another board");
}

/// A build comes back as it was given, its time to the millisecond.
pub async fn keeps_what_a_generation_was_built_under(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    for (version, ms) in [(0, 0), (1, 1_795_305_600_123), (i32::MAX, -62_135_596_800_000), (7, 253_402_300_799_999)] {
        let basis = Basis { rules_version: version, at: Timestamp::from_ms(ms) };
        let build = Build { basis, ..build(1) };
        let number = engine.begin_generation(&board, &cursors([0, 0])).await.unwrap();
        assert!(engine.switch(&board, number, &build).await.unwrap());
        let shown = Generation { number, build };
        assert_eq!(engine.board(&board).await.unwrap().shown, Some(shown.clone()));
        assert_eq!(engine.page(&board, &PageStart::Rank(1), 1).await.unwrap().unwrap().generation, shown);
        assert_eq!(engine.entries(&board, &[]).await.unwrap().unwrap().generation, shown);
        assert_eq!(engine.whole(&board).await.unwrap().unwrap().0, shown);
    }
}

/// A board that is dropped is as one never built, but for its counts.
pub async fn drops_a_board(make: Make) {
    let engine = &*opened(make, plain()).await;
    let (board, other) = (BoardId::daily(), BoardId::likes());
    engine.drop_board(&board).await.unwrap();
    assert_eq!(engine.board(&board).await.unwrap(), BoardSurvey::default(), "nothing comes of dropping nothing");

    let shown = show(engine, &[("cup", 5), ("jug", 3)]).await;
    assert!(engine.publish(&feed::state(shown, 1)).await.unwrap());
    assert!(engine.publish(&feed::state(shown, 2)).await.unwrap());
    let building = engine.begin_generation(&board, &cursors([4, 0])).await.unwrap();
    assert!(engine.load_scores(&board, building, &scores(&[("tin", 50)])).await.unwrap());
    let beside = engine.begin_generation(&other, &cursors([0, 0])).await.unwrap();
    assert!(engine.switch(&other, beside, &build(1)).await.unwrap());

    engine.drop_board(&board).await.unwrap();
    assert_eq!(engine.board(&board).await.unwrap(), BoardSurvey::default(), "nothing holds the trim");
    assert_eq!(engine.page(&board, &PageStart::Rank(1), 10).await.unwrap(), None);
    assert_eq!(engine.entries(&board, &[product("cup")]).await.unwrap(), None);
    assert_eq!(engine.whole(&board).await.unwrap(), None);
    assert_eq!(engine.published(&board).await.unwrap(), None);
    assert_eq!(engine.published_at(&board, 1).await.unwrap(), None);
    assert_eq!(engine.published_at(&board, 2).await.unwrap(), None);
    assert!(engine.whole(&other).await.unwrap().is_some(), "other boards stay");
    // Whoever was at work on it is refused.
    assert!(!engine.apply(&batch(shown, 0, 1, &[("cup", 1)])).await.unwrap());
    assert!(!engine.apply(&batch(building, 4, 5, &[("tin", 1)])).await.unwrap());
    assert!(!engine.load_scores(&board, building, &scores(&[("tin", 1)])).await.unwrap());
    assert!(!engine.set_cursors(&board, building, &cursors([5, 0])).await.unwrap());
    assert!(!engine.switch(&board, building, &build(1)).await.unwrap());
    assert!(!engine.publish(&feed::state(shown, 3)).await.unwrap());
    assert_eq!(engine.board(&board).await.unwrap(), BoardSurvey::default());

    // Made anew under the same id, it counts on, so that no client takes a new state for an old one.
    let anew = show(engine, &[("pot", 1)]).await;
    assert_eq!(anew, building + 1);
    assert_eq!(rows(engine).await, places(&[("pot", 1)]));
    assert_eq!(engine.page(&board, &PageStart::Rank(1), 1).await.unwrap().unwrap().seq, 2);
    assert!(!engine.publish(&feed::state(anew, 1)).await.unwrap());
    assert!(engine.publish(&feed::state(anew, 3)).await.unwrap());
    assert_eq!(engine.published(&board).await.unwrap(), Some(feed::state(anew, 3)));
    assert_eq!(engine.published_at(&board, 2).await.unwrap(), None);
}

/// A board may have any id; nothing that is done to it touches a partition.
pub async fn are_apart_from_partitions(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 2, ..plain() }).await;
    assert_eq!(toggle(engine, "ann", "cup", "k1", 1).await, done(true, true, 1, 1));
    let before = (partition_surveys(engine).await, entries(engine, 0).await, entries(engine, 1).await);
    for id in ["p0", "p1", "p", "lease", "owner", "0", "-"] {
        let board = BoardId::new(id).unwrap();
        let generation = engine.begin_generation(&board, &cursors([0, 0])).await.unwrap();
        assert!(engine.load_scores(&board, generation, &scores(&[("cup", 5)])).await.unwrap(), "{id}");
        assert!(engine.switch(&board, generation, &build(9)).await.unwrap(), "{id}");
        let state = FeedState { board: board.clone(), ..feed::state(generation, 1) };
        assert!(engine.publish(&state).await.unwrap(), "{id}");
        engine.drop_board(&board).await.unwrap();
    }
    assert_eq!((partition_surveys(engine).await, entries(engine, 0).await, entries(engine, 1).await), before);
    assert_eq!(toggle(engine, "ann", "cup", "k2", 2).await, done(false, true, 2, 2));
}
