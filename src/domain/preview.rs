//! What a change would do to a board: two orders of it, compared.

use std::collections::{HashMap, HashSet};

use super::{Place, Points, ProductId};

/// A product in the top before or after. Zero points where it is not on the board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RankMove {
    pub product: ProductId,
    pub rank_before: Option<u64>,
    pub rank_after: Option<u64>,
    pub points_before: Points,
    pub points_after: Points,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Preview {
    /// Share of the top that stays in the top, 0 to 1; 1 where there is no top.
    pub top_overlap: f64,
    /// Rank correlation over the products that are on the board before and after, -1 to 1; 1 for fewer than two.
    pub kendall_tau: f64,
    /// By the rank after; then what leaves the board, by the rank before.
    pub moves: Vec<RankMove>,
}

impl Preview {
    /// Compares two orders of a board, best first, and lists what is among the first `top` of either.
    pub fn of(before: &[Place], after: &[Place], top: usize) -> Self {
        let places_before: HashMap<_, _> =
            (1..).zip(before).map(|(rank, place)| (&place.product, (rank, place.points))).collect();
        let in_both = after.iter().filter_map(|place| Some(places_before.get(&place.product)?.0));
        let kendall_tau = kendall_tau(&in_both.collect::<Vec<u64>>());

        let top_before: Vec<_> = before.iter().take(top).map(|place| &place.product).collect();
        let top_after: Vec<_> = after.iter().take(top).map(|place| &place.product).collect();
        let in_top: HashSet<_> = top_after.iter().copied().collect();
        let (staying, leaving): (Vec<_>, Vec<_>) = top_before.iter().partition(|product| in_top.contains(*product));
        let top_overlap = if top_before.is_empty() { 1.0 } else { staying.len() as f64 / top_before.len() as f64 };

        // Only for what is listed: the board may have 100,000 places.
        let listed: HashSet<_> = leaving.iter().copied().chain(top_after).collect();
        let places_after: HashMap<_, _> = (1..)
            .zip(after)
            .filter(|(_, place)| listed.contains(&place.product))
            .map(|(rank, place)| (&place.product, (rank, place.points)))
            .collect();
        let move_of = |product: &ProductId| {
            let (before, after) = (places_before.get(product).copied(), places_after.get(product).copied());
            RankMove {
                product: product.clone(),
                rank_before: before.map(|(rank, _)| rank),
                rank_after: after.map(|(rank, _)| rank),
                points_before: before.map(|(_, points)| points).unwrap_or_default(),
                points_after: after.map(|(_, points)| points).unwrap_or_default(),
            }
        };
        let mut moves: Vec<_> = listed.into_iter().map(move_of).collect();
        moves.sort_by_key(|step| (step.rank_after.is_none(), step.rank_after, step.rank_before));
        Self { top_overlap, kendall_tau, moves }
    }
}

/// Kendall's tau between an order and 1, 2, 3 and so on: the share of pairs in order less that of pairs in disorder.
fn kendall_tau(ranks: &[u64]) -> f64 {
    let ascending: Vec<u64> = (1..).take(ranks.len()).collect();
    match kendalls::tau_b(&ascending, ranks) {
        Ok((tau, _)) if ranks.len() > 1 => tau,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(rows: &[(&str, i128)]) -> Vec<Place> {
        let place = |(product, points): &(&str, i128)| Place {
            product: ProductId::new(product).unwrap(),
            points: Points::from_millionths(*points),
        };
        rows.iter().map(place).collect()
    }

    #[test]
    fn moves_are_of_either_top() {
        let before = places(&[("a", 9), ("b", 8), ("c", 7), ("d", 6)]);
        let after = places(&[("c", 9), ("a", 8), ("e", 7), ("b", 6)]);
        let preview = Preview::of(&before, &after, 2);
        assert_eq!(preview.top_overlap, 0.5);
        // Of the pairs of a, b and c, only (a, b) keeps its order.
        assert!((preview.kendall_tau - (1.0 - 2.0) / 3.0).abs() < 1e-12);
        let moves: Vec<_> =
            preview.moves.iter().map(|step| (step.product.as_str(), step.rank_before, step.rank_after)).collect();
        assert_eq!(moves, [("c", Some(3), Some(1)), ("a", Some(1), Some(2)), ("b", Some(2), Some(4))]);
        let all = Preview::of(&before, &after, 4);
        let last: Vec<_> = all.moves[3..].iter().map(|step| (step.product.as_str(), step.rank_after)).collect();
        assert_eq!(last, [("b", Some(4)), ("d", None)]);
        assert_eq!((all.moves[2].rank_before, all.moves[2].points_before), (None, Points::ZERO));
    }

    #[test]
    fn nothing_changes_where_there_is_nothing_to_change() {
        let nothing = Preview { top_overlap: 1.0, kendall_tau: 1.0, moves: vec![] };
        assert_eq!(Preview::of(&[], &[], 20), nothing);
        let one = places(&[("a", 1)]);
        assert_eq!((Preview::of(&one, &[], 20).top_overlap, Preview::of(&[], &one, 20).top_overlap), (0.0, 1.0));
        assert_eq!(Preview::of(&one, &one, 20).kendall_tau, 1.0);
    }

    #[test]
    fn a_board_of_a_hundred_thousand_is_exact() {
        let ranks: Vec<u64> = (1..=100_000).collect();
        assert_eq!(kendall_tau(&ranks), 1.0);
        assert_eq!(kendall_tau(&ranks.iter().rev().copied().collect::<Vec<_>>()), -1.0);
    }

    proptest! {
        #[test]
        fn tau_is_that_of_all_pairs(ranks in Just((1..40_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let pairs = (0..ranks.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
            let signs: Vec<f64> = pairs.map(|(i, j)| if ranks[i] < ranks[j] { 1.0 } else { -1.0 }).collect();
            let expected = signs.iter().sum::<f64>() / signs.len() as f64;
            prop_assert!((kendall_tau(&ranks) - expected).abs() < 1e-12);
        }
    }
}
