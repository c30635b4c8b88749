//! Has a running server compare what it serves with what its ledger says it should.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::{Client, ClientError};
use crate::domain::BoardId;

/// The server reads every event that there is; a hundred million take minutes.
const TIMEOUT: Duration = Duration::from_secs(3_600);

const VERIFY: &str = "query Verify($board: ID) {
  admin { verify(board: $board) { checked differing rows { target board productId userId expected actual } } }
}";

/// What the server found; shown one difference a line.
#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Report {
    pub checked: u64,
    pub differing: u64,
    /// The first 100.
    rows: Vec<Row>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Row {
    target: String,
    board: Option<String>,
    product_id: String,
    user_id: Option<String>,
    expected: f64,
    actual: f64,
}

/// Checks one board, or likes, activity and every board.
pub async fn verify(client: &Client, board: Option<&BoardId>) -> Result<Report, ClientError> {
    #[derive(Deserialize)]
    struct Answer {
        admin: Admin,
    }
    #[derive(Deserialize)]
    struct Admin {
        verify: Report,
    }
    let variables = serde_json::json!({ "board": board.map(BoardId::as_str) });
    let answer: Answer = client.with_timeout(TIMEOUT).call(VERIFY, &variables).await?;
    Ok(answer.admin.verify)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            write!(f, "{}", row.target)?;
            for (name, value) in
                [("board", &row.board), ("product", &Some(row.product_id.clone())), ("user", &row.user_id)]
            {
                if let Some(value) = value {
                    write!(f, "  {name} {value}")?;
                }
            }
            writeln!(f, "  should be {}, is {}", row.expected, row.actual)?;
        }
        let listed = self.rows.len() as u64;
        if listed < self.differing {
            writeln!(f, "… and {} more", self.differing - listed)?;
        }
        write!(f, "{} checked, {} differ", self.checked, self.differing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lists_what_differs() {
        let report: Report = serde_json::from_value(serde_json::json!({
            "checked": 12, "differing": 3,
            "rows": [
                {"target": "BOARD", "board": "daily", "productId": "p", "userId": null, "expected": 0.6, "actual": 1.2},
                {"target": "LIKES", "board": null, "productId": "p", "userId": "u", "expected": 1, "actual": 0},
            ],
        }))
        .unwrap();
        assert_eq!(
            report.to_string(),
            "BOARD  board daily  product p  should be 0.6, is 1.2\n\
             LIKES  product p  user u  should be 1, is 0\n\
             … and 1 more\n\
             12 checked, 3 differ"
        );
    }
}
