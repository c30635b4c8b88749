//! Reading replies. Whatever Redis answers, these give a value or an error that shows it, and never panic.

use std::str::FromStr;

use redis::Value;

use super::exact::Exact;
use crate::domain::{Basis, Cursors, Place, Points, ProductId, Timestamp};
use crate::engine::{Build, EngineError, Generation, Result};

/// What Redis answered is not what the step's script answers.
pub fn unexpected(reply: &Value) -> EngineError {
    let mut shown = format!("{reply:?}");
    // Enough to see what it is; a whole board has no place in a log line.
    if let Some((end, _)) = shown.char_indices().nth(200) {
        shown.truncate(end);
        shown.push('…');
    }
    EngineError::Unanswered(format!("unexpected reply from Redis: {shown}"))
}

pub fn list(reply: Value) -> Result<Vec<Value>> {
    match reply {
        Value::Array(items) => Ok(items),
        other => Err(unexpected(&other)),
    }
}

/// A list of exactly `N`.
pub fn tuple<const N: usize>(reply: Value) -> Result<[Value; N]> {
    list(reply)?.try_into().map_err(|items| unexpected(&Value::Array(items)))
}

pub fn text(reply: &Value) -> Result<&str> {
    match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unexpected(reply)),
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK"),
        other => Err(unexpected(other)),
    }
}

/// Anything that was written as text, or as a number.
pub fn parse<T: FromStr>(reply: &Value) -> Result<T> {
    match reply {
        Value::Int(number) => number.to_string().parse().map_err(|_| unexpected(reply)),
        _ => text(reply)?.parse().map_err(|_| unexpected(reply)),
    }
}

/// The 1 or 0 of a step that did, or did not, take place.
pub fn flag(reply: &Value) -> Result<bool> {
    match reply {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        other => Err(unexpected(other)),
    }
}

/// Items two by two.
pub fn pairs<T>(reply: Value, read: impl Fn(&Value, &Value) -> Result<T>) -> Result<Vec<T>> {
    let items = list(reply)?;
    match items.as_chunks() {
        (pairs, []) => pairs.iter().map(|[first, second]| read(first, second)).collect(),
        _ => Err(unexpected(&Value::Array(items))),
    }
}

pub fn cursors(reply: Value) -> Result<Cursors> {
    Ok(pairs(reply, |partition, position| Ok((parse(partition)?, parse(position)?)))?.into_iter().collect())
}

/// Cursors in one text, with spaces between.
pub fn listed_cursors(reply: &Value) -> Result<Cursors> {
    let words: Vec<_> = text(reply)?.split_whitespace().collect();
    let pair = |[partition, position]: &[&str; 2]| Some((partition.parse().ok()?, position.parse().ok()?));
    match words.as_chunks() {
        (pairs, []) => pairs.iter().map(pair).collect::<Option<_>>().ok_or_else(|| unexpected(reply)),
        _ => Err(unexpected(reply)),
    }
}

pub fn places(reply: Value) -> Result<Vec<Place>> {
    pairs(reply, |product, points| {
        Ok(Place { product: ProductId::from_stored(text(product)?), points: self::points(points)? })
    })
}

/// A score; whole numbers up to 2^53 come from a sorted set without exponent.
pub fn points(reply: &Value) -> Result<Points> {
    parse(reply).map(|Exact(points)| points)
}

/// The build that the scripts of boards begin their reply with.
pub fn generation(reply: Value) -> Result<Generation> {
    let [number, epoch, period, revision, rules_version, built_at, reason] = tuple(reply)?;
    Ok(Generation {
        number: parse(&number)?,
        build: Build {
            epoch: parse(&epoch)?,
            period: text(&period)?.to_owned(),
            revision: parse(&revision)?,
            basis: Basis {
                rules_version: parse(&rules_version)?,
                // Not there in what an older version has built.
                at: if built_at == Value::Nil { Timestamp::default() } else { Timestamp::from_ms(parse(&built_at)?) },
            },
            reason: crate::domain::SnapshotReason::from_name(text(&reason)?).ok_or_else(|| unexpected(&reason))?,
        },
    })
}
