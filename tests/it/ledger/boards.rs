//! Boards and the rules of their weights.

use acclaim::domain::{BoardId, Factor, HalfLife, Hours, Signal, Weight, WeightRule, Window};
use acclaim::ledger::{Author, LedgerError, NewWeightRule, RuleOutcome};

use super::*;

fn ada() -> Author {
    Author { name: "ada".to_owned(), at: at(1), note: "it's a \"sale\"".to_owned() }
}

fn rule(board: Option<BoardId>, signal: Signal, weight: f64, expected_version: Option<i32>) -> NewWeightRule {
    NewWeightRule {
        board,
        weights: vec![(signal, Weight::from_f64(weight).unwrap())],
        from: None,
        until: None,
        hours: None,
        author: ada(),
        expected_version,
    }
}

async fn added(ledger: &Ledger, new: &NewWeightRule) -> WeightRule {
    match ledger.add_rule(new).await.unwrap() {
        RuleOutcome::Added(rule) => rule,
        RuleOutcome::Conflict { present } => panic!("version {present} stands"),
    }
}

/// Of the boards named, in their order.
async fn revisions<const N: usize>(ledger: &Ledger, boards: [&str; N]) -> [i64; N] {
    let definitions = ledger.definitions().await.unwrap();
    boards.map(|id| definitions.board(&BoardId::from_stored(id.to_owned())).unwrap().revision)
}

over_both! {
    async fn a_new_ledger_has_a_board_of_each_window_and_the_count_of_likes(ledger: Fresh) {
        let definitions = ledger.definitions().await.unwrap();
        let boards: Vec<_> = definitions.boards.iter().map(|d| (d.board.id.as_str(), d.board.window)).collect();
        let hour = HalfLife::from_ms(3_600_000).unwrap();
        assert_eq!(boards, [
            ("_likes", Window::AllTime),
            ("all-time", Window::AllTime),
            ("daily", Window::Day),
            ("hourly", Window::Hour),
            ("monthly", Window::Month),
            ("trending", Window::HalfLife(hour)),
            ("weekly", Window::Week),
        ]);
        for definition in &definitions.boards {
            let board = &definition.board;
            let carry_over = if board.id == BoardId::daily() { Factor::from_f64(0.3).unwrap() } else { Factor::ZERO };
            assert_eq!((board.carry_over, definition.closed_from), (carry_over, None), "{}", board.id);
            assert!(board.scope.is_all());
            assert_eq!(board.time_zone.iana_name(), Some("UTC"));
        }
        assert_eq!(definitions.board(&BoardId::daily()).unwrap().board.title, "Daily");
        assert_eq!((definitions.rules.weights, definitions.rules.products), (vec![], vec![]));
    }

    async fn rules_are_numbered_and_raise_the_revision_of_what_they_reach(ledger: Fresh) {
        let boards = ["_likes", "daily", "weekly"];
        let [likes, daily, weekly] = revisions(&ledger, boards).await;
        let first = added(&ledger, &rule(None, Signal::View, 0.5, None)).await;
        assert_eq!(revisions(&ledger, boards).await, [likes, daily + 1, weekly + 1]);
        let second = NewWeightRule {
            from: Some(at(-1_000)),
            until: Some(at(3_600_000)),
            hours: Some(Hours::new(&[0, 5, 23]).unwrap()),
            ..rule(Some(BoardId::daily()), Signal::Order, 1.25, None)
        };
        let second = added(&ledger, &second).await;
        assert_eq!(revisions(&ledger, boards).await, [likes, daily + 2, weekly + 1]);
        assert_eq!((first.version, second.version), (1, 2));
        assert_eq!(second, WeightRule {
            version: 2,
            board: Some(BoardId::daily()),
            weights: vec![(Signal::Order, Weight::from_millionths(1_250_000))],
            from: Some(at(-1_000)),
            until: Some(at(3_600_000)),
            hours: Some(Hours::new(&[0, 5, 23]).unwrap()),
            cancels: None,
            created_by: "ada".to_owned(),
            created_at: at(1),
            note: "it's a \"sale\"".to_owned(),
        });
        assert_eq!((first.from, first.until, first.hours), (None, None, None));
        assert_eq!(ledger.definitions().await.unwrap().rules.weights, [first, second]);
        ledger.revise_boards().await.unwrap();
        assert_eq!(revisions(&ledger, boards).await, [likes + 1, daily + 3, weekly + 2]);
    }

    async fn a_rule_made_against_another_version_is_a_conflict(ledger: Fresh) {
        let daily = || Some(BoardId::daily());
        let outcome = |new: NewWeightRule| { let ledger = ledger.ledger.clone(); async move { ledger.add_rule(&new).await.unwrap() } };
        assert_eq!(outcome(rule(None, Signal::View, 0.5, Some(1))).await, RuleOutcome::Conflict { present: 0 });
        added(&ledger, &rule(None, Signal::View, 0.5, Some(0))).await;
        added(&ledger, &rule(daily(), Signal::View, 0.6, Some(1))).await;
        // For the shared rules version 1 still is the newest; for the board it is 2.
        assert_eq!(outcome(rule(daily(), Signal::View, 0.7, Some(1))).await, RuleOutcome::Conflict { present: 2 });
        added(&ledger, &rule(None, Signal::View, 0.8, Some(1))).await;
        assert_eq!(outcome(rule(daily(), Signal::View, 0.9, Some(2))).await, RuleOutcome::Conflict { present: 3 });
        added(&ledger, &rule(daily(), Signal::View, 0.9, Some(3))).await;
        assert_eq!(ledger.definitions().await.unwrap().rules.weights.len(), 4);
    }

    async fn of_rules_made_at_once_against_one_version_one_wins(ledger: Fresh) {
        for round in 0..5 {
            let tasks: Vec<_> = (0..8).map(|_| {
                let ledger = ledger.ledger.clone();
                tokio::spawn(async move { ledger.add_rule(&rule(None, Signal::View, 0.5, Some(round))).await.unwrap() })
            }).collect();
            let mut versions = Vec::new();
            for task in tasks {
                if let RuleOutcome::Added(rule) = task.await.unwrap() {
                    versions.push(rule.version);
                }
            }
            assert_eq!(versions, [round + 1]);
        }
        // Without an expectation every one gets in, each under a version of its own.
        let tasks: Vec<_> = (0..8).map(|_| {
            let ledger = ledger.ledger.clone();
            tokio::spawn(async move { added(&ledger, &rule(None, Signal::View, 0.5, None)).await.version })
        }).collect();
        let mut versions = Vec::new();
        for task in tasks {
            versions.push(task.await.unwrap());
        }
        versions.sort();
        assert_eq!(versions, (6..14).collect::<Vec<_>>());
    }

    async fn rules_for_boards_that_can_have_none_are_refused(ledger: Fresh) {
        let before = revisions(&ledger, ["_likes", "daily"]).await;
        for board in [BoardId::likes(), BoardId::new("unknown").unwrap()] {
            let refused = ledger.add_rule(&rule(Some(board), Signal::View, 0.5, None)).await;
            assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
        }
        assert_eq!(ledger.definitions().await.unwrap().rules.weights, []);
        assert_eq!(revisions(&ledger, ["_likes", "daily"]).await, before);
    }

    async fn rules_are_paged_newest_first(ledger: Fresh) {
        let boards = [None, Some(BoardId::daily()), Some(BoardId::new("weekly").unwrap())];
        for n in 0..9 {
            added(&ledger, &rule(boards[n % 3].clone(), Signal::View, n as f64, None)).await;
        }
        let page = |board: Option<BoardId>, below, first| {
            let ledger = ledger.ledger.clone();
            async move {
                let page = ledger.rules(board.as_ref(), below, first).await.unwrap();
                (page.rows.iter().map(|rule| rule.version).collect::<Vec<_>>(), page.has_more)
            }
        };
        assert_eq!(page(None, None, 4).await, (vec![9, 8, 7, 6], true));
        assert_eq!(page(None, Some(6), 5).await, (vec![5, 4, 3, 2, 1], false));
        assert_eq!(page(boards[1].clone(), None, 4).await, (vec![8, 7, 5, 4], true));
        assert_eq!(page(boards[1].clone(), Some(4), 4).await, (vec![2, 1], false));
        assert_eq!(page(None, Some(1), 4).await, (vec![], false));
    }
}
