//! The journal: its life (survey, close, open), trimming, and the reader with a connection of its own.
//!
//! Survey, close, trim and reading use no script: recovery needs them where the scripts are gone.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Value};
use tokio::time::timeout;

use super::keys::{Key, Keys};
use super::link::{Args, BULK_LIMIT, Link, Pinned, STEP_LIMIT, connect_with, exists, refusal};
use super::reply::{flag, list, parse, text, tuple, unexpected};
use super::script::Witness;
use super::{RedisEngine, script};
use crate::domain::{Entry, EntryBody, Event, Position, Undo};
use crate::engine::{EngineError, JournalReader, PartitionSurvey, Result, Survey};

impl RedisEngine {
    pub(super) async fn do_survey(&self) -> Result<Survey> {
        let mut owner = redis::cmd("HGET");
        owner.arg(self.keys.name(&Key::Owner)).arg("ledger");
        let owner = word(&self.link.call(&owner, STEP_LIMIT).await?)?;
        let surveyed = try_join_all(self.partitions().map(|partition| self.survey_partition(partition))).await?;
        let (partitions, ledgers): (Vec<PartitionSurvey>, Vec<_>) = surveyed.into_iter().unzip();
        let ledgers = ledgers.into_iter().chain([owner]).flatten().collect();
        let has_witness = self.has_witness(&partitions).await?;
        #[cfg(feature = "planted-bugs")]
        let has_witness = has_witness || crate::domain::planted::Bug::ReloadOnNoscript.is_planted();
        Ok(Survey { has_witness, ledgers, partitions })
    }

    /// Whether the server has seen the epoch begin that all partitions are in.
    async fn has_witness(&self, partitions: &[PartitionSurvey]) -> Result<bool> {
        let begun = |partition: &PartitionSurvey| Some((partition.epoch?, partition.history?));
        let Some((epoch, history)) = partitions.first().and_then(begun) else { return Ok(false) };
        if partitions.iter().any(|partition| begun(partition) != Some((epoch, history))) {
            return Ok(false);
        }
        let witness = Witness::of(epoch, history);
        let [present] = tuple(self.link.call(&exists([&*witness.sha]), STEP_LIMIT).await?)?;
        flag(&present)
    }

    /// What a partition holds, and for which ledger it was opened.
    async fn survey_partition(&self, partition: u16) -> Result<(PartitionSurvey, Option<String>)> {
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.name(&Key::Meta(partition)));
        meta.arg("epoch").arg("ledger").arg("history").arg("committed");
        let meta = list(self.link.call(&meta, STEP_LIMIT).await?)?;
        let [epoch, ledger, history, committed] = meta.as_slice() else {
            return Err(unexpected(&Value::Array(meta)));
        };
        // What can't be read is none of ours.
        let (epoch, history, committed) = (parse(epoch).ok(), parse(history).ok(), parse(committed).ok());
        let ledger = word(ledger)?;
        let mut stream = redis::cmd("XINFO");
        stream.arg("STREAM").arg(self.keys.name(&Key::Journal(partition)));
        let (last, len) = match self.link.try_call(&stream, STEP_LIMIT).await? {
            Ok(info) => last_and_len(info).map(|(last, len)| (Some(last), len))?,
            Err(error) if error.detail().is_some_and(|text| text.contains("no such key")) => (None, 0),
            Err(error) => return Err(refusal(error)),
        };
        Ok((PartitionSurvey { epoch, history, last, len, committed }, ledger))
    }

    pub(super) async fn do_close(&self) -> Result<()> {
        for partition in self.partitions() {
            let mut cmd = redis::cmd("HDEL");
            cmd.arg(self.keys.name(&Key::Meta(partition))).arg("epoch");
            self.link.call(&cmd, BULK_LIMIT).await?;
        }
        Ok(())
    }

    pub(super) async fn do_open(&self, epoch: u64, history: u64, ledger: &str) -> Result<()> {
        self.do_speak_for(ledger);
        let foreign = || EngineError::Lost("it was opened for another ledger".to_owned());
        let witness = Witness::of(epoch, history);
        let mut pinned = self.link.pin()?;
        self.load(&mut pinned, &witness.source, &witness.sha).await?;
        self.load_steps(&mut pinned).await?;
        self.link.expect(witness.sha, &pinned);
        let mut claim = Args::default();
        claim.push(ledger);
        match text(&self.link.eval(&script::CLAIM, &[self.keys.name(&Key::Owner)], &claim, BULK_LIMIT).await?)? {
            "OK" => {}
            _ => return Err(foreign()),
        }
        for partition in self.partitions() {
            let keys = [Key::Meta(partition), Key::Journal(partition)].map(|key| self.keys.name(&key));
            let mut args = Args::default();
            args.push(epoch).push(ledger).push(history);
            let reply = self.link.eval(&script::OPEN, &keys, &args, BULK_LIMIT).await?;
            match text(&reply)? {
                "OK" => {}
                "FOREIGN" => return Err(foreign()),
                _ => return Err(EngineError::Lost(format!("an epoch later than {epoch} was opened meanwhile"))),
            }
        }
        Ok(())
    }

    /// The witness is asked before and after, over one connection: what is loaded in between is loaded into the very process
    /// that has seen the epoch begin. Loaded elsewhere, steps would run there, on whatever that server holds.
    pub(super) async fn do_join(&self, epoch: u64, history: u64) -> Result<()> {
        #[cfg(feature = "planted-bugs")]
        if crate::domain::planted::Bug::ReloadOnNoscript.is_planted() {
            return Ok(());
        }
        let witness = Witness::of(epoch, history);
        let mut pinned = self.link.pin()?;
        if !self.is_witnessed(&mut pinned, &witness).await? {
            self.load_steps(&mut pinned).await?;
            if !self.is_witnessed(&mut pinned, &witness).await? {
                return Err(EngineError::Lost("its scripts were removed meanwhile".to_owned()));
            }
        }
        self.link.expect(witness.sha, &pinned);
        Ok(())
    }

    /// Whether the steps of this version are there, beside the witness; `Lost` where that is not.
    async fn is_witnessed(&self, pinned: &mut Pinned, witness: &Witness) -> Result<bool> {
        let asked = exists([&*witness.sha].into_iter().chain(script::ALL.iter().map(|script| script.sha())));
        let present = list(self.link.call_over(pinned, &asked, STEP_LIMIT).await?)?;
        let present = present.iter().map(flag).collect::<Result<Vec<_>>>()?;
        match present.split_first() {
            Some((true, steps)) if steps.len() == script::ALL.len() => Ok(steps.iter().all(|is_there| *is_there)),
            _ => Err(EngineError::Lost(format!("it has not seen epoch {epoch} begin", epoch = witness.epoch))),
        }
    }

    async fn load_steps(&self, pinned: &mut Pinned) -> Result<()> {
        for script in script::ALL {
            self.load(pinned, script.source, script.sha()).await?;
        }
        Ok(())
    }

    async fn load(&self, pinned: &mut Pinned, source: &str, sha: &str) -> Result<()> {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(source);
        let reply = self.link.call_over(pinned, &cmd, BULK_LIMIT).await?;
        if text(&reply)? == sha { Ok(()) } else { Err(unexpected(&reply)) }
    }

    pub(super) async fn do_trim(&self, partition: u16, upto: Position) -> Result<()> {
        let first_kept = Position::new(upto.epoch, upto.seq.saturating_add(1));
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(self.keys.name(&Key::Journal(partition))).arg("MINID").arg("=").arg(first_kept.to_string());
        self.link.call(&cmd, BULK_LIMIT).await.map(drop)
    }
}

fn word(reply: &Value) -> Result<Option<String>> {
    match reply {
        Value::Nil => Ok(None),
        word => Ok(Some(text(word)?.to_owned())),
    }
}

fn last_and_len(info: Value) -> Result<(Position, u64)> {
    let fields = list(info)?;
    let (pairs, _) = fields.as_chunks();
    let field = |wanted: &str| {
        let found = pairs.iter().find(|[name, _]: &&[Value; 2]| text(name) == Ok(wanted));
        found.map(|[_, value]| value).ok_or_else(|| unexpected(&Value::Nil))
    };
    Ok((parse(field("last-generated-id")?)?, parse(field("length")?)?))
}

/// Reads with XREAD BLOCK, which would hold up every other step on a shared connection.
pub(super) struct RedisJournalReader {
    client: Client,
    keys: Keys,
    /// Taken out while a read is under way: a read that was given up, or failed, leaves a reply behind that nobody
    /// waits for, so the next one makes a new connection.
    connection: Option<MultiplexedConnection>,
}

/// What a waiting read may take longer than its wait, before the connection counts as dead.
const READ_GRACE: Duration = Duration::from_secs(1);

impl RedisJournalReader {
    pub(super) async fn connect(link: &Link, keys: &Keys) -> Result<Self> {
        let client = link.client().clone();
        let connection = Some(connect_reader(&client).await?);
        Ok(Self { client, keys: keys.clone(), connection })
    }
}

/// A reader has one call under way at a time.
async fn connect_reader(client: &Client) -> Result<MultiplexedConnection> {
    connect_with(client, 1).await.map_err(refusal)
}

#[async_trait]
impl JournalReader for RedisJournalReader {
    async fn read(
        &mut self,
        after: &[(u16, Position)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<(u16, Vec<Entry>)>> {
        if after.is_empty() || count == 0 {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect_reader(&self.client).await?,
        };
        let journals: HashMap<String, u16> =
            after.iter().map(|(partition, _)| (self.keys.name(&Key::Journal(*partition)), *partition)).collect();
        let cmd = xread(&self.keys, after, count, wait);
        let reply = match timeout(wait + READ_GRACE, cmd.query_async::<Value>(&mut connection)).await {
            Err(_) => return Err(EngineError::Unanswered("Redis did not answer a reader in time".to_owned())),
            Ok(Err(error)) => return Err(refusal(error)),
            Ok(Ok(reply)) => reply,
        };
        self.connection = Some(connection);
        if reply == Value::Nil {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for stream in list(reply)? {
            let [key, entries] = tuple(stream)?;
            let partition = *journals.get(text(&key)?).ok_or_else(|| unexpected(&key))?;
            let entries = list(entries)?.into_iter().map(decode_entry).collect::<Result<Vec<_>>>()?;
            // Sequence 0 is the marker with which an epoch begins.
            let entries: Vec<_> = entries.into_iter().filter(|entry| entry.position.seq > 0).collect();
            if !entries.is_empty() {
                found.push((partition, entries));
            }
        }
        Ok(found)
    }
}

fn xread(keys: &Keys, after: &[(u16, Position)], count: usize, wait: Duration) -> Cmd {
    let mut cmd = redis::cmd("XREAD");
    cmd.arg("COUNT").arg(count);
    // BLOCK 0 would wait for ever.
    let wait_ms = wait.as_millis() as u64;
    if wait_ms > 0 {
        cmd.arg("BLOCK").arg(wait_ms);
    }
    cmd.arg("STREAMS");
    after.iter().for_each(|(partition, _)| {
        cmd.arg(keys.name(&Key::Journal(*partition)));
    });
    after.iter().for_each(|(_, position)| {
        cmd.arg(position.to_string());
    });
    cmd
}

/// An entry whose fields are not an event's is malformed, whoever wrote it; only its position must be readable.
fn decode_entry(entry: Value) -> Result<Entry> {
    let [id, fields] = tuple(entry)?;
    let position = parse(&id)?;
    let fields = match fields {
        // Deleted between two reads.
        Value::Nil => Vec::new(),
        fields => list(fields)?,
    };
    let body = match decode_fields(&fields) {
        Ok(body) => body,
        Err(reason) => EntryBody::Malformed { raw: raw(&fields), reason },
    };
    Ok(Entry { position, body })
}

fn decode_fields(fields: &[Value]) -> Result<EntryBody, String> {
    let (pairs, rest) = fields.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a field has no value".to_owned());
    }
    let field = |name: &str| {
        let named = pairs.iter().find(|[field, _]| text(field) == Ok(name));
        let [_, value] = named.ok_or_else(|| format!("there is no {name}"))?;
        text(value).map_err(|_| format!("{name} is not valid UTF-8"))
    };
    match field(Undo::FIELD) {
        Ok(_) => Undo::from_fields(field).map(EntryBody::Undo),
        Err(_) => Event::from_fields(field).map(EntryBody::Event),
    }
}

/// The fields word for word, as a JSON list: texts, and bytes where they are not UTF-8.
fn raw(fields: &[Value]) -> String {
    let words = fields.iter().map(|value| match value {
        Value::BulkString(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => serde_json::Value::from_iter(bytes.iter().copied()),
        },
        other => serde_json::json!({ "reply": format!("{other:?}") }),
    });
    if fields.is_empty() { String::new() } else { serde_json::Value::from_iter(words).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Signal;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn entry(fields: &[(&str, &[u8])]) -> Entry {
        let fields = fields.iter().flat_map(|(name, value)| [bulk(name.as_bytes()), bulk(value)]).collect();
        decode_entry(Value::Array(vec![bulk(b"7-3"), Value::Array(fields)])).unwrap()
    }

    const EVENT: [(&str, &[u8]); 8] = [
        ("id", b"e"),
        ("signal", b"4"),
        ("product", b"p"),
        ("user", b""),
        ("count", b"2"),
        ("occurred_at", b"10"),
        ("recorded_at", b"11"),
        ("reverses", b""),
    ];

    fn reason(name: &str, value: &[u8]) -> String {
        let fields = EVENT.map(|(field, present)| (field, if field == name { value } else { present }));
        match entry(&fields).body {
            EntryBody::Malformed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_reads_back() {
        let EntryBody::Event(event) = entry(&EVENT).body else { panic!() };
        assert_eq!((event.signal, event.count, event.user, event.reverses), (Signal::Order, 2, None, None));
        assert_eq!(entry(&EVENT).position, Position::new(7, 3));
    }

    #[test]
    fn what_is_no_event_is_kept_and_says_why() {
        assert_eq!(reason("signal", b"5"), "there is no signal 5");
        assert_eq!(reason("signal", b"99999999999"), "there is no signal 99999999999");
        assert_eq!(reason("count", b"1.5"), "count is \"1.5\", not a whole number");
        assert_eq!(reason("product", b"\xff\xfe"), "product is not valid UTF-8");
        assert_eq!(reason("id", b""), "the event id is empty");
        assert_eq!(reason("user", &[b'u'; 129]), "the user id has 129 bytes; at most 128 are allowed");
        let EntryBody::Malformed { raw, reason } = entry(&[("x", b"\xff")]).body else { panic!() };
        assert_eq!((raw.as_str(), reason.as_str()), (r#"["x",[255]]"#, "there is no id"));
        let EntryBody::Malformed { raw, .. } = entry(&[]).body else { panic!() };
        assert_eq!(raw, "");
    }

    #[test]
    fn replies_of_another_shape_are_errors() {
        for reply in [Value::Nil, Value::Int(3), Value::Array(vec![bulk(b"7-3")]), Value::Array(vec![])] {
            assert!(decode_entry(reply).is_err());
        }
        let bad_id = Value::Array(vec![bulk(b"x"), Value::Array(vec![])]);
        assert!(decode_entry(bad_id).is_err());
        assert!(last_and_len(Value::Array(vec![bulk(b"length")])).is_err());
    }
}
