//! The signed-in viewer, and what the viewer likes.

use async_graphql::{Context, ID, Object, Result, SimpleObject};

use super::product::Product;
use super::ranking::PageInfo;
use super::scalars::{DateTime, int};
use crate::domain::{Timestamp, UserId};
use crate::graphql::cursor::{self, Cursor};
use crate::graphql::guards::{Caller, Role};
use crate::graphql::node::NodeId;
use crate::graphql::siblings::Siblings;
use crate::graphql::{app, arguments};

pub struct Viewer {
    user: UserId,
    roles: Vec<Role>,
}

impl Viewer {
    pub fn of(caller: &Caller) -> Option<Self> {
        Some(Self { user: caller.user.clone()?, roles: caller.roles.clone() })
    }

    pub fn is(&self, user: &UserId) -> bool {
        self.user == *user
    }
}

#[Object]
impl Viewer {
    pub async fn node_id(&self) -> ID {
        NodeId::Viewer(self.user.clone()).encode()
    }

    async fn id(&self) -> ID {
        ID(self.user.to_string())
    }

    async fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Newest first.
    async fn likes(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<ProductConnection> {
        let first = arguments::first(first)?;
        let after = cursor::after(after, |cursor| match cursor {
            Cursor::Like(at, product) => Some((at, product)),
            _ => None,
        })?;
        let has_previous = after.is_some();
        let (page, total) = app(ctx).liked_products(&self.user, after, first).await?;
        let ids = page.rows.iter().map(|(product, _)| product.clone()).collect();
        let products = Product::all(&Siblings::new(app(ctx), &Ok(Some(self.user.clone())), ids)).await?;
        Ok(ProductConnection::new(products, page.rows, has_previous, page.has_more, total))
    }
}

#[derive(SimpleObject)]
pub struct ProductEdge {
    cursor: String,
    node: Product,
    liked_at: Option<DateTime>,
}

#[derive(SimpleObject)]
#[graphql(complex)]
pub struct ProductConnection {
    edges: Vec<ProductEdge>,
    page_info: PageInfo,
    total_count: i32,
}

impl ProductConnection {
    /// A liked product that the catalogue has lost is left out; the cursors still pass over it.
    fn new(
        products: Vec<Option<Product>>,
        likes: Vec<(crate::domain::ProductId, Timestamp)>,
        has_previous_page: bool,
        has_next_page: bool,
        total: u64,
    ) -> Self {
        let cursors: Vec<_> = likes.iter().map(|(product, at)| Cursor::Like(*at, product.clone()).encode()).collect();
        let page_info = PageInfo {
            has_next_page,
            has_previous_page,
            start_cursor: cursors.first().cloned(),
            end_cursor: cursors.last().cloned(),
        };
        let edges = products
            .into_iter()
            .zip(likes)
            .zip(cursors)
            .filter_map(|((node, (_, at)), cursor)| {
                Some(ProductEdge { cursor, node: node?, liked_at: Some(DateTime(at)) })
            })
            .collect();
        Self { edges, page_info, total_count: int(total) }
    }
}

#[async_graphql::ComplexObject]
impl ProductConnection {
    async fn nodes(&self) -> Vec<&Product> {
        self.edges.iter().map(|edge| &edge.node).collect()
    }
}
