//! Boards: what is counted, over which window, for which products.

use jiff::tz::TimeZone;

use super::{BoardId, Factor, Period, Points, Timestamp, Weights, Window};

/// The definition of a leaderboard.
#[derive(Clone, PartialEq, Debug)]
pub struct Board {
    pub id: BoardId,
    pub title: String,
    pub window: Window,
    pub scope: Scope,
    pub time_zone: TimeZone,
    /// Share of the points at a period's close that the next period starts with: 0 to 1; 0 where the window can't carry.
    pub carry_over: Factor,
}

/// Which products a board lists: those that match everything given here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Scope {
    pub category: Option<String>,
    pub brand: Option<String>,
}

impl Scope {
    /// Whether every product is meant.
    pub const fn is_all(&self) -> bool {
        self.category.is_none() && self.brand.is_none()
    }
}

impl Board {
    /// Less carry than this is dropped, so that boards do not fill with dust.
    const CARRY_MIN: Points = Points::from_millionths(10_000);

    /// A board of every product without carry.
    pub fn new(id: BoardId, title: &str, window: Window, time_zone: TimeZone) -> Self {
        Self { id, title: title.to_owned(), window, scope: Scope::default(), time_zone, carry_over: Factor::ZERO }
    }

    /// The weights before any rule.
    pub fn base_weights(&self) -> Weights {
        if self.id == BoardId::likes() { Weights::LIKES } else { Weights::DEFAULT }
    }

    /// The period that contains an instant.
    pub fn period_at(&self, at: Timestamp) -> Period {
        self.window.period_at(at, &self.time_zone)
    }

    /// The period with a key, as [`Period::key`] gives it; `None` where no period of this board has that key.
    pub fn period_of_key(&self, key: &str) -> Option<Period> {
        self.window.period_of_key(key, &self.time_zone)
    }

    /// The period that ended when this one began; `None` for a period without beginning.
    pub fn period_before(&self, period: &Period) -> Option<Period> {
        Some(self.period_at(period.starts_at?.minus_ms(1)))
    }

    /// Whether points pass from one period to the next.
    pub fn carries(&self) -> bool {
        self.window.can_carry() && self.carry_over != Factor::ZERO
    }

    /// The period whose points at the close a period starts with, where the board carries anything over.
    pub fn carries_from(&self, period: &Period) -> Option<Period> {
        self.period_before(period).filter(|_| self.carries())
    }

    /// What a product starts the next period with, from its points at this one's close.
    pub fn carry(&self, at_close: Points) -> Points {
        let carry = at_close.times(self.carry_over);
        if carry.millionths().abs() < Self::CARRY_MIN.millionths() { Points::ZERO } else { carry }
    }

    /// The score that is shown for points of a period at an instant. For HALF_LIFE, points are scaled to the period's start and lose half with each
    /// half-life since; elsewhere they are the score.
    pub fn score(&self, period: &Period, points: Points, at: Timestamp) -> Points {
        let (Some(half_life), Some(landmark)) = (self.window.half_life(), period.starts_at) else { return points };
        let at = period.ends_at.map_or(at, |end| at.min(end)).max(landmark);
        Points::from_millionths((points.millionths() as f64 / half_life.growth(landmark, at)).round() as i128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HalfLife;

    #[test]
    fn carry_is_truncated_and_dust_is_dropped() {
        let mut board = Board::new(BoardId::daily(), "Daily", Window::Day, TimeZone::UTC);
        board.carry_over = Factor::from_f64(0.3).unwrap();
        let carry = |millionths| board.carry(Points::from_millionths(millionths)).millionths();
        assert_eq!(carry(1_000_001), 300_000);
        assert_eq!(carry(33_334), 10_000);
        assert_eq!(carry(33_333), 0);
        assert_eq!(carry(-1_000_001), -300_000);
    }

    #[test]
    fn a_half_life_halves_what_is_shown() {
        let window = Window::HalfLife(HalfLife::from_ms(3_600_000).unwrap());
        let board = Board::new(BoardId::new("trending").unwrap(), "Trending", window, TimeZone::UTC);
        let period = board.period_at(Timestamp::parse("2026-11-25T12:00:00Z").unwrap());
        let shown = |hours: i64| {
            let at = period.starts_at.unwrap().plus_ms(hours * 3_600_000);
            board.score(&period, Points::from_millionths(1_000_001), at).millionths()
        };
        assert_eq!([shown(-1), shown(0), shown(1), shown(2)], [1_000_001, 1_000_001, 500_001, 250_000]);
        // A closed period shows what it showed at its end.
        assert_eq!(
            shown(100),
            board.score(&period, Points::from_millionths(1_000_001), period.ends_at.unwrap()).millionths()
        );
    }
}
