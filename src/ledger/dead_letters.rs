//! Entries of the journal that are no events, and what becomes of them.
//!
//! Invariant: what is replayed goes the way of every other entry ([`TakesOver`]): an id counts once, an event is reversed
//! once, likes alternate. It is taken for what happened at its own position, and moves no cursor.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::audit::{Deed, enter, take_turn};
use super::db::{Db, in_tx, signed, unsigned, with_conn};
use super::error::{LedgerError, Result};
use super::instant::At;
use super::schema::{boards, cursors, dead_letters};
use super::state::{partition_of_code, to_cursors};
use super::statement::Statement;
use super::sync::{Attempt, Run, TakesOver};
use super::{Author, Batch, KeysetPage, Replayed, StoredDeadLetter};
use crate::domain::{Event, EventId, Position, ProductId, Signal, Timestamp, UserId};

/// Dead letters in one transaction: as many as a commit takes without making others wait for long.
const CHUNK: usize = 1_000;
/// Dead letters in one call: a minute's work.
const REPLAYED_MAX: i64 = 100_000;
/// Refusals that are listed.
const REFUSED_LISTED: usize = 100;

/// Dead letters that are looked at to tell their kinds: as many as anybody needs to know of, and a millisecond's work.
const KINDS_LOOKED_AT: i64 = 1_000;

/// How many dead letters are of which kind. All together no more than 1,000, however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterKinds {
    /// Written to an engine that the other nodes had left.
    pub stranded: u64,
    /// Notices that entries of a journal are missing.
    pub lost: u64,
    /// Entries that are no events, or that no database could hold.
    pub unstorable: u64,
}

#[derive(QueryableByName)]
struct Kinds {
    #[diesel(sql_type = BigInt)]
    stranded: i64,
    #[diesel(sql_type = BigInt)]
    lost: i64,
    #[diesel(sql_type = BigInt)]
    looked_at: i64,
}

pub(super) async fn kinds(db: &Db) -> Result<DeadLetterKinds> {
    let text = include_str!("dead_letter_kinds.sql");
    let Kinds { stranded, lost, looked_at } =
        with_conn!(db, |conn| Ok(Statement::new(text).bind::<BigInt, _>(KINDS_LOOKED_AT).get_result(conn).await?))?;
    let unstorable = unsigned(looked_at - stranded - lost);
    Ok(DeadLetterKinds { stranded: unsigned(stranded), lost: unsigned(lost), unstorable })
}

/// An event in full.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    id: String,
    signal: Signal,
    product: String,
    user: Option<String>,
    count: i64,
    occurred_at_ms: i64,
    recorded_at_ms: i64,
    reverses: Option<String>,
}

/// An event that no database could hold, or that this one refused, as a dead letter's entry.
pub(super) fn entry_of(event: &Event) -> String {
    let described = Described {
        id: event.id.to_string(),
        signal: event.signal,
        product: event.product.to_string(),
        user: event.user.as_ref().map(ToString::to_string),
        count: event.count,
        occurred_at_ms: event.occurred_at.as_ms(),
        recorded_at_ms: event.recorded_at.as_ms(),
        reverses: event.reverses.as_ref().map(ToString::to_string),
    };
    serde_json::to_string(&described).expect("texts and numbers are JSON")
}

/// The event that an entry is, or why it is none.
fn event_of(entry: &str) -> Result<Event, String> {
    let invalid = |error: &dyn std::fmt::Display| format!("the entry is no event: {error}");
    if entry.is_empty() {
        return Err("there is no entry, only the notice that some are missing".to_owned());
    }
    let event = match serde_json::from_str(entry).map_err(|error| invalid(&error))? {
        // The fields of a journal entry, as a version that knew less has read them.
        Value::Array(words) => {
            let (pairs, _) = words.as_chunks::<2>();
            let named = |name: &str| pairs.iter().find(|[field, _]| field == name);
            let field = |name: &str| {
                let [_, value] = named(name).ok_or_else(|| format!("there is no {name}"))?;
                value.as_str().ok_or_else(|| format!("{name} is not valid UTF-8"))
            };
            Event::from_fields(field).map_err(|error| invalid(&error))?
        }
        described => {
            let described: Described = serde_json::from_value(described).map_err(|error| invalid(&error))?;
            Event {
                id: EventId::new(described.id.as_str()).map_err(|error| invalid(&error))?,
                signal: described.signal,
                product: ProductId::new(described.product.as_str()).map_err(|error| invalid(&error))?,
                user: described.user.as_deref().map(UserId::new).transpose().map_err(|error| invalid(&error))?,
                count: described.count,
                occurred_at: Timestamp::from_ms(described.occurred_at_ms),
                recorded_at: Timestamp::from_ms(described.recorded_at_ms),
                reverses: described.reverses.as_deref().map(EventId::new).transpose().map_err(|it| invalid(&it))?,
                is_new: false,
            }
        }
    };
    event.validate().map(|()| event).map_err(|error| invalid(&error))
}

type LetterRow = (String, i16, i64, i64, String, String, At);

fn to_letter((id, partition, epoch, seq, entry, error, at): LetterRow) -> StoredDeadLetter {
    let (partition, position) = (partition_of_code(partition), Position::new(unsigned(epoch), unsigned(seq)));
    StoredDeadLetter { id, partition, position, entry, error, at: at.0 }
}

/// Partition and position in an id: `<partition>:<epoch>-<seq>`, and `.<n>` where a position has several.
fn place_of(id: &str) -> Option<(i16, Position)> {
    let (partition, position) = id.split_once(':')?;
    let position = position.split_once('.').map_or(position, |(position, _)| position);
    Some((partition.parse().ok()?, position.parse().ok()?))
}

/// Newest position first, behind an id.
pub(super) async fn dead_letters(db: &Db, after: Option<&str>, first: u32) -> Result<KeysetPage<StoredDeadLetter>> {
    use dead_letters::{epoch, id, partition, seq};
    let place = match after.map(|after| place_of(after).map(|place| (after, place))) {
        Some(None) => return Ok(KeysetPage { rows: Vec::new(), has_more: false }),
        place => place.flatten(),
    };
    let rows: Vec<LetterRow> = with_conn!(db, |conn| {
        let newest_first = dead_letters::table.order((epoch.desc(), seq.desc(), partition.desc(), id.desc()));
        let mut page = newest_first.limit(i64::from(first) + 1).into_boxed();
        if let Some((after, (in_partition, at))) = place {
            let (in_epoch, at_seq) = (signed(at.epoch), signed(at.seq));
            let beside = partition.lt(in_partition).or(partition.eq(in_partition).and(id.lt(after)));
            page = page
                .filter(epoch.le(in_epoch))
                .filter(epoch.lt(in_epoch).or(seq.lt(at_seq)).or(seq.eq(at_seq).and(beside)));
        }
        Ok(page.load(conn).await?)
    })?;
    Ok(KeysetPage::of(rows.into_iter().map(to_letter), first))
}

pub(super) async fn dead_letter(db: &Db, id: &str) -> Result<Option<StoredDeadLetter>> {
    let found = dead_letters::table.filter(dead_letters::id.eq(id));
    let row: Option<LetterRow> = with_conn!(db, |conn| Ok(found.first(conn).await.optional()?))?;
    Ok(row.map(to_letter))
}

/// Takes dead letters for the events that they are.
pub(super) async fn replay(db: &Db, ids: Option<&[String]>, author: &Author) -> Result<Replayed> {
    let (ids, unknown) = in_order(db, ids).await?;
    let mut all = Replayed::default();
    all.refuse(unknown.into_iter().map(|id| (id, "there is no such dead letter".to_owned())));
    // What is still to be done, the next one last.
    let mut waiting: Vec<&[String]> = ids.chunks(CHUNK).rev().collect();
    while let Some(chunk) = waiting.pop() {
        match replay_together(db, chunk, author).await {
            Ok(done) => {
                all.replayed += done.replayed;
                all.refuse(done.refused);
                all.users.extend(done.users);
            }
            // One of them is at fault: each half by itself finds it.
            Err(LedgerError::Rejected(_)) if chunk.len() > 1 => {
                let (first, second) = chunk.split_at(chunk.len() / 2);
                waiting.extend([second, first]);
            }
            Err(LedgerError::Rejected(reason)) => all.refuse([(chunk[0].clone(), reason)]),
            // What is done is done, and whoever asked must hear of it.
            Err(error) if all.replayed > 0 => {
                all.refuse(chunk.iter().map(|id| (id.clone(), error.to_string())));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    all.users.sort();
    all.users.dedup();
    Ok(all)
}

impl Replayed {
    fn refuse(&mut self, refused: impl IntoIterator<Item = (String, String)>) {
        let room = REFUSED_LISTED.saturating_sub(self.refused.len());
        self.refused.extend(refused.into_iter().take(room));
    }
}

/// The ids in the order of their positions, and those that are not there. Where none is named, all that hold an entry.
async fn in_order(db: &Db, ids: Option<&[String]>) -> Result<(Vec<String>, BTreeSet<String>)> {
    use dead_letters::{entry, epoch, id, partition, seq};
    let mut found: Vec<(i64, i64, i16, String)> = Vec::new();
    let columns = (epoch, seq, partition, id);
    match ids {
        Some(ids) => {
            for ids in ids.chunks(CHUNK) {
                let named = dead_letters::table.filter(id.eq_any(ids)).select(columns);
                let rows: Vec<(i64, i64, i16, String)> = with_conn!(db, |conn| Ok(named.load(conn).await?))?;
                found.extend(rows);
            }
        }
        None => {
            let held = dead_letters::table.filter(entry.ne("")).order(columns).limit(REPLAYED_MAX).select(columns);
            found = with_conn!(db, |conn| Ok(held.load(conn).await?))?;
        }
    }
    found.sort();
    found.dedup();
    let found: Vec<_> = found.into_iter().map(|(.., known)| known).collect();
    let known: HashSet<_> = found.iter().collect();
    let unknown = ids.into_iter().flatten().filter(|asked| !known.contains(asked)).cloned().collect();
    Ok((found, unknown))
}

/// All of them, or none, in one transaction.
async fn replay_together(db: &Db, ids: &[String], author: &Author) -> Result<Replayed> {
    in_tx!(db, |conn| {
        take_turn!(conn);
        // Held, so that no likes are taken over beside; one by one, in the order in which a commit takes them.
        let partitions: Vec<i16> =
            cursors::table.select(cursors::partition).order(cursors::partition).load(conn).await?;
        let mut held: Vec<(i16, i64, i64)> = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let held_as_it_is = diesel::update(cursors::table.find(partition)).set(cursors::seq.eq(cursors::seq));
            held.push(held_as_it_is.returning(cursors::all_columns).get_result(conn).await?);
        }
        let held = to_cursors(held);
        let letters: Vec<LetterRow> = dead_letters::table.filter(dead_letters::id.eq_any(ids)).load(conn).await?;
        let mut replayed = Replayed::default();
        let mut events = Vec::new();
        for letter in letters.into_iter().map(to_letter) {
            match event_of(&letter.entry) {
                Ok(event) if held.contains_key(&letter.partition) => events.push((letter, event)),
                Ok(_) => replayed.refuse([(letter.id, format!("there is no partition {}", letter.partition))]),
                Err(reason) => replayed.refuse([(letter.id, reason)]),
            }
        }
        // An old like under a newer one of the same user and product would leave two in a row.
        let pairs = likes_of(&events).map(|(_, user, product)| (user, product)).collect::<BTreeSet<_>>();
        let pairs = serde_json::to_string(&pairs).expect("texts are JSON");
        let newest = Statement::new(db.either(NEWEST_POSTGRES, NEWEST_SQLITE)).bind::<Text, _>(pairs);
        let newest: Vec<Newest> = newest.load(conn).await?;
        let newest: HashMap<_, _> = newest.into_iter().map(Newest::entry).collect();
        let is_late = |letter: &StoredDeadLetter, event: &Event| {
            let pair = event.user.as_ref().map(|user| (user.to_string(), event.product.to_string()));
            let newest = pair.filter(|_| event.id.like_key().is_some()).and_then(|pair| newest.get(&pair));
            newest.is_some_and(|newest| *newest > letter.position)
        };
        let (late, events): (Vec<_>, Vec<_>) = events.into_iter().partition(|(letter, event)| is_late(letter, event));
        let too_late = "the user has liked or unliked the product since".to_owned();
        replayed.refuse(late.into_iter().map(|(letter, _)| (letter.id, too_late.clone())));

        let mut batches = BTreeMap::new();
        for (letter, event) in &events {
            let at = held[&letter.partition];
            let batch = batches.entry(letter.partition).or_insert_with(|| Batch {
                partition: letter.partition,
                from: at,
                to: at,
                events: Vec::new(),
                dead_letters: Vec::new(),
            });
            batch.events.push((letter.position, event.clone()));
        }
        batches.values_mut().for_each(|batch| batch.events.sort_by_key(|(position, _)| *position));
        let runs: Vec<_> = batches.values().map(Run::of).collect();
        let rejected: HashSet<_> = match conn.take_over(&runs).await? {
            Attempt::Done { rejected } => rejected.into_iter().map(|(partition, at, _)| (partition, at)).collect(),
            Attempt::CursorMoved => {
                return Err(LedgerError::Internal("a cursor moved while it was held".to_owned()).into());
            }
        };
        let (known, taken): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|(letter, _)| rejected.contains(&(letter.partition, letter.position)));
        let nothing_new = "the ledger has the event, or a reversal of the same one, or the like would change nothing";
        replayed.refuse(known.into_iter().map(|(letter, _)| (letter.id, nothing_new.to_owned())));
        if taken.is_empty() {
            return Ok(replayed);
        }
        replayed.replayed = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        replayed.users = likes_of(&taken).map(|(_, user, _)| user.clone()).collect();
        let ids: Vec<_> = taken.iter().map(|(letter, _)| letter.id.as_str()).collect();
        diesel::delete(dead_letters::table.filter(dead_letters::id.eq_any(&ids))).execute(conn).await?;
        let counts = (boards::revision.eq(boards::revision + 1), boards::reopened.eq(boards::reopened + 1));
        diesel::update(boards::table).set(counts).execute(conn).await?;
        let target = match ids[..] {
            [id] => format!("dead letter {id}"),
            _ => format!("{} dead letters", ids.len()),
        };
        let after = json!({ "replayed": ids });
        enter!(conn, author, Deed { action: "replayDeadLetters", target, before: Value::Null, after });
        Ok(replayed)
    })
}

fn likes_of(events: &[(StoredDeadLetter, Event)]) -> impl Iterator<Item = (&Event, &UserId, &ProductId)> {
    let likes = events.iter().filter(|(_, event)| event.id.like_key().is_some());
    likes.filter_map(|(_, event)| Some((event, event.user.as_ref()?, &event.product)))
}

const NEWEST_POSTGRES: &str = "
    SELECT user_id, product_id, epoch, seq
    FROM json_array_elements(CAST({pairs} AS json)) AS listed (value)
    JOIN likes ON user_id = value ->> 0 AND product_id = value ->> 1";

const NEWEST_SQLITE: &str = "
    SELECT user_id, product_id, epoch, seq
    FROM json_each({pairs})
    JOIN likes ON user_id = value ->> 0 AND product_id = value ->> 1";

/// The position of the last like or unlike of a user and product.
#[derive(QueryableByName)]
struct Newest {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    product_id: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

impl Newest {
    fn entry(self) -> ((String, String), Position) {
        ((self.user_id, self.product_id), Position::new(unsigned(self.epoch), unsigned(self.seq)))
    }
}
