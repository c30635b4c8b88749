//! The engine in Redis. Every step is one Lua script or one command, so it is atomic, and one round trip.
//!
//! Keys, for a prefix `acc`. The part in braces is the hash tag: it puts all keys of a script into one slot, so that
//! they stay together in a Redis Cluster. Every key that a script touches is passed to it.
//!
//! ```text
//! acc:{owner:}            hash    ledger, the id of the ledger that all these keys belong to;
//!                                 heartbeat, <epoch> <beats> <node>: how far the node that leads had counted in its ledger
//!
//! acc:{p:<n>}:3:meta           hash    epoch (absent while closed); committed, the position that the ledger has come to;
//!                                      since, a time before which no entry was recorded that the ledger does not have;
//!                                      ledger, as above, and history, its number of this beginning of the epoch;
//!                                      undone, the seq of the last refused entry that was undone;
//!                                      uncertain, the seq of the last like that is not new
//! acc:{p:<n>}:3:journal        stream  the ids are positions, <epoch>-<seq>; `open` leaves it empty, with <epoch>-0 as the
//!                                      last id, since XADD <epoch>-* begins a new stream at 0, where no cursor can stand
//! acc:{p:<n>}:3:likes:<user>   zset    product -> liked_at in ms, or, where it was unliked of late, minus the time of the like that
//!                                      was taken back; the member "" -> the epoch in which they were loaded, so that another epoch's likes count as not loaded; half an
//!                                      epoch more where they were loaded too early; expires when idle. Of a user who was forgotten:
//!                                      "" -> minus a seq, epoch -> its epoch, which the journal had come to
//! acc:{p:<n>}:3:staged:<call>:<user> zset  likes of a user who has very many, on their way; renamed, or expires
//! acc:{p:<n>}:3:ops:<user>     list    the last 16 answers, oldest first: <key> TAB <liked> <changed> <at> <position> <product>
//! acc:{p:<n>}:3:rate:<user>    string  when the next like of a steady stream would be due, in µs
//! acc:{p:<n>}:3:event:<id>     string  <signal> <count> <occurred_at> <reversed> <product>, for dedupe and reversal; expires
//!
//! acc:{b:<n>}:daily:meta        hash    generation, period, epoch, revision, rules_version, built_at, reason: of what is shown;
//!                                       seq, the states published; generations, those begun so far; building, the one being built;
//!                                       computed_at and next_computed_at, the cursors at which these two were computed
//! acc:{b:<n>}:daily:scores      zset    product -> points in millionths, of what is shown
//! acc:{b:<n>}:daily:cursor      hash    partition -> position, of what is shown
//! acc:{b:<n>}:daily:beyond      hash    product -> points from 2^52 on, up or down, exact at any size: see `lua/exact.lua`
//! acc:{b:<n>}:daily:next:scores zset    } the same of what is being built; to show it they are renamed, so that no key of an
//! acc:{b:<n>}:daily:next:cursor hash    } abandoned generation is ever left behind
//! acc:{b:<n>}:daily:next:beyond hash    }
//! acc:{b:<n>}:daily:top         string  the last published state, as JSON
//! acc:{b:<n>}:daily:feed        stream  the states of the last minute; the ids are <seq>-0
//!
//! acc:{lease:<name>}      string  who does a background task; expires
//! acc:{doctor:}:<name>    any     what a check-up has tried; removed at once
//! ```
//!
//! What a tag begins with says what kind of key it is, so partitions, boards and the rest never meet, whatever a board is called;
//! [`keys`] is the only place that makes and reads names. The number `n` is chosen for the slot that the tag lies in: partition `i`
//! of `P` lies in the middle of the `i`-th of `P` equal shares of a cluster's slots, and a board where a hash of its id says.
//! Earlier versions named keys otherwise ([`former`]): what they have left is moved by an epoch.
//!
//! Channels, which all databases of a Redis share: `acc:<database>:<ledger>:feed` (a state as JSON),
//! `acc:<database>:<ledger>:progress` (a line each: `ledger|likes|refused <partition> <position>`) and
//! `acc:<database>:<ledger>:definitions`. The first line of every message is the ledger's id; a message with another one is
//! dropped.
//!
//! The scripts are in `lua/`, named in [`script`]; the shared connection is [`link`], what each step sends and reads is in
//! `likes`, `events`, `journal`, `boards` and `feed`. Scores and times are whole numbers that a double holds exactly.
//!
//! Invariants: `open` loads a witness of the epoch, and a step runs only over a connection over which that was seen
//! ([`script::Witness`]): a server without it was restarted, promoted or never opened, and may lack what the ledger has, so
//! the step answers [`EngineError::Lost`]. So does NOSCRIPT, and recovery finds out which of the two it is: `join` loads what this
//! version alone lacks. Every call has a limit; no reply, however odd, panics.

mod boards;
mod events;
mod exact;
mod examine;
mod feed;
mod former;
mod held;
mod journal;
pub mod keys;
mod likes;
mod link;
mod reply;
mod script;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use redis::{Client, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value};

use self::feed::Speaker;
use self::journal::RedisJournalReader;
use self::keys::{Key, Keys};
use self::link::{Args, Link, STEP_LIMIT};
use self::reply::flag;
pub use self::settings::SettingsError;
use super::{
    Apply, BoardSurvey, Build, Engine, EngineError, EngineLimits, EngineMemory, Entries, Generation, JournalReader,
    LeaderHeartbeat, LikeOutcome, LikeRequest, Notice, Original, Page, Progress, RecordOutcome, RecordRequest, Result,
    Survey, UserLikes,
};
use crate::domain::{
    BoardId, Cursors, EventId, FeedState, PageStart, Place, Points, Position, ProductId, Timestamp, Undo, UserId,
    partition_of,
};

/// What every key begins with where nothing else is configured.
pub const DEFAULT_PREFIX: &str = "acc";

/// A handle; clones share one connection.
#[derive(Clone)]
pub struct RedisEngine {
    link: Link,
    keys: Keys,
    limits: EngineLimits,
    /// The limits as `like.lua` takes them.
    like_settings: String,
    speaker: Arc<Mutex<Speaker>>,
}

/// Why there is no engine; says which address, without its password, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "the Redis URL can not be read ({0}); it has the form redis://[user:password@]host:port[/db], or rediss:// for TLS"
    )]
    Url(RedisError),
    #[error("Redis at {address} does not answer ({error}); start it there, or set another address")]
    Away { address: String, error: RedisError },
    #[error("Redis at {address} refuses ({error}); see the user, the password and the database's number in its URL")]
    Refuses { address: String, error: RedisError },
    #[error(
        "Redis at {address} is not trusted ({error}); set the authority that signed its certificate, and the name that stands in it"
    )]
    NotTrusted { address: String, error: RedisError },
    #[error("Redis's CA file {file} can not be used: {why}", file = .file.display())]
    Authority { file: PathBuf, why: String },
    #[error("the journal needs at least one partition")]
    NoPartitions,
}

impl RedisEngine {
    /// As [`Self::connect_trusting`], with the authorities that browsers trust.
    pub async fn connect(url: &str, prefix: &str, limits: EngineLimits) -> Result<Self, ConnectError> {
        Self::connect_trusting(url, None, prefix, limits).await
    }

    /// Connects, and fails where Redis does not answer. Afterwards the engine connects again by itself. `rediss://` is TLS,
    /// with a server whose certificate an authority of the file has signed.
    pub async fn connect_trusting(
        url: &str,
        ca_file: Option<&Path>,
        prefix: &str,
        limits: EngineLimits,
    ) -> Result<Self, ConnectError> {
        if limits.partitions == 0 {
            return Err(ConnectError::NoPartitions);
        }
        let settings = url.into_connection_info().map_err(ConnectError::Url)?;
        let address = settings.addr().to_string();
        let database = settings.redis_settings().db();
        let tcp = settings.tcp_settings().clone().set_nodelay(true);
        let settings = settings.set_tcp_settings(tcp);
        let client = match ca_file {
            Some(file) => trusting(settings, file)?,
            None => Client::open(settings).map_err(ConnectError::Url)?,
        };
        let link = Link::connect(client).await.map_err(|error| {
            // As rustls begins what it says of certificates; the library passes it on as text alone.
            match error.kind() {
                _ if error.to_string().contains("invalid peer certificate") => {
                    ConnectError::NotTrusted { address, error }
                }
                // It answers, and will soon say something else.
                ErrorKind::Server(ServerErrorKind::BusyLoading) => ConnectError::Away { address, error },
                ErrorKind::AuthenticationFailed | ErrorKind::Server(_) | ErrorKind::Extension => {
                    ConnectError::Refuses { address, error }
                }
                _ => ConnectError::Away { address, error },
            }
        })?;
        let keys = Keys::new(prefix, database, limits.partitions);
        let speaker = Arc::new(Mutex::new(Speaker::of(&keys, "")));
        Ok(Self { link, keys, limits, like_settings: likes::like_settings(&limits), speaker })
    }

    fn partitions(&self) -> std::ops::Range<u16> {
        0..self.limits.partitions
    }

    fn lease_key(&self, name: &str) -> String {
        self.keys.name(&Key::Lease(name.to_owned()))
    }

    fn partition_of_user(&self, user: &UserId) -> u16 {
        partition_of(user.as_str(), self.limits.partitions)
    }
}

/// Trusts what the file's authorities have signed, and nothing else.
fn trusting(settings: impl IntoConnectionInfo, file: &Path) -> Result<Client, ConnectError> {
    let wrong = |why: String| ConnectError::Authority { file: file.to_owned(), why };
    let authorities = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    if !authorities.windows(BEGIN.len()).any(|bytes| bytes == BEGIN) {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
    Client::build_with_tls(settings, certificates).map_err(|error| wrong(error.to_string()))
}

/// How a certificate begins in PEM.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A step's script found another epoch than the caller's, or none.
fn lost_epoch(epoch: u64) -> EngineError {
    EngineError::Lost(format!("it is not in epoch {epoch}"))
}

/// A time to live as Redis takes it: at least 1 ms, and at most ten years, which never overflows.
fn ttl_ms(ms: i64) -> i64 {
    ms.clamp(1, 10 * 365 * 24 * 3_600_000)
}

#[async_trait]
impl Engine for RedisEngine {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn limits(&self) -> &EngineLimits {
        &self.limits
    }

    fn key_pattern(&self) -> Option<String> {
        Some(self.keys.pattern())
    }

    fn instance(&self) -> String {
        match &*self.link.server() {
            "" => String::new(),
            server => self.keys.instance(server),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.link.call(&redis::cmd("PING"), STEP_LIMIT).await.map(drop)
    }

    async fn memory(&self) -> Result<Option<EngineMemory>> {
        self.do_memory().await
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(self.read_clock().await?.ok())
    }

    fn speak_for(&self, ledger: &str) {
        self.do_speak_for(ledger);
    }

    async fn survey(&self) -> Result<Survey> {
        self.do_survey().await
    }

    async fn close(&self) -> Result<()> {
        self.do_close().await
    }

    async fn open(&self, epoch: u64, history: u64, ledger: &str) -> Result<()> {
        self.do_open(epoch, history, ledger).await
    }

    async fn join(&self, epoch: u64, history: u64) -> Result<()> {
        self.do_join(epoch, history).await
    }

    async fn former(&self) -> Result<Option<Box<dyn Engine>>> {
        Ok(self.find_former().await?.map(|former| Box::new(former) as Box<dyn Engine>))
    }

    async fn take_over_former(&self, keeps_remembered: bool) -> Result<()> {
        self.do_take_over_former(keeps_remembered).await
    }

    async fn like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome> {
        self.do_like(epoch, request).await
    }

    async fn load_likes(&self, epoch: u64, users: &[UserLikes], _at: Timestamp) -> Result<()> {
        self.do_load_likes(epoch, users).await
    }

    async fn viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        _at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>> {
        self.do_viewer_likes(epoch, user, products).await
    }

    async fn loaded_users(&self, cursor: u64) -> Result<(Vec<UserId>, u64)> {
        self.do_loaded_users(cursor).await
    }

    async fn held_likes(&self, epoch: u64, users: &[UserId], _at: Timestamp) -> Result<Vec<Option<Vec<ProductId>>>> {
        self.do_held_likes(epoch, users).await
    }

    async fn charge_likes(&self, user: &UserId, likes: u32, at: Timestamp) -> Result<()> {
        self.do_charge_likes(user, likes, at).await
    }

    async fn forget_likes(&self, users: &[UserId], _at: Timestamp) -> Result<()> {
        self.do_forget_likes(users).await
    }

    async fn record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>> {
        self.do_record(epoch, partition, requests, at).await
    }

    async fn undo(&self, epoch: u64, partition: u16, undos: &[Undo], at: Timestamp) -> Result<()> {
        self.do_undo(epoch, partition, undos, at).await
    }

    async fn remember_events(&self, events: &[(EventId, Original)], _at: Timestamp) -> Result<()> {
        self.do_remember_events(events).await
    }

    async fn forget_remembered(&self) -> Result<()> {
        self.do_forget_remembered().await
    }

    async fn forget_events(&self, events: &[(u16, EventId)]) -> Result<()> {
        self.do_forget_events(events).await
    }

    async fn journal_reader(&self) -> Result<Box<dyn JournalReader>> {
        Ok(Box::new(RedisJournalReader::connect(&self.link, &self.keys).await?))
    }

    async fn trim(&self, partition: u16, upto: Position) -> Result<()> {
        self.do_trim(partition, upto).await
    }

    async fn announce(&self, progress: &[Progress]) -> Result<()> {
        self.do_announce(progress).await
    }

    async fn announce_definitions(&self) -> Result<()> {
        self.do_announce_definitions().await
    }

    async fn board(&self, board: &BoardId) -> Result<BoardSurvey> {
        self.do_board(board).await
    }

    async fn begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64> {
        self.do_begin_generation(board, cursors).await
    }

    async fn load_scores(&self, board: &BoardId, generation: u64, scores: &[(ProductId, Points)]) -> Result<bool> {
        self.do_load_scores(board, generation, scores).await
    }

    async fn set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool> {
        self.do_set_cursors(board, generation, cursors).await
    }

    async fn apply(&self, batch: &Apply) -> Result<bool> {
        self.do_apply(batch).await
    }

    async fn switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool> {
        self.do_switch(board, generation, build).await
    }

    async fn drop_board(&self, board: &BoardId) -> Result<()> {
        self.do_drop_board(board).await
    }

    async fn page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>> {
        self.do_page(board, start, count).await
    }

    async fn entries(&self, board: &BoardId, products: &[ProductId]) -> Result<Option<Entries>> {
        self.do_entries(board, products).await
    }

    async fn whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>> {
        self.do_whole(board).await
    }

    async fn publish(&self, state: &FeedState) -> Result<bool> {
        self.do_publish(state).await
    }

    async fn published(&self, board: &BoardId) -> Result<Option<FeedState>> {
        self.do_published(board).await
    }

    async fn published_at(&self, board: &BoardId, seq: u64) -> Result<Option<FeedState>> {
        self.do_published_at(board, seq).await
    }

    async fn listen(&self) -> Result<BoxStream<'static, Notice>> {
        self.do_listen().await
    }

    async fn lease(&self, name: &str, owner: &str, ttl: Duration, _at: Timestamp) -> Result<bool> {
        let mut args = Args::default();
        args.push(owner).push(ttl_ms(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
        flag(&self.link.eval(&script::LEASE, &[self.lease_key(name)], &args, STEP_LIMIT).await?)
    }

    async fn lease_owner(&self, name: &str, _at: Timestamp) -> Result<Option<String>> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.lease_key(name));
        match self.link.call(&cmd, STEP_LIMIT).await? {
            Value::Nil => Ok(None),
            owner => Ok(Some(reply::text(&owner)?.to_owned())),
        }
    }

    async fn release(&self, name: &str, owner: &str) -> Result<()> {
        let mut args = Args::default();
        args.push(owner);
        self.link.eval(&script::RELEASE, &[self.lease_key(name)], &args, STEP_LIMIT).await.map(drop)
    }

    async fn tell_heartbeat(&self, told: &LeaderHeartbeat) -> Result<()> {
        let LeaderHeartbeat { epoch, node, beats } = told;
        let mut cmd = redis::cmd("HSET");
        cmd.arg(self.keys.name(&Key::Owner)).arg("heartbeat").arg(format!("{epoch} {beats} {node}"));
        self.link.call(&cmd, STEP_LIMIT).await.map(drop)
    }

    async fn leader_heartbeat(&self) -> Result<Option<LeaderHeartbeat>> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.keys.name(&Key::Owner)).arg("heartbeat");
        let told = self.link.call(&cmd, STEP_LIMIT).await?;
        let Value::BulkString(_) = told else { return Ok(None) };
        let mut words = reply::text(&told)?.splitn(3, ' ');
        let mut read = || {
            let (epoch, beats) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(LeaderHeartbeat { epoch, beats, node: words.next()?.to_owned() })
        };
        Ok(read())
    }
}
