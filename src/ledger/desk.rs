//! What admins ask of the ledger, and what it answers.
//!
//! Invariant: a change and its entry in the audit log are one transaction, and such transactions follow each other. What
//! changes nothing leaves no entry.

use std::sync::Arc;

use super::db::to_the_end;
use super::error::Result;
use super::{BoardDefinition, KeysetPage, Ledger, audit, boards, dead_letters, rules};
use crate::domain::{
    Board, BoardId, Factor, Hours, Period, Position, ProductId, ProductRule, Signal, Timestamp, UserId, Weight,
    WeightRule, Window,
};

/// Who asks for a change, when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub name: String,
    pub at: Timestamp,
    /// Empty where none is given.
    pub note: String,
}

/// A change of weights, as an admin asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewWeightRule {
    pub board: Option<BoardId>,
    pub weights: Vec<(Signal, Weight)>,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub hours: Option<Hours>,
    pub author: Author,
    /// Refused as a conflict unless this is the newest version of the rules for that board (0 for none), with those that
    /// take a rule back.
    pub expected_version: Option<i32>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RuleOutcome {
    Added(WeightRule),
    /// Somebody else has changed the weights since; this is the present version.
    Conflict {
        present: i32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum CancelOutcome {
    /// `version` is that of the cancellation.
    Cancelled { rule: WeightRule, version: i32 },
    /// There is no such rule.
    Unknown,
    /// It was taken back before.
    Already,
}

/// What an admin decides about a product.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProductRule {
    pub product: ProductId,
    /// `None` for every board.
    pub board: Option<BoardId>,
    pub excluded: bool,
    pub boost: Option<Factor>,
    pub until: Option<Timestamp>,
    pub author: Author,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SaveOutcome {
    Saved(BoardDefinition),
    /// There is a board of that id with a window of another kind.
    Taken(Window),
    /// There are this many boards already.
    Full {
        most: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReopenOutcome {
    /// Where the chain of closed periods begins anew; `None` where none was taken back.
    Reopened { from: Option<Timestamp> },
    /// There is no such board.
    Unknown,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows by one.
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    /// The mutation.
    pub action: String,
    /// What it was done to, for example `board daily`.
    pub target: String,
    /// JSON of what was changed, as it was; `None` for what was not there.
    pub before: Option<String>,
    /// JSON of what was changed, as it is; `None` for what is gone.
    pub after: Option<String>,
    pub note: Option<String>,
}

/// An entry of the journal that is no event, or a notice that entries are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Partition and position.
    pub id: String,
    pub partition: u16,
    pub position: Position,
    /// The event as JSON; or the entry's fields, as a JSON list; or nothing, for entries that are missing.
    pub entry: String,
    pub error: String,
    pub at: Timestamp,
}

/// What became of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// How many are events now.
    pub replayed: u32,
    /// Those that stay, by id, and why; the first 100.
    pub refused: Vec<(String, String)>,
    /// Whose likes have changed.
    pub users: Vec<UserId>,
}

impl Ledger {
    // ------------------------------------------------------------ weights and products

    /// Adds a rule and raises the revision of the boards it reaches. A hidden or unknown board is `Rejected`.
    pub async fn add_rule(&self, rule: &NewWeightRule) -> Result<RuleOutcome> {
        let (db, rule) = (Arc::clone(&self.db), rule.clone());
        to_the_end(async move { rules::add_rule(&db, &rule).await }).await
    }

    /// Takes a rule back, and raises the revision of the boards it reached.
    pub async fn cancel_rule(&self, version: i32, author: &Author) -> Result<CancelOutcome> {
        let (db, author) = (Arc::clone(&self.db), author.clone());
        to_the_end(async move { rules::cancel_rule(&db, version, &author).await }).await
    }

    /// Rules, newest first, below a version, with those taken back; with a board, its own and the shared ones.
    pub async fn rules(
        &self,
        board: Option<&BoardId>,
        below: Option<i32>,
        first: u32,
    ) -> Result<KeysetPage<WeightRule>> {
        rules::rules(&self.db, board, below, first).await
    }

    /// Adds a decision about a product and raises the revision of the boards it reaches; the one that stands where it says
    /// the same. A hidden or unknown board is `Rejected`.
    pub async fn set_product_rule(&self, rule: &NewProductRule) -> Result<ProductRule> {
        let (db, rule) = (Arc::clone(&self.db), rule.clone());
        to_the_end(async move { rules::set_product_rule(&db, &rule).await }).await
    }

    // ------------------------------------------------------------ boards

    /// Makes a board, or changes one of the same kind of window. A hidden id is `Rejected`.
    pub async fn save_board(&self, board: &Board, author: &Author) -> Result<SaveOutcome> {
        let (db, board, author) = (Arc::clone(&self.db), board.clone(), author.clone());
        to_the_end(async move { boards::save_board(&db, &board, &author).await }).await
    }

    /// Deletes a board with its closed periods, takes the rules back that were made for it alone, and says what it was; `None` where there is none. `daily` and hidden
    /// boards are `Rejected`.
    pub async fn delete_board(&self, board: &BoardId, author: &Author) -> Result<Option<BoardDefinition>> {
        let (db, board, author) = (Arc::clone(&self.db), board.clone(), author.clone());
        to_the_end(async move { boards::delete_board(&db, &board, &author).await }).await
    }

    /// Has a board computed anew: the open period, and with `from` that period and all after it.
    ///
    /// A board that carries over begins where its points are known to the last place: where the period before `from` was
    /// cut, at the end of the latest one before it that was not, or at the very first.
    pub async fn reopen_board(&self, board: &BoardId, from: Option<&Period>, author: &Author) -> Result<ReopenOutcome> {
        let (db, board, from, author) = (Arc::clone(&self.db), board.clone(), from.cloned(), author.clone());
        to_the_end(async move { boards::reopen_board(&db, &board, from.as_ref(), &author).await }).await
    }

    // ------------------------------------------------------------ what was done, and what could not be

    /// Newest first, below an id.
    pub async fn audit_log(&self, below: Option<i64>, first: u32) -> Result<KeysetPage<AuditEntry>> {
        audit::audit_log(&self.db, below, first).await
    }

    /// Newest position first, behind an id; nothing behind what is no id.
    pub async fn dead_letters(&self, after: Option<&str>, first: u32) -> Result<KeysetPage<StoredDeadLetter>> {
        dead_letters::dead_letters(&self.db, after, first).await
    }

    /// One of them, by its id.
    pub async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        dead_letters::dead_letter(&self.db, id).await
    }

    /// Takes dead letters, all of them where none is named, for the events that they are. What the ledger takes leaves the
    /// dead letters and raises the revision of every board, in one transaction for at most 1,000 at a time.
    pub async fn replay(&self, ids: Option<&[String]>, author: &Author) -> Result<Replayed> {
        let (db, ids, author) = (Arc::clone(&self.db), ids.map(<[_]>::to_vec), author.clone());
        to_the_end(async move { dead_letters::replay(&db, ids.as_deref(), &author).await }).await
    }
}
