//! The checker: compares what clients were answered with what the ledger has, once nothing happens any more.
//!
//! What it holds a run to: a COMMITTED answer is in the ledger, once; an ACCEPTED one as well, unless the engine was lost
//! in between; nothing is there that nobody sent; for each user and product the events alternate, begin with a like, stand
//! in the order in which they were answered, and are what the answers say.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use futures_util::{TryStreamExt, pin_mut};

use crate::postgres_faults::REJECTS;
use crate::record::{Answer, Durability, Like, Sent, Wish};
use crate::world::World;

/// A row of `events`.
#[derive(Clone, Debug)]
struct Row {
    at: (i64, i64),
    product: String,
    user: Option<String>,
    count: i64,
    occurred_ms: i64,
    reverses: Option<String>,
    signal: i16,
}

/// What the ledger has.
struct Found {
    events: HashMap<String, Row>,
    twice: Vec<String>,
    letters: Vec<(String, String)>,
    /// Ids of the events that a rule of the torture's has kept out.
    kept_out: HashSet<String>,
    /// Users and products of the likes among them: what the engine said of them until it was corrected was not so.
    misled: HashSet<(String, String)>,
}

#[derive(Default, Clone, Copy)]
pub struct Tally {
    pub events: usize,
    /// ACCEPTED, and lost with the engine.
    pub lost_accepted: usize,
    /// COMMITTED, or on the way there, and gone with a ledger that went back.
    pub lost_committed: usize,
    /// Operations that nobody knows the outcome of, but the ledger has them.
    pub unknown_found: usize,
    pub dead_letters: usize,
    /// Entries among these that were written to a Redis which others had left.
    pub stranded: usize,
    /// Events that were ACCEPTED, and that a rule of the torture's has kept out of the ledger.
    pub kept_out: usize,
}

/// Compares everything; notes what is wrong.
pub async fn check(world: &World) -> anyhow::Result<Tally> {
    let found = read(world).await?;
    let likes = world.record.likes();
    let sent = world.record.events();
    let mut tally = Tally { events: found.events.len(), dead_letters: found.letters.len(), ..Tally::default() };
    for id in &found.twice {
        world.record.violation(format!("the event {id} is in the ledger twice"));
    }
    let ids: HashMap<String, &Like> = likes.iter().map(|like| (like.event_id(), like)).collect();
    if ids.len() != likes.len() {
        world.record.violation("two likes of the torture's have one key: the torture is wrong".to_owned());
    }
    for (id, row) in &found.events {
        let is_known = match (ids.get(id), sent.get(id)) {
            (Some(like), _) => row.user.as_ref() == Some(&like.user) && row.product == like.product,
            (_, Some(event)) => row.product == event.product,
            _ => false,
        };
        if !is_known {
            world.record.violation(format!("nobody sent the event {id} of the ledger: {row:?}"));
        }
    }
    check_likes(world, &found, &likes, &mut tally);
    check_events(world, &found, &sent, &mut tally);
    tally.stranded = check_letters(world, &found, &ids, &sent);
    Ok(tally)
}

async fn read(world: &World) -> anyhow::Result<Found> {
    const EVENTS: &str = "SELECT id, epoch, seq, product_id, user_id, count, CAST(EXTRACT(EPOCH FROM occurred_at) * 1000 AS BIGINT), reverses, signal FROM events";
    let client = world.postgres.lock().await.client().await?;
    let rows = client.query_raw(EVENTS, Vec::<String>::new()).await?;
    pin_mut!(rows);
    let mut found = Found {
        events: HashMap::new(),
        twice: Vec::new(),
        letters: Vec::new(),
        kept_out: HashSet::new(),
        misled: HashSet::new(),
    };
    while let Some(row) = rows.try_next().await? {
        let id: String = row.get(0);
        let event = Row {
            at: (row.get(1), row.get(2)),
            product: row.get(3),
            user: row.get(4),
            count: row.get(5),
            occurred_ms: row.get(6),
            reverses: row.get(7),
            signal: row.get(8),
        };
        if found.events.insert(id.clone(), event).is_some() {
            found.twice.push(id);
        }
    }
    let letters = client.query("SELECT entry, error FROM dead_letters", &[]).await.context("dead letters")?;
    found.letters = letters.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (entry, _) in found.letters.iter().filter(|(_, error)| error.contains(REJECTS)) {
        let event: serde_json::Value = serde_json::from_str(entry).unwrap_or_default();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        found.kept_out.insert(text("id"));
        found.misled.insert((text("user"), text("product")));
    }
    Ok(found)
}

// ------------------------------------------------------------ likes

fn check_likes(world: &World, found: &Found, likes: &[Like], tally: &mut Tally) {
    let mut by_pair: HashMap<(&str, &str), Vec<&Like>> = HashMap::new();
    for like in likes {
        by_pair.entry((&like.user, &like.product)).or_default().push(like);
    }
    let mut rows_by_pair: HashMap<(&str, &str), Vec<&Row>> = HashMap::new();
    for (id, row) in &found.events {
        if let (true, Some(user)) = (id.starts_with("like:"), &row.user) {
            rows_by_pair.entry((user, &row.product)).or_default().push(row);
        }
    }
    for (pair, mut rows) in rows_by_pair {
        rows.sort_by_key(|row| row.at);
        let is_alternating = rows.iter().enumerate().all(|(n, row)| row.count == if n % 2 == 0 { 1 } else { -1 });
        if !is_alternating {
            let counts: Vec<_> = rows.iter().map(|row| row.count).collect();
            world.record.violation(format!("the events of {pair:?} do not alternate: {counts:?}"));
        }
    }
    for likes in by_pair.values() {
        check_pair(world, found, likes, tally);
    }
}

/// The likes of one user for one product, in the order in which they were sent: each only after the one before was
/// answered or given up.
fn check_pair(world: &World, found: &Found, likes: &[&Like], tally: &mut Tally) {
    let is_all_known = likes.iter().all(|like| !like.answers.is_empty());
    // Whether the product is liked after the likes so far, and where the last of their events stands.
    let mut is_liked = false;
    let mut last: Option<((i64, i64), &str)> = None;
    for like in likes {
        let row = found.events.get(&like.event_id());
        let name = || format!("like {} of {} for {}: {:?}", like.key, like.user, like.product, like.answers);
        if like.answers.is_empty() {
            tally.unknown_found += usize::from(row.is_some());
            continue;
        }
        let answered_at = like.answers.iter().map(|answer| answer.at).max().expect("there are answers");
        // What was only ACCEPTED may have been kept out, or may follow one that was.
        let was_misled = found.misled.contains(&(like.user.clone(), like.product.clone()));
        let was_exposed = was_misled || world.record.was_exposed(like.sent_at, answered_at);
        match row {
            None if like.had_effect() && world.record.was_undone(answered_at) => tally.lost_committed += 1,
            None if like.had_effect() && like.is_committed() => {
                world.record.violation(format!("a COMMITTED {} is not in the ledger", name()));
            }
            None if like.had_effect() && !was_exposed => {
                world
                    .record
                    .violation(format!("an ACCEPTED {} is not in the ledger, though the engine was not lost", name()));
            }
            None if like.had_effect() => tally.lost_accepted += 1,
            None => {
                let is_known = is_all_known && !was_misled && !world.record.was_undone(answered_at);
                check_unchanged(world, like, is_known.then_some(is_liked), &name);
            }
            Some(row) => {
                let is_as_answered = |liked: bool| liked == (row.count > 0);
                let committed = like.answers.iter().filter(|answer| answer.durability == Durability::Committed);
                if committed.clone().any(|answer| !is_as_answered(answer.liked)) {
                    world.record.violation(format!("the ledger has {} for {}", row.count, name()));
                }
                if last.is_some_and(|(at, _)| row.at < at) {
                    world.record.violation(format!("{} stands before {last:?}, which was answered before it", name()));
                }
                is_liked = row.count > 0;
                last = Some((row.at, &like.key));
            }
        }
        // Of two that are sent in one millisecond, both are told that they did it where an answer was lost: it is one effect.
        // The answer to a key that Redis forgot comes from the ledger, unless it could not wait for that.
        let was_forgotten = world.record.was_forgotten(like.sent_at, answered_at);
        let is_bound = |answer: &&Answer| !was_forgotten || answer.durability == Durability::Committed;
        let bound: Vec<_> = like.answers.iter().filter(is_bound).collect();
        let effects: HashSet<_> = bound.iter().filter(|answer| answer.changed).map(|answer| answer.done_at).collect();
        let effects = effects.len();
        let is_one_answer = bound.iter().all(|answer| answer.liked == bound[0].liked);
        if (effects > 1 || !is_one_answer) && !was_exposed {
            world.record.violation(format!("one key, and {effects} effects: {}", name()));
        }
    }
}

/// A like that found things as it wanted them has no event.
fn check_unchanged(world: &World, like: &Like, is_liked: Option<bool>, name: &impl Fn() -> String) {
    let Wish::Set(wanted) = like.wish else { return };
    if like.answers.iter().any(|answer| answer.liked != wanted) {
        world.record.violation(format!("set to {wanted}: {}", name()));
    }
    if like.is_committed() && is_liked.is_some_and(|is_liked| is_liked != wanted) {
        world.record.violation(format!("the ledger has it the other way round: {}", name()));
    }
}

// ------------------------------------------------------------ producers' events

fn check_events(world: &World, found: &Found, sent: &HashMap<String, Sent>, tally: &mut Tally) {
    for (id, event) in sent {
        let row = found.events.get(id);
        let name = || format!("the event {id}: {event:?}");
        match (row, event.taken) {
            (None, Some((at, _))) if world.record.was_undone(at) => tally.lost_committed += 1,
            (None, Some((_, Durability::Committed))) => {
                world.record.violation(format!("COMMITTED, and not in the ledger: {}", name()));
            }
            (None, Some((_, Durability::Accepted))) if found.kept_out.contains(id) => tally.kept_out += 1,
            (None, Some((at, Durability::Accepted))) if world.record.was_exposed(event.sent_at, at) => {
                tally.lost_accepted += 1;
            }
            (None, Some(_)) => {
                world
                    .record
                    .violation(format!("ACCEPTED, and not in the ledger, though the engine was not lost: {}", name()));
            }
            (None, None) if event.is_dead_lettered && !found.kept_out.contains(id) => {
                world.record.violation(format!("answered as a dead letter, and is none: {}", name()));
            }
            (None, None) => {}
            (Some(row), taken) => {
                tally.unknown_found += usize::from(taken.is_none() && !event.is_rejected);
                check_row(world, found, event, row, &name);
            }
        }
    }
}

fn check_row(world: &World, found: &Found, event: &Sent, row: &Row, name: &impl Fn() -> String) {
    if row.reverses != event.reverses {
        world.record.violation(format!("{} is in the ledger as {row:?}", name()));
    }
    let Some(original) = &event.reverses else {
        if row.count != event.count {
            world.record.violation(format!("{} is in the ledger as {row:?}", name()));
        }
        return;
    };
    // What it takes back may itself have been lost with the engine.
    let Some(original) = found.events.get(original) else {
        if world.record.losses() == 0 && !found.kept_out.contains(original) {
            world.record.violation(format!("{} takes back what is not there", name()));
        }
        return;
    };
    // So it is where the original was lost, and was sent again later.
    if original.at > row.at && world.record.losses() > 0 {
        return;
    }
    let undoes = (row.count, row.occurred_ms, row.signal) == (-original.count, original.occurred_ms, original.signal);
    if !undoes {
        world.record.violation(format!("{} is in the ledger as {row:?}, and takes back {original:?}", name()));
    }
}

// ------------------------------------------------------------ dead letters

/// Nothing is dead-lettered but what was poisoned, what was lost with the engine, and what clients wrote to a Redis that
/// others had left.
fn check_letters(world: &World, found: &Found, likes: &HashMap<String, &Like>, sent: &HashMap<String, Sent>) -> usize {
    let poisoned = world.record.poisoned.load(std::sync::atomic::Ordering::Relaxed) as usize;
    let was_lost = world.record.losses() > 0;
    let (mut entries, mut stranded) = (0, 0);
    for (entry, error) in &found.letters {
        let is_poison = entry.contains("poison");
        if is_poison {
            entries += 1;
        } else if error.contains(REJECTS) {
            // A rule of the torture's has kept it out; `read` has taken it down.
        } else if error.starts_with("lost:") && was_lost {
            // A gap in a journal.
        } else if error.starts_with("stranded:") && was_lost {
            let event: serde_json::Value = serde_json::from_str(entry).unwrap_or_default();
            let id = event["id"].as_str().unwrap_or_default();
            if !likes.contains_key(id) && !sent.contains_key(id) {
                world.record.violation(format!("nobody sent what a dead letter holds: {entry}"));
            }
            stranded += 1;
        } else {
            world.record.violation(format!("a dead letter: {entry} ({error})"));
        }
    }
    if entries > poisoned {
        world.record.violation(format!("{entries} dead letters of {poisoned} entries that were poisoned"));
    }
    stranded
}
