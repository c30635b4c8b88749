//! Has a running server compute boards anew from its ledger, and follows it until what they show is that.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::json;

use super::progress::Spinner;
use super::{Client, ClientError, UserError};
use crate::domain::{BoardId, HalfLife, Period, Timestamp, Window, time_zone};

/// How often the server is asked how far it is: a short rebuild is seen as such, and a long one is not disturbed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const BOARDS: &str = "query Boards { boards { id window halfLife timeZone } }";
const REBUILD: &str = "mutation Rebuild($board: ID!, $from: String) {
  rebuildBoard(input: { id: $board, fromPeriod: $from, note: \"acclaim rebuild\" }) { fromPeriod userErrors { message path } }
}";
const STATE: &str = "query Rebuilding($board: ID!) {
  board(id: $board) { isCurrent periods(first: 2) { nodes { key status } } }
}";

/// A board as the server describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Board {
    id: String,
    window: String,
    half_life: Option<String>,
    time_zone: String,
}

/// Computes one board anew, or all; with `from`, a period's key or a day, the closed periods from there on as well. Shows
/// how far it is, and prints a line for each board. `patience` is how long a server that does not answer is waited for.
pub async fn rebuild(
    client: &Client,
    board: Option<&BoardId>,
    from: Option<&str>,
    patience: Duration,
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        boards: Vec<Board>,
    }
    let Answer { mut boards } = client.call(BOARDS, &json!({})).await?;
    if let Some(wanted) = board {
        let known: Vec<_> = boards.iter().map(|board| board.id.clone()).collect();
        boards.retain(|board| board.id == wanted.as_str());
        if boards.is_empty() {
            bail!("there is no board {wanted}; the server has {}", known.join(", "));
        }
    }
    // Nothing is begun where one of them can't be.
    let periods = boards.iter().map(|board| from.map(|from| first_period(board, from)).transpose());
    let periods: Vec<_> = periods.collect::<anyhow::Result<_>>()?;
    let spinner = Spinner::new();
    let began = Instant::now();
    let mut begun = Vec::with_capacity(boards.len());
    for (board, period) in boards.iter().zip(periods) {
        begun.push(begin(client, board, period.flatten(), patience, &spinner).await?);
    }
    for (board, from) in boards.iter().zip(begun) {
        let newest = follow(client, board, patience, &spinner).await?;
        let periods = match (from, newest) {
            (Some(from), Some(newest)) if from <= newest => format!(", with its periods from {from} to {newest}"),
            (Some(from), _) => format!(", with its periods from {from} on"),
            (None, _) => String::new(),
        };
        spinner.hidden(|| println!("{}: computed anew{periods}; {:.1} s", board.id, began.elapsed().as_secs_f64()));
    }
    spinner.finish();
    Ok(())
}

/// The key of the period that a key or a day names; `None` for a board whose one period is never closed.
fn first_period(board: &Board, from: &str) -> anyhow::Result<Option<String>> {
    let id = &board.id;
    let half_life: Option<HalfLife> = board.half_life.as_deref().map(str::parse).transpose().context(id.clone())?;
    let window = Window::from_name(&board.window, half_life)
        .with_context(|| format!("{id}: this program does not know the window {}", board.window))?;
    let zone = time_zone(&board.time_zone).with_context(|| id.clone())?;
    if window == Window::AllTime {
        return Ok(None);
    }
    let of_day = || -> Option<Period> {
        let day: Date = from.parse().ok()?;
        let begins = day.to_zoned(zone.clone()).ok()?.timestamp();
        Some(window.period_at(begins.into(), &zone))
    };
    let period = window.period_of_key(from, &zone).or_else(of_day);
    let period = period.with_context(|| {
        let now = window.period_at(Timestamp::now(), &zone).key;
        format!("--from {from:?} is no period of the board {id}, such as {now}, and no day, such as 2010-12-01")
    })?;
    Ok(Some(period.key))
}

/// Returns the key of the first closed period that is computed anew, if any is.
async fn begin(
    client: &Client,
    board: &Board,
    from: Option<String>,
    patience: Duration,
    spinner: &Spinner,
) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        rebuild_board: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        from_period: Option<String>,
        user_errors: Vec<UserError>,
    }
    let waiting = |why: &ClientError| spinner.show(format!("waiting: {why}"));
    let variables = json!({ "board": board.id, "from": from });
    // To ask twice does no harm: it is computed anew once more.
    let answer: Answer = client.call_patiently(REBUILD, &variables, patience, waiting).await?;
    let Payload { from_period, user_errors } = answer.rebuild_board;
    match user_errors.first() {
        Some(UserError { message, path }) => {
            bail!("{}: {}: {message}", board.id, path.as_deref().unwrap_or_default().join("."))
        }
        None => Ok(from_period),
    }
}

/// Waits until the board shows what it should. Returns the key of its newest closed period, if there is one.
async fn follow(
    client: &Client,
    board: &Board,
    patience: Duration,
    spinner: &Spinner,
) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Answer {
        board: Option<State>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct State {
        is_current: bool,
        periods: Periods,
    }
    #[derive(Deserialize)]
    struct Periods {
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        key: String,
        status: String,
    }
    let waiting = |why: &ClientError| spinner.show(format!("waiting: {why}"));
    loop {
        let answer: Answer = client.call_patiently(STATE, &json!({ "board": board.id }), patience, waiting).await?;
        let state = answer.board.with_context(|| format!("the board {} has been deleted meanwhile", board.id))?;
        let newest = state.periods.nodes.into_iter().find(|node| node.status == "CLOSED").map(|node| node.key);
        if state.is_current {
            return Ok(newest);
        }
        spinner.show(match newest {
            Some(key) => format!("{}: computing; the newest closed period is {key}", board.id),
            None => format!("{}: computing", board.id),
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_means_the_period_that_its_beginning_lies_in() {
        let first = |window: &str, time_zone: &str, from: &str| {
            let half_life = (window == "HALF_LIFE").then(|| "PT1H".to_owned());
            let (window, time_zone) = (window.to_owned(), time_zone.to_owned());
            first_period(&Board { id: "b".to_owned(), window, half_life, time_zone }, from)
        };
        let day = "2010-12-01";
        assert_eq!(first("DAY", "UTC", day).unwrap().unwrap(), day);
        assert_eq!(first("HOUR", "Asia/Seoul", day).unwrap().unwrap(), "2010-12-01T00+09:00");
        assert_eq!(first("WEEK", "UTC", day).unwrap().unwrap(), "2010-W48");
        assert_eq!(first("MONTH", "UTC", day).unwrap().unwrap(), "2010-12");
        assert!(*first("HALF_LIFE", "UTC", day).unwrap().unwrap() <= *"2010-12-01T00:00Z");
        assert_eq!(first("ALL_TIME", "UTC", day).unwrap(), None);
        assert_eq!(first("HOUR", "UTC", "2010-12-01T08Z").unwrap().unwrap(), "2010-12-01T08Z");
        let error = first("HOUR", "UTC", "2010-W48").unwrap_err().to_string();
        assert!(error.contains("--from \"2010-W48\"") && error.contains("the board b"), "{error}");
    }
}
