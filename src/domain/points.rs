//! Scores as whole numbers.

use super::{Factor, Weight};

/// A score in whole millionths of a point, exact at any size: nothing is cut in the middle of a sum.
///
/// Nor does a sum outgrow an i128: an event is worth less than 2^66 millionths (a count of 10^6 at the largest weight, 10^9,
/// lifted by 100 and grown by 2^9), so that takes 2^61 events, which no server has seen in 70,000 years of a million a second.
///
/// Points have no order of their own: boards rank by [`Points::ranked`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Points(i128);

impl Points {
    pub const ZERO: Self = Self(0);
    /// 2^53 - 1 millionths, some nine thousand million points: the last whole number that a Redis sorted set (an IEEE
    /// double) and JavaScript keep exactly. Points beyond rank as if they were these.
    pub const RANKED_MAX: i64 = (1 << 53) - 1;

    pub const fn from_millionths(millionths: i128) -> Self {
        Self(millionths)
    }

    pub const fn millionths(self) -> i128 {
        self.0
    }

    /// `count` signals at `weight` each.
    pub fn of(count: i64, weight: Weight) -> Self {
        Self(i128::from(count) * i128::from(weight.millionths()))
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    /// The part of these points that a factor says, truncated to millionths.
    #[must_use]
    pub fn times(self, factor: Factor) -> Self {
        let product = i64::try_from(self.0).ok().and_then(|millionths| millionths.checked_mul(factor.millionths()));
        match product {
            // Nearly always, and ten times as fast: a chain of periods carries millions of points over.
            Some(product) => Self((product / 1_000_000).into()),
            // In two parts, because the whole product may have no room.
            None => {
                let (factor, points, rest) = (i128::from(factor.millionths()), self.0 / 1_000_000, self.0 % 1_000_000);
                Self(points * factor + rest * factor / 1_000_000)
            }
        }
    }

    /// What boards rank by, in millionths: at most [`Self::RANKED_MAX`], up and down. Equal ones rank by product.
    pub fn ranked(self) -> i64 {
        self.0.clamp((-Self::RANKED_MAX).into(), Self::RANKED_MAX.into()) as i64
    }

    /// The nearest number that JSON and JavaScript have.
    pub fn as_f64(self) -> f64 {
        if self.0 == self.ranked().into() {
            return self.0 as f64 / 1e6;
        }
        let (sign, millionths) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let text = format!("{sign}{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
        text.parse().expect("digits and a point are a number")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts and weights as events have them, grown and lifted as far as may be.
    fn parts() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let count = prop_oneof![-1_000_000..=1_000_000_i64, Just(1_000_000), Just(-1_000_000)];
        let weight = prop_oneof![0..=1_000_000_000_i64, Just(1_000_000_000), Just(51_200_000_000_000)];
        proptest::collection::vec((count, weight), 0..60)
    }

    fn points((count, weight): &(i64, i64)) -> Points {
        Points::of(*count, Weight::from_millionths(*weight))
    }

    proptest! {
        #[test]
        fn sums_are_the_same_in_any_order(
            (parts, shuffled) in parts().prop_flat_map(|parts| (Just(parts.clone()), Just(parts).prop_shuffle())),
        ) {
            let sum = |parts: &[(i64, i64)]| parts.iter().map(points).fold(Points::ZERO, Points::plus);
            prop_assert_eq!(sum(&parts), sum(&shuffled));
            let exact: i128 = parts.iter().map(|(count, weight)| i128::from(*count) * i128::from(*weight)).sum();
            prop_assert_eq!(sum(&parts).millionths(), exact);
            // What is taken back leaves nothing, in whichever order it is.
            prop_assert_eq!(shuffled.iter().map(points).fold(sum(&parts), Points::minus), Points::ZERO);
        }

        #[test]
        fn shares_are_truncated_at_any_size(bits in 0..100_u32, drawn: i128, factor in 0..=100_000_000_i64) {
            let millionths = drawn >> (27 + bits);
            let share = Points(millionths).times(Factor::from_millionths(factor)).millionths();
            if let Some(product) = millionths.checked_mul(factor.into()) {
                prop_assert_eq!(share, product / 1_000_000);
            }
            prop_assert_eq!(Points(-millionths).times(Factor::from_millionths(factor)).millionths(), -share);
        }

        #[test]
        fn what_is_told_is_the_nearest(bits in 0..127_u32, drawn: i128) {
            let points = Points(drawn >> bits);
            let exact = format!("{}e-6", points.millionths());
            prop_assert_eq!(points.as_f64(), exact.parse::<f64>().unwrap());
        }

        #[test]
        fn ranks_follow_points(one: i128, other: i128, bits in 0..127_u32) {
            let (one, other) = (one >> bits, other >> bits);
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(Points(low).ranked() <= Points(high).ranked());
            prop_assert!(Points(one).ranked().unsigned_abs() <= Points::RANKED_MAX.unsigned_abs());
        }
    }

    #[test]
    fn twenty_million_orders_that_are_taken_back_leave_the_rest() {
        let orders = |count| Points::of(count, Weight::MAX);
        let all = (0..20).fold(Points::ZERO, |sum, _| sum.plus(orders(1_000_000)));
        assert_eq!((all.as_f64(), all.ranked()), (2e10, Points::RANKED_MAX));
        let rest = (0..18).fold(all, |sum, _| sum.minus(orders(1_000_000)));
        assert_eq!((rest.as_f64(), rest.ranked()), (2e9, 2_000_000_000_000_000));
        assert_eq!(Points::of(3, Weight::from_f64(0.1).unwrap()).as_f64(), 0.3);
    }

    #[test]
    fn the_last_whole_number_of_a_double_is_told_apart() {
        let max = i128::from(Points::RANKED_MAX);
        for millionths in [max - 1, max, max + 1, -max, -max - 1] {
            let kept = millionths.clamp(-max, max);
            assert_eq!(i128::from(Points(millionths).ranked()), kept);
        }
    }

    #[test]
    fn json_keeps_every_digit() {
        for millionths in [0, -1, (1 << 53) + 1, i128::from(i64::MAX) + 1, (1 << 100) + 1, -(1 << 100) - 1] {
            let text = serde_json::to_string(&Points(millionths)).unwrap();
            assert_eq!(text, millionths.to_string());
            assert_eq!(serde_json::from_str::<Points>(&text).unwrap(), Points(millionths));
        }
    }
}
