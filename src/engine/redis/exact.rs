//! How points are written for scripts, and by them: as a whole number below 2^52, else as `lua/exact.lua` says.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use crate::domain::Points;

/// Bits of the lower two of three numbers.
const BITS: u32 = 48;
const MASK: i128 = (1 << BITS) - 1;
/// From here on, up and down, points are large.
const LARGE: u128 = 1 << 52;

/// Points as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exact(pub Points);

/// No such text.
#[derive(Debug)]
pub struct NotPoints;

impl Exact {
    pub fn is_large(self) -> bool {
        self.0.millionths().unsigned_abs() >= LARGE
    }
}

impl Display for Exact {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let millionths = self.0.millionths();
        if !self.is_large() {
            return write!(f, "{millionths}");
        }
        write!(f, "{}:{}:{}", millionths >> (2 * BITS), (millionths >> BITS) & MASK, millionths & MASK)
    }
}

impl FromStr for Exact {
    type Err = NotPoints;

    fn from_str(text: &str) -> Result<Self, NotPoints> {
        let number = |text: &str| text.parse::<i64>().map(i128::from).map_err(|_| NotPoints);
        let mut numbers = text.split(':').map(number);
        let (Some(first), middle, low) = (numbers.next(), numbers.next(), numbers.next()) else {
            return Err(NotPoints);
        };
        let millionths = match (middle, low) {
            (None, None) => first?,
            (Some(middle), Some(low)) => {
                let high = i32::try_from(first?).map_err(|_| NotPoints)?;
                let (middle, low) = (middle?, low?);
                if numbers.next().is_some() || [middle, low].iter().any(|number| !(0..=MASK).contains(number)) {
                    return Err(NotPoints);
                }
                (i128::from(high) << (2 * BITS)) + (middle << BITS) + low
            }
            _ => return Err(NotPoints),
        };
        Ok(Self(Points::from_millionths(millionths)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(millionths: i128) -> Exact {
        Exact(Points::from_millionths(millionths))
    }

    proptest! {
        #[test]
        fn points_read_back(drawn: i128, bits in 0..128_u32) {
            let exact = exact(drawn.checked_shr(bits).unwrap_or_default());
            prop_assert_eq!(exact.to_string().parse::<Exact>().unwrap(), exact);
        }
    }

    #[test]
    fn large_points_are_three_numbers() {
        let large = 1 << 52;
        let texts =
            [large - 1, large, 1 - large, -large, -1, i128::MIN].map(|millionths| exact(millionths).to_string());
        let expected =
            ["4503599627370495", "0:16:0", "-4503599627370495", "-1:281474976710640:0", "-1", "-2147483648:0:0"];
        assert_eq!(texts, expected);
        for other in ["", "x", "1:2", "1:2:3:4", "1:-1:0", "1:0:281474976710656", "2147483648:0:0", "1.5", "inf"] {
            assert!(other.parse::<Exact>().is_err(), "{other}");
        }
        // As a sorted set tells it.
        assert_eq!("9007199254740991".parse::<Exact>().unwrap().0.millionths(), Points::RANKED_MAX.into());
    }
}
