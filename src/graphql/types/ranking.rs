//! Places on a board, and pages of them.

use std::cmp::Ordering;
use std::sync::Arc;

use async_graphql::{Enum, ID, Object, Result, SimpleObject};

use super::explanation::Explanation;
use super::period::Period;
use super::product::Product;
use super::scalars::int;
use crate::domain::{FeedPosition, FeedState, Place, Points};
use crate::graphql::cursor::{Cursor, opaque};
use crate::graphql::guards::{MayExplain, Viewing};
use crate::graphql::node::NodeId;
use crate::graphql::siblings::Siblings;
use crate::pipeline::{App, BoardEntries, BoardPage, Reading};

#[derive(Clone)]
pub struct RankingEntry {
    reading: Arc<Reading>,
    rank: u64,
    points: Points,
    index: usize,
    siblings: Arc<Siblings>,
}

impl RankingEntry {
    /// The place of the sibling at `index`, if it has one.
    pub fn of(entries: &BoardEntries, siblings: &Arc<Siblings>, index: usize) -> Option<Self> {
        let (rank, points) = entries.entries[index]?;
        let reading = Arc::new(entries.reading.clone());
        Some(Self { reading, rank, points, index, siblings: siblings.clone() })
    }

    /// The place of the sibling at `index`, as it was read.
    pub fn read(reading: &Arc<Reading>, rank: u64, points: Points, siblings: &Arc<Siblings>, index: usize) -> Self {
        Self { reading: reading.clone(), rank, points, index, siblings: siblings.clone() }
    }

    /// Places that follow each other, as siblings.
    fn run(app: &Arc<App>, viewer: &Viewing, reading: &Arc<Reading>, first_rank: u64, places: &[Place]) -> Vec<Self> {
        let ids = places.iter().map(|place| place.product.clone()).collect();
        let siblings = Siblings::new(app, viewer, ids);
        let entry = |(index, place): (usize, &Place)| Self {
            reading: reading.clone(),
            rank: first_rank + index as u64,
            points: place.points,
            index,
            siblings: siblings.clone(),
        };
        places.iter().enumerate().map(entry).collect()
    }

    /// The first places of a published state.
    pub fn top(app: &Arc<App>, viewer: &Viewing, reading: &Arc<Reading>, state: &FeedState, top: usize) -> Vec<Self> {
        Self::run(app, viewer, reading, 1, state.top(top))
    }

    fn cursor(&self) -> String {
        let product = self.siblings.ids()[self.index].clone();
        Cursor::Place(Place { product, points: self.points }).encode()
    }

    /// Whether this is the product's place.
    pub fn is_of(&self, product: &crate::domain::ProductId) -> bool {
        &self.siblings.ids()[self.index] == product
    }
}

/// `id` is stable for one product in one period, so that client caches update rows in place.
#[Object]
impl RankingEntry {
    pub async fn node_id(&self) -> ID {
        let Reading { board, period, .. } = &*self.reading;
        NodeId::Entry(board.id.clone(), period.key.clone(), self.siblings.ids()[self.index].clone()).encode()
    }

    async fn id(&self) -> ID {
        let Reading { board, period, .. } = &*self.reading;
        ID(opaque(&format!("{}:{}:{}", board.id, period.key, self.siblings.ids()[self.index])))
    }

    async fn rank(&self) -> i32 {
        int(self.rank)
    }

    async fn score(&self) -> f64 {
        self.reading.score(self.points).as_f64()
    }

    async fn product_id(&self) -> ID {
        ID(self.siblings.ids()[self.index].to_string())
    }

    /// Null only when the catalogue row is gone.
    async fn product(&self) -> Result<Option<Product>> {
        Ok(Product::of(&self.siblings, self.index).await?)
    }

    /// Against the rank at the end of the previous period.
    async fn movement(&self) -> Result<Movement> {
        let Reading { board, period, .. } = &*self.reading;
        let before = self.siblings.rank_before(board, period, self.index).await?;
        Ok(before.map_or(Movement::NONE, |previous_rank| Movement::new(self.rank, previous_rank)))
    }

    /// One look-up for all rows of a page. The server's setting says who may ask: anyone, whoever is signed in, or the admin
    /// role. It is null, with an error, for whoever may not.
    #[graphql(guard = "MayExplain")]
    async fn explanation(&self) -> Result<Option<Explanation>> {
        Ok(Some(self.siblings.explanation(&self.reading, self.index, self.points).await?.into()))
    }
}

#[derive(Enum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The product was not on the board when the previous period ended.
    New,
    Up,
    Down,
    Same,
}

/// Where a board has no previous period, since it counts all time in one, every row is SAME without a previous rank.
#[derive(SimpleObject, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Movement {
    direction: Direction,
    /// The rank when the previous period ended. Null for NEW, and where there is no previous period.
    previous_rank: Option<i32>,
    /// How many places up or down; 0 for NEW and SAME.
    places: i32,
}

impl Movement {
    const NONE: Self = Self { direction: Direction::Same, previous_rank: None, places: 0 };

    fn new(rank: u64, previous_rank: Option<u64>) -> Self {
        let direction = match previous_rank.map(|previous| rank.cmp(&previous)) {
            None => Direction::New,
            Some(Ordering::Less) => Direction::Up,
            Some(Ordering::Equal) => Direction::Same,
            Some(Ordering::Greater) => Direction::Down,
        };
        let places = previous_rank.map_or(0, |previous| rank.abs_diff(previous));
        Self { direction, previous_rank: previous_rank.map(int), places: int(places) }
    }
}

#[derive(SimpleObject, Clone, PartialEq, Eq, Debug)]
pub struct PageInfo {
    pub has_next_page: bool,
    pub has_previous_page: bool,
    pub start_cursor: Option<String>,
    pub end_cursor: Option<String>,
}

impl PageInfo {
    /// Of a page whose rows have these cursors.
    pub fn new(cursors: &[String], has_next_page: bool, has_previous_page: bool) -> Self {
        let (start_cursor, end_cursor) = (cursors.first().cloned(), cursors.last().cloned());
        Self { has_next_page, has_previous_page, start_cursor, end_cursor }
    }
}

#[derive(SimpleObject)]
pub struct RankingEdge {
    cursor: String,
    node: RankingEntry,
}

pub struct RankingConnection {
    reading: Arc<Reading>,
    entries: Vec<RankingEntry>,
    first_rank: u64,
    total: u64,
    position: Option<FeedPosition>,
}

impl RankingConnection {
    pub fn new(app: &Arc<App>, viewer: &Viewing, page: BoardPage, position: Option<FeedPosition>) -> Self {
        let reading = Arc::new(page.reading);
        let entries = RankingEntry::run(app, viewer, &reading, page.rows.first_rank, &page.rows.places);
        Self { reading, entries, first_rank: page.rows.first_rank, total: page.rows.total, position }
    }

    pub fn into_entries(self) -> Vec<RankingEntry> {
        self.entries
    }
}

#[Object]
impl RankingConnection {
    async fn edges(&self) -> Vec<RankingEdge> {
        self.entries.iter().map(|entry| RankingEdge { cursor: entry.cursor(), node: entry.clone() }).collect()
    }

    async fn nodes(&self) -> &[RankingEntry] {
        &self.entries
    }

    async fn page_info(&self) -> PageInfo {
        PageInfo {
            has_next_page: has_next(self.first_rank, self.entries.len(), self.total),
            has_previous_page: self.first_rank > 1 && self.total > 0,
            start_cursor: self.entries.first().map(RankingEntry::cursor),
            end_cursor: self.entries.last().map(RankingEntry::cursor),
        }
    }

    async fn total_count(&self) -> i32 {
        int(self.total)
    }

    async fn period(&self) -> Period {
        Period::known(self.reading.clone(), self.position)
    }
}

/// Whether places follow a page that begins at `first_rank`.
fn has_next(first_rank: u64, shown: usize, total: u64) -> bool {
    first_rank.saturating_sub(1).saturating_add(shown as u64) < total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movement_is_told_against_the_rank_before() {
        let movement = |direction, previous_rank, places| Movement { direction, previous_rank, places };
        assert_eq!(Movement::new(3, Some(5)), movement(Direction::Up, Some(5), 2));
        assert_eq!(Movement::new(5, Some(3)), movement(Direction::Down, Some(3), 2));
        assert_eq!(Movement::new(3, Some(3)), movement(Direction::Same, Some(3), 0));
        assert_eq!(Movement::new(3, None), movement(Direction::New, None, 0));
    }

    #[test]
    fn the_last_page_has_no_next() {
        assert!(has_next(1, 20, 21));
        assert!(!has_next(1, 20, 20));
        assert!(!has_next(21, 1, 21));
        assert!(!has_next(1, 0, 0));
        assert!(!has_next(500, 0, 21));
    }
}
