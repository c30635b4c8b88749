//! Signals and their weights.

/// The kinds of event that count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    View,
    Like,
    Cart,
    Share,
    Order,
}

impl Signal {
    pub const ALL: [Self; 5] = [Self::View, Self::Like, Self::Cart, Self::Share, Self::Order];

    /// The number that stands for the signal in the journal and the ledger. Never reassigned.
    pub const fn code(self) -> i16 {
        self as i16
    }

    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "VIEW",
            Self::Like => "LIKE",
            Self::Cart => "CART",
            Self::Share => "SHARE",
            Self::Order => "ORDER",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// What one signal is worth, in whole millionths of a point: 0 to 1,000 points with six decimals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Weight(i64);

/// A weight from outside that is not a number from 0 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a weight is a number from 0 to 1000, with at most six decimals; {0} is not")]
pub struct InvalidWeight(pub f64);

impl Weight {
    /// 1,000 points: a thousand times an order. Of such signals 9 million are told apart by rank, see
    /// [`super::Points::RANKED_MAX`].
    pub const MAX: Self = Self(1_000_000_000);

    pub const fn from_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// Takes a weight from outside. What a decimal of six places can't say is refused, not rounded.
    pub fn from_f64(weight: f64) -> Result<Self, InvalidWeight> {
        let millionths = (weight * 1e6).round();
        let exact = millionths / 1e6 == weight;
        if !exact || !(0.0..=Self::MAX.0 as f64).contains(&millionths) {
            return Err(InvalidWeight(weight));
        }
        Ok(Self(millionths as i64))
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Truncated to millionths.
    #[must_use]
    pub fn times(self, factor: Factor) -> Self {
        Self((i128::from(self.0) * i128::from(factor.0) / 1_000_000) as i64)
    }

    /// Truncated to millionths; growth of a half-life board's signals.
    #[must_use]
    pub fn grown(self, growth: f64) -> Self {
        Self((self.0 as f64 * growth) as i64)
    }
}

/// What weights or points are multiplied by, in whole millionths: a share of 0 to 1, or a boost of up to 100.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Factor(i64);

/// A factor from outside that is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a factor is a number from 0 to 100, with at most six decimals; {0} is not")]
pub struct InvalidFactor(pub f64);

impl Factor {
    pub const ZERO: Self = Self(0);
    pub const ONE: Self = Self(1_000_000);
    /// 100: of signals of the largest weight, lifted so far, 90,000 are still told apart by rank.
    pub const MAX: Self = Self(100_000_000);

    pub const fn from_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// Takes a factor from outside. What a decimal of six places can't say is refused, not rounded.
    pub fn from_f64(factor: f64) -> Result<Self, InvalidFactor> {
        let millionths = (factor * 1e6).round();
        let exact = millionths / 1e6 == factor;
        if !exact || !(0.0..=Self::MAX.0 as f64).contains(&millionths) {
            return Err(InvalidFactor(factor));
        }
        Ok(Self(millionths as i64))
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// A weight for every signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weights([Weight; Signal::ALL.len()]);

impl Weights {
    /// What counts where no rule says otherwise.
    pub const DEFAULT: Self =
        Self([Weight(100_000), Weight(200_000), Weight(300_000), Weight(400_000), Weight(600_000)]);
    /// One point for a like: the hidden board that counts them.
    pub const LIKES: Self = Self([Weight(0), Weight(1_000_000), Weight(0), Weight(0), Weight(0)]);

    pub const fn of(&self, signal: Signal) -> Weight {
        self.0[signal as usize]
    }

    pub fn set(&mut self, signal: Signal, weight: Weight) {
        self.0[signal as usize] = weight;
    }

    pub fn set_all(&mut self, weights: &[(Signal, Weight)]) {
        weights.iter().for_each(|(signal, weight)| self.set(*signal, *weight));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Signal, Weight)> + '_ {
        Signal::ALL.into_iter().map(|signal| (signal, self.of(signal)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exact_millionths() {
        for (text, millionths) in [(0.1, 100_000), (0.000001, 1), (1000.0, 1_000_000_000), (0.0, 0), (0.3, 300_000)] {
            assert_eq!(Weight::from_f64(text).unwrap().millionths(), millionths);
            assert_eq!(Weight::from_f64(text).unwrap().as_f64(), text);
        }
        for bad in [-0.1, 1000.000001, f64::NAN, f64::INFINITY, 0.0000001, 0.1234567] {
            assert!(Weight::from_f64(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn codes_and_names_are_stable() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_code(signal.code()), Some(signal));
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
        }
        assert_eq!(Signal::from_code(5), None);
        assert_eq!(Signal::from_code(-1), None);
    }
}
