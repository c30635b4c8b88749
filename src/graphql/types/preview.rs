//! What a change of weights would do.

use std::sync::Arc;

use async_graphql::{ID, Object, Result, SimpleObject};

use super::board::Board;
use super::product::Product;
use super::scalars::int;
use crate::domain::{self, RankMove as Move};
use crate::graphql::errors::{Failure, UserError};
use crate::graphql::guards::Viewing;
use crate::graphql::siblings::Siblings;
use crate::pipeline::App;

/// Why an input is refused: the first of what is wrong with it.
pub fn refusal(errors: &[UserError]) -> Failure {
    let UserError { message, path, .. } = errors.first().expect("what is refused says why");
    let path = path.as_deref().unwrap_or_default().join(".");
    Failure::bad(format!("input.{path}"), message)
}

/// How far the order of a board's open period changes.
#[derive(SimpleObject)]
pub struct BoardPreview {
    pub board: Board,
    /// Share of the top that stays in the top, 0 to 1.
    pub top_overlap: f64,
    /// Rank correlation of the two orders, -1 to 1.
    pub kendall_tau: f64,
}

impl BoardPreview {
    pub fn new(board: Arc<domain::Board>, preview: &domain::Preview) -> Self {
        Self { board: Board(board), top_overlap: preview.top_overlap, kendall_tau: preview.kendall_tau }
    }
}

#[derive(SimpleObject, Default)]
pub struct WeightPreview {
    /// Each board that the change reaches, by id.
    pub boards: Vec<BoardPreview>,
    /// What is among the first `top` places of one board before or after: of `movesOf`, or else of the input's board, or else of
    /// `daily`.
    pub moves: Vec<RankMove>,
}

pub struct RankMove {
    step: Move,
    index: usize,
    siblings: Arc<Siblings>,
}

impl RankMove {
    pub fn all(app: &Arc<App>, viewer: &Viewing, preview: &domain::Preview) -> Vec<Self> {
        let ids = preview.moves.iter().map(|step| step.product.clone()).collect();
        let siblings = Siblings::new(app, viewer, ids);
        let step = |(index, step): (usize, &Move)| Self { step: step.clone(), index, siblings: siblings.clone() };
        preview.moves.iter().enumerate().map(step).collect()
    }
}

#[Object]
impl RankMove {
    async fn product_id(&self) -> ID {
        ID(self.step.product.to_string())
    }

    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, self.index).await?)
    }

    async fn rank_before(&self) -> Option<i32> {
        self.step.rank_before.map(int)
    }

    async fn rank_after(&self) -> Option<i32> {
        self.step.rank_after.map(int)
    }

    async fn score_before(&self) -> f64 {
        self.step.points_before.as_f64()
    }

    async fn score_after(&self) -> f64 {
        self.step.points_after.as_f64()
    }
}
