//! What the catalogue knows of a product.

use super::{ProductId, Timestamp};

/// An amount of money, exact, with its ISO 4217 currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Money {
    pub amount: rust_decimal::Decimal,
    pub currency: String,
}

/// A row of the catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Product {
    pub id: ProductId,
    pub name: String,
    pub image_url: Option<String>,
    pub price: Option<Money>,
    pub category: Option<String>,
    pub brand: Option<String>,
    /// When the row was first inserted; replacing the row keeps it.
    pub created_at: Timestamp,
}
