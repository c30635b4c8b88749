//! Products, and what is known of their likes.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};

use super::ranking::RankingEntry;
use super::scalars::{DateTime, Decimal, Long, int};
use crate::domain;
use crate::graphql::arguments;
use crate::graphql::node::NodeId;
use crate::graphql::siblings::Siblings;
use crate::pipeline;

/// A product of the catalogue, among the siblings that it was resolved with.
pub struct Product {
    row: Arc<domain::Product>,
    index: usize,
    siblings: Arc<Siblings>,
}

impl Product {
    /// The sibling at `index`, if the catalogue has it.
    pub async fn of(siblings: &Arc<Siblings>, index: usize) -> pipeline::Result<Option<Self>> {
        let row = siblings.row(index).await?;
        Ok(row.map(|row| Self { row, index, siblings: siblings.clone() }))
    }

    /// Every sibling, in order.
    pub async fn all(siblings: &Arc<Siblings>) -> pipeline::Result<Vec<Option<Self>>> {
        let mut products = Vec::with_capacity(siblings.ids().len());
        for index in 0..siblings.ids().len() {
            products.push(Self::of(siblings, index).await?);
        }
        Ok(products)
    }
}

#[Object]
impl Product {
    pub async fn node_id(&self) -> ID {
        NodeId::Product(self.row.id.clone()).encode()
    }

    async fn id(&self) -> ID {
        ID(self.row.id.to_string())
    }

    async fn name(&self) -> &str {
        &self.row.name
    }

    async fn image_url(&self) -> Option<&str> {
        self.row.image_url.as_deref()
    }

    async fn price(&self) -> Option<Money> {
        self.row.price.as_ref().map(Money::from)
    }

    async fn category(&self) -> Option<&str> {
        self.row.category.as_deref()
    }

    async fn brand(&self) -> Option<&str> {
        self.row.brand.as_deref()
    }

    async fn created_at(&self) -> DateTime {
        DateTime(self.row.created_at)
    }

    async fn like(&self) -> LikeState {
        LikeState { index: self.index, siblings: self.siblings.clone() }
    }

    /// Rank 1 is best; null when the product is not on the board.
    async fn current_rank(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] board: ID,
    ) -> Result<Option<i32>> {
        let board = arguments::board(ctx, &board)?;
        let entries = self.siblings.entries(&board).await?;
        Ok(entries.entries[self.index].map(|(rank, _)| int(rank)))
    }

    async fn entry(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "arguments::daily()")] board: ID,
    ) -> Result<Option<RankingEntry>> {
        let board = arguments::board(ctx, &board)?;
        let entries = self.siblings.entries(&board).await?;
        Ok(RankingEntry::of(&entries, &self.siblings, self.index))
    }
}

#[derive(SimpleObject)]
pub struct Money {
    amount: Decimal,
    currency: String,
}

impl From<&domain::Money> for Money {
    fn from(money: &domain::Money) -> Self {
        Self { amount: Decimal(money.amount.to_string()), currency: money.currency.clone() }
    }
}

pub struct LikeState {
    index: usize,
    siblings: Arc<Siblings>,
}

#[Object]
impl LikeState {
    async fn count(&self) -> Result<Long> {
        Ok(self.siblings.like_count(self.index).await?.into())
    }

    /// Null when nobody is signed in.
    async fn viewer_has_liked(&self) -> Result<Option<bool>> {
        Ok(self.siblings.viewer_liked_at(self.index).await?.map(|liked_at| liked_at.is_some()))
    }

    async fn viewer_liked_at(&self) -> Result<Option<DateTime>> {
        Ok(self.siblings.viewer_liked_at(self.index).await?.flatten().map(DateTime))
    }
}
