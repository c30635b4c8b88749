//! Products, as producers send them and pages show them.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use super::NewProduct;
use super::db::{Db, in_tx, with_conn};
use super::error::{LedgerError, Result};
use super::instant::{At, Instant};
use super::schema::products;
use super::statement::Statement;
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

/// Inserts or replaces by id (the last of a repeated id wins); returns how many distinct products.
pub(super) async fn upsert_products(db: &Db, products: &[NewProduct], at: Timestamp) -> Result<u64> {
    // Distinct, because one statement may not touch a row twice; in order, so that two callers with the same products
    // never wait for each other in a circle.
    let distinct: BTreeMap<&ProductId, &NewProduct> = products.iter().map(|product| (&product.id, product)).collect();
    if let Some(product) = distinct.values().find(|product| texts(product).any(|text| text.contains('\0'))) {
        return Err(LedgerError::Rejected(format!("the product {:?} has a text with U+0000 in it", product.id)));
    }
    let rows: Vec<_> = distinct.values().map(|product| to_json(product)).collect();
    let rows = serde_json::Value::Array(rows).to_string();
    let text =
        db.either(upsert!("json_array_elements(CAST({rows} AS json)) AS listed (value)"), upsert!("json_each({rows})"));
    in_tx!(db, |conn| {
        let upsert = Statement::new(text).bind::<Instant, _>(At(at)).bind::<Text, _>(&rows);
        upsert.execute(conn).await?;
        Ok(())
    })?;
    Ok(distinct.len() as u64)
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
