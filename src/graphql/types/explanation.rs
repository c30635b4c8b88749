//! What a score is made of.

use async_graphql::{ComplexObject, Context, Enum, Result, SimpleObject};

use super::scalars::Long;
use super::weights::Signal;
use crate::domain;
use crate::graphql::guards::Caller;

/// The lines add up to `total` exactly, and `total` is the score.
#[derive(SimpleObject)]
pub struct Explanation {
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
    source: ScoreSource,
    signal: Option<Signal>,
    count: Option<Long>,
    weight: Option<f64>,
    points: f64,
}

#[ComplexObject]
impl ScoreLine {
    /// What the line follows from: a product's boost, the period that carries over, rules by their versions. The notes of
    /// rules are for the admin role, and left out without it.
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
