//! Reads arguments that several fields share. What is out of bounds is BAD_USER_INPUT and names the argument.

use std::sync::Arc;

use async_graphql::{Context, ID};

use super::app;
use super::cursor::{self, Cursor};
use super::errors::Failure;
use crate::domain::{Board, BoardId, PageStart, ProductId};

/// Most rows on a page, ids in a list and places of a live board: one answer stays within some 100 KB.
pub const ROWS_MAX: i32 = 100;
/// Widest radius around a product, so that no more than a page is read.
pub const RADIUS_MAX: i32 = 50;

/// Messages a second that a subscriber may ask for: one a minute, and as many as the shortest tick publishes.
const RATES: std::ops::RangeInclusive<f64> = 0.016..=100.0;

/// The board meant where none is named.
pub fn daily() -> ID {
    ID(BoardId::daily().to_string())
}

/// A board that exists.
pub fn board(ctx: &Context<'_>, id: &ID) -> Result<Arc<Board>, Failure> {
    board_at("board", ctx, id)
}

/// As [`board`], where the argument has another name.
pub fn board_at(argument: &'static str, ctx: &Context<'_>, id: &ID) -> Result<Arc<Board>, Failure> {
    let id = BoardId::new(id).map_err(|error| Failure::bad(argument, error))?;
    app(ctx).board(&id).ok_or_else(|| Failure::bad(argument, format!("there is no board {id}")))
}

pub fn product(argument: &'static str, id: &ID) -> Result<ProductId, Failure> {
    ProductId::new(id).map_err(|error| Failure::bad(argument, error))
}

/// Products that the catalogue has: what nobody could ever like or rank is not followed.
pub async fn known_products(argument: &'static str, ctx: &Context<'_>, ids: &[ProductId]) -> async_graphql::Result<()> {
    let rows = app(ctx).products(ids).await?;
    let unknown: Vec<_> = ids.iter().zip(rows).filter(|(_, row)| row.is_none()).map(|(id, _)| id.as_str()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::bad(argument, format!("there is no product {}", unknown.join(", "))).into())
}

/// A number within bounds, both included.
pub fn within(argument: &'static str, number: i32, least: i32, most: i32) -> Result<u32, Failure> {
    match u32::try_from(number) {
        Ok(size) if (least..=most).contains(&number) => Ok(size),
        _ => Err(Failure::bad(argument, format!("{number} is not within {least} and {most}"))),
    }
}

/// The argument `first`; null means 20, as leaving it out does.
pub fn first(first: Option<i32>) -> Result<u32, Failure> {
    within("first", first.unwrap_or(20), 1, ROWS_MAX)
}

/// The argument `maxRate`, in messages a second; null means `usual`, as leaving it out does.
pub fn rate(rate: Option<f64>, usual: f64) -> Result<f64, Failure> {
    let rate = rate.unwrap_or(usual);
    if RATES.contains(&rate) {
        return Ok(rate);
    }
    let (least, most) = RATES.into_inner();
    Err(Failure::bad("maxRate", format!("{rate} is not within {least} and {most}")))
}

/// Where a page of a ranking begins.
pub fn page_start(after: Option<String>, from_rank: Option<i32>) -> Result<PageStart, Failure> {
    let after = cursor::after(after, |cursor| match cursor {
        Cursor::Place(place) => Some(place),
        _ => None,
    })?;
    match (after, from_rank) {
        (Some(_), Some(_)) => Err(Failure::bad("fromRank", "give either after or fromRank")),
        (Some(place), None) => Ok(PageStart::After(place)),
        (None, rank) => Ok(PageStart::Rank(within("fromRank", rank.unwrap_or(1), 1, i32::MAX)?.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Place, Points};

    #[test]
    fn pages_are_bounded() {
        assert_eq!(first(None), Ok(20));
        assert_eq!(first(Some(1)), Ok(1));
        assert_eq!(first(Some(100)), Ok(100));
        for bad in [0, 101, -1, i32::MIN] {
            assert!(matches!(first(Some(bad)), Err(Failure::BadInput { argument, .. }) if argument == "first"));
        }
    }

    #[test]
    fn a_page_begins_in_one_place() {
        assert_eq!(page_start(None, None), Ok(PageStart::Rank(1)));
        assert_eq!(page_start(None, Some(7)), Ok(PageStart::Rank(7)));
        assert!(page_start(None, Some(0)).is_err());
        let place = Place { product: ProductId::new("a").unwrap(), points: Points::ZERO };
        let text = Cursor::Place(place.clone()).encode();
        assert_eq!(page_start(Some(text.clone()), None), Ok(PageStart::After(place)));
        assert!(page_start(Some(text), Some(1)).is_err());
        assert!(page_start(Some("nonsense".to_owned()), None).is_err());
    }
}
