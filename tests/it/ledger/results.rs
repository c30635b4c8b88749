//! Closed periods.

use acclaim::domain::{Basis, BoardId, Period, Place, Points};
use acclaim::ledger::{BoardDefinition, LedgerError};

use super::*;

fn places(count: i64) -> Vec<Place> {
    (0..count)
        .map(|n| Place { product: product(&format!("p{n}")), points: Points::from_millionths(1_000_000 - n) })
        .collect()
}

const BASIS: Basis = Basis { rules_version: 3, at: Timestamp::from_ms(1_795_305_600_000) };

pub async fn daily(ledger: &Ledger) -> BoardDefinition {
    ledger.definitions().await.unwrap().board(&BoardId::daily()).unwrap().clone()
}

async fn day(ledger: &Ledger, date: &str) -> Period {
    daily(ledger).await.board.period_of_key(date).unwrap()
}

over_both! {
    async fn the_first_to_write_results_wins(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        let period = day(&ledger, "2026-11-21").await;
        assert!(!ledger.has_results(&daily, &period.key).await.unwrap());
        let tasks: Vec<_> = (1..=8).map(|n| {
            let (ledger, daily, period) = (ledger.ledger.clone(), definition.clone(), period.clone());
            tokio::spawn(async move { ledger.write_results(&daily, &period, &places(n), BASIS).await.unwrap().then_some(n) })
        }).collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await.unwrap());
        }
        let [winner] = winners[..] else { panic!("{winners:?}") };
        assert_eq!(ledger.results(&daily, &period.key, 100).await.unwrap(), places(winner));
        assert!(ledger.has_results(&daily, &period.key).await.unwrap());
        assert_eq!(ledger.results(&daily, "2026-11-20", 100).await.unwrap(), []);
        assert!(!ledger.has_results(&BoardId::likes(), &period.key).await.unwrap());
    }

    async fn an_empty_period_is_written_too(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        let period = day(&ledger, "2026-11-21").await;
        assert!(ledger.write_results(&definition, &period, &[], BASIS).await.unwrap());
        assert!(ledger.has_results(&daily, &period.key).await.unwrap());
        assert!(!ledger.write_results(&definition, &period, &places(3), BASIS).await.unwrap());
        assert_eq!(ledger.results(&daily, &period.key, 100).await.unwrap(), []);
    }

    async fn all_of_the_last_period_is_kept_and_a_thousand_of_older_ones(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        // The one in the middle is written last.
        for date in ["2026-11-19", "2026-11-21", "2026-11-20"] {
            assert!(ledger.write_results(&definition, &day(&ledger, date).await, &places(12_345), BASIS).await.unwrap());
        }
        for (date, kept) in [("2026-11-19", 1_000), ("2026-11-20", 1_000), ("2026-11-21", 12_345)] {
            let results = ledger.results(&daily, date, 100_000).await.unwrap();
            assert_eq!(results.len(), kept, "{date}");
            assert_eq!(results, places(kept as i64));
        }
        assert_eq!(ledger.results(&daily, "2026-11-21", 20).await.unwrap(), places(20));
    }

    async fn a_period_that_never_ends_has_no_results(ledger: Fresh) {
        let boards = ledger.definitions().await.unwrap().boards;
        let period = boards[0].board.period_at(at(0));
        let refused = ledger.write_results(&boards[0], &period, &places(1), BASIS).await;
        assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
    }
}
