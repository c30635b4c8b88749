//! Dead letters: how they are read, and how they become events after all.

use acclaim::domain::{Event, EventId, Position, Signal};
use acclaim::ledger::{Batch, Commit, DeadLetter, Replayed};

use super::snapshot::{ALL, snapshot};
use super::*;

/// An event as a dead letter's entry.
fn entry(event: &Event) -> String {
    serde_json::json!({
        "id": event.id, "signal": event.signal, "product": event.product, "user": event.user, "count": event.count,
        "occurredAtMs": event.occurred_at.as_ms(), "recordedAtMs": event.recorded_at.as_ms(), "reverses": event.reverses,
    })
    .to_string()
}

/// Commits entries in one partition behind its cursor, each as an event or as a dead letter.
async fn push(ledger: &Fresh, partition: u16, entries: Vec<Result<Event, String>>) {
    let from = ledger.state(PARTITIONS).await.unwrap().cursors[&partition];
    let mut run =
        Batch { to: Position::new(from.epoch, from.seq + entries.len() as u64), ..batch(partition, from, vec![]) };
    for (entry, n) in entries.into_iter().zip(1..) {
        let position = Position::new(from.epoch, from.seq + n);
        match entry {
            Ok(event) => run.events.push((position, event)),
            Err(entry) => run.dead_letters.push(DeadLetter { position, entry, error: "no such signal".to_owned() }),
        }
    }
    assert_eq!(ledger.commit(&[run]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
}

fn buried(event: &Event) -> Result<Event, String> {
    Err(entry(event))
}

async fn replay(ledger: &Fresh, ids: Option<&[&str]>) -> Replayed {
    let ids: Option<Vec<String>> = ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
    ledger.replay(ids.as_deref(), &ada()).await.unwrap()
}

/// Ids that stay, in order.
fn refused(replayed: &Replayed) -> Vec<&str> {
    let mut ids: Vec<_> = replayed.refused.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort();
    ids
}

async fn counted(ledger: &Ledger) -> Vec<(String, Signal, i64)> {
    let rows = snapshot(ledger, &[ALL]).await.activity.into_iter();
    let mut rows: Vec<_> = rows.map(|row| (row.product.to_string(), row.count.signal, row.count.count)).collect();
    rows.sort();
    rows
}

async fn letters(ledger: &Ledger) -> Vec<String> {
    ledger.dead_letters(None, 100).await.unwrap().rows.into_iter().map(|letter| letter.id).collect()
}

over_both! {
    async fn letters_are_paged_newest_first(ledger: Fresh) {
        push(&ledger, 0, (0..12).map(|n| Err(format!("entry {n}"))).collect()).await;
        push(&ledger, 1, vec![Err("a\0b".to_owned()), Ok(event("v", Signal::View, "mug", 1, 0)), Err(String::new())]).await;
        let gap = Batch {
            to: Position::new(1, 4),
            dead_letters: vec![
                DeadLetter { position: Position::new(1, 4), entry: "one".to_owned(), error: "x".to_owned() },
                DeadLetter { position: Position::new(1, 4), entry: String::new(), error: "lost".to_owned() },
            ],
            ..batch(2, Position::default(), vec![])
        };
        ledger.commit(&[gap]).await.unwrap();
        let mut expected = vec!["2:1-4.1".to_owned(), "2:1-4".to_owned()];
        expected.extend((4..=12).rev().map(|seq| format!("0:0-{seq}")));
        expected.extend(["1:0-3", "0:0-3", "0:0-2", "1:0-1", "0:0-1"].map(str::to_owned));
        for first in [1, 4, 5, 20] {
            let (mut seen, mut after) = (Vec::<String>::new(), None);
            loop {
                let page = ledger.dead_letters(after.as_deref(), first).await.unwrap();
                assert!(page.rows.len() <= first as usize);
                seen.extend(page.rows.iter().map(|letter| letter.id.clone()));
                assert_eq!(page.has_more, seen.len() < expected.len());
                if !page.has_more {
                    break;
                }
                after = seen.last().cloned();
            }
            assert_eq!(seen, expected);
        }
        let page = ledger.dead_letters(Some("0:0-2"), 1).await.unwrap();
        let letter = &page.rows[0];
        assert_eq!((letter.partition, letter.position, letter.entry.as_str()), (1, Position::new(0, 1), "a\\u0000b"));
        assert_eq!(letter.error, "no such signal");
        // Behind one that is gone meanwhile, and behind what is no id.
        ledger.tamper("DELETE FROM dead_letters WHERE id = '0:0-3'").await;
        assert_eq!(ledger.dead_letters(Some("0:0-3"), 1).await.unwrap().rows[0].id, "0:0-2");
        for nothing in ["", "x", "0:", "0:1", "9999999:0-1", "0:0-x"] {
            assert_eq!(ledger.dead_letters(Some(nothing), 5).await.unwrap().rows, [], "{nothing}");
        }
    }

    async fn what_is_replayed_counts_as_if_it_had_been_taken_at_once(ledger: Fresh) {
        let order = event("o1", Signal::Order, "mug", 3, 5);
        // As a later version's signal came out of the journal of Redis.
        let fields = r#"["id","s1","signal","3","product","pen","user","bob","count","2","occurred_at","1795341600000","recorded_at","1795341600001","reverses",""]"#;
        let liked = like("ann", "k1", "mug", 7);
        push(&ledger, 1, vec![buried(&order), Ok(event("v1", Signal::View, "mug", 1, 0)), Err(fields.to_owned()), buried(&liked)]).await;
        let cursors = ledger.state(PARTITIONS).await.unwrap().cursors;
        let before = revisions(&ledger, ["_likes", "daily", "trending"]).await;
        let replayed = replay(&ledger, None).await;
        assert_eq!(replayed, Replayed { replayed: 3, refused: vec![], users: vec![user("ann")] });
        assert_eq!(counted(&ledger).await, [
            ("mug".into(), Signal::View, 1), ("mug".into(), Signal::Like, 1), ("mug".into(), Signal::Order, 3), ("pen".into(), Signal::Share, 2),
        ]);
        assert_eq!(ledger.user_likes(&[user("ann")], at(0)).await.unwrap()[0].likes, [(product("mug"), at(7))]);
        let ids: Vec<_> = ["o1", "s1"].iter().map(|id| EventId::new(id).unwrap()).collect();
        let mut originals = ledger.originals(&ids).await.unwrap();
        originals.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!((originals[0].1.count, originals[0].1.occurred_at), (3, at(5)));
        assert_eq!(originals[1].1.occurred_at, Timestamp::from_ms(1_795_341_600_000));
        ledger.assert_sound().await;
        // No cursor has moved, every board is to be computed anew, and nothing is left to replay.
        assert_eq!(ledger.state(PARTITIONS).await.unwrap().cursors, cursors);
        assert_eq!(revisions(&ledger, ["_likes", "daily", "trending"]).await, before.map(|revision| revision + 1));
        assert_eq!((letters(&ledger).await, replay(&ledger, None).await), (vec![], Replayed::default()));
        assert_eq!(revisions(&ledger, ["_likes", "daily", "trending"]).await, before.map(|revision| revision + 1));
        assert_eq!(audited(&ledger).await, [
            deed("replayDeadLetters", "3 dead letters", "", r#"{"replayed":["1:0-1","1:0-3","1:0-4"]}"#),
        ]);
    }

    async fn only_those_named_are_replayed(ledger: Fresh) {
        push(&ledger, 0, (0..4).map(|n| buried(&event(&format!("o{n}"), Signal::Order, "mug", 1, 0))).collect()).await;
        let replayed = replay(&ledger, Some(&["0:0-3", "0:0-9", "0:0-3", "nothing"])).await;
        assert_eq!((replayed.replayed, refused(&replayed)), (1, vec!["0:0-9", "nothing"]));
        assert_eq!(letters(&ledger).await, ["0:0-4", "0:0-2", "0:0-1"]);
        assert_eq!(replay(&ledger, Some(&[])).await, Replayed::default());
        assert_eq!(audited(&ledger).await, [deed("replayDeadLetters", "dead letter 0:0-3", "", r#"{"replayed":["0:0-3"]}"#)]);
    }

    async fn what_can_not_be_an_event_stays_with_a_reason(ledger: Fresh) {
        let order = event("o1", Signal::Order, "mug", 3, 0);
        let reversal = |id: &str| Event { reverses: Some(EventId::new("o1").unwrap()), count: -3, ..event(id, Signal::Order, "mug", 1, 0) };
        push(&ledger, 0, vec![
            Ok(order.clone()),
            Err(String::new()),
            Err("no JSON".to_owned()),
            Err(r#"["id","x","signal","9"]"#.to_owned()),
            Err(r#"["id",[255],"signal","1"]"#.to_owned()),
            Err(r#"{"id":"x"}"#.to_owned()),
            buried(&Event { count: 0, ..order.clone() }),
            buried(&Event { user: None, ..like("ann", "k1", "mug", 0) }),
            buried(&Event { count: 9, ..order }),
            buried(&reversal("r1")),
            buried(&reversal("r2")),
        ]).await;
        let before = revisions(&ledger, ["daily"]).await;
        let first_try = replay(&ledger, None).await;
        // The first reversal goes in; the second, and the event that is known, do not.
        assert_eq!(first_try.replayed, 1);
        assert_eq!(refused(&first_try), ["0:0-11", "0:0-3", "0:0-4", "0:0-5", "0:0-6", "0:0-7", "0:0-8", "0:0-9"]);
        assert_eq!(revisions(&ledger, ["daily"]).await[0], before[0] + 1, "the ledger took some");
        assert_eq!(counted(&ledger).await, []);
        ledger.assert_sound().await;
        let notice = replay(&ledger, Some(&["0:0-2"])).await;
        assert!(notice.refused[0].1.contains("notice"), "{notice:?}");
        let reason = |id: &str| &first_try.refused.iter().find(|(known, _)| known == id).unwrap().1;
        assert!(reason("0:0-4").contains("no signal 9"), "{}", reason("0:0-4"));
        assert!(reason("0:0-7").contains("count 0"), "{}", reason("0:0-7"));
        assert!(reason("0:0-9").contains("the ledger has the event"), "{}", reason("0:0-9"));
        // They are still there, as they were.
        assert_eq!(letters(&ledger).await.len(), 9);
        let log = audited(&ledger).await;
        assert_eq!(replay(&ledger, None).await.replayed, 0);
        assert_eq!((audited(&ledger).await, log.len()), (log, 1));
    }

    async fn likes_alternate_whatever_is_replayed(ledger: Fresh) {
        push(&ledger, 0, vec![
            buried(&like("ann", "k1", "mug", 1)),
            buried(&unlike("ann", "k2", "mug", 2, 1)),
            buried(&like("ann", "k3", "mug", 3)),
            buried(&like("bob", "k1", "mug", 4)),
            Ok(like("bob", "k2", "mug", 5)),
            buried(&unlike("bob", "k3", "mug", 6, 5)),
            buried(&unlike("eve", "k1", "mug", 7, 0)),
            buried(&like("eve", "k2", "mug", 8)),
            buried(&like("eve", "k3", "mug", 9)),
        ]).await;
        let replayed = replay(&ledger, None).await;
        // Bob's first like would stand before one that is in; of eve's, what changes nothing is no change.
        assert_eq!(refused(&replayed), ["0:0-4", "0:0-7", "0:0-9"]);
        assert_eq!((replayed.replayed, &replayed.users[..]), (5, &[user("ann"), user("bob"), user("eve")][..]));
        let liked = async |who| ledger.liked_count(&user(who)).await.unwrap();
        assert_eq!((liked("ann").await, liked("bob").await, liked("eve").await), (1, 0, 1));
        assert_eq!(counted(&ledger).await, [("mug".into(), Signal::Like, 2)]);
        ledger.assert_sound().await;
    }

    async fn replays_at_once_and_beside_commits_count_each_event_once(ledger: Fresh) {
        push(&ledger, 0, (0..300).map(|n| buried(&event(&format!("o{n}"), Signal::Order, "mug", 1, 0))).collect()).await;
        let replays: Vec<_> = (0..4).map(|_| {
            let ledger = ledger.ledger.clone();
            tokio::spawn(async move { ledger.replay(None, &ada()).await.unwrap().replayed })
        }).collect();
        for n in 0..20 {
            ledger.push(0, vec![event(&format!("v{n}"), Signal::View, "mug", 1, 0)]).await;
        }
        let mut replayed = 0;
        for replay in replays {
            replayed += replay.await.unwrap();
        }
        assert_eq!(replayed, 300);
        assert_eq!(counted(&ledger).await, [("mug".into(), Signal::View, 20), ("mug".into(), Signal::Order, 300)]);
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 0);
        ledger.assert_sound().await;
    }

    /// A rule of the database that this version does not know of stands for whatever it did not foresee.
    async fn what_the_database_refuses_does_not_hold_up_the_rest(ledger: Fresh) {
        push(&ledger, 0, (0..40).map(|n| buried(&event(&format!("o{n}"), Signal::Order, &format!("p{n}"), if n == 21 { 13 } else { 1 }, 0))).collect()).await;
        ledger.tamper("CREATE UNIQUE INDEX one_sum ON activity (count) WHERE count = 13").await;
        push(&ledger, 1, vec![Ok(event("first", Signal::Order, "x", 13, 0))]).await;
        let replayed = replay(&ledger, None).await;
        assert_eq!((replayed.replayed, refused(&replayed)), (39, vec!["0:0-22"]));
        assert_eq!(letters(&ledger).await, ["0:0-22"]);
        ledger.assert_sound().await;
        // Once the database lets it in, it goes in.
        ledger.tamper("DROP INDEX one_sum").await;
        assert_eq!(replay(&ledger, None).await.replayed, 1);
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 0);
    }
}
