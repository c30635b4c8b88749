//! What the catalogue knows of a product.

use super::{ProductId, Timestamp};

/// An amount of money, exact, with its ISO 4217 currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Money {
    pub amount: rust_decimal::Decimal,
    pub currency: String,
}

impl Money {
    /// An amount as it stands in a file or a request: digits, and perhaps a point and digits. Signs, exponents and marks
    /// between thousands are none: they mean another thing elsewhere.
    pub fn parse_amount(text: &str) -> Option<rust_decimal::Decimal> {
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let is_amount = whole.bytes().chain(places.bytes()).all(|byte| byte.is_ascii_digit());
        rust_decimal::Decimal::from_str_exact(text).ok().filter(|_| is_amount)
    }
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
