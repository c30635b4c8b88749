//! Two engines driven with the same random operations: every answer is compared, and at the end everything they hold.
//!
//! Ids come from small spaces, so that keys repeat, users meet and products tie. Positions and generations are chosen
//! relative to what the engines say they have, some of them wrong. The clock only goes forward, and less in a whole run
//! than the shortest lifetime of anything, because Redis counts lifetimes in real time.

mod ops;

use std::fmt::Debug;
use std::time::Duration;

use acclaim::domain::{Basis, BoardId, Cursors, FeedState, PageStart, Place, Points, Signal, SnapshotReason};
use acclaim::engine::{Apply, Build, Move, Original, Progress, RecordRequest};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use self::ops::{Drift, Op, Recording, Start, op};
use super::*;

/// Bounds small enough to be met in a run of a few hundred operations.
fn limits() -> EngineLimits {
    EngineLimits {
        partitions: PARTITIONS,
        like_rate: 3,
        like_burst: 4,
        journal_len_max: 8,
        journal_age_ms_max: 900,
        like_again_ms: 600,
        ..EngineLimits::default()
    }
}

const PARTITIONS: u16 = 2;

/// Drives an engine of each kind with the same operations, many times over. `Err` says where they first differ, after
/// shrinking.
pub fn agree(first: Make, first_limits: EngineLimits, second: Make, second_limits: EngineLimits) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // A bound that is off by one shows within thirty runs; a hundred take some twenty seconds over Redis.
    let config = Config { cases: 96, max_shrink_iters: 2_000, failure_persistence: None, ..Config::default() };
    let ops = proptest::collection::vec(op(), 1..300);
    let outcome = TestRunner::new(config).run(&ops, |ops| {
        runtime.block_on(async {
            let mut pair = Pair::new(first(first_limits).await, second(second_limits).await);
            pair.step(&Op::Open { skipped: 0 }).await.map_err(TestCaseError::fail)?;
            for op in ops {
                pair.step(&op).await.map_err(|why| TestCaseError::fail(format!("{op:?}: {why}")))?;
            }
            pair.compare_everything().await.map_err(TestCaseError::fail)
        })
    });
    outcome.map_err(|error| match error {
        TestError::Fail(why, ops) => format!("{why}\nafter {ops:#?}"),
        TestError::Abort(why) => why.to_string(),
    })
}

struct Pair {
    first: Arc<dyn Engine>,
    second: Arc<dyn Engine>,
    /// The epoch last opened.
    epoch: u64,
    now_ms: i64,
}

/// Asks both engines the same; the answer, if it is one. Arguments are written out twice, so they must change nothing.
macro_rules! both {
    ($pair:expr, $method:ident($($argument:expr),*)) => {{
        let first = comparable($pair.first.$method($($argument),*).await);
        let second = comparable($pair.second.$method($($argument),*).await);
        same(first, second)
    }};
}

/// What `Lost` says is each engine's own.
fn comparable<T>(answer: Result<T, EngineError>) -> Result<T, EngineError> {
    answer.map_err(|error| match error {
        EngineError::Lost(_) => EngineError::Lost(String::new()),
        other => other,
    })
}

fn same<T: PartialEq + Debug>(
    first: Result<T, EngineError>,
    second: Result<T, EngineError>,
) -> Result<Option<T>, String> {
    match (first, second) {
        (Err(EngineError::Unavailable(why) | EngineError::Unanswered(why)), _)
        | (_, Err(EngineError::Unavailable(why) | EngineError::Unanswered(why))) => Err(why),
        (first, second) if first != second => Err(format!("\nfirst:  {first:?}\nsecond: {second:?}")),
        (first, _) => Ok(first.ok()),
    }
}

fn product_of(n: u8) -> ProductId {
    product(["a", "b", "B", "ab", "é", "z z", "0", "unlisted"][usize::from(n)])
}

fn user_of(n: u8) -> UserId {
    user(&format!("user{n}"))
}

fn board_of(n: u8) -> BoardId {
    if n == 0 { BoardId::daily() } else { BoardId::likes() }
}

/// No product twice, as `apply` asks; the last one counts.
fn scores_of(scores: &[(u8, i128)]) -> Vec<(ProductId, Points)> {
    let distinct: std::collections::BTreeMap<_, _> = scores.iter().copied().collect();
    distinct.into_iter().map(|(n, millionths)| (product_of(n), Points::from_millionths(millionths))).collect()
}

fn drifted(number: u64, drift: Drift) -> u64 {
    number.saturating_add_signed(drift)
}

impl Pair {
    fn new(first: Arc<dyn Engine>, second: Arc<dyn Engine>) -> Self {
        Self { first, second, epoch: 0, now_ms: 0 }
    }

    fn now(&self) -> Timestamp {
        at(self.now_ms)
    }

    /// The position of a partition that lies some entries before its last one.
    async fn position(&self, partition: u16, back: u64) -> Result<Position, String> {
        let survey = both!(self, survey())?.ok_or("a survey is never lost")?;
        let last = survey.partitions[usize::from(partition)].last.unwrap_or_default();
        Ok(Position { seq: last.seq.saturating_sub(back), ..last })
    }

    async fn cursors(&self, back: [u64; 2]) -> Result<Cursors, String> {
        let mut cursors = Cursors::new();
        for (partition, back) in (0..).zip(back) {
            cursors.insert(partition, self.position(partition, back).await?);
        }
        Ok(cursors)
    }

    /// Generations of a board with their cursors, in order, and the one shown.
    async fn generations(&self, board: &BoardId) -> Result<(Vec<(u64, Cursors)>, Option<u64>), String> {
        let survey = async |engine: &dyn Engine| {
            comparable(engine.board(board).await).map(|mut survey| {
                survey.cursors.sort();
                survey
            })
        };
        let survey = same(survey(&*self.first).await, survey(&*self.second).await)?.ok_or("a board is never lost")?;
        Ok((survey.cursors, survey.shown.map(|shown| shown.number)))
    }

    /// The newest generation's number; 0 where there is none.
    async fn newest(&self, board: &BoardId) -> Result<u64, String> {
        Ok(self.generations(board).await?.0.last().map_or(0, |(number, _)| *number))
    }

    async fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Advance { ms } => self.now_ms += ms,
            Op::Close => drop(both!(self, close())?),
            Op::Open { skipped } => {
                self.epoch += 1 + skipped;
                both!(self, open(self.epoch, 7, LEDGER))?;
            }
            Op::Like { .. } | Op::Load { .. } | Op::ViewerLikes { .. } | Op::Forget { .. } => {
                self.step_likes(op).await?
            }
            Op::Record { .. } | Op::Read { .. } | Op::Trim { .. } | Op::Announce { .. } => {
                self.step_journal(op).await?
            }
            _ => self.step_board(op).await?,
        }
        Ok(())
    }

    async fn step_likes(&self, op: &Op) -> Result<(), String> {
        match op {
            Op::Like { user, product, key: id, is_key_new, desired, epoch } => {
                let request = LikeRequest {
                    is_key_new: *is_key_new,
                    user: user_of(*user),
                    product: product_of(*product),
                    key: key(&format!("key{id}")),
                    desired: *desired,
                    at: self.now(),
                };
                let epoch = drifted(self.epoch, *epoch);
                // What a node does: users load at the first touch.
                if both!(self, like(epoch, &request))? == Some(LikeOutcome::NotLoaded) {
                    let likes = vec![(product_of(0), self.now().minus_ms(1_000))];
                    let loaded = UserLikes {
                        as_of: Position::default(),
                        user: user_of(*user),
                        likes,
                        unliked: vec![],
                        answers: vec![],
                    };
                    both!(self, load_likes(epoch, std::slice::from_ref(&loaded), self.now()))?;
                    both!(self, like(epoch, &request))?;
                }
            }
            Op::Load { users, epoch } => {
                let users: Vec<_> = users
                    .iter()
                    .map(|(user, likes, keys, as_of)| UserLikes {
                        as_of: Position::new(self.epoch, *as_of),
                        user: user_of(*user),
                        likes: likes.iter().map(|n| (product_of(*n), self.now().minus_ms(i64::from(*n)))).collect(),
                        unliked: likes
                            .iter()
                            .rev()
                            .map(|n| (product_of(n % 5), self.now().minus_ms(i64::from(*n) * 40)))
                            .collect(),
                        answers: keys
                            .iter()
                            .map(|n| (key(&format!("key{n}")), product_of(n % 3), self.stored_answer(*n)))
                            .collect(),
                    })
                    .collect();
                both!(self, load_likes(drifted(self.epoch, *epoch), &users, self.now()))?;
            }
            Op::ViewerLikes { user, epoch } => {
                let products: Vec<_> = (0..4).map(product_of).collect();
                both!(self, viewer_likes(drifted(self.epoch, *epoch), &user_of(*user), &products, self.now()))?;
            }
            Op::Forget { users } => {
                let users: Vec<_> = users.iter().map(|n| user_of(*n)).collect();
                both!(self, forget_likes(&users, self.now()))?;
            }
            other => unreachable!("{other:?} is not about likes"),
        }
        Ok(())
    }

    fn stored_answer(&self, n: u8) -> LikeAnswer {
        LikeAnswer { liked: n < 12, changed: true, at: at(-5_000), position: Position::new(self.epoch, 900) }
    }

    async fn step_journal(&self, op: &Op) -> Result<(), String> {
        match op {
            Op::Record { partition, requests, epoch } => {
                let requests: Vec<_> = requests.iter().map(|recording| self.request_of(recording)).collect();
                both!(self, record(drifted(self.epoch, *epoch), *partition, &requests, self.now()))?;
            }
            Op::Read { back, count } => {
                let after: Vec<_> = self.cursors(*back).await?.into_iter().collect();
                self.read(&after, *count).await?;
            }
            Op::Trim { partition, back } => {
                let upto = self.position(*partition, *back).await?;
                both!(self, trim(*partition, upto))?;
            }
            Op::Announce { partition, back } => {
                let position = self.position(*partition, *back).await?;
                both!(
                    self,
                    announce(&[Progress::Ledger { partition: *partition, from: Position::default(), position }])
                )?;
            }
            other => unreachable!("{other:?} is not about the journal"),
        }
        Ok(())
    }

    fn request_of(&self, recording: &Recording) -> RecordRequest {
        let id = |n: u8| event_id(&format!("event{n}"));
        let occurred_at = self.now().minus_ms(recording.before_ms);
        let original = |(count, reversed)| Original {
            signal: Signal::Order,
            product: product_of(0),
            count,
            occurred_at: at(-90_000),
            reversed,
        };
        RecordRequest {
            id: id(recording.id),
            signal: recording.signal,
            product: product_of(recording.product),
            user: (recording.count == 1).then(|| user_of(0)),
            count: recording.count,
            occurred_at,
            reverses: recording.reverses.map(|(of, given)| (id(of), given.map(original))),
        }
    }

    async fn read(&self, after: &[(u16, Position)], count: usize) -> Result<(), String> {
        let read = async |engine: &dyn Engine| {
            let found = async {
                let mut found = engine.journal_reader().await?.read(after, count, Duration::ZERO).await?;
                found.sort_by_key(|(partition, _)| *partition);
                Ok(found)
            };
            comparable(found.await)
        };
        same(read(&*self.first).await, read(&*self.second).await).map(drop)
    }

    async fn step_board(&self, op: &Op) -> Result<(), String> {
        match op {
            Op::Begin { board, back } => {
                let cursors = self.cursors(*back).await?;
                both!(self, begin_generation(&board_of(*board), &cursors))?;
            }
            Op::LoadScores { board, generation, scores } => {
                let board = board_of(*board);
                let generation = drifted(self.newest(&board).await?, *generation);
                both!(self, load_scores(&board, generation, &scores_of(scores)))?;
            }
            Op::SetCursors { board, generation, back } => {
                let board = board_of(*board);
                let generation = drifted(self.newest(&board).await?, *generation);
                let cursors = self.cursors(*back).await?;
                both!(self, set_cursors(&board, generation, &cursors))?;
            }
            Op::Apply { board, moves, is_newest, deltas } => {
                let board = board_of(*board);
                let generations = self.generations(&board).await?.0;
                let chosen = if *is_newest { generations.last() } else { generations.first() };
                let moves = (0..).zip(moves).filter_map(|(partition, moved)| {
                    let mut from = chosen.map_or(Position::default(), |(_, cursors)| cursors[&partition]);
                    let to = Position { seq: from.seq + 2, ..from };
                    from.seq += u64::from((*moved)?);
                    Some(Move { partition, from, to })
                });
                let generation = chosen.map_or(1, |(generation, _)| *generation);
                let batch = Apply { board, generation, moves: moves.collect(), deltas: scores_of(deltas) };
                both!(self, apply(&batch))?;
            }
            Op::Switch { board, generation } => {
                let board = board_of(*board);
                let generation = drifted(self.newest(&board).await?, *generation);
                let build = Build {
                    epoch: self.epoch,
                    period: format!("period {generation}"),
                    revision: self.now_ms,
                    basis: Basis { rules_version: 2, at: Timestamp::from_ms(self.now_ms) },
                    reason: SnapshotReason::Rolled,
                };
                both!(self, switch(&board, generation, &build))?;
            }
            Op::Page { board, start, count } => {
                let start = match start {
                    Start::Rank(rank) => PageStart::Rank(*rank),
                    Start::After(n, millionths) => {
                        let points = Points::from_millionths(*millionths);
                        PageStart::After(Place { product: product_of(*n), points })
                    }
                    Start::Around(n, radius) => PageStart::Around { product: product_of(*n), radius: *radius },
                };
                both!(self, page(&board_of(*board), &start, *count))?;
            }
            Op::Entries { board } => {
                let products: Vec<_> = (0..8).map(product_of).collect();
                both!(self, entries(&board_of(*board), &products))?;
            }
            Op::Drop { board } => drop(both!(self, drop_board(&board_of(*board)))?),
            Op::Publish { board, generation, seq } => {
                let board = board_of(*board);
                let (generations, shown) = self.generations(&board).await?;
                let page = both!(self, page(&board, &PageStart::Rank(1), 0))?.flatten();
                let state = FeedState {
                    board,
                    epoch: self.epoch,
                    history: Some(7),
                    seq: drifted(page.map_or(0, |page| page.seq) + 1, *seq),
                    generation: drifted(shown.unwrap_or_default(), *generation),
                    reason: SnapshotReason::Initial,
                    period: "all".to_owned(),
                    at: self.now(),
                    basis: Basis { rules_version: 2, at: self.now() },
                    cursors: generations.first().map(|(_, cursors)| cursors.clone()).unwrap_or_default(),
                    total: 3,
                    places: vec![Place { product: product_of(4), points: Points::from_millionths(1 << 90) }],
                };
                both!(self, publish(&state))?;
            }
            other => unreachable!("{other:?} is not about boards"),
        }
        Ok(())
    }

    async fn compare_everything(&self) -> Result<(), String> {
        both!(self, survey())?;
        let beginning: Vec<_> = (0..PARTITIONS).map(|partition| (partition, Position::default())).collect();
        self.read(&beginning, 100_000).await?;
        for board in [board_of(0), board_of(1)] {
            self.generations(&board).await?;
            both!(self, whole(&board))?;
            both!(self, published(&board))?;
            for seq in 0..6 {
                both!(self, published_at(&board, seq))?;
            }
        }
        let products: Vec<_> = (0..4).map(product_of).collect();
        for user in (0..5).map(user_of) {
            both!(self, viewer_likes(self.epoch, &user, &products, self.now()))?;
        }
        Ok(())
    }
}

/// A comparison that finds nothing says something only if it would find a small difference. Each of these is a bound
/// that is off by one, so that it shows only where the run has filled it to the brim.
#[test]
fn small_differences_are_found() {
    let memory = crate::support::memory::engine;
    let off_by_one = [
        EngineLimits { like_burst: limits().like_burst + 1, ..limits() },
        EngineLimits { journal_len_max: limits().journal_len_max + 1, ..limits() },
        EngineLimits { journal_age_ms_max: limits().journal_age_ms_max / 2, ..limits() },
        EngineLimits { event_memory_ms: 500, ..limits() },
        EngineLimits { like_again_ms: 0, ..limits() },
        EngineLimits { answers_idle_ms: 500, ..limits() },
        EngineLimits { likes_idle_ms: 500, ..limits() },
    ];
    for other in off_by_one {
        assert!(agree(memory, limits(), memory, other).is_err(), "not found: {other:?}");
    }
}

#[test]
fn redis_agrees_with_memory() {
    use crate::support::{memory, redis};
    agree(memory::engine, limits(), redis::engine, limits()).unwrap_or_else(|why| panic!("{why}"));
}
