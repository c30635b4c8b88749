//! The contract of `acclaim::engine`, over any engine: every case is a function of what makes one.
//!
//! To add an engine, add a line `contract!(name, path::to::factory)` below. The factory gives a new engine that shares
//! nothing with any other. Cases pass times of their own making, except where something expires: those follow the real
//! clock, because Redis does.

mod boards;
mod events;
mod expiry;
mod feed;
mod journal;
mod likes;
mod model;
mod new_likes;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use acclaim::domain::{Entry, EntryBody, Event, EventId, IdempotencyKey, Position, ProductId, Timestamp, UserId};
use acclaim::engine::{
    Desired, Engine, EngineError, EngineLimits, LikeAnswer, LikeOutcome, LikeRequest, PartitionSurvey, UserLikes,
};
use futures_util::future::BoxFuture;

/// Makes a new engine, closed and empty.
pub type Make = fn(EngineLimits) -> BoxFuture<'static, Arc<dyn Engine>>;

macro_rules! contract {
    ($engine:ident, $make:path) => {
        mod $engine {
            $crate::contract::cases! { $make;
                likes: toggles_and_sets, writes_an_event, likes_again_at_the_time_of_the_first, no_change_answers_the_last_position, replays_a_key,
                    refuses_a_key_of_another_product,
                    replays_before_anything_else, keeps_sixteen_answers, limits_the_rate, charges_after_the_fact, rate_survives_a_clock_set_back,
                    refusals_write_nothing, loads_once, loads_answers_as_older, busy_by_length, busy_by_age,
                    shows_a_viewer_their_likes, shows_what_it_holds, stops_at_the_most, loads_very_many, forgets, many_at_once_alternate;
                new_likes: rest_on_nothing_uncertain, need_a_user_who_was_not_loaded_too_early;
                events: records_in_order, knows_duplicates, reverses_once, reverses_what_is_given,
                    refuses_what_it_can_not_reverse, remembers_across_epochs, remembers_what_the_ledger_has,
                    forgets_what_the_ledger_has_not, undoes_once,
                    busy_stands_alone;
                journal: is_closed_and_empty_at_first, fences_epochs, belongs_to_one_ledger,
                    keeps_whose_it_is_and_what_was_announced,
                    numbers_each_partition, reads_in_pieces, waits_no_longer_than_asked, wakes_every_reader, loses_no_wake_up, trims, closes_and_opens;
                boards: begins_empty, builds_and_switches, drops_what_was_never_shown, applies_once,
                    applies_to_both_generations, points_that_come_to_nothing_vanish, points_are_exact_at_any_size, points_beyond_go_with_their_generation, keeps_what_a_generation_was_built_under,
                    drops_a_board, are_apart_from_partitions;
                pages: follow_the_order, rank_what_lies_beyond_by_id, go_on_behind_places_that_moved, agree_with_standings, say_what_was_folded,
                    look_up_entries;
                feed: publishes_in_sequence, tells_listeners, a_slow_listener_hears_the_end;
                expiry: likes_stay_while_touched, answers_go_when_idle, events_are_forgotten, leases;
            }
        }
    };
}

macro_rules! cases {
    ($make:path; $($file:ident: $($case:ident),+;)+) => {
        $(mod $file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::contract::$file::$case($make).await
            })+
        })+
    };
}
use cases;

contract!(memory, crate::support::memory::engine);
contract!(redis, crate::support::redis::engine);

// ---------------------------------------------------------------- what the cases share

/// Long enough for anything that happens at all, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The ledger that engines are opened for.
const LEDGER: &str = "a ledger";

/// No limit of rate, no memory of unlikes and one partition, so that positions are easy to foretell.
fn plain() -> EngineLimits {
    EngineLimits { partitions: 1, like_rate: 0, like_again_ms: 0, ..EngineLimits::default() }
}

/// An engine open in epoch 1, in which ann and bob are loaded and like nothing.
async fn opened(make: Make, limits: EngineLimits) -> Arc<dyn Engine> {
    let engine = make(limits).await;
    engine.open(1, 7, LEDGER).await.unwrap();
    load(&*engine, 1, "ann", &[]).await;
    load(&*engine, 1, "bob", &[]).await;
    engine
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(1_700_000_000_000 + ms)
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn product(id: &str) -> ProductId {
    ProductId::new(id).unwrap()
}

fn key(id: &str) -> IdempotencyKey {
    IdempotencyKey::new(id).unwrap()
}

fn event_id(id: &str) -> EventId {
    EventId::from_producer(id).unwrap()
}

async fn load(engine: &dyn Engine, epoch: u64, id: &str, likes: &[(&str, i64)]) {
    let likes = likes.iter().map(|(id, ms)| (product(id), at(*ms))).collect();
    engine
        .load_likes(
            epoch,
            &[UserLikes { as_of: Position::default(), user: user(id), likes, unliked: vec![], answers: vec![] }],
            at(0),
        )
        .await
        .unwrap();
}

/// A like in epoch 1.
async fn like(engine: &dyn Engine, who: &str, what: &str, id: &str, desired: Desired, ms: i64) -> LikeOutcome {
    let request =
        LikeRequest { is_key_new: false, user: user(who), product: product(what), key: key(id), desired, at: at(ms) };
    engine.like(1, &request).await.unwrap()
}

async fn toggle(engine: &dyn Engine, who: &str, what: &str, id: &str, ms: i64) -> LikeOutcome {
    like(engine, who, what, id, Desired::Toggled, ms).await
}

/// What a like in epoch 1 answers.
fn done(liked: bool, changed: bool, ms: i64, seq: u64) -> LikeOutcome {
    LikeOutcome::Done(LikeAnswer { liked, changed, at: at(ms), position: Position::new(1, seq) })
}

fn replayed(outcome: &LikeOutcome) -> LikeOutcome {
    match outcome {
        LikeOutcome::Done(answer) => LikeOutcome::Replayed(*answer),
        other => panic!("{other:?} is not done"),
    }
}

/// Everything in a partition's journal.
async fn entries(engine: &dyn Engine, partition: u16) -> Vec<Entry> {
    let mut reader = engine.journal_reader().await.unwrap();
    let found = reader.read(&[(partition, Position::default())], 100_000, Duration::ZERO).await.unwrap();
    found.into_iter().flat_map(|(_, entries)| entries).collect()
}

/// Everything in a partition's journal, as events.
async fn events(engine: &dyn Engine, partition: u16) -> Vec<(Position, Event)> {
    entries(engine, partition).await.into_iter().map(|entry| (entry.position, event_of(entry))).collect()
}

fn event_of(entry: Entry) -> Event {
    match entry.body {
        EntryBody::Event(event) => event,
        malformed => panic!("{malformed:?}"),
    }
}

async fn partition_surveys(engine: &dyn Engine) -> Vec<PartitionSurvey> {
    engine.survey().await.unwrap().partitions
}

fn is_lost<T>(answer: Result<T, EngineError>) -> bool {
    matches!(answer, Err(EngineError::Lost(_)))
}
