//! The operations, and how they are drawn.

use std::fmt::Debug;

use acclaim::domain::{Points, Signal};
use acclaim::engine::Desired;
use proptest::prelude::*;

use super::PARTITIONS;

#[derive(Debug, Clone)]
pub enum Op {
    Advance {
        ms: i64,
    },
    Like {
        user: u8,
        product: u8,
        key: u8,
        is_key_new: bool,
        desired: Desired,
        epoch: Drift,
    },
    Load {
        users: Vec<(u8, Vec<u8>, Vec<u8>, u64)>,
        epoch: Drift,
    },
    ViewerLikes {
        user: u8,
        epoch: Drift,
    },
    Forget {
        users: Vec<u8>,
    },
    Record {
        partition: u16,
        requests: Vec<Recording>,
        epoch: Drift,
    },
    Read {
        back: [u64; 2],
        count: usize,
    },
    Trim {
        partition: u16,
        back: u64,
    },
    Announce {
        partition: u16,
        back: u64,
    },
    Close,
    Open {
        skipped: u64,
    },
    Begin {
        board: u8,
        back: [u64; 2],
    },
    LoadScores {
        board: u8,
        generation: Drift,
        scores: Vec<(u8, i128)>,
    },
    SetCursors {
        board: u8,
        generation: Drift,
        back: [u64; 2],
    },
    /// For each partition, whether it is moved, and whether from a wrong place.
    Apply {
        board: u8,
        moves: [Option<bool>; 2],
        is_newest: bool,
        deltas: Vec<(u8, i128)>,
    },
    Switch {
        board: u8,
        generation: Drift,
    },
    Page {
        board: u8,
        start: Start,
        count: u64,
    },
    Entries {
        board: u8,
    },
    Drop {
        board: u8,
    },
    Publish {
        board: u8,
        generation: Drift,
        seq: Drift,
    },
}

/// What is added to the right number, mostly nothing.
pub type Drift = i64;

#[derive(Debug, Clone)]
pub struct Recording {
    pub id: u8,
    pub product: u8,
    pub signal: Signal,
    pub count: i64,
    pub before_ms: i64,
    pub reverses: Option<(u8, Option<(i64, bool)>)>,
}

#[derive(Debug, Clone)]
pub enum Start {
    Rank(u64),
    After(u8, i128),
    Around(u8, u64),
}

fn drift() -> impl Strategy<Value = Drift> {
    prop_oneof![12 => Just(0), 1 => Just(-1), 1 => Just(1)]
}

fn few<T: Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..6)
}

fn back() -> impl Strategy<Value = [u64; 2]> {
    [0..6_u64, 0..6_u64]
}

/// Most scores are small, for ties; some reach the bounds of what ranks tell apart, and lie beyond.
fn score() -> impl Strategy<Value = i128> {
    let max = i128::from(Points::RANKED_MAX);
    let large = prop::sample::select(vec![(1 << 52) - 1, 1 << 52, max, max + 1, 1 << 70, (1 << 97) + (1 << 49) + 1]);
    let large = (large, any::<bool>()).prop_map(|(score, is_up)| if is_up { score } else { -score });
    prop_oneof![10 => -3..4_i128, 3 => large]
}

fn recording() -> impl Strategy<Value = Recording> {
    let given = proptest::option::of((1..4_i64, any::<bool>()));
    let reverses = proptest::option::of((0..8_u8, given));
    (0..12_u8, 0..2_u8, any::<bool>(), 1..5_i64, 0..5_000_i64, reverses).prop_map(
        |(id, product, is_order, count, before_ms, reverses)| {
            let signal = if is_order { Signal::Order } else { Signal::View };
            // An event that reverses itself is no event; the edge refuses it.
            let reverses = reverses.filter(|(of, _)| *of != id);
            Recording { id, product, signal, count, before_ms, reverses }
        },
    )
}

fn moved() -> impl Strategy<Value = Option<bool>> {
    proptest::option::weighted(0.6, proptest::bool::weighted(0.15))
}

pub fn op() -> impl Strategy<Value = Op> {
    let desired = prop_oneof![3 => Just(Desired::Toggled), 2 => any::<bool>().prop_map(Desired::Exactly)];
    let start = prop_oneof![
        (0..9_u64).prop_map(Start::Rank),
        (0..8_u8, score()).prop_map(|(product, points)| Start::After(product, points)),
        (0..8_u8, 0..4_u64).prop_map(|(product, radius)| Start::Around(product, radius)),
    ];
    let scores = || few((0..7_u8, score()));
    let partition = || 0..PARTITIONS;
    let board = || prop_oneof![3 => Just(0_u8), 1 => Just(1_u8)];
    prop_oneof![
        14 => (0..500_i64).prop_map(|ms| Op::Advance { ms }),
        30 => (0..4_u8, 0..3_u8, 0..24_u8, any::<bool>(), desired, drift()).prop_map(
            |(user, product, key, is_key_new, desired, epoch)| Op::Like { user, product, key, is_key_new, desired, epoch }
        ),
        8 => (few((0..5_u8, few(0..3_u8), proptest::collection::vec(0..24_u8, 0..20), 0..6_u64)), drift()).prop_map(|(users, epoch)| Op::Load { users, epoch }),
        4 => (0..5_u8, drift()).prop_map(|(user, epoch)| Op::ViewerLikes { user, epoch }),
        1 => few(0..5_u8).prop_map(|users| Op::Forget { users }),
        10 => (partition(), few(recording()), drift())
            .prop_map(|(partition, requests, epoch)| Op::Record { partition, requests, epoch }),
        5 => (back(), 1..6_usize).prop_map(|(back, count)| Op::Read { back, count }),
        4 => (partition(), 0..6_u64).prop_map(|(partition, back)| Op::Trim { partition, back }),
        4 => (partition(), 0..6_u64).prop_map(|(partition, back)| Op::Announce { partition, back }),
        1 => Just(Op::Close),
        2 => (0..3_u64).prop_map(|skipped| Op::Open { skipped }),
        4 => (board(), back()).prop_map(|(board, back)| Op::Begin { board, back }),
        5 => (board(), drift(), scores())
            .prop_map(|(board, generation, scores)| Op::LoadScores { board, generation, scores }),
        2 => (board(), drift(), back()).prop_map(|(board, generation, back)| Op::SetCursors { board, generation, back }),
        14 => (board(), [moved(), moved()], any::<bool>(), scores())
            .prop_map(|(board, moves, is_newest, deltas)| Op::Apply { board, moves, is_newest, deltas }),
        4 => (board(), drift()).prop_map(|(board, generation)| Op::Switch { board, generation }),
        8 => (board(), start, 0..6_u64).prop_map(|(board, start, count)| Op::Page { board, start, count }),
        3 => board().prop_map(|board| Op::Entries { board }),
        1 => board().prop_map(|board| Op::Drop { board }),
        5 => (board(), drift(), drift())
            .prop_map(|(board, generation, seq)| Op::Publish { board, generation, seq }),
    ]
}
