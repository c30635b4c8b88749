//! Rules of weights and of products.

use acclaim::domain::{BoardId, Factor, Hours, ProductRule, Signal, Weight, WeightRule};
use acclaim::ledger::{CancelOutcome, LedgerError, NewProductRule, NewWeightRule, RuleOutcome};

use super::*;

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

over_both! {
    /// What a node knows is read no more: here it can't even be read.
    async fn only_newer_rules_are_read(ledger: Fresh) {
        let nothing = ledger.definitions().await.unwrap();
        assert_eq!(ledger.definitions_since(&nothing).await.unwrap(), None);
        ledger.add_rule(&rule(None, Signal::View, 0.5, None)).await.unwrap();
        let one = ledger.definitions_since(&nothing).await.unwrap().unwrap();
        assert_eq!((one.rules.weights.len(), ledger.definitions().await.unwrap()), (1, one.clone()));
        assert_eq!(ledger.definitions_since(&one).await.unwrap(), None);
        ledger.tamper("UPDATE weight_rules SET weights = 'unreadable'").await;
        assert!(ledger.definitions().await.is_err());
        ledger.add_rule(&rule(Some(BoardId::daily()), Signal::Order, 0.7, None)).await.unwrap();
        let two = ledger.definitions_since(&one).await.unwrap().unwrap();
        assert_eq!(two.rules.weights.iter().map(|rule| rule.version).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(two.rules.weights[0], one.rules.weights[0]);
        assert_eq!(ledger.definitions_since(&two).await.unwrap(), None);
        // A ledger that went back has fewer.
        ledger.tamper("DELETE FROM weight_rules; UPDATE versions SET rules = 0").await;
        let back = ledger.definitions_since(&two).await.unwrap().unwrap();
        assert_eq!((back.rules.weights.len(), ledger.definitions().await.unwrap()), (0, back));
    }

    async fn rules_have_a_bound(ledger: Fresh) {
        let first = rule(None, Signal::View, 0.5, None);
        ledger.add_rule(&first).await.unwrap();
        ledger.tamper("UPDATE versions SET rules = 100000").await;
        let full = ledger.add_rule(&first).await.unwrap_err();
        assert!(matches!(full, LedgerError::TooMany { limit: "rules", value: 100_000, .. }), "{full:?}");
        assert!(matches!(ledger.cancel_rule(1, &ada()).await.unwrap(), CancelOutcome::Cancelled { .. }));
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

    async fn a_rule_is_taken_back_once(ledger: Fresh) {
        let boards = ["_likes", "daily", "weekly"];
        let daily = Some(BoardId::daily());
        let first = added(&ledger, &rule(None, Signal::View, 0.5, None)).await;
        let second = added(&ledger, &rule(daily.clone(), Signal::Order, 5.0, None)).await;
        let before = revisions(&ledger, boards).await;
        let third = ledger.cancel_rule(second.version, &ada()).await.unwrap();
        assert_eq!(third, CancelOutcome::Cancelled { rule: second.clone(), version: 3 });
        assert_eq!(revisions(&ledger, boards).await, [before[0], before[1] + 1, before[2]]);
        assert_eq!(ledger.cancel_rule(second.version, &ada()).await.unwrap(), CancelOutcome::Already);
        // Neither what is no rule nor what takes one back.
        for version in [0, 3, 4, -1] {
            assert_eq!(ledger.cancel_rule(version, &ada()).await.unwrap(), CancelOutcome::Unknown);
        }
        assert_eq!(revisions(&ledger, boards).await, [before[0], before[1] + 1, before[2]]);
        let rules = ledger.definitions().await.unwrap().rules;
        assert_eq!((rules.version(), rules.is_cancelled(2, 2), rules.is_cancelled(2, 3)), (3, false, true));
        assert_eq!(rules.weights_of(&BoardId::daily(), 3), [&first]);
        assert_eq!(rules.weights_of(&BoardId::daily(), 2), [&first, &second]);
        // A rule that was taken back is still there to be read; what took it back is no rule.
        assert_eq!(ledger.rules(None, None, 10).await.unwrap().rows, [second, first.clone()]);
        ledger.cancel_rule(first.version, &ada()).await.unwrap();
        assert_eq!(revisions(&ledger, boards).await, [before[0], before[1] + 2, before[2] + 1]);
    }

    async fn of_cancellations_at_once_one_takes_the_rule_back(ledger: Fresh) {
        let version = added(&ledger, &rule(None, Signal::View, 0.5, None)).await.version;
        let tasks: Vec<_> = (0..8).map(|_| {
            let ledger = ledger.ledger.clone();
            tokio::spawn(async move { ledger.cancel_rule(version, &ada()).await.unwrap() })
        }).collect();
        let mut cancelled = 0;
        for task in tasks {
            match task.await.unwrap() {
                CancelOutcome::Cancelled { .. } => cancelled += 1,
                outcome => assert_eq!(outcome, CancelOutcome::Already),
            }
        }
        assert_eq!((cancelled, audited(&ledger).await.len()), (1, 2));
    }

    async fn a_cancellation_is_a_version_that_others_must_know(ledger: Fresh) {
        let daily = || Some(BoardId::daily());
        added(&ledger, &rule(None, Signal::View, 0.5, None)).await;
        added(&ledger, &rule(daily(), Signal::View, 0.6, None)).await;
        ledger.cancel_rule(2, &ada()).await.unwrap();
        let outcome = async |board, expected| ledger.add_rule(&rule(board, Signal::View, 0.7, Some(expected))).await.unwrap();
        assert_eq!(outcome(daily(), 2).await, RuleOutcome::Conflict { present: 3 });
        // It took back a rule of daily alone, so shared rules and other boards know nothing of it.
        assert_eq!(outcome(None, 3).await, RuleOutcome::Conflict { present: 1 });
        assert_eq!(outcome(Some(board_id("weekly")), 3).await, RuleOutcome::Conflict { present: 1 });
        assert!(matches!(outcome(daily(), 3).await, RuleOutcome::Added(WeightRule { version: 4, .. })));
    }

    async fn product_rules_are_added_where_they_say_something_new(ledger: Fresh) {
        let boards = ["_likes", "daily", "weekly"];
        let before = revisions(&ledger, boards).await;
        let new = |board: Option<&str>, boost: Option<f64>| NewProductRule {
            product: product("mug"),
            board: board.map(board_id),
            excluded: boost.is_none(),
            boost: boost.map(|boost| Factor::from_f64(boost).unwrap()),
            until: Some(at(3_600_000)),
            author: ada(),
        };
        added(&ledger, &rule(None, Signal::View, 0.5, None)).await;
        let shared = ledger.set_product_rule(&new(None, None)).await.unwrap();
        assert_eq!(shared, ProductRule {
            version: 2,
            product: product("mug"),
            board: None,
            excluded: true,
            boost: None,
            until: Some(at(3_600_000)),
            created_by: "ada".to_owned(),
            created_at: at(1),
            note: "it's a \"sale\"".to_owned(),
        });
        let own = ledger.set_product_rule(&new(Some("daily"), Some(1.5))).await.unwrap();
        assert_eq!((own.version, own.boost), (3, Some(Factor::from_millionths(1_500_000))));
        let after = [before[0], before[1] + 3, before[2] + 2];
        assert_eq!(revisions(&ledger, boards).await, after);
        // The same again is what stands, for each board by itself.
        assert_eq!(ledger.set_product_rule(&new(None, None)).await.unwrap(), shared);
        assert_eq!(ledger.set_product_rule(&new(Some("daily"), Some(1.5))).await.unwrap(), own);
        assert_eq!((revisions(&ledger, boards).await, audited(&ledger).await.len()), (after, 3));
        let lifted = ledger.set_product_rule(&new(Some("daily"), Some(2.0))).await.unwrap();
        // Versions are shared with the rules of weights.
        let weights = added(&ledger, &rule(None, Signal::View, 0.7, None)).await;
        assert_eq!((lifted.version, weights.version), (4, 5));
        let rules = ledger.definitions().await.unwrap().rules;
        assert_eq!(rules.products, [shared, own, lifted]);
        for board in ["_likes", "unknown"] {
            let refused = ledger.set_product_rule(&new(Some(board), Some(3.0))).await;
            assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
        }
        assert_eq!(ledger.definitions().await.unwrap().rules.version(), 5);
    }

    async fn rules_leave_their_traces_in_the_audit_log(ledger: Fresh) {
        let dawn = NewWeightRule {
            from: Some(at(0)),
            until: Some(at(3_600_000)),
            hours: Some(Hours::new(&[5, 6]).unwrap()),
            ..rule(Some(BoardId::daily()), Signal::Order, 1.25, None)
        };
        added(&ledger, &rule(None, Signal::View, 0.5, None)).await;
        added(&ledger, &dawn).await;
        ledger.cancel_rule(2, &ada()).await.unwrap();
        let boost = Factor::from_f64(1.5).unwrap();
        let lifted = NewProductRule {
            product: product("mug"), board: None, excluded: false, boost: Some(boost), until: None, author: ada(),
        };
        ledger.set_product_rule(&lifted).await.unwrap();
        ledger.set_product_rule(&NewProductRule { excluded: true, boost: None, ..lifted.clone() }).await.unwrap();
        let told = r#"{"board":"daily","from":"2026-11-22T10:00:00.000Z","hours":[5,6],"until":"2026-11-22T11:00:00.000Z","version":2,"weights":{"ORDER":1.25}}"#;
        let log = audited(&ledger).await;
        assert_eq!(log, [
            deed("setProductRule", "product mug", r#"{"boost":1.5,"excluded":false,"version":4}"#, r#"{"excluded":true,"version":5}"#),
            deed("setProductRule", "product mug", "", r#"{"boost":1.5,"excluded":false,"version":4}"#),
            deed("cancelWeights", "rule 2", told, r#"{"cancelledBy":3}"#),
            deed("adjustWeights", "rule 2", r#"{"version":1}"#, told),
            deed("adjustWeights", "rule 1", r#"{"version":0}"#, r#"{"version":1,"weights":{"VIEW":0.5}}"#),
        ]);
        // What is refused, what changes nothing and what is not there leaves none.
        ledger.add_rule(&rule(None, Signal::View, 0.5, Some(7))).await.unwrap();
        ledger.add_rule(&rule(Some(board_id("unknown")), Signal::View, 0.5, None)).await.unwrap_err();
        ledger.cancel_rule(2, &ada()).await.unwrap();
        ledger.cancel_rule(9, &ada()).await.unwrap();
        ledger.set_product_rule(&NewProductRule { excluded: true, boost: None, ..lifted }).await.unwrap();
        assert_eq!(audited(&ledger).await, log);
        // By page.
        let page = async |below, first| {
            let page = ledger.audit_log(below, first).await.unwrap();
            (page.rows.iter().map(|entry| entry.id).collect::<Vec<_>>(), page.has_more)
        };
        assert_eq!(page(None, 2).await, (vec![5, 4], true));
        assert_eq!(page(Some(4), 3).await, (vec![3, 2, 1], false));
        assert_eq!(page(Some(1), 3).await, (vec![], false));
    }
}
