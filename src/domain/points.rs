//! Scores as whole numbers.

use super::{Factor, Weight};

/// A score in whole millionths of a point. Arithmetic never wraps: it stops at the bounds below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Points(i64);

impl Points {
    pub const ZERO: Self = Self(0);
    /// 2^53 - 1 millionths, some nine thousand million points: the last whole number that a Redis sorted set (an IEEE
    /// double) and JavaScript keep exactly.
    pub const MAX: Self = Self((1 << 53) - 1);
    pub const MIN: Self = Self(-Self::MAX.0);

    pub const fn from_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// `count` signals at `weight` each.
    pub fn of(count: i64, weight: Weight) -> Self {
        Self::clamped(i128::from(count) * i128::from(weight.millionths()))
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::clamped(i128::from(self.0) + i128::from(other.0))
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self::clamped(i128::from(self.0) - i128::from(other.0))
    }

    /// The part of these points that a factor says, truncated to millionths.
    #[must_use]
    pub fn times(self, factor: Factor) -> Self {
        match self.0.checked_mul(factor.millionths()) {
            // Nearly always, and ten times as fast: a chain of periods carries millions of points over.
            Some(product) => Self::clamped((product / 1_000_000).into()),
            None => Self::clamped(i128::from(self.0) * i128::from(factor.millionths()) / 1_000_000),
        }
    }

    fn clamped(millionths: i128) -> Self {
        Self(millionths.clamp(Self::MIN.0.into(), Self::MAX.0.into()) as i64)
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_the_last_exact_whole_number() {
        let most = Points::of(i64::MAX, Weight::MAX);
        assert_eq!(most, Points::MAX);
        assert_eq!(most.plus(Points::from_millionths(1)), Points::MAX);
        assert_eq!(Points::of(i64::MIN, Weight::MAX), Points::MIN);
        assert_eq!(Points::of(3, Weight::from_f64(0.1).unwrap()).as_f64(), 0.3);
    }
}
