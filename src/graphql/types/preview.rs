//! What a change of weights would do.

use std::sync::Arc;

use async_graphql::{ID, InputObject, Object, Result, SimpleObject};

use super::product::Product;
use super::scalars::{DateTime, int};
use super::weights::{Terms, WeightInput};
use crate::domain::{self, RankMove as Move};
use crate::graphql::arguments::{self, ROWS_MAX};
use crate::graphql::errors::Failure;
use crate::graphql::guards::Viewing;
use crate::graphql::siblings::Siblings;
use crate::pipeline::{App, Trial};

#[derive(InputObject)]
pub struct WeightPreviewInput {
    #[graphql(default_with = "arguments::daily()")]
    pub board: ID,
    pub weights: Vec<WeightInput>,
    pub from: Option<DateTime>,
    pub until: Option<DateTime>,
    pub hours: Option<Vec<i32>>,
    #[graphql(default_with = "Some(20)")]
    pub top: Option<i32>,
}

impl WeightPreviewInput {
    /// What a preview costs: the moves of either top, times what is asked of each.
    pub fn cost(&self, each: usize) -> usize {
        arguments::cost(self.top.map(|top| top.saturating_mul(2)), each)
    }

    /// The change, and how many places are the top. The first of what is wrong is a failure.
    pub fn parse(&self) -> Result<(Trial, usize), Failure> {
        let mut errors = Vec::new();
        let Terms { weights, from, until, hours } =
            Terms::parse(&self.weights, self.from, self.until, self.hours.as_deref(), &mut errors);
        if let Some(error) = errors.into_iter().next() {
            let path = error.path.unwrap_or_default().join(".");
            return Err(Failure::bad(format!("input.{path}"), error.message));
        }
        let top = arguments::within("input.top", self.top.unwrap_or(20), 1, ROWS_MAX)?;
        Ok((Trial { weights, from, until, hours }, top as usize))
    }
}

#[derive(SimpleObject)]
pub struct WeightPreview {
    /// Share of the top that stays in the top, 0 to 1.
    #[graphql(complexity = 0)]
    top_overlap: f64,
    /// Rank correlation of the two orders, -1 to 1.
    #[graphql(complexity = 0)]
    kendall_tau: f64,
    moves: Vec<RankMove>,
}

impl WeightPreview {
    pub fn new(app: &Arc<App>, viewer: &Viewing, preview: domain::Preview) -> Self {
        let ids = preview.moves.iter().map(|step| step.product.clone()).collect();
        let siblings = Siblings::new(app, viewer, ids);
        let step = |(index, step)| RankMove { step, index, siblings: siblings.clone() };
        Self {
            top_overlap: preview.top_overlap,
            kendall_tau: preview.kendall_tau,
            moves: preview.moves.into_iter().enumerate().map(step).collect(),
        }
    }
}

pub struct RankMove {
    step: Move,
    index: usize,
    siblings: Arc<Siblings>,
}

#[Object]
impl RankMove {
    #[graphql(complexity = 0)]
    async fn product_id(&self) -> ID {
        ID(self.step.product.to_string())
    }

    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, self.index).await?)
    }

    #[graphql(complexity = 0)]
    async fn rank_before(&self) -> Option<i32> {
        self.step.rank_before.map(int)
    }

    #[graphql(complexity = 0)]
    async fn rank_after(&self) -> Option<i32> {
        self.step.rank_after.map(int)
    }

    #[graphql(complexity = 0)]
    async fn score_before(&self) -> f64 {
        self.step.points_before.as_f64()
    }

    #[graphql(complexity = 0)]
    async fn score_after(&self) -> f64 {
        self.step.points_after.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::types::weights::Signal;

    fn input() -> WeightPreviewInput {
        let weights = vec![WeightInput { signal: Signal::View, weight: 0.5 }];
        WeightPreviewInput { board: arguments::daily(), weights, from: None, until: None, hours: None, top: None }
    }

    #[test]
    fn what_is_wrong_is_named_from_the_input_down() {
        let refused = |input: WeightPreviewInput| match input.parse().unwrap_err() {
            Failure::BadInput { argument, .. } => argument.into_owned(),
            failure => panic!("{failure:?}"),
        };
        assert_eq!(input().parse().unwrap().1, 20);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1000.5] {
            let weights = vec![WeightInput { signal: Signal::View, weight: bad }];
            assert_eq!(refused(WeightPreviewInput { weights, ..input() }), "input.weights.0.weight");
        }
        assert_eq!(refused(WeightPreviewInput { weights: vec![], ..input() }), "input.weights");
        assert_eq!(refused(WeightPreviewInput { hours: Some(vec![24]), ..input() }), "input.hours");
        for top in [0, 101] {
            assert_eq!(refused(WeightPreviewInput { top: Some(top), ..input() }), "input.top");
        }
    }

    #[test]
    fn a_preview_costs_the_moves_of_both_tops() {
        let cost = |top| WeightPreviewInput { top, ..input() }.cost(3);
        assert_eq!([cost(Some(1)), cost(Some(10)), cost(Some(i32::MAX))], [6, 60, 300]);
    }
}
