//! Liking: inputs and answer.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, InputObject, Object, Result};

use super::product::Product;
use super::scalars::{DateTime, Long};
use crate::domain::{IdempotencyKey, ProductId, Timestamp};
use crate::engine::Desired;
use crate::graphql::app;
use crate::graphql::errors::UserError;
use crate::graphql::guards::Caller;
use crate::graphql::siblings::Siblings;
use crate::pipeline::{self, LikeResult};

#[derive(InputObject)]
pub struct ToggleLikeInput {
    product_id: ID,
    idempotency_key: Option<String>,
}

#[derive(InputObject)]
pub struct SetLikeInput {
    product_id: ID,
    liked: bool,
    idempotency_key: Option<String>,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the engine's journal; the ledger follows.
    Accepted,
    /// In the SQL ledger: survives the loss of the engine.
    Committed,
}

impl From<pipeline::Durability> for Durability {
    fn from(durability: pipeline::Durability) -> Self {
        match durability {
            pipeline::Durability::Accepted => Self::Accepted,
            pipeline::Durability::Committed => Self::Committed,
        }
    }
}

/// What a viewer wishes for one product.
pub struct Wish {
    product_id: ID,
    idempotency_key: Option<String>,
    desired: Desired,
}

impl From<ToggleLikeInput> for Wish {
    fn from(input: ToggleLikeInput) -> Self {
        Self { product_id: input.product_id, idempotency_key: input.idempotency_key, desired: Desired::Toggled }
    }
}

impl From<SetLikeInput> for Wish {
    fn from(input: SetLikeInput) -> Self {
        let desired = Desired::Exactly(input.liked);
        Self { product_id: input.product_id, idempotency_key: input.idempotency_key, desired }
    }
}

impl Wish {
    fn parse(&self) -> Result<(ProductId, Option<IdempotencyKey>), Vec<UserError>> {
        let product = ProductId::new(&self.product_id).map_err(|error| UserError::invalid("productId", error));
        let key = self.idempotency_key.as_deref().map(IdempotencyKey::new).transpose();
        match (product, key.map_err(|error| UserError::invalid("idempotencyKey", error))) {
            (Ok(product), Ok(key)) => Ok((product, key)),
            (product, key) => Err([product.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    pub async fn grant(self, ctx: &Context<'_>) -> Result<LikePayload> {
        let viewer = Caller::of(ctx)?.viewer()?;
        let (product, key) = match self.parse() {
            Ok(parsed) => parsed,
            Err(errors) => return Ok(LikePayload::refused(errors)),
        };
        match app(ctx).like(viewer, &product, self.desired, key).await? {
            LikeResult::Done { liked, changed, at, like_count, durability } => {
                let done = Done { liked, like_count, at, durability: durability.into() };
                let siblings = Siblings::new(app(ctx), &Ok(Some(viewer.clone())), vec![product]);
                Ok(LikePayload { siblings: Some(siblings), done: Some(done), changed, user_errors: Vec::new() })
            }
            LikeResult::UnknownProduct => {
                let error = UserError::not_found("productId", format!("there is no product {product}"));
                Ok(LikePayload::refused(vec![error]))
            }
            LikeResult::KeyConflict => {
                let message = "the key was used for a like of another product; give each like a key of its own";
                Ok(LikePayload::refused(vec![UserError::conflict("idempotencyKey", message)]))
            }
            LikeResult::DeadLettered => Ok(LikePayload::refused(vec![UserError::dead_lettered("productId", "like")])),
        }
    }
}

struct Done {
    liked: bool,
    like_count: Option<u64>,
    at: Timestamp,
    durability: Durability,
}

pub struct LikePayload {
    siblings: Option<Arc<Siblings>>,
    done: Option<Done>,
    changed: bool,
    user_errors: Vec<UserError>,
}

impl LikePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        Self { siblings: None, done: None, changed: false, user_errors }
    }
}

#[Object]
impl LikePayload {
    async fn product(&self) -> Result<Option<Product>> {
        match &self.siblings {
            Some(siblings) => Ok(Product::of(siblings, 0).await?),
            None => Ok(None),
        }
    }

    async fn liked(&self) -> Option<bool> {
        self.done.as_ref().map(|done| done.liked)
    }

    async fn like_count(&self) -> Option<Long> {
        self.done.as_ref()?.like_count.map(Into::into)
    }

    /// False when the answer is a replay or nothing had to change.
    async fn changed(&self) -> bool {
        self.changed
    }

    async fn at(&self) -> Option<DateTime> {
        self.done.as_ref().map(|done| DateTime(done.at))
    }

    async fn durability(&self) -> Option<Durability> {
        self.done.as_ref().map(|done| done.durability)
    }

    async fn user_errors(&self) -> &[UserError] {
        &self.user_errors
    }
}
