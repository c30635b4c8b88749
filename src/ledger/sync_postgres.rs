//! A commit on Postgres: one statement, `commit.sql`, with a column of values in each array.

use std::collections::HashSet;

use diesel::pg::Pg;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::db::{Postgres, signed};
use super::error::{Failure, LedgerError, Result};
use super::instant::{At, Instant};
use super::lease;
use super::state::{partition_code, partition_of_code};
use super::statement::Statement;
use super::sync::{Attempt, DROPPED, Run, TakesOver, storable};
use crate::domain::{Event, Position, Timestamp};

#[derive(diesel::QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_open: bool,
    #[diesel(sql_type = BigInt)]
    kept_count: i64,
    #[diesel(sql_type = Nullable<SmallInt>)]
    partition: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    epoch: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    seq: Option<i64>,
}

pub(super) async fn commit<'a>(postgres: &Postgres, runs: &[Run<'a>]) -> Result<Attempt<'a>> {
    let mut held = postgres.get().await?;
    let attempt = take_over(&mut held.diesel, runs, postgres.fence()).await;
    held.finish(attempt).map_err(|error| match error {
        // The statement has no way to fail but by a value that it can't read, which is quoted then.
        LedgerError::Rejected(reason) => LedgerError::Rejected(match reason.find(DROPPED) {
            Some(at) => reason[at..].trim_end_matches('"').to_owned(),
            None => reason,
        }),
        error => error,
    })
}

impl TakesOver for AsyncPgConnection {
    /// The transaction has checked the lease.
    async fn take_over<'a>(&mut self, runs: &[Run<'a>]) -> Result<Attempt<'a>, Failure> {
        take_over(self, runs, 0).await
    }
}

async fn take_over<'a>(conn: &mut AsyncPgConnection, runs: &[Run<'a>], fence: i64) -> Result<Attempt<'a>, Failure> {
    let answers: Vec<Answer> = statement(runs, fence).load(conn).await?;
    let [Answer { is_open: true, kept_count, .. }, ..] = answers[..] else {
        // Either a cursor has moved, or the lease is somebody else's.
        lease::expect_mine(fence, conn).await?;
        return Ok(Attempt::CursorMoved);
    };
    let events = || runs.iter().flat_map(|run| run.events.iter().map(move |(at, event)| (run.partition, *at, *event)));
    if kept_count == events().count() as i64 {
        return Ok(Attempt::Done { rejected: Vec::new() });
    }
    let kept: HashSet<_> = answers.iter().filter_map(Answer::place).collect();
    let rejected = events().filter(|(partition, at, _)| !kept.contains(&(*partition, *at)));
    Ok(Attempt::Done { rejected: rejected.collect() })
}

impl Answer {
    fn place(&self) -> Option<(u16, Position)> {
        let position = Position::new(self.epoch?.try_into().ok()?, self.seq?.try_into().ok()?);
        Some((partition_of_code(self.partition?), position))
    }
}

/// The values in the order of the places in `commit.sql`.
fn statement<'a>(runs: &'a [Run<'_>], fence: i64) -> Statement<'a, Pg> {
    let of_runs = |value: fn(&Run<'_>) -> i64| runs.iter().map(value).collect::<Vec<_>>();
    let partitions = || runs.iter().map(|run| partition_code(run.partition)).collect::<Vec<_>>();
    let events = || runs.iter().flat_map(|run| run.events.iter().map(move |(at, event)| (run, *at, *event)));
    let letters = || runs.iter().flat_map(|run| run.letters.iter().map(move |letter| (run, letter)));
    let dead_lettered = || runs.iter().flat_map(Run::dead_lettered);
    let texts = |value: fn(&Event) -> &str| events().map(|(_, _, event)| value(event)).collect::<Vec<_>>();
    let times = |value: fn(&Event) -> Timestamp| events().map(|(_, _, event)| At(value(event))).collect::<Vec<_>>();
    Statement::new(include_str!("commit.sql"))
        // held
        .bind::<Array<SmallInt>, _>(partitions())
        .bind::<Array<BigInt>, _>(of_runs(|run| signed(run.from.epoch)))
        .bind::<Array<BigInt>, _>(of_runs(|run| signed(run.from.seq)))
        // fenced
        .bind::<BigInt, _>(fence)
        // gate
        .bind::<BigInt, _>(fence)
        .bind::<BigInt, _>(runs.len() as i64)
        .bind::<BigInt, _>(events().count() as i64)
        // moved
        .bind::<Array<SmallInt>, _>(partitions())
        .bind::<Array<BigInt>, _>(of_runs(|run| signed(run.to.epoch)))
        .bind::<Array<BigInt>, _>(of_runs(|run| signed(run.to.seq)))
        // kept
        .bind::<Array<Text>, _>(texts(|event| event.id.as_str()))
        .bind::<Array<SmallInt>, _>(events().map(|(run, ..)| partition_code(run.partition)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(events().map(|(_, at, _)| signed(at.epoch)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(events().map(|(_, at, _)| signed(at.seq)).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(events().map(|(.., event)| event.signal.code()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(texts(|event| event.product.as_str()))
        .bind::<Array<Nullable<Text>>, _>(
            events().map(|(.., event)| event.user.as_ref().map(|user| user.as_str())).collect::<Vec<_>>(),
        )
        .bind::<Array<BigInt>, _>(events().map(|(.., event)| event.count).collect::<Vec<_>>())
        .bind::<Array<Instant>, _>(times(|event| event.occurred_at))
        .bind::<Array<Instant>, _>(times(|event| event.recorded_at))
        .bind::<Array<Nullable<Text>>, _>(
            events().map(|(.., event)| event.reverses.as_ref().map(|id| id.as_str())).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            events().map(|(.., event)| event.id.as_sent().map(|id| id.to_string())).collect::<Vec<_>>(),
        )
        .bind::<Array<Bool>, _>(events().map(|(.., event)| !event.waits_for_commit()).collect::<Vec<_>>())
        // dead_lettered
        .bind::<Instant, _>(At(Timestamp::now()))
        .bind::<Array<Text>, _>(letters().map(|(_, letter)| letter.id.as_str()).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(letters().map(|(run, _)| partition_code(run.partition)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(letters().map(|(_, letter)| signed(letter.position.epoch)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(letters().map(|(_, letter)| signed(letter.position.seq)).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(letters().map(|(_, letter)| letter.entry.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(letters().map(|(_, letter)| letter.error.as_str()).collect::<Vec<_>>())
        // noted
        .bind::<Array<SmallInt>, _>(
            dead_lettered().map(|(partition, ..)| partition_code(partition)).collect::<Vec<_>>(),
        )
        .bind::<Array<BigInt>, _>(dead_lettered().map(|(_, at, _)| signed(at.epoch)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(dead_lettered().map(|(_, at, _)| signed(at.seq)).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(dead_lettered().map(|(.., event)| storable(event.id.as_str())).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(
            dead_lettered()
                .map(|(.., event)| event.user.as_ref().map(|user| storable(user.as_str())))
                .collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            dead_lettered()
                .map(|(.., event)| event.reverses.as_ref().map(|id| storable(id.as_str())))
                .collect::<Vec<_>>(),
        )
        .bind::<Array<SmallInt>, _>(dead_lettered().map(|(.., event)| event.signal.code()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(dead_lettered().map(|(.., event)| storable(event.product.as_str())).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(dead_lettered().map(|(.., event)| event.count).collect::<Vec<_>>())
        .bind::<Array<Instant>, _>(dead_lettered().map(|(.., event)| At(event.occurred_at)).collect::<Vec<_>>())
        .bind::<Array<Bool>, _>(dead_lettered().map(|(.., event)| !event.waits_for_commit()).collect::<Vec<_>>())
        // dropped
        .bind::<Text, _>(DROPPED)
}
