//! What a score is made of.

use async_graphql::{ComplexObject, Context, Enum, Result, SimpleObject};

use super::scalars::Long;
use super::weights::Signal;
use crate::domain;
use crate::graphql::guards::Caller;

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
#[graphql(complex)]
pub struct ScoreLine {
    #[graphql(skip)]
    inner: domain::ScoreLine,
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
}

#[ComplexObject]
impl ScoreLine {
    /// What the line follows from: a product's boost, the period that carries over, rules by their versions. The notes of
    /// rules are for the admin role, and left out without it.
    #[graphql(complexity = 0)]
    async fn note(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        Ok(self.inner.note(Caller::of(ctx)?.is_admin()))
    }
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
            inner: line,
        };
        Self { total, lines: explanation.lines.into_iter().map(line).collect() }
    }
}
