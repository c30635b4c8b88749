//! Closed periods.

use acclaim::domain::{Basis, BoardId, PageStart, Period, Place, Points, Rows};
use acclaim::ledger::{BoardDefinition, LedgerError};

use super::*;

fn places(count: i128) -> Vec<Place> {
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

    async fn what_was_computed_before_a_repair_is_not_written_after_it(ledger: Fresh) {
        let before = daily(&ledger).await;
        let period = day(&ledger, "2026-11-21").await;
        ledger.repair(&ada()).await.unwrap();
        let refused = ledger.write_results(&before, &period, &places(1), BASIS).await;
        assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
        assert!(ledger.write_results(&daily(&ledger).await, &period, &places(1), BASIS).await.unwrap());
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
            assert_eq!(results, places(kept as i128));
        }
        assert_eq!(ledger.results(&daily, "2026-11-21", 20).await.unwrap(), places(20));
    }

    async fn a_period_that_never_ends_has_no_results(ledger: Fresh) {
        let boards = ledger.definitions().await.unwrap().boards;
        let period = boards[0].board.period_at(at(0));
        let refused = ledger.write_results(&boards[0], &period, &places(1), BASIS).await;
        assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
    }

    async fn a_page_of_results_is_like_a_page_of_the_board(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        let period = day(&ledger, "2026-11-21").await;
        // Ties among them: three products at each score, by id from high to low.
        let mut tied = places(30);
        for (index, place) in tied.iter_mut().enumerate() {
            place.points = Points::from_millionths(-(index as i128 / 3));
        }
        tied.sort_by(|a, b| (b.points.ranked(), &b.product).cmp(&(a.points.ranked(), &a.product)));
        assert!(ledger.write_results(&definition, &period, &tied, BASIS).await.unwrap());
        let standings: acclaim::domain::Standings =
            tied.iter().filter(|place| place.points != Points::ZERO).map(|place| (place.product.clone(), place.points)).collect();
        // The board lists no zeros, which `tied` begins with; a page of one is the other's moved by these.
        let zeros = 30 - standings.len();
        let around = |id: &str| PageStart::Around { product: product(id), radius: 4 };
        let after = |id: &str, points| PageStart::After(Place { product: product(id), points: Points::from_millionths(points) });
        let starts = [around("p10"), around("p29"), after("p12", -4), after("p12", -5), after("zzz", -4), after("0", -4), after("p29", -100)];
        for start in starts {
            let (closed, rows) = ledger.results_page(&daily, &period.key, &start, 9).await.unwrap().unwrap();
            let mut wanted = standings.rows(&start, 9);
            wanted.first_rank += zeros;
            wanted.total += zeros;
            assert_eq!(rows, Some(wanted), "{start:?}");
            assert_eq!((closed.places, closed.kept, closed.rules_version, closed.closed_at), (30, 30, 3, BASIS.at));
            assert_eq!((closed.starts_at, Some(closed.ends_at)), (period.starts_at, period.ends_at));
        }
        let page = async |start| ledger.results_page(&daily, &period.key, &start, 9).await.unwrap().unwrap().1.unwrap();
        assert_eq!(page(PageStart::Rank(1)).await.places, tied[..9]);
        assert_eq!(page(PageStart::Rank(28)).await, Rows { first_rank: 28, places: tied[27..].to_vec(), total: 30 });
        assert_eq!(page(PageStart::Rank(50)).await, Rows { first_rank: 50, places: Vec::new(), total: 30 });
        assert_eq!(page(around("unknown")).await.places, []);
        assert_eq!(ledger.results_page(&daily, "2026-11-20", &PageStart::Rank(1), 9).await.unwrap(), None);

        let ids = [product("p29"), product("unknown"), product(tied[4].product.as_str()), product("p29")];
        let (_, entries) = ledger.results_of(&daily, &period.key, &ids).await.unwrap().unwrap();
        let rank = |id: &str| tied.iter().position(|place| place.product.as_str() == id).unwrap() as u64 + 1;
        let last = Some((rank("p29"), Points::from_millionths(-9)));
        assert_eq!(entries, [last, None, Some((5, tied[4].points)), last]);
        let (_, nothing) = ledger.results_of(&daily, &period.key, &[]).await.unwrap().unwrap();
        assert_eq!(nothing, []);
        assert_eq!(ledger.results_of(&daily, "2026-11-20", &ids).await.unwrap(), None);
    }

    async fn points_are_kept_exact_at_any_size(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        let period = day(&ledger, "2026-11-21").await;
        let max = i128::from(Points::RANKED_MAX);
        let points = [1 << 100, max, max + 1, i128::from(i64::MAX) + 2, 7, -max - 1, -(1 << 100)];
        let listed: Vec<_> = (0..).zip(points).map(|(n, points)| (product(&format!("p{n}")), Points::from_millionths(points))).collect();
        let written = acclaim::domain::best_first(listed.clone());
        assert!(ledger.write_results(&definition, &period, &written, BASIS).await.unwrap());
        assert_eq!(ledger.results(&daily, &period.key, 100).await.unwrap(), written);
        let standings: acclaim::domain::Standings = listed.iter().cloned().collect();
        for place in &written {
            let start = PageStart::After(place.clone());
            let (_, rows) = ledger.results_page(&daily, &period.key, &start, 3).await.unwrap().unwrap();
            assert_eq!(rows, Some(standings.rows(&start, 3)), "{place:?}");
        }
        let ids: Vec<_> = listed.iter().map(|(id, _)| id.clone()).collect();
        let (_, entries) = ledger.results_of(&daily, &period.key, &ids).await.unwrap().unwrap();
        assert_eq!(entries, ids.iter().map(|id| standings.entry(id)).collect::<Vec<_>>());
    }

    async fn what_reaches_beyond_the_places_kept_is_not_answered(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        for date in ["2026-11-20", "2026-11-21"] {
            assert!(ledger.write_results(&definition, &day(&ledger, date).await, &places(1_200), BASIS).await.unwrap());
        }
        let page = async |date: &str, start, count| {
            ledger.results_page(&daily, date, &start, count).await.unwrap().unwrap().1.map(|rows| (rows.first_rank, rows.places.len(), rows.total))
        };
        let around = |id: &str| PageStart::Around { product: product(id), radius: 5 };
        let after = |rank: usize| PageStart::After(places(1_200)[rank - 1].clone());
        assert_eq!(page("2026-11-20", PageStart::Rank(991), 10).await, Some((991, 10, 1_200)));
        assert_eq!(page("2026-11-20", PageStart::Rank(992), 10).await, None);
        assert_eq!(page("2026-11-20", after(990), 10).await, Some((991, 10, 1_200)));
        assert_eq!(page("2026-11-20", after(1_100), 10).await, None);
        assert_eq!(page("2026-11-20", around("p994"), 11).await, Some((990, 11, 1_200)));
        assert_eq!(page("2026-11-20", around("p995"), 11).await, None);
        assert_eq!(page("2026-11-20", around("p1100"), 11).await, None);
        assert_eq!(page("2026-11-21", after(1_195), 10).await, Some((1_196, 5, 1_200)));
        assert_eq!(page("2026-11-21", around("p1199"), 11).await, Some((1_195, 6, 1_200)));
        let whole = ledger.latest_whole(&daily, day(&ledger, "2026-11-22").await.starts_at.unwrap()).await.unwrap().unwrap();
        assert_eq!((whole.key.as_str(), whole.is_whole()), ("2026-11-21", true));
        assert_eq!(ledger.latest_whole(&daily, whole.starts_at.unwrap()).await.unwrap(), None);
        assert!(!ledger.closed_period(&daily, "2026-11-20").await.unwrap().unwrap().is_whole());
    }

    async fn closed_periods_are_listed_newest_first(ledger: Fresh) {
        let (daily, definition) = (BoardId::daily(), daily(&ledger).await);
        for date in ["2026-11-19", "2026-11-21", "2026-11-20"] {
            assert!(ledger.write_results(&definition, &day(&ledger, date).await, &places(1), BASIS).await.unwrap());
        }
        let page = async |before, first| {
            let page = ledger.closed_periods(&daily, before, first).await.unwrap();
            (page.rows.iter().map(|closed| closed.key.clone()).collect::<Vec<_>>(), page.has_more)
        };
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let (now, first_ended_at) = (at(0), day(&ledger, "2026-11-20").await.starts_at.unwrap());
        assert_eq!(page(now, 2).await, (keys(&["2026-11-21", "2026-11-20"]), true));
        assert_eq!(page(now, 0).await, (keys(&[]), true));
        assert_eq!(page(first_ended_at.plus_ms(1), 2).await, (keys(&["2026-11-19"]), false));
        assert_eq!(page(first_ended_at, 2).await, (keys(&[]), false));
        assert_eq!(page(Timestamp::from_ms(i64::MIN), 2).await, (keys(&[]), false));
        assert_eq!(ledger.closed_periods(&BoardId::likes(), now, 2).await.unwrap().rows, []);
    }
}
