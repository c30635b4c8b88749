//! Recording producers' events.

use redis::Value;

use super::keys::Key;
use super::link::{Args, BULK_LIMIT, STEP_LIMIT};
use super::reply::{list, text, unexpected};
use super::{RedisEngine, lost_epoch, script, ttl_ms};
use crate::domain::{EventId, Timestamp, Undo, partition_of};
use crate::engine::{Original, RecordOutcome, RecordRequest, Result};

/// Events in a call from which on it is given [`BULK_LIMIT`]: more than one request brings, which takes some 10 ms of
/// Redis' time, and whose client is to hear in time that the engine is away.
const BULK_EVENTS: usize = 501;

impl RedisEngine {
    pub(super) async fn do_record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>> {
        let limits = &self.limits;
        let mut keys = Vec::with_capacity(2 + 2 * requests.len());
        keys.extend([Key::Meta(partition), Key::Journal(partition)].map(|key| self.keys.name(&key)));
        let event = |id: &EventId| self.keys.name(&Key::Event(partition, id.clone()));
        let mut args = Args::default();
        args.push(epoch).push(at.as_ms()).push(limits.journal_len_max).push(limits.journal_age_ms_max.max(0));
        args.push(ttl_ms(limits.event_memory_ms));
        for request in requests {
            let own_key = event(&request.id);
            let (original_key, reverses, given) = match &request.reverses {
                None => (own_key.clone(), "", String::new()),
                Some((id, given)) => {
                    let given = given.as_ref().map(encode_original).unwrap_or_default();
                    (event(id), id.as_str(), given)
                }
            };
            keys.extend([own_key, original_key]);
            args.push(&request.id).push(request.signal.code()).push(&request.product);
            args.push(request.user.as_ref().map_or("", |user| user.as_str()));
            args.push(request.count).push(request.occurred_at.as_ms()).push(reverses).push(given);
        }
        let limit = if requests.len() < BULK_EVENTS { STEP_LIMIT } else { BULK_LIMIT };
        let reply = self.link.eval(&script::RECORD, &keys, &args, limit).await?;
        let reply = list(reply)?;
        match reply.split_first() {
            Some((kind, [])) if text(kind)? == "EPOCH" => Err(lost_epoch(epoch)),
            Some((kind, outcomes)) if text(kind)? == "OK" && outcomes.len() == requests.len() => {
                outcomes.iter().map(decode_outcome).collect()
            }
            _ => Err(unexpected(&Value::Array(reply))),
        }
    }

    pub(super) async fn do_undo(&self, epoch: u64, partition: u16, undos: &[Undo], at: Timestamp) -> Result<()> {
        let keys = [Key::Meta(partition), Key::Journal(partition)].map(|key| self.keys.name(&key));
        let mut args = Args::default();
        args.push(epoch).push(at.as_ms());
        for undo in undos {
            args.push(undo.refused.seq).push(undo.signal.code()).push(&undo.product);
            args.push(undo.count).push(undo.occurred_at.as_ms());
        }
        let reply = self.link.eval(&script::UNDO, &keys, &args, BULK_LIMIT).await?;
        match text(&reply)? {
            "OK" => Ok(()),
            "EPOCH" => Err(lost_epoch(epoch)),
            _ => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn do_remember_events(&self, events: &[(EventId, Original)]) -> Result<()> {
        for (id, original) in events {
            let partition = partition_of(id.as_str(), self.limits.partitions);
            let mut cmd = redis::cmd("SET");
            cmd.arg(self.keys.name(&Key::Event(partition, id.clone()))).arg(encode_original(original));
            cmd.arg("PX").arg(ttl_ms(self.limits.event_memory_ms));
            self.link.call(&cmd, STEP_LIMIT).await?;
        }
        Ok(())
    }

    pub(super) async fn do_forget_events(&self, events: &[(u16, EventId)]) -> Result<()> {
        for (partition, id) in events {
            let mut cmd = redis::cmd("UNLINK");
            cmd.arg(self.keys.name(&Key::Event(*partition, id.clone())));
            self.link.call(&cmd, STEP_LIMIT).await?;
        }
        Ok(())
    }
}

/// `<signal> <count> <occurred_at> <reversed> <product>`, as `record.lua` remembers an event.
fn encode_original(original: &Original) -> String {
    let Original { signal, product, count, occurred_at, reversed } = original;
    format!("{} {count} {} {} {product}", signal.code(), occurred_at.as_ms(), u8::from(*reversed))
}

fn decode_outcome(reply: &Value) -> Result<RecordOutcome> {
    match text(reply)? {
        "DUPLICATE" => Ok(RecordOutcome::Duplicate),
        "UNKNOWN" => Ok(RecordOutcome::UnknownOriginal),
        "MISMATCH" => Ok(RecordOutcome::Mismatch),
        "BUSY" => Ok(RecordOutcome::Busy),
        position => position.parse().map(RecordOutcome::Recorded).map_err(|_| unexpected(reply)),
    }
}
