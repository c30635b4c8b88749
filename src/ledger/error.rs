//! What went wrong, by what the caller can do about it. The only place that reads SQLSTATEs and SQLite's messages.
//!
//! Invariant: only what the database says of the rows themselves is `Rejected`. A database that is away, full or
//! overloaded is `Unavailable`, so nobody drops an entry because of it.

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::wire::PLAN_OUTDATED;

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Away, overloaded, locked or full (SQLSTATE classes 08, 40, 53, 57, 58, and what SQLite calls busy, locked, full
    /// or an I/O error): the same call may work later.
    #[error("the ledger does not answer: {0}")]
    Unavailable(String),
    /// The connection broke while a transaction was being committed: whether it was is unknown.
    #[error("the ledger's answer is lost: {0}")]
    Unanswered(String),
    /// The database refuses these very rows (SQLSTATE classes 22, 23, 44, 45 and P0, and the like): the same call will never work.
    #[error("the ledger refuses the rows: {0}")]
    Rejected(String),
    /// The ledger holds as many as it may; `limit` is the bound's name, and `value` what it is.
    #[error("{message}")]
    TooMany { limit: &'static str, value: usize, message: &'static str },
    /// Anything else: a fault in Acclaim, or in the database's set-up.
    #[error("the ledger failed: {0}")]
    Internal(String),
}

impl LedgerError {
    /// Of a question that had no answer within `waited`.
    pub fn late(waited: Duration) -> Self {
        Self::Unavailable(format!("no answer within {} ms", waited.as_millis()))
    }
}

pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// What ends a statement or a transaction early: the database, or a reason of our own.
pub(super) enum Failure {
    Sql(DieselError),
    Own(LedgerError),
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self::Sql(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Own(error)
    }
}

impl Failure {
    /// Why a transaction was not ended well, of which everything but the end had gone well.
    pub(super) fn explain_commit(self, sqlstate: Option<&str>) -> LedgerError {
        // A pooler says that the server's answer is lost with a state of class 08; 40003 is statement_completion_unknown.
        let is_answered = self.is_answered() && !sqlstate.is_some_and(|it| it.starts_with("08") || it == "40003");
        match self.explain(sqlstate) {
            LedgerError::Unavailable(reason) if !is_answered => LedgerError::Unanswered(reason),
            explained => explained,
        }
    }

    /// Whether the database has said so itself.
    fn is_answered(&self) -> bool {
        use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
        let error = match self {
            Self::Own(_) => return true,
            Self::Sql(DieselError::RollbackErrorOnCommit { commit_error, .. }) => commit_error,
            Self::Sql(error) => error,
        };
        matches!(error, DieselError::DatabaseError(kind, _) if !matches!(kind, UnableToSendCommand | ClosedConnection))
    }

    /// `sqlstate` is the last one that a Postgres connection received; SQLite has none.
    pub(super) fn explain(self, sqlstate: Option<&str>) -> LedgerError {
        match self {
            Self::Own(error) => error,
            Self::Sql(DieselError::RollbackErrorOnCommit { commit_error, .. }) => {
                Self::Sql(*commit_error).explain(sqlstate)
            }
            Self::Sql(DieselError::DatabaseError(kind, info)) => {
                use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
                let message = info.message().to_owned();
                match (kind, sqlstate) {
                    // No word from the server: the connection broke.
                    (UnableToSendCommand | ClosedConnection, _) => LedgerError::Unavailable(message),
                    (_, Some(sqlstate)) => of_sqlstate(sqlstate, message),
                    (kind, None) => of_sqlite(kind, message),
                }
            }
            // A transaction that could not be ended properly: the connection is dropped, the next one is sound.
            Self::Sql(error @ (DieselError::BrokenTransactionManager | DieselError::RollbackTransaction)) => {
                LedgerError::Unavailable(error.to_string())
            }
            Self::Sql(DieselError::SerializationError(error)) => LedgerError::Rejected(error.to_string()),
            Self::Sql(error) => LedgerError::Internal(error.to_string()),
        }
    }
}

/// The classes of SQLSTATEs that Postgres and the standard use (PostgreSQL 17, appendix A). All others are people's own.
const CLASSES: [&str; 42] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58",
    "72", "F0", "HV", "XX",
];

/// What a SQLSTATE means for the caller (PostgreSQL 17, appendix A).
pub(super) fn of_sqlstate(sqlstate: &str, message: String) -> LedgerError {
    match sqlstate.get(..2) {
        Some("08" | "40" | "53" | "57" | "58") => LedgerError::Unavailable(message),
        // The session was ended between two statements of a transaction: this process stood still.
        _ if sqlstate == "25P03" => LedgerError::Unavailable(message),
        // A server that only reads is a standby: after a failover the same address leads to the primary again.
        _ if sqlstate == "25006" => LedgerError::Unavailable(message),
        Some("22" | "23") => LedgerError::Rejected(message),
        // What triggers raise (PL/pgSQL's errors, and those that people define), a view's check, a policy, and a row that is too
        // large for an index say of the rows that they can't be stored.
        Some("P0" | "44" | "45") => LedgerError::Rejected(message),
        Some(class) if !CLASSES.contains(&class) => LedgerError::Rejected(message),
        _ if sqlstate == "54000" || sqlstate == "42501" && message.contains("row-level security") => {
            LedgerError::Rejected(message)
        }
        // A table was altered under a statement that was prepared before; a new session prepares it anew.
        _ if sqlstate == PLAN_OUTDATED && message.starts_with("cached plan") => LedgerError::Unavailable(message),
        _ if sqlstate == "42501" => {
            LedgerError::Internal(format!("{message}; the owner of the tables has to GRANT it, see the README"))
        }
        _ => LedgerError::Internal(format!("{message} (SQLSTATE {sqlstate})")),
    }
}

/// What SQLite says when it is busy, locked, full or can't write.
const SQLITE_AWAY: [&str; 9] = [
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "database schema is locked",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "locking protocol",
    "out of memory",
];

/// What SQLite says of statements and files that are not as it needs them.
const SQLITE_FAILS: [&str; 16] = [
    "no such ",
    "near \"",
    "table ",
    "ambiguous column name",
    "SQL logic error",
    "database ",
    "malformed database schema",
    "file is not a database",
    "interrupted",
    "unsafe use of ",
    "not authorized",
    "access permission denied",
    "too many ",
    "cannot ",
    "unable to ",
    "unknown error",
];

/// Whether SQLite itself says so, and no trigger that puts its text together.
pub(super) fn is_of_sqlite(message: &str) -> bool {
    SQLITE_AWAY.iter().chain(&SQLITE_FAILS).any(|text| message.starts_with(text))
}

/// SQLite's messages are part of its source and never translated (`sqlite3ErrStr`), so they can stand for its codes,
/// which diesel does not pass on.
fn of_sqlite(kind: DatabaseErrorKind, message: String) -> LedgerError {
    const REFUSED: [&str; 5] =
        ["datatype mismatch", "string or blob too big", "integer overflow", "malformed JSON", "cannot store"];
    use DatabaseErrorKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
    let begins = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
    match kind {
        UniqueViolation | ForeignKeyViolation | NotNullViolation | CheckViolation => LedgerError::Rejected(message),
        _ if begins(&REFUSED) || message.contains("constraint failed") => LedgerError::Rejected(message),
        _ if begins(&SQLITE_AWAY) => LedgerError::Unavailable(message),
        _ => LedgerError::Internal(message),
    }
}
