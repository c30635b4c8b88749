//! The engine: hot state, and the journal that every change enters.
//!
//! A like takes this way:
//!
//! ```text
//! like() ── one atomic step: checks, journal entry, the user's set, the saved answer
//!              │
//!              ├── journal_reader() ──> sync ──> ledger, then announce(Progress::Ledger)
//!              └── journal_reader() ──> project ──> apply() ──> publish() ──> listen() on every node
//! ```
//!
//! [`Engine`] is the contract; [`memory`] is its executable specification, and [`redis`] must answer the same. Each
//! method is one atomic step: a caller that is cut off between two methods leaves nothing that the next start does not
//! mend by itself.
//!
//! Invariants: a state and the cursor up to which it has folded change together; an entry is written before the state
//! that it explains; a step that is given an epoch answers [`EngineError::Lost`] and writes nothing where the partition
//! has another, or none. The engine never looks at a clock: callers pass the time, which makes both implementations
//! comparable step by step.

mod backoff;
mod events;
mod limits;
pub mod memory;
pub mod redis;
mod survey;

pub use backoff::Backoff;
pub use events::{Original, RecordOutcome, RecordRequest};
pub use limits::EngineLimits;
pub use survey::{LeaderHeartbeat, PartitionSurvey, Survey};

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::domain::{
    Basis, BoardId, Cursors, Entry, EventId, FeedState, IdempotencyKey, PageStart, Place, Points, Position, ProductId,
    Rows, SnapshotReason, Timestamp, Undo, UserId,
};

/// Why a step gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine's state was, or may have been, lost, or belongs to another epoch than the caller's. Nothing was
    /// written. The node runs recovery.
    #[error("the engine's state is not the one this node works with: {0}")]
    Lost(String),
    /// The engine is known to be away, or has refused the step before it began. Nothing was written.
    #[error("the engine does not answer: {0}")]
    Unavailable(String),
    /// The engine has no memory left for the step. Nothing was written. Steps that free memory, or lead to it, never answer
    /// this.
    #[error("the engine's memory is full: {0}")]
    Full(String),
    /// The step was asked for, and its answer did not come, or can't be read. Whether it took place is unknown.
    #[error("the engine's answer is lost: {0}")]
    Unanswered(String),
}

pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What a like should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// The opposite of what it is.
    Toggled,
    /// `true` for liked; nothing happens where it already is.
    Exactly(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikeRequest {
    pub user: UserId,
    pub product: ProductId,
    /// Made by the node where the client gave none.
    pub key: IdempotencyKey,
    /// Whether the key can't have been sent before: the node made it, and sends it for the first time.
    pub is_key_new: bool,
    pub desired: Desired,
    pub at: Timestamp,
}

/// What a like did, as it is saved under its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LikeAnswer {
    /// Whether the user likes the product now.
    pub liked: bool,
    /// False where it already was so.
    pub changed: bool,
    /// When the present state began: for a like or an unlike, now; for no change, the time of the like that stands, or
    /// of the request where none does.
    pub at: Timestamp,
    /// The entry that the ledger must have for the answer to be durable: the like's own, or, where nothing changed, the
    /// last one of the user's partition.
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LikeOutcome {
    Done(LikeAnswer),
    /// The key was seen before; this is the answer given then.
    Replayed(LikeAnswer),
    /// The key was seen before, for another product. Nothing was written.
    Conflict,
    /// The user has spent the burst; another like is allowed after this long. Nothing was written.
    RateLimited {
        retry_after_ms: u64,
    },
    /// The user's likes must be loaded from the ledger first. Nothing was written, not even the rate.
    NotLoaded,
    /// The journal is too long, or too old. Nothing was written.
    Busy,
    /// The user likes [`EngineLimits::likes_max`] products. Nothing was written.
    TooMany,
}

/// A user's likes as the ledger has them, and the answers of recent keys so that a retry is harmless across a lost engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLikes {
    pub user: UserId,
    /// What the ledger had committed of the user's partition, or more, before this was read.
    pub as_of: Position,
    pub likes: Vec<(ProductId, Timestamp)>,
    /// What the user has unliked of late, oldest first, each with when the like had occurred that was taken back. A product may
    /// be here more than once, and among the likes.
    pub unliked: Vec<(ProductId, Timestamp)>,
    /// Oldest first, each with the product that the key was used for.
    pub answers: Vec<(IdempotencyKey, ProductId, LikeAnswer)>,
}

/// Memory of the engine's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineMemory {
    pub used_bytes: u64,
    /// What it may use; `None` for no limit of its own.
    pub max_bytes: Option<u64>,
    /// Whether it refuses likes and events for want of memory.
    pub is_full: bool,
}

/// What a generation of a board was built for. Where this differs from what is wanted now, the board is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub epoch: u64,
    /// Key of the period.
    pub period: String,
    /// The board's revision in the ledger: grows with every reason to compute it anew.
    pub revision: i64,
    /// The rules that were taken into account.
    pub basis: Basis,
    pub reason: SnapshotReason,
}

/// What a board shows now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub number: u64,
    pub build: Build,
}

/// Every generation of a board that holds a cursor, and with it the trim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoardSurvey {
    pub shown: Option<Generation>,
    /// The cursors that the shown generation was computed at; it has folded the journal from there on. Empty where nothing
    /// is shown, or an older version has built it.
    pub computed_at: Cursors,
    /// By generation: the shown one and the one being built.
    pub cursors: Vec<(u64, Cursors)>,
}

/// A partition's cursor, from where a batch of its entries begins to the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub partition: u16,
    pub from: Position,
    pub to: Position,
}

/// Batches of some partitions' entries, folded into one delta for each product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    pub board: BoardId,
    pub generation: u64,
    /// No partition twice.
    pub moves: Vec<Move>,
    /// No product twice.
    pub deltas: Vec<(ProductId, Points)>,
}

/// A page of a board, with what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub generation: Generation,
    /// What the generation had folded at that moment.
    pub cursors: Cursors,
    /// States published so far.
    pub seq: u64,
    pub rows: Rows,
}

/// Places of products, with what they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    pub generation: Generation,
    /// As [`Page::cursors`].
    pub cursors: Cursors,
    /// Rank and points, in the order asked; `None` for a product that is not listed.
    pub entries: Vec<Option<(u64, Points)>>,
}

/// How far something has come; told to every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The ledger has committed a partition up to `position`. Whatever it refused after `from` was told before this; what is
    /// before `from` somebody else has committed, and told, or will tell.
    Ledger { partition: u16, from: Position, position: Position },
    /// The count of likes has folded a partition up to here.
    Likes { partition: u16, position: Position },
    /// The ledger has refused this entry. Told with, and before, the progress that passes it.
    Refused { partition: u16, position: Position },
}

/// What [`Engine::listen`] hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Feed(FeedState),
    Progress(Progress),
    /// Boards or rules in the ledger have changed.
    Definitions,
    /// So many messages named another ledger, and were dropped.
    Foreign {
        messages: u64,
    },
    /// Something may have been missed (a connection was lost): read what you need.
    Missed,
}

/// Hot state. See the module's head; `memory` says exactly what each step does.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// `memory` or `redis`.
    fn kind(&self) -> &'static str;

    fn limits(&self) -> &EngineLimits;

    /// What the names of all its keys have in common, as a pattern of Redis; `None` for an engine without keys.
    fn key_pattern(&self) -> Option<String>;

    // ------------------------------------------------------------ life

    /// Names the ledger, by its id, whose messages this handle sends and hears from now on, as [`Self::open`] does: several
    /// ledgers may work on one server. Listeners go on with the one that they began with.
    fn speak_for(&self, ledger: &str);

    /// Names the running store that this handle leads to: another process, database or prefix has another name. Empty where
    /// that can't be told.
    fn instance(&self) -> String;

    /// Answers when the engine does.
    async fn ping(&self) -> Result<()>;

    /// Memory of the engine's server; `None` for one without a server, or that does not say.
    async fn memory(&self) -> Result<Option<EngineMemory>>;

    /// The time that the engine's server has; `None` for one without a server, or that does not say. It only alerts.
    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    /// What is there. Never fails with [`EngineError::Lost`].
    async fn survey(&self) -> Result<Survey>;

    /// Takes the epoch out of every partition: from then on no step writes to a journal.
    async fn close(&self) -> Result<()>;

    /// Loads the scripts, empties every partition's journal, begins it at (epoch, 0) and takes likes and events again.
    /// Answers, rates and events remembered stay; likes are kept by epoch, so users load anew. The epoch is larger than
    /// any opened before; in Redis, where another node may have opened a later one meanwhile, `Lost` if it is not. The
    /// ledger, by its id, is remembered, and taken to have come as far as (epoch, 0), until it is announced otherwise. An
    /// engine that was opened for another ledger is left as it is: `Lost`.
    /// `history` is the ledger's number of this beginning of the epoch: two copies of a ledger have the same id and may begin
    /// the same epoch, but not with the same history.
    async fn open(&self, epoch: u64, history: u64, ledger: &str) -> Result<()>;

    /// Works from now on in an epoch that was opened before, perhaps by a node of another version, whose scripts may differ:
    /// loads those of this version. `Lost` where the engine has not seen that epoch begin.
    async fn join(&self, epoch: u64, history: u64) -> Result<()>;

    /// What an earlier version has left where this one does not look, as an engine that can be surveyed, closed, drained and
    /// trimmed; `None` where there is nothing.
    async fn former(&self) -> Result<Option<Box<dyn Engine>>> {
        Ok(None)
    }

    /// Takes over answers, rates and events that are remembered there, if they are to be kept, and removes the rest.
    async fn take_over_former(&self, keeps_remembered: bool) -> Result<()> {
        let _ = keeps_remembered;
        Ok(())
    }

    // ------------------------------------------------------------ likes

    /// In this order: epoch, else `Lost`; key seen, the saved answer, or `Conflict` if it is another product's; rate limit;
    /// user loaded; journal below its bounds; for a new like, fewer likes than `likes_max`; then, if it changes anything, the entry; then the set, the rate and the saved answer.
    ///
    /// The entry is an event named [`EventId::of_like`]: +1 that occurred at `at`, or -1 that occurred when the like it
    /// takes back did. A like of a product whose last like was taken back, and had occurred less than `like_again_ms` before
    /// `at`, occurs when that did, and not at `at`. Of so many products as there is room for beside the likes, within `likes_max`,
    /// the engine knows that; the oldest go first. A like that is done starts the idle time of the user's likes and answers again; the last
    /// [`EngineLimits::ANSWERS_MAX`] answers are kept.
    ///
    /// The event [is new](crate::domain::Event::is_new) where the key is, the ledger was announced to have passed the last like of
    /// the partition that is not, and the user was not loaded too early, as [`Self::forget_likes`] says.
    ///
    /// The rate limit is GCRA (ITU-T I.371): `like_burst` at once, then `like_rate` a second; a request that changes
    /// nothing counts as well. In whole microseconds: interval = 1,000,000 / `like_rate`, rounded down; the time stored
    /// (`at`, where there is none) is taken for no less than `at`, and, where it is more than burst * interval after it,
    /// which only a clock that was set back explains, for (burst - 1) * interval after it; the like is refused where that
    /// is more than (burst - 1) * interval ahead, by what it is more, in milliseconds rounded up; else the time plus one
    /// interval is stored.
    async fn like(&self, epoch: u64, request: &LikeRequest) -> Result<LikeOutcome>;

    /// Puts users' likes where none are loaded; a user who is loaded already is left alone, but for keys unknown so far.
    /// These count as older than the keys known, and fill only what is left of [`EngineLimits::ANSWERS_MAX`], the newest
    /// first. Where any is added, the idle time of the answers starts again.
    async fn load_likes(&self, epoch: u64, users: &[UserLikes], at: Timestamp) -> Result<()>;

    /// When the user liked each product; `None` for a user not loaded. Touches the user: idle time starts again.
    async fn viewer_likes(
        &self,
        epoch: u64,
        user: &UserId,
        products: &[ProductId],
        at: Timestamp,
    ) -> Result<Option<Vec<Option<Timestamp>>>>;

    /// A page of the users whose likes are held, in no order: `cursor` is 0 at first and then what the last page gave, which is 0
    /// at the end. Who is held all the while comes at least once. For verification, as the next.
    async fn loaded_users(&self, cursor: u64) -> Result<(Vec<UserId>, u64)>;

    /// Users' likes as they are held, in the order asked, without touching the users; `None` for one not loaded.
    async fn held_likes(&self, epoch: u64, users: &[UserId], at: Timestamp) -> Result<Vec<Option<Vec<ProductId>>>>;

    /// Counts likes against a user's rate after the fact: the time stored, or `at`, moves on by an interval for each, to no more
    /// than a whole burst after `at`.
    async fn charge_likes(&self, user: &UserId, likes: u32, at: Timestamp) -> Result<()>;

    /// Forgets users' likes and answers, because the ledger knows better; they load again at the next touch. Who is loaded as of
    /// less than the journal holds by now may lack some of it: such a user's likes are not new.
    async fn forget_likes(&self, users: &[UserId], at: Timestamp) -> Result<()>;

    // ------------------------------------------------------------ events

    /// Records events in one partition, in order, all in one step; `recorded_at` is `at`. An event is remembered under
    /// its id for `event_memory_ms`; a reversal also marks its original as reversed and remembers it anew, whether it was
    /// remembered or given with the request. What is remembered goes before what is given.
    ///
    /// In this order for each: id seen, `Duplicate`; original neither remembered nor given, `UnknownOriginal`; another
    /// product or signal, `Mismatch`; reversed before, `Duplicate`; journal at its bounds, `Busy`. What came before an
    /// answer other than `Recorded` in the call is recorded, and what comes after it is judged by itself. The event of a
    /// reversal has the original's count with the other sign, its `occurred_at`, and `reverses`.
    async fn record(
        &self,
        epoch: u64,
        partition: u16,
        requests: &[RecordRequest],
        at: Timestamp,
    ) -> Result<Vec<RecordOutcome>>;

    /// Remembers events as the ledger has them, in place of whatever is remembered under their ids, so that reversals take
    /// back what the ledger counted. Each goes to the partition of its own id.
    async fn remember_events(&self, events: &[(EventId, Original)], at: Timestamp) -> Result<()>;

    /// Forgets all answers and events that are remembered, because the ledger has gone back: what was counted since must be
    /// taken when it is sent again. Looks through everything that there is, in many steps.
    async fn forget_remembered(&self) -> Result<()>;

    /// Forgets events that the ledger does not have, each in a partition: the same ids sent again are recorded anew.
    async fn forget_events(&self, events: &[(u16, EventId)]) -> Result<()>;

    /// Journals what takes refused entries of a partition back: an entry for each, in one step, in the order of `refused`,
    /// which is that of the call. What was undone in this epoch before, or stands before the last entry undone, is passed
    /// over; so each is undone once, however often and by whomever it is asked. Takes place even where the journal is at
    /// its bounds.
    async fn undo(&self, epoch: u64, partition: u16, undos: &[Undo], at: Timestamp) -> Result<()>;

    // ------------------------------------------------------------ journal

    /// A reader with a connection of its own, since reading waits.
    async fn journal_reader(&self) -> Result<Box<dyn JournalReader>>;

    /// Drops the entries of a partition up to and including `upto`. The position last written is kept.
    async fn trim(&self, partition: u16, upto: Position) -> Result<()>;

    /// Tells every node. What [`Progress::Ledger`] says is kept in the same step, where it is of the partition's epoch and
    /// further than what was known, since nodes' announcements overtake each other. By it the age in [`EngineLimits`] is
    /// measured, and a ledger is known to have gone back.
    async fn announce(&self, progress: &[Progress]) -> Result<()>;

    /// Tells every node that boards or rules have changed.
    async fn announce_definitions(&self) -> Result<()>;

    // ------------------------------------------------------------ boards

    /// What generations a board has. The empty survey for a board never built.
    async fn board(&self, board: &BoardId) -> Result<BoardSurvey>;

    /// Starts a new generation at `cursors`, which hold the trim from now on; one begun before and never shown is
    /// dropped. Returns its number: one more than any before.
    async fn begin_generation(&self, board: &BoardId, cursors: &Cursors) -> Result<u64>;

    /// Puts scores into a generation that is being built. Called in chunks. False where it is no longer being built.
    async fn load_scores(&self, board: &BoardId, generation: u64, scores: &[(ProductId, Points)]) -> Result<bool>;

    /// Sets the cursors of a generation that is being built, and keeps them as those it was computed at, once all scores are
    /// in. False as above.
    async fn set_cursors(&self, board: &BoardId, generation: u64, cursors: &Cursors) -> Result<bool>;

    /// Adds the deltas and moves the cursors, if the generation exists and every partition's cursor is still where its
    /// move begins; else does nothing and says false.
    /// A product whose points come to zero leaves the board; points are exact at any size.
    async fn apply(&self, batch: &Apply) -> Result<bool>;

    /// Shows a generation that is being built and drops the one shown before. False where it is no longer being built.
    async fn switch(&self, board: &BoardId, generation: u64, build: &Build) -> Result<bool>;

    /// Forgets what a board shows, builds and has published. Its counts of generations and of published states stay, so
    /// that a board made anew under the same id goes on from there. Nothing happens where there is no such board.
    async fn drop_board(&self, board: &BoardId) -> Result<()>;

    /// Reads at most `count` places, as [`crate::domain::Standings::rows`] does; `None` for a board that shows no
    /// generation.
    async fn page(&self, board: &BoardId, start: &PageStart, count: u64) -> Result<Option<Page>>;

    /// Rank (from 1) and points of each product that is listed; `None` as above.
    async fn entries(&self, board: &BoardId, products: &[ProductId]) -> Result<Option<Entries>>;

    /// The whole board with the cursors it stands at, in one step; `None` as above. Best first. For verification: a
    /// board of 100,000 products holds up everything else for a tenth of a second.
    async fn whole(&self, board: &BoardId) -> Result<Option<(Generation, Cursors, Vec<Place>)>>;

    // ------------------------------------------------------------ feed

    /// Stores a published state, adds it to the short history and tells every node, if its `seq` is one more than the
    /// last one's and its generation is the one shown; else does nothing and says false.
    async fn publish(&self, state: &FeedState) -> Result<bool>;

    /// The state last published.
    async fn published(&self, board: &BoardId) -> Result<Option<FeedState>>;

    /// A state of the short history; `None` for one that is not kept any more, or was never published.
    async fn published_at(&self, board: &BoardId, seq: u64) -> Result<Option<FeedState>>;

    /// Everything told from now on. [`Notice::Missed`] comes first, and after every interruption. The stream does not
    /// end while the engine lives.
    async fn listen(&self) -> Result<BoxStream<'static, Notice>>;

    // ------------------------------------------------------------ leases

    /// Takes or renews a background task for `ttl`, which is the same for all who ask for it; false while another owner has
    /// it. Of a holder that is gone it is free `ttl` after the next one who asks, whatever a clock did meanwhile.
    async fn lease(&self, name: &str, owner: &str, ttl: Duration, at: Timestamp) -> Result<bool>;

    /// Who has a background task, if anybody.
    async fn lease_owner(&self, name: &str, at: Timestamp) -> Result<Option<String>>;

    /// Gives a task back, if it is this owner's.
    async fn release(&self, name: &str, owner: &str) -> Result<()>;

    /// Keeps how often the node that leads has counted in its ledger. An engine that one process has tells it nobody.
    async fn tell_heartbeat(&self, told: &LeaderHeartbeat) -> Result<()> {
        let _ = told;
        Ok(())
    }

    /// What was told last.
    async fn leader_heartbeat(&self) -> Result<Option<LeaderHeartbeat>> {
        Ok(None)
    }
}

/// Reads the journal.
#[async_trait]
pub trait JournalReader: Send {
    /// Up to `count` entries of each partition after its position, in order; waits up to `wait` for the first one.
    /// Markers of epochs are left out, and so are partitions without entries. An empty answer means that nothing came in
    /// time.
    async fn read(&mut self, after: &[(u16, Position)], count: usize, wait: Duration)
    -> Result<Vec<(u16, Vec<Entry>)>>;
}
