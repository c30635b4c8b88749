//! Boards: those that are shipped, and those that admins make, change, delete and reopen.

use acclaim::domain::{Basis, Board, Factor, HalfLife, Period, Place, Points, Scope, Window};
use acclaim::ledger::{BoardDefinition, LedgerError, ReopenOutcome, SaveOutcome};
use jiff::tz::TimeZone;

use super::*;

/// Orders of the kitchen in Seoul, by day, with half of the day before.
fn kitchen() -> Board {
    Board {
        scope: Scope { category: Some("kitchen".to_owned()), brand: Some("acme".to_owned()) },
        carry_over: Factor::from_f64(0.5).unwrap(),
        ..Board::new(board_id("kitchen"), "Kitchen", Window::Day, TimeZone::get("Asia/Seoul").unwrap())
    }
}

async fn saved(ledger: &Ledger, board: &Board) -> BoardDefinition {
    match ledger.save_board(board, &ada()).await.unwrap() {
        SaveOutcome::Saved(definition) => definition,
        outcome => panic!("{outcome:?}"),
    }
}

async fn definition(ledger: &Ledger, id: &str) -> Option<BoardDefinition> {
    ledger.definitions().await.unwrap().board(&board_id(id)).cloned()
}

fn day(board: &Board, date: &str) -> Period {
    board.period_of_key(date).unwrap()
}

fn places(count: i128) -> Vec<Place> {
    let place = |n| Place { product: product(&format!("p{n}")), points: Points::from_millionths(5_000_000 - n) };
    (0..count).map(place).collect()
}

/// Closes days of a board, each with so many places.
async fn close(ledger: &Ledger, definition: &BoardDefinition, days: &[(&str, i128)]) {
    for (date, count) in days {
        let period = day(&definition.board, date);
        assert!(ledger.write_results(definition, &period, &places(*count), Basis::default()).await.unwrap(), "{date}");
    }
}

/// Which of the days 18 to 23 have results.
async fn closed(ledger: &Ledger, id: &str) -> Vec<u32> {
    let mut closed = Vec::new();
    for date in 18..24 {
        let key = format!("2026-11-{date}");
        if ledger.has_results(&board_id(id), &key).await.unwrap() {
            closed.push(date);
        } else {
            assert_eq!(ledger.results(&board_id(id), &key, 9).await.unwrap(), [], "nothing is left of {key}");
        }
    }
    closed
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

    async fn a_board_is_made_changed_and_kept_as_it_was_said(ledger: Fresh) {
        let made = saved(&ledger, &kitchen()).await;
        assert_eq!((&made.board, made.revision, made.closed_from), (&kitchen(), 1, None));
        assert_eq!(definition(&ledger, "kitchen").await, Some(made.clone()));
        // The same again changes nothing, another title nothing that is computed, all else does.
        assert_eq!(saved(&ledger, &kitchen()).await, made);
        let titled = Board { title: "Küche".to_owned(), ..kitchen() };
        assert_eq!(saved(&ledger, &titled).await, BoardDefinition { board: titled.clone(), ..made.clone() });
        let moved = Board { scope: Scope { brand: None, ..titled.scope.clone() }, ..titled.clone() };
        assert_eq!(saved(&ledger, &moved).await.revision, 2);
        let elsewhere = Board { time_zone: TimeZone::UTC, carry_over: Factor::ZERO, ..moved.clone() };
        assert_eq!(saved(&ledger, &elsewhere).await, BoardDefinition { board: elsewhere.clone(), revision: 3, reopened: made.reopened + 2, ..made });
        assert_eq!(definition(&ledger, "kitchen").await.unwrap().board, elsewhere);
        assert_eq!(audited(&ledger).await, [
            deed("saveBoard", "board kitchen", r#"{"carryOver":0.5,"timeZone":"Asia/Seoul"}"#, r#"{"carryOver":0.0,"timeZone":"UTC"}"#),
            deed("saveBoard", "board kitchen", r#"{"brand":"acme"}"#, "{}"),
            deed("saveBoard", "board kitchen", r#"{"title":"Kitchen"}"#, r#"{"title":"Küche"}"#),
            deed("saveBoard", "board kitchen", "", r#"{"brand":"acme","carryOver":0.5,"category":"kitchen","timeZone":"Asia/Seoul","title":"Kitchen","window":"DAY"}"#),
        ]);
    }

    async fn every_window_is_stored(ledger: Fresh) {
        let half_life = |ms| Window::HalfLife(HalfLife::from_ms(ms).unwrap());
        let windows =
            [Window::Hour, Window::Day, Window::Week, Window::Month, Window::AllTime, half_life(HalfLife::MS_MIN), half_life(HalfLife::MS_MAX)];
        for (n, window) in windows.into_iter().enumerate() {
            let board = Board::new(board_id(&format!("board-{n}")), "x", window, TimeZone::get("America/New_York").unwrap());
            saved(&ledger, &board).await;
            assert_eq!(definition(&ledger, board.id.as_str()).await.unwrap().board, board);
        }
        // A half-life may change, and is computed anew.
        let slower = Board::new(board_id("board-5"), "x", half_life(600_000), TimeZone::get("America/New_York").unwrap());
        assert_eq!(saved(&ledger, &slower).await.revision, 2);
    }

    async fn what_no_board_can_be_is_refused(ledger: Fresh) {
        let another = Board { window: Window::Week, ..kitchen() };
        saved(&ledger, &kitchen()).await;
        let outcome = ledger.save_board(&another, &ada()).await.unwrap();
        assert_eq!(outcome, SaveOutcome::Taken(Window::Day));
        assert_eq!(definition(&ledger, "kitchen").await.unwrap().board, kitchen());
        let hidden = Board { id: BoardId::likes(), ..kitchen() };
        assert!(matches!(ledger.save_board(&hidden, &ada()).await, Err(LedgerError::Rejected(_))));
        let nameless = Board { time_zone: TimeZone::fixed(jiff::tz::offset(2)), ..kitchen() };
        assert!(matches!(ledger.save_board(&nameless, &ada()).await, Err(LedgerError::Rejected(_))));
        for id in [BoardId::daily(), BoardId::likes()] {
            assert!(matches!(ledger.delete_board(&id, &ada()).await, Err(LedgerError::Rejected(_))));
        }
        assert_eq!(audited(&ledger).await.len(), 1);
    }

    async fn there_are_only_so_many_boards(ledger: Fresh) {
        let board = |n: usize| Board { id: board_id(&format!("b{n}")), ..kitchen() };
        let mut made = 0;
        let most = loop {
            match ledger.save_board(&board(made), &ada()).await.unwrap() {
                SaveOutcome::Saved(_) => made += 1,
                SaveOutcome::Full { most } => break most as usize,
                outcome => panic!("{outcome:?}"),
            }
        };
        assert_eq!(made + 6, most, "with those that are shipped");
        // Those that are there can be changed still, and one that goes makes room.
        saved(&ledger, &Board { title: "Other".to_owned(), ..board(0) }).await;
        ledger.delete_board(&board(1).id, &ada()).await.unwrap().unwrap();
        saved(&ledger, &board(made)).await;
        assert_eq!(ledger.save_board(&board(1), &ada()).await.unwrap(), SaveOutcome::Full { most: most as u32 });
    }

    async fn a_deleted_board_is_gone_with_its_periods_and_its_revision_never_comes_again(ledger: Fresh) {
        let made = saved(&ledger, &kitchen()).await;
        close(&ledger, &made, &[("2026-11-20", 3), ("2026-11-21", 2)]).await;
        close(&ledger, &definition(&ledger, "daily").await.unwrap(), &[("2026-11-20", 3)]).await;
        assert_eq!(ledger.delete_board(&board_id("kitchen"), &ada()).await.unwrap(), Some(made.clone()));
        assert_eq!(definition(&ledger, "kitchen").await, None);
        assert_eq!((closed(&ledger, "kitchen").await, closed(&ledger, "daily").await), (vec![], vec![20]));
        assert_eq!(ledger.delete_board(&board_id("kitchen"), &ada()).await.unwrap(), None);
        assert_eq!(ledger.reopen_board(&board_id("kitchen"), None, &ada()).await.unwrap(), ReopenOutcome::Unknown);
        // Whoever was closing a period of it is too late, also once there is another board of that id.
        let late = ledger.write_results(&made, &day(&made.board, "2026-11-22"), &places(1), Basis::default()).await;
        assert!(matches!(late, Err(LedgerError::Rejected(_))), "{late:?}");
        let anew = Board { window: Window::Hour, scope: Scope::default(), ..kitchen() };
        let again = saved(&ledger, &anew).await;
        assert_eq!((&again.board, again.closed_from), (&anew, None));
        assert!(again.revision > made.revision);
        let late = ledger.write_results(&made, &day(&made.board, "2026-11-22"), &places(1), Basis::default()).await;
        assert!(matches!(late, Err(LedgerError::Rejected(_))), "{late:?}");
        assert_eq!(closed(&ledger, "kitchen").await, [0_u32; 0]);
        let log = audited(&ledger).await;
        let told = r#"{"brand":"acme","carryOver":0.5,"category":"kitchen","timeZone":"Asia/Seoul","title":"Kitchen","window":"DAY"}"#;
        assert_eq!(log.len(), 3);
        assert_eq!(log[1], deed("deleteBoard", "board kitchen", told, ""));
        assert_eq!(log[0].2, None, "nothing was there before");
    }

    async fn a_board_is_computed_anew_from_a_period_on(ledger: Fresh) {
        let made = saved(&ledger, &kitchen()).await;
        close(&ledger, &made, &[("2026-11-19", 3), ("2026-11-20", 4), ("2026-11-21", 5)]).await;
        let reopen = async |from: Option<&Period>| ledger.reopen_board(&made.board.id, from, &ada()).await.unwrap();
        // The open period alone.
        assert_eq!(reopen(None).await, ReopenOutcome::Reopened { from: None });
        let open = definition(&ledger, "kitchen").await.unwrap();
        assert_eq!((open.revision, open.closed_from, open.reopened), (made.revision + 1, None, made.reopened + 1));
        assert_eq!(closed(&ledger, "kitchen").await, [19, 20, 21]);
        // From the day before yesterday on: nothing of it was cut, since no day has more than a thousand places.
        let from = day(&made.board, "2026-11-20");
        assert_eq!(reopen(Some(&from)).await, ReopenOutcome::Reopened { from: from.starts_at });
        let reopened = definition(&ledger, "kitchen").await.unwrap();
        assert_eq!((reopened.revision, reopened.closed_from), (open.revision + 1, from.starts_at));
        assert_eq!(closed(&ledger, "kitchen").await, [19]);
        // Whoever was at the chain before it was taken back must not go on with it.
        let late = ledger.write_results(&open, &day(&made.board, "2026-11-21"), &places(1), Basis::default()).await;
        assert!(matches!(late, Err(LedgerError::Rejected(_))), "{late:?}");
        close(&ledger, &reopened, &[("2026-11-20", 4), ("2026-11-21", 5)]).await;
        // Further back than anything was ever closed.
        let first = day(&made.board, "2010-12-01");
        assert_eq!(reopen(Some(&first)).await, ReopenOutcome::Reopened { from: first.starts_at });
        assert_eq!(closed(&ledger, "kitchen").await, [0_u32; 0]);
        assert_eq!(definition(&ledger, "kitchen").await.unwrap().closed_from, first.starts_at);
        let unknown = ledger.reopen_board(&board_id("unknown"), Some(&first), &ada()).await.unwrap();
        assert_eq!(unknown, ReopenOutcome::Unknown);
        let log = audited(&ledger).await;
        assert_eq!(log.len(), 4);
        assert_eq!(log[2], deed("rebuildBoard", "board kitchen", r#"{"revision":1}"#, r#"{"periodsTakenBack":0,"revision":2}"#));
        assert_eq!(log[1], deed(
            "rebuildBoard",
            "board kitchen",
            r#"{"revision":2}"#,
            r#"{"closedFrom":"2026-11-19T15:00:00.000Z","periodsTakenBack":2,"revision":3}"#,
        ));
    }

    async fn a_chain_begins_where_points_are_known_to_the_last_place(ledger: Fresh) {
        let days = [("2026-11-18", 3), ("2026-11-19", 900), ("2026-11-20", 1_200), ("2026-11-21", 1_100), ("2026-11-22", 1_300)];
        let daily = definition(&ledger, "daily").await.unwrap();
        close(&ledger, &daily, &days).await;
        let from = day(&daily.board, "2026-11-22");
        // The 21st and the 20th were cut to a thousand places, so the 19th is the latest that the chain can follow.
        let outcome = ledger.reopen_board(&daily.board.id, Some(&from), &ada()).await.unwrap();
        let begins_at = day(&daily.board, "2026-11-19").ends_at;
        assert_eq!(outcome, ReopenOutcome::Reopened { from: begins_at });
        assert_eq!(closed(&ledger, "daily").await, [18, 19]);
        assert_eq!(definition(&ledger, "daily").await.unwrap().closed_from, begins_at);

        // Where all were cut, with the very first, which started with nothing.
        let made = saved(&ledger, &kitchen()).await;
        close(&ledger, &made, &[("2026-11-19", 1_500), ("2026-11-20", 1_200), ("2026-11-21", 1_100)]).await;
        let from = day(&made.board, "2026-11-21");
        let outcome = ledger.reopen_board(&made.board.id, Some(&from), &ada()).await.unwrap();
        assert_eq!(outcome, ReopenOutcome::Reopened { from: day(&made.board, "2026-11-19").starts_at });
        assert_eq!(closed(&ledger, "kitchen").await, [0_u32; 0]);

        // A board that carries nothing over has no need of it.
        let plain = Board { id: board_id("plain"), carry_over: Factor::ZERO, ..kitchen() };
        let made = saved(&ledger, &plain).await;
        close(&ledger, &made, &[("2026-11-19", 1_500), ("2026-11-20", 1_200), ("2026-11-21", 1_100)]).await;
        let outcome = ledger.reopen_board(&plain.id, Some(&from), &ada()).await.unwrap();
        assert_eq!(outcome, ReopenOutcome::Reopened { from: from.starts_at });
        assert_eq!(closed(&ledger, "plain").await, [19, 20]);
    }

    /// Whoever closes a period beside whoever takes it back: either comes first, and nothing is left of what came before.
    async fn closing_and_taking_back_at_once_leave_no_old_results(ledger: Fresh) {
        let made = saved(&ledger, &kitchen()).await;
        let from = day(&made.board, "2026-11-18");
        for round in 0..10 {
            let known = definition(&ledger, "kitchen").await.unwrap();
            let closing = {
                let (ledger, known) = (ledger.ledger.clone(), known.clone());
                let period = day(&known.board, &format!("2026-11-{}", 18 + round % 6));
                tokio::spawn(async move { ledger.write_results(&known, &period, &places(300), Basis::default()).await })
            };
            let outcome = ledger.reopen_board(&known.board.id, Some(&from), &ada()).await.unwrap();
            assert_eq!(outcome, ReopenOutcome::Reopened { from: from.starts_at });
            match closing.await.unwrap() {
                Ok(written) => assert!(written),
                Err(error) => assert!(matches!(error, LedgerError::Rejected(_)), "{error}"),
            }
            assert_eq!(closed(&ledger, "kitchen").await, [0_u32; 0], "round {round}");
        }
    }
}
