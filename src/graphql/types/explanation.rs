//! What a score is made of.

use async_graphql::{Enum, SimpleObject};

use super::scalars::Long;
use super::weights::Signal;
use crate::domain;

/// Cost of an explanation beside that of its fields: what it is read for is read for the whole page, but many rows of the
/// ledger may go into each.
pub const COST: usize = 10;

/// The lines add up to `total` exactly, and `total` is the score.
#[derive(SimpleObject)]
pub struct Explanation {
    #[graphql(complexity = 0)]
    total: f64,
    lines: Vec<ScoreLine>,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::ScoreSource")]
pub enum ScoreSource {
    Signal,
    CarryOver,
    Rule,
}

#[derive(SimpleObject)]
pub struct ScoreLine {
    #[graphql(complexity = 0)]
    source: ScoreSource,
    #[graphql(complexity = 0)]
    signal: Option<Signal>,
    #[graphql(complexity = 0)]
    count: Option<Long>,
    #[graphql(complexity = 0)]
    weight: Option<f64>,
    #[graphql(complexity = 0)]
    points: f64,
    #[graphql(complexity = 0)]
    note: Option<String>,
}

impl From<domain::Explanation> for Explanation {
    fn from(explanation: domain::Explanation) -> Self {
        let total = explanation.total().as_f64();
        let line = |line: domain::ScoreLine| ScoreLine {
            source: line.source.into(),
            signal: line.signal.map(Signal::from),
            count: line.count.map(Long),
            weight: line.weight.map(domain::Weight::as_f64),
            points: line.points.as_f64(),
            note: line.note,
        };
        Self { total, lines: explanation.lines.into_iter().map(line).collect() }
    }
}
