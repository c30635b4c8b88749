//! A board's products in order of rank: what the memory engine keeps, and what the ledger is folded into.
//!
//! Invariant: a product is listed exactly when its points are not zero. Points that rank alike ([`Points::ranked`]) stand by
//! product id, higher byte order first, as ZREVRANGE orders them.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use indexset::BTreeSet;

use super::{Place, Points, ProductId};

/// Where a page of a ranking begins. Ranks count from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageStart {
    /// At a rank.
    Rank(u64),
    /// Behind a place that an earlier page ended with. The place need not exist any more: what ranks below it follows.
    After(Place),
    /// `radius` places above the product, if it is listed; nothing otherwise.
    Around { product: ProductId, radius: u64 },
}

/// A run of places. The rank of the n-th is `first_rank + n`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    pub first_rank: u64,
    pub places: Vec<Place>,
    /// How many places the whole board has.
    pub total: u64,
}

type Key = (Reverse<Ranked>, Reverse<ProductId>);

/// Points in the order of a board.
#[derive(Clone, Copy, Debug)]
struct Ranked(Points);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.ranked().cmp(&other.0.ranked())
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

fn key(points: Points, product: &ProductId) -> Key {
    (Reverse(Ranked(points)), Reverse(product.clone()))
}

/// A whole board in memory.
#[derive(Clone, Debug, Default)]
pub struct Standings {
    points: HashMap<ProductId, Points>,
    order: BTreeSet<Key>,
}

impl Standings {
    /// Adds to a product's points, down or up.
    pub fn add(&mut self, product: &ProductId, delta: Points) {
        let before = self.points.get(product).copied().unwrap_or_default();
        self.set(product, before.plus(delta));
    }

    /// Gives a product its points.
    pub fn set(&mut self, product: &ProductId, points: Points) {
        let before = match points {
            Points::ZERO => self.points.remove(product),
            _ => self.points.insert(product.clone(), points),
        };
        if let Some(before) = before {
            self.order.remove(&key(before, product));
        }
        if points != Points::ZERO {
            self.order.insert(key(points, product));
        }
    }

    /// Every product with its points, in no order.
    pub fn to_vec(&self) -> Vec<(ProductId, Points)> {
        self.points.iter().map(|(product, points)| (product.clone(), *points)).collect()
    }

    pub fn len(&self) -> u64 {
        self.order.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The product's points, where it is listed.
    pub fn points(&self, product: &ProductId) -> Option<Points> {
        self.points.get(product).copied()
    }

    /// The product's rank and points, where it is listed.
    pub fn entry(&self, product: &ProductId) -> Option<(u64, Points)> {
        let points = self.points(product)?;
        Some((self.above(points, product) + 1, points))
    }

    /// At most `count` places from `start` on.
    pub fn rows(&self, start: &PageStart, count: u64) -> Rows {
        let skip = match start {
            PageStart::Rank(rank) => rank.saturating_sub(1),
            PageStart::After(place) => {
                let listed = self.points(&place.product).map(Points::ranked) == Some(place.points.ranked());
                self.above(place.points, &place.product) + u64::from(listed)
            }
            PageStart::Around { product, radius } => match self.entry(product) {
                Some((rank, _)) => (rank - 1).saturating_sub(*radius),
                None => self.len(),
            },
        };
        let end = skip.saturating_add(count).min(self.len());
        let places = (skip..end).filter_map(|index| self.order.get_index(index as usize)).map(place_of).collect();
        Rows { first_rank: skip + 1, places, total: self.len() }
    }

    /// Every place, best first.
    pub fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.order.iter().map(place_of)
    }

    /// How many places rank above one with these points and this product.
    fn above(&self, points: Points, product: &ProductId) -> u64 {
        self.order.rank(&key(points, product)) as u64
    }
}

fn place_of((points, product): &Key) -> Place {
    Place { product: product.0.clone(), points: points.0.0 }
}

impl FromIterator<(ProductId, Points)> for Standings {
    fn from_iter<I: IntoIterator<Item = (ProductId, Points)>>(points: I) -> Self {
        let mut standings = Self::default();
        for (product, points) in points {
            standings.set(&product, points);
        }
        standings
    }
}

/// The order of a board, as [`Standings`] has it, where nobody asks for ranks and nothing moves any more.
pub fn best_first(points: impl IntoIterator<Item = (ProductId, Points)>) -> Vec<Place> {
    let places = points.into_iter().filter(|(_, points)| *points != Points::ZERO);
    let mut places: Vec<_> = places.map(|(product, points)| Place { product, points }).collect();
    places.sort_unstable_by(|a, b| (b.points.ranked(), &b.product).cmp(&(a.points.ranked(), &a.product)));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ProductId {
        ProductId::new(text).unwrap()
    }

    fn place(product: &str, points: i128) -> Place {
        Place { product: id(product), points: Points::from_millionths(points) }
    }

    fn standings(rows: &[(&str, i128)]) -> Standings {
        let mut standings = Standings::default();
        for (product, points) in rows {
            standings.add(&id(product), Points::from_millionths(*points));
        }
        standings
    }

    fn shown(rows: &Rows) -> Vec<&str> {
        rows.places.iter().map(|place| place.product.as_str()).collect()
    }

    #[test]
    fn ties_rank_by_id_from_high_to_low() {
        let board = standings(&[("a", 5), ("b", 5), ("c", 7), ("d", 1)]);
        assert_eq!(shown(&board.rows(&PageStart::Rank(1), 10)), ["c", "b", "a", "d"]);
        assert_eq!(board.entry(&id("a")), Some((3, Points::from_millionths(5))));
        assert_eq!(board.entry(&id("x")), None);
    }

    #[test]
    fn what_is_put_in_order_at_once_is_in_the_same_order() {
        let rows = [("a", 5), ("b", 5), ("c", 7), ("d", 0), ("e", -1)];
        let ordered = best_first(rows.map(|(product, points)| (id(product), Points::from_millionths(points))));
        assert_eq!(ordered, standings(&rows).iter().collect::<Vec<_>>());
    }

    #[test]
    fn zero_points_leave_the_board() {
        let board = standings(&[("a", 5), ("a", -5), ("b", 1), ("c", -1)]);
        assert_eq!(board.len(), 2);
        assert_eq!(board.points(&id("a")), None);
        assert_eq!(shown(&board.rows(&PageStart::Rank(1), 10)), ["b", "c"]);
    }

    #[test]
    fn what_lies_beyond_ranks_by_id_and_keeps_its_points() {
        let max = i128::from(Points::RANKED_MAX);
        let board = standings(&[("a", 1 << 100), ("b", max), ("c", max - 1), ("d", -max - 1), ("e", -(1 << 100))]);
        let order = [("b", max), ("a", 1 << 100), ("c", max - 1), ("e", -(1 << 100)), ("d", -max - 1)];
        let order = order.map(|(product, points)| place(product, points));
        assert_eq!(board.iter().collect::<Vec<_>>(), order);
        assert_eq!(best_first(board.to_vec()), order);
        assert_eq!(board.rows(&PageStart::Rank(1), 9).places, order);
        assert_eq!(board.entry(&id("a")), Some((2, Points::from_millionths(1 << 100))));
        // A cursor tells what a place ranks by, however far beyond that its points were.
        assert_eq!(board.rows(&PageStart::After(place("a", max)), 9).places, order[2..]);
        assert_eq!(board.rows(&PageStart::After(place("e", -max)), 9).places, order[4..]);
    }

    #[test]
    fn pages_go_on_behind_a_place_that_has_moved() {
        let board = standings(&[("a", 5), ("b", 5), ("c", 7), ("d", 1)]);
        let after = |product, points| board.rows(&PageStart::After(place(product, points)), 2);
        assert_eq!(shown(&after("b", 5)), ["a", "d"]);
        assert_eq!(after("b", 5).first_rank, 3);
        // The cursor's product has since fallen from 6 to 1 points.
        assert_eq!(shown(&after("d", 6)), ["b", "a"]);
        assert_eq!(shown(&after("aa", 5)), ["a", "d"]);
        assert_eq!(shown(&after("d", 1)), [""; 0]);
        assert_eq!(shown(&board.rows(&PageStart::Rank(9), 2)), [""; 0]);
    }

    #[test]
    fn around_is_cut_at_the_top() {
        let board = standings(&[("a", 5), ("b", 4), ("c", 3), ("d", 2), ("e", 1)]);
        let around = |product| board.rows(&PageStart::Around { product: id(product), radius: 1 }, 3);
        assert_eq!(shown(&around("c")), ["b", "c", "d"]);
        assert_eq!(shown(&around("a")), ["a", "b", "c"]);
        assert_eq!(shown(&around("x")), [""; 0]);
    }
}
