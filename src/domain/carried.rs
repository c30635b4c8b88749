//! What carries over along a chain of periods, also where nobody knows what the chain began with.
//!
//! What a period starts with only ever grows with what the one before closed with, and so does all that follows. So
//! points that began somewhere between none and the most there may be stay between what these two come to; and each
//! carry brings the two nearer, until truncation makes them one. From there on the points are exact to the millionth,
//! whatever stood before: of a board that carries three tenths over, the last 75 periods say all.
//!
//! Invariant: the true points lie within the bounds; [`Carried::exact`] gives them only where the bounds have met.

use std::collections::HashMap;

use super::{Board, Factor, Points, ProductId, Scoring};

/// No product of a board that carries over has more points than so many millionths, or fewer than minus as many: it takes
/// 10^13 events, ten thousand a second for 30 years, each of the largest count at the largest weight and boost.
const MOST: i128 = 1 << MOST_BITS;
const MOST_BITS: i32 = 100;

/// Least and most that points can be.
type Bounds = (Points, Points);

/// The points at a close, as far as they are known.
#[derive(Debug, Clone)]
pub struct Carried {
    products: HashMap<ProductId, Bounds>,
    /// Of every product that is not among these.
    others: Bounds,
}

impl Carried {
    /// Begins with points that are known.
    pub fn known(points: impl IntoIterator<Item = (ProductId, Points)>) -> Self {
        let products = points.into_iter().map(|(product, points)| (product, (points, points))).collect();
        Self { products, others: (Points::ZERO, Points::ZERO) }
    }

    /// Begins with what nobody knows.
    pub fn unknown() -> Self {
        Self { products: HashMap::new(), others: (Points::from_millionths(-MOST), Points::from_millionths(MOST)) }
    }

    /// After how many periods the bounds have met, but for one product in a hundred million; `None` where they never meet.
    ///
    /// The bounds are 2^101 millionths apart at first. Once they are one millionth apart, the chance that a carry leaves
    /// them so is as large as the share that is carried over: until that is 2^-27, as many periods pass.
    pub fn reach(board: &Board) -> Option<usize> {
        let share = board.carry_over.as_f64();
        let halvings = f64::from(MOST_BITS + 1 + 27);
        (board.carry_over < Factor::ONE).then(|| (halvings / -share.log2()).ceil() as usize + 1)
    }

    /// Begins the next period: leaves of the points at the close what carries over to it.
    pub fn pass(&mut self, scoring: &Scoring) {
        let carry = scoring.board();
        self.others = (carry.carry(self.others.0), carry.carry(self.others.1));
        let others = self.others;
        self.products.retain(|product, bounds| {
            let least = scoring.carry(product, bounds.0);
            let most = if bounds.0 == bounds.1 { least } else { scoring.carry(product, bounds.1) };
            *bounds = (least, most);
            *bounds != others
        });
    }

    /// Adds points that a product got in the period.
    pub fn add(&mut self, scoring: &Scoring, product: ProductId, points: Points) {
        let others = if scoring.lists(&product) { self.others } else { (Points::ZERO, Points::ZERO) };
        let bounds = self.products.entry(product).or_insert(others);
        *bounds = (bounds.0.plus(points), bounds.1.plus(points));
    }

    /// The points, zeros left out; `None` where they are not known yet.
    pub fn exact(self) -> Option<Vec<(ProductId, Points)>> {
        let zero = (Points::ZERO, Points::ZERO);
        let is_exact = self.others == zero && self.products.values().all(|(least, most)| least == most);
        let points = self.products.into_iter().map(|(product, (points, _))| (product, points));
        is_exact.then(|| points.filter(|(_, points)| *points != Points::ZERO).collect())
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::{BoardId, Rules, Timestamp, Window};

    fn board(carry_over: f64) -> Board {
        let mut board = Board::new(BoardId::daily(), "Daily", Window::Day, TimeZone::UTC);
        board.carry_over = Factor::from_f64(carry_over).unwrap();
        board
    }

    /// Days with the points that products get in them, by chance but always the same.
    fn days(count: u64) -> Vec<Vec<(ProductId, Points)>> {
        let random = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let points = |day: u64, product: u64| {
            let drawn = random(day * 1_000 + product);
            let is_active = drawn >> 61 < 2 + product % 4;
            is_active.then(|| Points::from_millionths(i128::from(drawn >> 40) % 9_000_000 - 100_000))
        };
        let id = |product| ProductId::new(&format!("p{product}")).unwrap();
        let of_day = |day| (0..40).filter_map(move |product| Some((id(product), points(day, product)?))).collect();
        (0..count).map(of_day).collect()
    }

    fn follow(board: &Board, mut carried: Carried, days: &[Vec<(ProductId, Points)>]) -> Carried {
        let mut at = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
        for day in days {
            let scoring = Scoring::new(board, board.period_at(at), &Rules::default(), Default::default());
            carried.pass(&scoring);
            day.iter().for_each(|(product, points)| carried.add(&scoring, product.clone(), *points));
            at = at.plus_ms(24 * 3_600_000);
        }
        carried
    }

    #[test]
    fn what_stood_before_the_reach_makes_no_difference() {
        for share in [0.000_001, 0.1, 0.3, 0.5, 0.9] {
            let board = board(share);
            let reach = Carried::reach(&board).unwrap();
            let days = days(reach as u64 + 400);
            let most = |day: &[(ProductId, Points)]| {
                Carried::known(day.iter().map(|(id, _)| (id.clone(), Points::from_millionths(MOST))))
            };
            let exact = |carried: Carried| carried.exact().map(HashMap::from_iter);
            let all: HashMap<_, _> = exact(follow(&board, Carried::known([]), &days)).unwrap();
            let last = &days[days.len() - reach..];
            assert!(!all.is_empty());
            assert_eq!(exact(follow(&board, Carried::unknown(), last)).as_ref(), Some(&all), "{share}");
            assert_eq!(exact(follow(&board, most(&days[0]), &days)).as_ref(), Some(&all), "{share}");
        }
        assert_eq!(Carried::reach(&board(0.3)), Some(75));
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let board = board(0.3);
        let days = days(10);
        assert_eq!(follow(&board, Carried::unknown(), &days).exact(), None);
        assert_eq!(follow(&board, Carried::unknown(), &[]).exact(), None);
        let whole = self::board(1.0);
        assert_eq!(Carried::reach(&whole), None);
        let few = follow(&whole, Carried::known([]), &days).exact().unwrap();
        let sums = days.iter().flatten().fold(HashMap::new(), |mut sums: HashMap<_, Points>, (id, points)| {
            let sum = sums.entry(id.clone()).or_default();
            *sum = sum.plus(*points);
            sums
        });
        assert_eq!(HashMap::from_iter(few), sums);
    }
}
