//! Has a running server compare what it serves with what its ledger says it should, and mend it.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::progress::Spinner;
use super::{Client, ClientError};
use crate::domain::BoardId;

/// How long the server may be at it: it reads every event that there is, and a hundred million take minutes.
const TIMEOUT: Duration = Duration::from_secs(3_600);
/// A server that is at it answers only after 10 s; one that answers sooner is away, or builds a board.
const AT_IT: Duration = Duration::from_secs(5);
/// How soon such a server is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

const REPAIR: &str =
    "mutation Repair { repair(input: { note: \"acclaim verify --repair\" }) { likes activity users } }";

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

/// No report, and why.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("given up after {} s: {last}", .waited.as_secs())]
    Away { waited: Duration, last: ClientError },
    #[error(transparent)]
    Client(ClientError),
}

/// Checks one board, or likes, activity and every board. `patience` is how long a server that can't is asked again.
pub async fn verify(client: &Client, board: Option<&BoardId>, patience: Duration) -> Result<Report, VerifyError> {
    #[derive(Deserialize)]
    struct Answer {
        admin: Admin,
    }
    #[derive(Deserialize)]
    struct Admin {
        verify: Report,
    }
    let variables = serde_json::json!({ "board": board.map(BoardId::as_str) });
    let answer: Answer = at_length(client, VERIFY, &variables, patience).await?;
    Ok(answer.admin.verify)
}

/// What was repaired.
#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Repaired {
    likes: u64,
    activity: u64,
    users: u64,
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { likes, activity, users } = self;
        write!(f, "repaired: {likes} likes, {activity} counts; {users} users load anew, and boards are computed anew")
    }
}

/// Has likes, activity and every board rebuilt from the events; `patience` as above.
pub async fn repair(client: &Client, patience: Duration) -> Result<Repaired, VerifyError> {
    #[derive(Deserialize)]
    struct Answer {
        repair: Repaired,
    }
    let answer: Answer = at_length(client, REPAIR, &serde_json::json!({}), patience).await?;
    Ok(answer.repair)
}

/// Asks until the server is done, and says what it waits for.
async fn at_length<T: DeserializeOwned>(
    client: &Client,
    operation: &str,
    variables: &serde_json::Value,
    patience: Duration,
) -> Result<T, VerifyError> {
    let spinner = Spinner::new();
    let began = Instant::now();
    let mut away_since = began;
    loop {
        let asked = Instant::now();
        let error = match client.call(operation, variables).await {
            Err(error @ ClientError::Refused { .. }) if error.is_passing() => error,
            answered => {
                spinner.finish();
                return answered.map_err(VerifyError::Client);
            }
        };
        if asked.elapsed() >= AT_IT {
            away_since = Instant::now();
        }
        if away_since.elapsed() >= patience || began.elapsed() > TIMEOUT {
            spinner.finish();
            return Err(VerifyError::Away { waited: began.elapsed(), last: error });
        }
        spinner.show(format!("waiting: {error}"));
        tokio::time::sleep(ASK_AGAIN).await;
    }
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
