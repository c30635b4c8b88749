//! Commits: what they change, what they refuse, and who wins.

use acclaim::domain::{Event, EventId, Position, Producer, Signal, Timestamp};
use acclaim::ledger::{Batch, Commit, DeadLetter, EventState, LedgerError};

use super::snapshot::{ALL, segment, snapshot};
use super::*;

/// (product, signal, count) of everything, sorted.
async fn activity(ledger: &Ledger) -> Vec<(String, Signal, i64)> {
    let rows = snapshot(ledger, &[ALL]).await.activity.into_iter();
    let mut rows: Vec<_> = rows.map(|row| (row.product.to_string(), row.count.signal, row.count.count)).collect();
    rows.sort();
    rows
}

async fn cursor(ledger: &Ledger, partition: u16) -> Position {
    ledger.state(PARTITIONS).await.unwrap().cursors[&partition]
}

async fn revision(ledger: &Ledger) -> i64 {
    ledger.definitions().await.unwrap().boards.iter().map(|definition| definition.revision).sum()
}

over_both! {
    async fn a_batch_changes_events_likes_activity_and_cursor(ledger: Fresh) {
        let events = vec![
            like("ann", "k1", "mug", 0),
            like("ann", "k2", "pen", 1000),
            event("o1", Signal::Order, "mug", 3, 2000),
            event("o2", Signal::Order, "mug", 2, 3000),
        ];
        assert_eq!(ledger.push(0, events).await, []);
        assert_eq!(cursor(&ledger, 0).await, Position::new(0, 4));
        assert_eq!(cursor(&ledger, 1).await, Position::default());
        assert_eq!(
            activity(&ledger).await,
            [("mug".into(), Signal::Like, 1), ("mug".into(), Signal::Order, 5), ("pen".into(), Signal::Like, 1)]
        );
        let likes = &ledger.user_likes(&[user("ann")], at(-1)).await.unwrap()[0].likes;
        assert_eq!(likes.len(), 2);
        assert!(likes.contains(&(product("mug"), at(0))) && likes.contains(&(product("pen"), at(1000))));
        ledger.assert_sound().await;
    }

    async fn an_unlike_takes_its_like_back_in_the_same_bucket(ledger: Fresh) {
        let hour = 3_600_000;
        ledger.push(0, vec![like("ann", "k1", "mug", 0)]).await;
        ledger.push(0, vec![unlike("ann", "k2", "mug", hour, 0)]).await;
        assert_eq!(activity(&ledger).await, []);
        assert_eq!(ledger.liked_count(&user("ann")).await.unwrap(), 0);
        ledger.assert_sound().await;
        // Within one batch the last one counts, too.
        ledger.push(0, vec![
            like("ann", "k3", "mug", 2 * hour),
            unlike("ann", "k4", "mug", 3 * hour, 2 * hour),
            like("ann", "k5", "mug", 4 * hour),
        ]).await;
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::Like, 1)]);
        assert_eq!(ledger.user_likes(&[user("ann")], at(0)).await.unwrap()[0].likes, [(product("mug"), at(4 * hour))]);
        ledger.assert_sound().await;
    }

    async fn a_like_that_changes_nothing_is_refused(ledger: Fresh) {
        let ids = |refused: Vec<Event>| -> Vec<_> {
            refused.iter().map(|event| event.id.like_key().unwrap().as_str().to_owned()).collect()
        };
        // Within a batch, and against what the ledger has; by whatever the engine came to think so.
        let refused = ledger
            .push(0, vec![
                unlike("ann", "k0", "mug", 0, 0),
                like("ann", "k1", "mug", 1),
                like("ann", "k2", "mug", 2),
                like("bob", "k1", "mug", 2),
            ])
            .await;
        assert_eq!(ids(refused), ["k0", "k2"]);
        let refused = ledger
            .push(0, vec![
                like("ann", "k3", "mug", 3),
                unlike("ann", "k4", "mug", 4, 1),
                unlike("ann", "k5", "mug", 5, 1),
            ])
            .await;
        assert_eq!(ids(refused), ["k3", "k5"]);
        ledger.assert_sound().await;
        // A key that the engine forgot comes again: what it seemed to do decides nothing for what follows.
        let refused = ledger
            .push(0, vec![
                like("ann", "k6", "mug", 6),
                unlike("ann", "k1", "mug", 7, 6),
                like("ann", "k7", "mug", 8),
                unlike("bob", "k2", "mug", 8, 2),
                unlike("bob", "k2", "mug", 8, 2),
                like("bob", "k3", "mug", 9),
            ])
            .await;
        assert_eq!(ids(refused), ["k1", "k7", "k2"]);
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::Like, 2)]);
        // So does a key that comes twice before the ledger has it: the first decides.
        let refused = ledger
            .push(0, vec![
                like("ann", "k8", "mug", 10),
                like("ann", "k8", "mug", 11),
                unlike("cat", "k1", "mug", 11, 10),
                like("cat", "k1", "mug", 12),
                unlike("cat", "k1", "mug", 13, 12),
            ])
            .await;
        assert_eq!(ids(refused), ["k8", "k8", "k1", "k1", "k1"]);
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::Like, 2)]);
        ledger.assert_sound().await;
    }

    async fn partitions_are_summed_and_zeros_left_out(ledger: Fresh) {
        let runs: Vec<_> = (0..PARTITIONS)
            .map(|partition| batch(partition, Position::default(), vec![
                event(&format!("v{partition}"), Signal::View, "mug", 10, 0),
                event(&format!("c{partition}"), Signal::Cart, "mug", if partition == 3 { -3 } else { 1 }, 0),
            ]))
            .collect();
        assert_eq!(ledger.commit(&runs).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::View, 40)]);
        let snapshot = snapshot(&ledger, &[ALL]).await;
        assert!(snapshot.cursors.values().all(|cursor| *cursor == Position::new(0, 2)));
        assert_eq!(snapshot.cursors.len(), usize::from(PARTITIONS));
        ledger.assert_sound().await;
    }

    async fn buckets_are_quarters_of_an_hour_before_1970_too(ledger: Fresh) {
        let mut events = Vec::new();
        for (n, ms) in [-900_001, -900_000, -1, 0, 899_999, 900_000, 253_402_300_799_999, -62_135_596_800_000].into_iter().enumerate() {
            let mut event = event(&format!("e{n}"), Signal::View, "mug", 1 << n, 0);
            (event.occurred_at, event.recorded_at) = (Timestamp::from_ms(ms), Timestamp::from_ms(ms));
            events.push(event);
        }
        ledger.push(0, events).await;
        let segments = [segment(-2, -1), segment(-1, 0), segment(0, 1), segment(1, 2), segment(2, i32::MAX), segment(i32::MIN, -2)];
        let counts = snapshot(&ledger, &segments).await.activity.into_iter();
        let sums: Vec<_> = counts.map(|row| (row.count.bucket.0, row.count.count)).collect();
        assert_eq!(sums, [(i32::MIN, 128), (-2, 1), (-1, 2 + 4), (0, 8 + 16), (1, 32), (2, 64)]);
        ledger.assert_sound().await;
    }

    async fn an_event_counts_once(ledger: Fresh) {
        let first = vec![event("o1", Signal::Order, "mug", 3, 0), like("ann", "k1", "mug", 0)];
        ledger.push(0, first.clone()).await;
        let before = revision(&ledger).await;
        // Again, twice over, with other contents, and with something new between.
        let again = vec![
            event("o1", Signal::Order, "mug", 4, 0),
            like("ann", "k1", "pen", 5000),
            event("o2", Signal::Order, "mug", 1, 0),
            event("o2", Signal::Order, "mug", 7, 0),
        ];
        let refused = ledger.push(0, again.clone()).await;
        assert_eq!(refused, [again[0].clone(), again[1].clone(), again[3].clone()]);
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::Like, 1), ("mug".into(), Signal::Order, 4)]);
        assert_eq!(ledger.user_likes(&[user("ann")], at(0)).await.unwrap()[0].likes, [(product("mug"), at(0))]);
        assert_eq!(cursor(&ledger, 0).await, Position::new(0, 6));
        // Boards are to take back what they have counted of it, and are not computed anew.
        let noted = ledger.rejections().await.unwrap();
        let undone: Vec<_> = noted.iter().map(|rejection| rejection.undo.as_ref().map(|undo| undo.count)).collect();
        assert_eq!(undone, [Some(4), None, Some(7)], "likes wait for their commit");
        assert_eq!(revision(&ledger).await, before);
        // Everything refused is a commit as well.
        assert_eq!(ledger.push(1, first.clone()).await, first);
        assert_eq!(cursor(&ledger, 1).await, Position::new(0, 2));
        ledger.assert_sound().await;
    }

    async fn an_id_that_belongs_to_nobody_is_taken_for_all(ledger: Fresh) {
        let shop = Producer::new("shop").unwrap();
        let own = |id: &str, producer: &Producer| {
            let plain = event(id, Signal::Order, "mug", 1, 0);
            Event { id: plain.id.of(producer), ..plain }
        };
        ledger.push(0, vec![event("o1", Signal::Order, "mug", 3, 0), own("o2", &shop)]).await;
        let thief = Producer::new("thief").unwrap();
        let sent = vec![own("o1", &shop), own("o2", &shop), own("o2", &thief), own("o3", &shop)];
        assert_eq!(ledger.push(1, sent.clone()).await, sent[..2]);
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::Order, 3 + 1 + 2)]);
        ledger.assert_sound().await;
    }

    async fn an_event_is_reversed_once(ledger: Fresh) {
        let reversal = |id: &str| Event {
            reverses: Some(EventId::new("o1").unwrap()),
            ..event(id, Signal::Order, "mug", -3, 0)
        };
        let refused = ledger.push(0, vec![event("o1", Signal::Order, "mug", 3, 0), reversal("r1"), reversal("r2")]).await;
        assert_eq!(refused, [reversal("r2")]);
        assert_eq!(ledger.push(0, vec![reversal("r3")]).await, [reversal("r3")]);
        assert_eq!(activity(&ledger).await, []);
        ledger.assert_sound().await;
    }

    async fn what_follows_another_cursor_changes_nothing(ledger: Fresh) {
        ledger.push(0, vec![event("a", Signal::View, "mug", 1, 0)]).await;
        let good = batch(1, Position::default(), vec![event("b", Signal::View, "mug", 1, 0)]);
        for from in [Position::default(), Position::new(0, 2), Position::new(1, 0)] {
            let stale = batch(0, from, vec![event("c", Signal::View, "mug", 1, 0)]);
            assert_eq!(ledger.commit(&[good.clone(), stale]).await.unwrap(), Commit::CursorMoved);
        }
        assert_eq!(cursor(&ledger, 1).await, Position::default());
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::View, 1)]);
        // An empty batch moves its cursor all the same.
        let mut empty = batch(0, Position::new(0, 1), vec![]);
        empty.to = Position::new(1, 7);
        assert_eq!(ledger.commit(&[good, empty]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        assert_eq!(cursor(&ledger, 0).await, Position::new(1, 7));
        assert_eq!(ledger.commit(&[]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
    }

    async fn of_many_commits_at_one_cursor_exactly_one_wins(ledger: Fresh) {
        for round in 0..10_u64 {
            let from = Position::new(0, round);
            let tasks: Vec<_> = (0..8)
                .map(|n| {
                    let ledger = ledger.ledger.clone();
                    // In different orders of partitions, so that they could wait for each other in a circle.
                    let mut runs: Vec<_> = (0..PARTITIONS)
                        .map(|p| batch(p, from, vec![event(&format!("{round}-{n}-{p}"), Signal::View, "mug", 1, 0)]))
                        .collect();
                    runs.rotate_left(n % 4);
                    tokio::spawn(async move { ledger.commit(&runs).await.unwrap() })
                })
                .collect();
            let mut done = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Commit::Done { rejected: refused, .. } => {
                        assert_eq!(refused, []);
                        done += 1;
                    }
                    Commit::CursorMoved => {}
                }
            }
            assert_eq!(done, 1);
        }
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::View, 10 * i64::from(PARTITIONS))]);
        ledger.assert_sound().await;
    }

    async fn partitions_committed_side_by_side_all_count(ledger: Fresh) {
        let tasks: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let ledger = ledger.ledger.clone();
                tokio::spawn(async move {
                    for n in 0..20 {
                        let who = format!("u{partition}");
                        let (like, unlike) = (like(&who, &format!("a{n}"), "mug", 0), unlike(&who, &format!("b{n}"), "mug", 1, 0));
                        let run = batch(partition, Position::new(0, 2 * n), vec![if n % 2 == 0 { like } else { unlike }, event(&format!("{partition}-{n}"), Signal::View, "mug", 1, 0)]);
                        assert_eq!(ledger.commit(&[run]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::View, 20 * i64::from(PARTITIONS))]);
        ledger.assert_sound().await;
    }

    async fn an_older_like_never_overwrites_a_newer_one(ledger: Fresh) {
        ledger.push(0, vec![event("x", Signal::View, "mug", 1, 0), like("ann", "k1", "mug", 0)]).await;
        // An older backup of the ledger meets a journal that begins again: the same user at an earlier position.
        ledger.tamper("UPDATE cursors SET seq = 0 WHERE partition = 0").await;
        ledger.push(0, vec![unlike("ann", "k0", "mug", 1, 0)]).await;
        assert_eq!(ledger.liked_count(&user("ann")).await.unwrap(), 1);
    }

    async fn dead_letters_are_kept_with_the_rest(ledger: Fresh) {
        let letter = |seq, entry: &str| DeadLetter {
            position: Position::new(0, seq),
            entry: entry.to_owned(),
            error: "no such signal".to_owned(),
        };
        let run = Batch {
            to: Position::new(0, 3),
            dead_letters: vec![letter(2, "a\0b"), letter(3, ""), letter(3, "a second one")],
            ..batch(0, Position::default(), vec![event("a", Signal::View, "mug", 1, 0)])
        };
        assert_eq!(ledger.commit(std::slice::from_ref(&run)).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 3);
        assert_eq!(ledger.commit(&[run]).await.unwrap(), Commit::CursorMoved);
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 3);
        assert_eq!(cursor(&ledger, 0).await, Position::new(0, 3));
    }

    /// What the edge would never let in, but a journal might hold.
    async fn entries_that_no_event_can_be_are_dead_letters(ledger: Fresh) {
        let sound = event("fine", Signal::View, "mug", 1, 0);
        let with = |change: fn(&mut Event)| {
            let mut event = event("odd", Signal::View, "mug", 1, 0);
            change(&mut event);
            event
        };
        let odd = vec![
            with(|e| e.id = EventId::from_stored("a\0b")),
            with(|e| e.id = EventId::from_stored("")),
            with(|e| e.id = EventId::from_stored("x".repeat(3000))),
            with(|e| e.product = acclaim::domain::ProductId::from_stored("m\0g")),
            with(|e| e.user = Some(acclaim::domain::UserId::from_stored("\0"))),
            with(|e| e.reverses = Some(EventId::from_stored("\0"))),
            with(|e| e.count = 0),
            with(|e| e.count = i64::MIN),
            with(|e| e.count = Event::COUNT_MAX + 1),
            with(|e| e.occurred_at = Timestamp::from_ms(i64::MAX)),
            with(|e| e.recorded_at = Timestamp::from_ms(i64::MIN)),
            with(|e| e.id = EventId::from_stored("like:3:odd")),
            Event { user: None, ..like("ann", "k1", "mug", 0) },
            Event { user: Some(user("bob")), ..like("ann", "k1", "mug", 0) },
            Event { count: 2, ..like("ann", "k1", "mug", 0) },
            Event { signal: Signal::View, ..like("ann", "k1", "mug", 0) },
        ];
        let letters = odd.len() as u64;
        let mut events = odd;
        events.insert(7, sound);
        assert_eq!(ledger.push(0, events).await, []);
        assert_eq!(ledger.dead_letter_count().await.unwrap(), letters);
        assert_eq!(activity(&ledger).await, [("mug".into(), Signal::View, 1)]);
        assert_eq!(cursor(&ledger, 0).await, Position::new(0, letters + 1));
        ledger.assert_sound().await;
    }

    /// A rule of the database that this version does not know of stands for whatever it did not foresee.
    async fn entries_that_the_database_refuses_are_found_by_halving(ledger: Fresh) {
        ledger.tamper("CREATE UNIQUE INDEX one_sum ON activity (count) WHERE count = 13").await;
        let count = |n: u64, partition: u16| if (n == 21 && partition != 2) || n == 38 { 13 } else { 1 };
        let run = |partition: u16| {
            let event = |n| event(&format!("{partition}-{n}"), Signal::Cart, &format!("p{partition}-{n}"), count(n, partition), 0);
            batch(partition, Position::default(), (1..=40).map(event).collect())
        };
        let runs: Vec<_> = (0..PARTITIONS).map(run).collect();
        let Commit::Done { rejected, dead_lettered } = ledger.commit(&runs).await.unwrap() else { panic!() };
        // Seven events count 13, and one such row is allowed.
        assert_eq!((rejected, dead_lettered.len()), (vec![], 6));
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 6);
        assert!(dead_lettered.iter().all(|refused| refused.event.count == 13), "each is told: {dead_lettered:?}");
        // Boards have counted them, and the engine is to be corrected, whatever becomes of this answer.
        let noted = ledger.rejections().await.unwrap();
        let place = |partition: u16, position: Position| (partition, position);
        let mut told: Vec<_> = dead_lettered.iter().map(|refused| place(refused.partition, refused.position)).collect();
        let mut kept: Vec<_> = noted.iter().map(|rejection| place(rejection.partition, rejection.position)).collect();
        assert!(noted.iter().all(|rejection| rejection.undo.as_ref().is_some_and(|undo| undo.count == 13)));
        told.sort();
        kept.sort();
        assert_eq!(told, kept);
        let asked: Vec<_> = dead_lettered
            .iter()
            .map(|refused| (refused.event.id.clone(), refused.partition, refused.position))
            .chain([
                (EventId::from_producer("0-1").unwrap(), 0, Position::new(0, 1)),
                (EventId::from_producer("0-1").unwrap(), 0, Position::new(0, 2)),
            ])
            .collect();
        let states = ledger.event_states(&asked).await.unwrap();
        assert_eq!(states[..6], [EventState::DeadLettered; 6]);
        assert_eq!(states[6..], [EventState::Committed, EventState::Rejected]);
        ledger.settle_rejections(&noted[1..]).await.unwrap();
        assert_eq!(ledger.rejections().await.unwrap(), noted[..1]);
        ledger.settle_rejections(&noted).await.unwrap();
        assert_eq!(ledger.rejections().await.unwrap(), []);
        let rows = activity(&ledger).await;
        assert_eq!(rows.len(), 40 * 4 - 6);
        assert_eq!(rows.iter().filter(|row| row.2 == 13).count(), 1);
        for partition in 0..PARTITIONS {
            assert_eq!(cursor(&ledger, partition).await, Position::new(0, 40));
        }
        ledger.assert_sound().await;
    }

    async fn an_epoch_begins_all_cursors_anew_and_never_goes_back(ledger: Fresh) {
        ledger.push(2, vec![event("a", Signal::View, "mug", 1, 0)]).await;
        ledger.begin_epoch(3, at(7)).await.unwrap();
        let state = ledger.state(PARTITIONS).await.unwrap();
        assert_eq!((state.epoch, state.epoch_began_at), (3, at(7)));
        assert!(state.cursors.values().all(|cursor| *cursor == Position::new(3, 0)));
        for epoch in [3, 2, 0] {
            assert!(matches!(ledger.begin_epoch(epoch, at(9)).await, Err(LedgerError::Rejected(_))));
        }
        assert_eq!(ledger.state(PARTITIONS).await.unwrap(), state);
        // What was read under the epoch before is too late.
        let late = batch(2, Position::new(0, 1), vec![event("b", Signal::View, "mug", 1, 0)]);
        assert_eq!(ledger.commit(&[late]).await.unwrap(), Commit::CursorMoved);
        assert_eq!(ledger.push(2, vec![event("b", Signal::View, "mug", 1, 0)]).await, []);
    }

    async fn another_number_of_partitions_is_refused(ledger: Fresh) {
        let error = ledger.state(PARTITIONS + 1).await.unwrap_err();
        assert!(error.to_string().contains("set the number of partitions to 4"), "{error}");
    }
}
