//! Products, as producers send them and pages show them.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use super::audit::take_turn;
use super::db::{Db, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::{At, Instant};
use super::schema::products;
use super::statement::Statement;
use super::{NewProduct, Upserted};
use crate::domain::{Money, Product, ProductId, Timestamp};

type Row = (String, String, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>, At);

/// Unknown ids are left out; order is free.
pub(super) async fn products(db: &Db, ids: &[ProductId]) -> Result<Vec<Product>> {
    let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
    let rows: Vec<Row> =
        with_conn!(db, |conn| Ok(products::table.filter(products::id.eq_any(&ids)).load(conn).await?))?;
    rows.into_iter().map(to_product).collect()
}

fn to_product((id, name, image_url, price, currency, category, brand, created_at): Row) -> Result<Product> {
    let price = match price.zip(currency) {
        None => None,
        Some((amount, currency)) => {
            let wrong = |error| LedgerError::Internal(format!("the price of {id:?} is not a decimal number: {error}"));
            Some(Money { amount: amount.parse().map_err(wrong)?, currency })
        }
    };
    let created_at = created_at.0;
    Ok(Product { id: ProductId::from_stored(id), name, image_url, price, category, brand, created_at })
}

/// A list of JSON objects into rows. What a product had when it was first inserted, its `created_at`, stays.
macro_rules! upsert {
    ($rows:literal) => {
        concat!(
            "INSERT INTO products (id, name, image_url, price, currency, category, brand, created_at)
            SELECT value ->> 'id', value ->> 'name', value ->> 'image_url', value ->> 'price', value ->> 'currency',
                value ->> 'category', value ->> 'brand', {created_at}
            FROM ",
            $rows,
            " WHERE true
            ON CONFLICT (id) DO UPDATE SET
                name = EXCLUDED.name, image_url = EXCLUDED.image_url, price = EXCLUDED.price,
                currency = EXCLUDED.currency, category = EXCLUDED.category, brand = EXCLUDED.brand"
        )
    };
}

/// Raises the revision of every board whose scope one of the products in a list of JSON objects leaves or enters. Without
/// such boards the list is not looked at.
macro_rules! raise_scoped {
    ($rows:literal) => {
        concat!(
            "UPDATE boards SET revision = revision + 1
            WHERE NOT deleted AND (category IS NOT NULL OR brand IS NOT NULL) AND EXISTS (
                SELECT 1
                FROM ",
            $rows,
            " LEFT JOIN products ON products.id = value ->> 'id'
                WHERE (
                    products.id IS NOT NULL
                    AND COALESCE(products.category = boards.category, boards.category IS NULL)
                    AND COALESCE(products.brand = boards.brand, boards.brand IS NULL)
                ) <> (
                    COALESCE(value ->> 'category' = boards.category, boards.category IS NULL)
                    AND COALESCE(value ->> 'brand' = boards.brand, boards.brand IS NULL)
                )
            )"
        )
    };
}

/// Inserts or replaces by id (the last of a repeated id wins).
pub(super) async fn upsert_products(db: &Db, products: &[NewProduct], at: Timestamp) -> Result<Upserted> {
    // Distinct, because one statement may not touch a row twice; in order, so that two callers with the same products
    // never wait for each other in a circle.
    let distinct: BTreeMap<&ProductId, &NewProduct> = products.iter().map(|product| (&product.id, product)).collect();
    if let Some(product) = distinct.values().find(|product| texts(product).any(|text| text.contains('\0'))) {
        return Err(LedgerError::Rejected(format!("the product {:?} has a text with U+0000 in it", product.id)));
    }
    let rows: Vec<_> = distinct.values().map(|product| to_json(product)).collect();
    let rows = serde_json::Value::Array(rows).to_string();
    let upsert =
        db.either(upsert!("json_array_elements(CAST({rows} AS json)) AS listed (value)"), upsert!("json_each({rows})"));
    let raise = db.either(
        raise_scoped!("json_array_elements(CAST({rows} AS json)) AS listed (value)"),
        raise_scoped!("json_each({rows})"),
    );
    let boards = in_tx!(db, |conn| {
        // Two that move one product at once would each compare it with what was there before both, and so would a board
        // that is being made.
        take_turn!(conn);
        let boards = Statement::new(raise).bind::<Text, _>(&rows).execute(conn).await?;
        Statement::new(upsert).bind::<Instant, _>(At(at)).bind::<Text, _>(&rows).execute(conn).await?;
        Ok(boards as u64)
    })?;
    Ok(Upserted { products: distinct.len() as u64, boards })
}

fn texts(product: &NewProduct) -> impl Iterator<Item = &str> {
    let currency = product.price.as_ref().map(|price| price.currency.as_str());
    let optional = [product.image_url.as_deref(), currency, product.category.as_deref(), product.brand.as_deref()];
    [product.id.as_str(), &product.name].into_iter().chain(optional.into_iter().flatten())
}

fn to_json(product: &NewProduct) -> serde_json::Value {
    serde_json::json!({
        "id": product.id,
        "name": product.name,
        "image_url": product.image_url,
        "price": product.price.as_ref().map(|price| price.amount.to_string()),
        "currency": product.price.as_ref().map(|price| &price.currency),
        "category": product.category,
        "brand": product.brand,
    })
}
