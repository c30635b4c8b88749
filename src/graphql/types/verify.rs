//! What a check of everything against the ledger found, and what a repair has mended.

use async_graphql::{Enum, ID, InputObject, SimpleObject};

use super::scalars::Long;
use crate::graphql::errors::UserError;
use crate::ledger::Repaired;
use crate::pipeline;

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "pipeline::VerifyTarget")]
pub enum VerifyTarget {
    Likes,
    Activity,
    /// A user's likes as the server holds them for whoever has been there lately, against the ledger.
    LoadedLikes,
    Board,
}

#[derive(SimpleObject)]
pub struct VerifyRow {
    target: VerifyTarget,
    board: Option<ID>,
    product_id: ID,
    user_id: Option<ID>,
    expected: f64,
    actual: f64,
}

/// The first 100 differing rows are listed.
#[derive(SimpleObject)]
pub struct VerifyReport {
    checked: Long,
    differing: Long,
    rows: Vec<VerifyRow>,
}

impl From<pipeline::VerifyReport> for VerifyReport {
    fn from(report: pipeline::VerifyReport) -> Self {
        let row = |row: pipeline::VerifyRow| VerifyRow {
            target: row.target.into(),
            board: row.board.map(|board| ID(board.to_string())),
            product_id: ID(row.product.to_string()),
            user_id: row.user.map(|user| ID(user.to_string())),
            expected: row.expected,
            actual: row.actual,
        };
        Self {
            checked: report.checked.into(),
            differing: report.differing.into(),
            rows: report.rows.into_iter().map(row).collect(),
        }
    }
}

#[derive(InputObject)]
pub struct RepairInput {
    /// For the audit log.
    pub note: Option<String>,
}

/// What was otherwise than the events say, and is so no longer.
#[derive(SimpleObject)]
pub struct RepairPayload {
    likes: Long,
    /// Counts of a product's signal in a quarter of an hour.
    activity: Long,
    /// Users whose likes are loaded anew from the ledger.
    users: Long,
    user_errors: Vec<UserError>,
}

impl RepairPayload {
    pub fn refused(error: UserError) -> Self {
        Self { likes: Long(0), activity: Long(0), users: Long(0), user_errors: vec![error] }
    }
}

impl From<Repaired> for RepairPayload {
    fn from(repaired: Repaired) -> Self {
        Self {
            likes: repaired.likes.into(),
            activity: repaired.activity.into(),
            users: (repaired.users.len() as u64).into(),
            user_errors: Vec::new(),
        }
    }
}
