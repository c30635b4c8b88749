//! Catalogue rows as producers send them. A bad row is answered with its path, and the others are stored.

use async_graphql::{ID, InputObject, SimpleObject};
use rust_decimal::Decimal as Amount;

use super::scalars::Decimal;
use crate::domain::{Money, ProductId};
use crate::graphql::errors::UserError;
use crate::graphql::inputs::{label_problem, text_problem};
use crate::ledger::NewProduct;

/// Most products in a call: with the lengths below, a call of usual rows is well below the body limit.
pub const PRODUCTS_MAX: usize = 500;
/// Longest name, in bytes: what fits on a product page's title line, several times.
const NAME_LEN_MAX: usize = 200;
/// Longest image address, in bytes: what browsers and proxies take.
const URL_LEN_MAX: usize = 2_048;
/// Highest price: a million millions of any currency, which leaves a decimal's 28 digits room for sums.
const PRICE_MAX: i64 = 1_000_000_000_000;
/// ISO 4217 has currencies of up to 4 decimals.
const PRICE_DECIMALS_MAX: u32 = 4;

#[derive(InputObject)]
pub struct UpsertProductsInput {
    pub products: Vec<ProductInput>,
}

#[derive(InputObject)]
pub struct ProductInput {
    pub id: ID,
    pub name: String,
    pub image_url: Option<String>,
    pub price: Option<Decimal>,
    pub currency: Option<String>,
    pub category: Option<String>,
    pub brand: Option<String>,
}

impl ProductInput {
    /// Checks one row, the `index`-th of its call; finds everything that is wrong with it.
    fn parse(self, index: usize) -> Result<NewProduct, Vec<UserError>> {
        let mut errors = Vec::new();
        let mut check = |field: &str, problem: Option<String>| {
            errors.extend(problem.map(|message| UserError::invalid(&format!("products.{index}.{field}"), message)));
        };
        let label = |text: &Option<String>| text.as_deref().and_then(label_problem);
        let id = ProductId::new(&self.id);
        check("id", id.as_ref().err().map(ToString::to_string));
        check("name", text_problem(&self.name, NAME_LEN_MAX));
        check("imageUrl", self.image_url.as_deref().and_then(url_problem));
        check("category", label(&self.category));
        check("brand", label(&self.brand));
        let price = money(self.price.as_ref(), self.currency);
        if let Err((field, message)) = &price {
            check(field, Some(message.clone()));
        }
        match (id, price) {
            (Ok(id), Ok(price)) if errors.is_empty() => Ok(NewProduct {
                id,
                name: self.name,
                image_url: self.image_url,
                price,
                category: self.category,
                brand: self.brand,
            }),
            _ => Err(errors),
        }
    }
}

fn url_problem(url: &str) -> Option<String> {
    let problem = text_problem(url, URL_LEN_MAX);
    let shown = ["https://", "http://", "/"].iter().any(|start| url.starts_with(start));
    // Clients put it into pages: an address of another scheme could be a script.
    problem.or_else(|| (!shown).then(|| "must begin with https://, http:// or /".to_owned()))
}

fn money(price: Option<&Decimal>, currency: Option<String>) -> Result<Option<Money>, (&'static str, String)> {
    let (price, currency) = match (price, currency) {
        (None, None) => return Ok(None),
        (Some(price), Some(currency)) => (price, currency),
        (Some(_), None) => return Err(("currency", "a price needs its currency".to_owned())),
        (None, Some(_)) => return Err(("price", "a currency needs its price".to_owned())),
    };
    let amount = Money::parse_amount(&price.0)
        .filter(|amount| (Amount::ZERO..=Amount::from(PRICE_MAX)).contains(amount))
        .filter(|amount| amount.normalize().scale() <= PRICE_DECIMALS_MAX);
    let Some(amount) = amount else {
        let message =
            format!("{:?} is not a decimal from 0 to 10^12 with at most {PRICE_DECIMALS_MAX} places", price.0);
        return Err(("price", message));
    };
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(("currency", format!("{currency:?} is not a code of three upper-case letters")));
    }
    Ok(Some(Money { amount, currency }))
}

/// Splits a call into rows to store and what is wrong with the others.
pub fn checked(inputs: Vec<ProductInput>) -> (Vec<NewProduct>, Vec<UserError>) {
    let (mut products, mut errors) = (Vec::with_capacity(inputs.len()), Vec::new());
    for (index, input) in inputs.into_iter().enumerate() {
        match input.parse(index) {
            Ok(product) => products.push(product),
            Err(found) => errors.extend(found),
        }
    }
    (products, errors)
}

#[derive(SimpleObject)]
pub struct UpsertProductsPayload {
    pub upserted: i32,
    pub user_errors: Vec<UserError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> ProductInput {
        ProductInput {
            id: ID("a".to_owned()),
            name: "Lantern".to_owned(),
            image_url: None,
            price: Some(Decimal("29.90".to_owned())),
            currency: Some("GBP".to_owned()),
            category: None,
            brand: None,
        }
    }

    fn problem(change: impl FnOnce(&mut ProductInput)) -> Option<String> {
        let mut row = input();
        change(&mut row);
        let errors = row.parse(0).err()?;
        Some(errors.iter().map(|error| error.path.clone().unwrap().join(".")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn rows_within_bounds_are_taken() {
        assert_eq!(problem(|_| ()), None);
        assert_eq!(problem(|row| row.price = Some(Decimal("1000000000000".to_owned()))), None);
        assert_eq!(problem(|row| row.price = Some(Decimal("0.10000000".to_owned()))), None);
        assert_eq!(problem(|row| (row.price, row.currency) = (None, None)), None);
        assert_eq!(problem(|row| row.image_url = Some("/img/a.jpg".to_owned())), None);
        let (rows, _) = checked(vec![input()]);
        assert_eq!(rows[0].price.as_ref().unwrap().amount.to_string(), "29.90");
    }

    #[test]
    fn rows_beyond_bounds_are_named() {
        let is = |path: &str| Some(format!("products.0.{path}"));
        for price in
            ["-1", "1000000000000.01", "0.00001", "abc", "", "1e5", "NaN", "1_000", "1,000", "+5", " 5", "0x10", "."]
        {
            assert_eq!(problem(|row| row.price = Some(Decimal(price.to_owned()))), is("price"), "{price}");
        }
        for currency in ["gbp", "GB", "GBPX", "", "£££"] {
            assert_eq!(problem(|row| row.currency = Some(currency.to_owned())), is("currency"), "{currency}");
        }
        assert_eq!(problem(|row| row.currency = None), is("currency"));
        assert_eq!(problem(|row| row.price = None), is("price"));
        assert_eq!(problem(|row| row.name = "x".repeat(201)), is("name"));
        assert_eq!(problem(|row| row.name = "a\0b".to_owned()), is("name"));
        assert_eq!(problem(|row| row.image_url = Some("javascript:alert(1)".to_owned())), is("imageUrl"));
        assert_eq!(problem(|row| row.category = Some(String::new())), is("category"));
        assert_eq!(problem(|row| row.brand = Some("b".repeat(65))), is("brand"));
    }

    #[test]
    fn one_bad_row_leaves_the_others() {
        let mut bad = input();
        bad.id = ID(String::new());
        bad.name = String::new();
        let (rows, errors) = checked(vec![input(), bad, input()]);
        assert_eq!(rows.len(), 2);
        let paths: Vec<_> = errors.iter().map(|error| error.path.clone().unwrap().join(".")).collect();
        assert_eq!(paths, ["products.1.id", "products.1.name"]);
    }
}
