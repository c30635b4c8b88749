//! Connections that can't be made, servers that go away, locks, migrations, and how fast a commit is.

use std::time::{Duration, Instant};

use acclaim::domain::{Position, Signal};
use acclaim::ledger::{Commit, LedgerError, LedgerKind};

use super::*;
use crate::support::postgres::{Server, Stop};

over_both! {
    async fn migrations_are_applied_once_however_many_nodes_start(ledger: Fresh) {
        assert_eq!(ledger.migrate().await.unwrap(), [""; 0]);
        let url = match ledger.kind() {
            LedgerKind::Postgres => crate::support::postgres::database().await,
            LedgerKind::Sqlite => format!("{}.other", ledger.url),
        };
        let nodes: Vec<_> = (0..4).map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let ledger = Ledger::connect(&url).await.unwrap();
                let applied = ledger.migrate().await.unwrap();
                ledger.ping().await.unwrap();
                let state = ledger.state(PARTITIONS).await.unwrap();
                assert_eq!(state.cursors.len(), usize::from(PARTITIONS));
                (applied, state.id)
            })
        }).collect();
        let (mut applied, mut ids) = (Vec::new(), std::collections::BTreeSet::new());
        for node in nodes {
            let (by_it, id) = node.await.unwrap();
            applied.extend(by_it);
            ids.insert(id);
        }
        assert_eq!(applied, [
            "2026-11-22-000000_first", "2026-11-25-000000_windows_and_rules", "2026-11-26-000000_beats",
            "2026-11-27-000000_ledger_id", "2026-11-30-000001_history", "2026-11-30-000002_lease",
            "2026-11-30-000003_rejections", "2026-11-30-000011_undo", "2026-11-30-000012_exact_results",
            "2026-11-30-000013_counted",
        ]);
        assert_eq!(ids.len(), 1, "whoever came first has named it");
    }

    async fn a_ledger_is_named_once_by_whoever_opens_it(ledger: Fresh) {
        let id = async || ledger.state(PARTITIONS).await.unwrap().id;
        let first = id().await;
        assert_eq!((first.len(), id().await), (32, first.clone()));
        assert_eq!(ledger.begun_with().await.unwrap(), Some((PARTITIONS, Some(first.clone()))));
        let before = ledger.state(PARTITIONS).await.unwrap();
        ledger.begin_epoch(before.epoch + 1, at(0)).await.unwrap();
        assert_eq!(id().await, first);
        // As an earlier version leaves it.
        ledger.tamper("UPDATE meta SET ledger_id = NULL").await;
        assert_eq!(ledger.begun_with().await.unwrap(), Some((PARTITIONS, None)));
        let ids = futures_util::future::join_all((0..4).map(|_| id())).await;
        assert!(ids[0] != first && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    async fn a_lock_is_held_by_one(ledger: Fresh) {
        let held = ledger.lock("engine").await.unwrap();
        let other = Ledger::connect(&ledger.url).await.unwrap();
        assert!(other.try_lock("engine").await.unwrap().is_none());
        assert!(other.try_lock("another").await.unwrap().is_some());
        // Who gives up waiting leaves nothing behind.
        assert!(tokio::time::timeout(Duration::from_millis(100), other.lock("engine")).await.is_err());
        let waiting = tokio::spawn({ let other = other.clone(); async move { other.lock("engine").await.unwrap() } });
        drop(held);
        let taken = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert!(ledger.try_lock("engine").await.unwrap().is_none());
        drop(taken);
        eventually("the lock is free", || async { ledger.try_lock("engine").await.unwrap().is_some() }).await;
    }

    /// One that was never renewed has ended for whoever has watched it.
    async fn who_has_lost_the_lease_writes_nothing(ledger: Fresh) {
        let first = ledger.take_lease().await.unwrap().expect("nobody has it");
        let other = Ledger::connect(&ledger.url).await.unwrap();
        let run = |seq, id: &str| batch(0, Position::new(0, seq), vec![event(id, Signal::View, "mug", 1, 0)]);
        assert_eq!(ledger.commit(&[run(0, "e0")]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        if ledger.kind() == LedgerKind::Sqlite {
            // The lock of a file can't be lost.
            assert!(other.take_lease().await.unwrap().is_none());
            drop(first);
            assert!(other.take_lease().await.unwrap().is_some());
            return;
        }
        let renewed = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ledger.renew_lease().await.unwrap()
        };
        let (renewed, taken) = tokio::join!(renewed, other.take_lease());
        assert!(renewed && taken.unwrap().is_none(), "its holder lives");
        let began = Instant::now();
        assert!(other.take_lease().await.unwrap().is_some(), "nobody renews it any more");
        assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(!ledger.renew_lease().await.unwrap());
        let is_lost = |failed: &LedgerError| matches!(failed, LedgerError::Unavailable(why) if why.contains("another server"));
        assert!(is_lost(&ledger.commit(&[run(1, "e1")]).await.unwrap_err()));
        assert!(is_lost(&ledger.begin_epoch(9, at(0)).await.unwrap_err()));
        assert!(is_lost(&ledger.upsert_products(&[new_product("mug")], at(0)).await.unwrap_err()));
        assert_eq!(other.commit(&[run(1, "e1")]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        other.begin_epoch(9, at(0)).await.unwrap();
        other.release_lease().await.unwrap();
        assert!(ledger.take_lease().await.unwrap().is_some(), "it was given back");
        assert_eq!(ledger.state(PARTITIONS).await.unwrap().epoch, 9);
        assert_eq!(ledger.dead_letter_count().await.unwrap(), 0);
    }

    async fn a_caller_that_goes_away_cuts_no_write_in_half(ledger: Fresh) {
        let products: Vec<_> = (0..500).map(|n| acclaim::ledger::NewProduct {
            id: product(&format!("p{n}")),
            name: "n".to_owned(),
            image_url: None,
            price: None,
            category: None,
            brand: None,
        }).collect();
        // Polled once, then dropped.
        assert!(tokio::time::timeout(Duration::ZERO, ledger.upsert_products(&products, at(0))).await.is_err());
        let ids: Vec<_> = products.iter().map(|product| product.id.clone()).collect();
        eventually("the write is done", || async { ledger.products(&ids).await.unwrap().len() == 500 }).await;
    }

    /// Prints the rate, for the curious: `cargo test --test it rate -- --nocapture`.
    async fn the_rate_of_commits(ledger: Fresh) {
        let (batches, batch_len) = (10_u64, 500_u64);
        let began = Instant::now();
        let mut number = 0;
        for n in 0..batches {
            let runs: Vec<_> = (0..PARTITIONS).map(|partition| {
                let events = (0..batch_len).map(|_| {
                    number += 1;
                    let (who, of) = (format!("user-{}-{partition}", number % 997), format!("product-{}", number % 1009));
                    if number % 2 == 0 {
                        like(&who, &format!("{number:032}"), &of, number as i64)
                    } else {
                        event(&format!("order-{number:032}"), Signal::Order, &of, 1, number as i64)
                    }
                }).collect();
                batch(partition, Position::new(0, n * batch_len), events)
            }).collect();
            assert_eq!(ledger.commit(&runs).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
        }
        let events = batches * batch_len * u64::from(PARTITIONS);
        println!("{:?}: {:.0} events a second", ledger.kind(), events as f64 / began.elapsed().as_secs_f64());
        assert_eq!(ledger.check_activity().await.unwrap().differing, 0);
    }
}

/// A commit that meets a server on its way down fails as `Unavailable`, never as anything else, and works again by itself.
async fn survives(how: Stop) {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let fresh = Fresh::new(server.url("postgres"), None).await;
    let ledger = fresh.ledger.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(async move {
        let mut seq = 0;
        while !*stopped.borrow() {
            let run = batch(0, Position::new(0, seq), vec![event(&format!("e{seq}"), Signal::View, "mug", 1, 0)]);
            match ledger.commit(&[run]).await {
                Ok(Commit::Done { rejected: refused, .. }) => {
                    assert_eq!(refused, []);
                    seq += 1;
                }
                // Done before the connection broke, and the answer was lost.
                Ok(Commit::CursorMoved) => seq += 1,
                Err(LedgerError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        seq
    });
    let server = tokio::task::spawn_blocking(move || {
        server.stop(how);
        server
    })
    .await
    .unwrap();
    assert!(matches!(fresh.ledger.ping().await, Err(LedgerError::Unavailable(_))), "nobody is there");
    let server = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    })
    .await
    .unwrap();
    let before = fresh.ledger.state(PARTITIONS).await;
    eventually("it commits again", || async {
        let now = fresh.ledger.state(PARTITIONS).await;
        matches!((&before, &now), (Ok(before), Ok(now)) if now.cursors[&0] > before.cursors[&0])
            || (before.is_err() && now.is_ok())
    })
    .await;
    stop.send(true).unwrap();
    let committed = writer.await.unwrap();
    assert_eq!(fresh.ledger.state(PARTITIONS).await.unwrap().cursors[&0], Position::new(0, committed));
    assert_eq!(fresh.ledger.dead_letter_count().await.unwrap(), 0);
    fresh.assert_sound().await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_go_on_after_postgres_is_restarted() {
    survives(Stop::Fast).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_go_on_after_postgres_has_crashed() {
    survives(Stop::Crash).await;
}

/// What SQLSTATE says decides, not what diesel makes of it: these are all "unknown" to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_trouble_never_makes_dead_letters() {
    let ledger = Fresh::postgres().await;
    let fails = |sqlstate: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{sqlstate}'; END $$"
        )
    };
    ledger.tamper(&fails("53100")).await;
    ledger.tamper("CREATE TRIGGER fails BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fail()").await;
    let run = || batch(0, Position::default(), vec![event("e", Signal::View, "mug", 1, 0)]);
    for sqlstate in ["53100", "53200", "57014", "57P01", "58030", "40P01", "40001", "08006", "25006", "25P03"] {
        ledger.tamper(&fails(sqlstate)).await;
        let failed = ledger.commit(&[run()]).await;
        assert!(matches!(failed, Err(LedgerError::Unavailable(_))), "{sqlstate}: {failed:?}");
    }
    ledger.tamper(&fails("42P01")).await;
    let failed = ledger.commit(&[run()]).await;
    assert!(matches!(failed, Err(LedgerError::Internal(_))), "{failed:?}");
    assert_eq!(ledger.dead_letter_count().await.unwrap(), 0);
    ledger.tamper(&fails("22021")).await;
    let Commit::Done { rejected, dead_lettered } = ledger.commit(&[run()]).await.unwrap() else { panic!() };
    assert_eq!((rejected, dead_lettered.len()), (vec![], 1));
    assert_eq!(ledger.dead_letter_count().await.unwrap(), 1);
}

/// As with a full disk: the first session after a change of the catalogue can't write what it has read of it, and Postgres
/// calls that an internal error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_not_set_up_a_session_is_away() {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let url = server.url("postgres");
    server.limit_files("4096");
    // What sessions have written of the catalogue goes with a change of it.
    for database in std::fs::read_dir(server.folder().join("data/base")).unwrap() {
        std::fs::remove_file(database.unwrap().path().join("pg_internal.init")).ok();
    }
    let failed = Ledger::connect(&url).await.err().expect("no session is set up");
    assert!(matches!(&failed, LedgerError::Unavailable(said) if said.contains("init file")), "{failed:?}");
    server.limit_files("unlimited");
    Ledger::connect(&url).await.unwrap();
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sqlite_file_is_away_and_not_refusing() {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;
    let ledger = Fresh::sqlite().await;
    let mut other = SqliteConnection::establish(ledger.url.strip_prefix("sqlite://").unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let run = || batch(0, Position::default(), vec![event("e", Signal::View, "mug", 1, 0)]);
    let failed = ledger.commit(&[run()]).await;
    assert!(matches!(failed, Err(LedgerError::Unavailable(_))), "{failed:?}");
    // Reading goes on meanwhile.
    assert_eq!(ledger.dead_letter_count().await.unwrap(), 0);
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(ledger.commit(&[run()]).await.unwrap(), Commit::Done { rejected: vec![], dead_lettered: vec![] });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_can_not_be_opened_says_why() {
    let good = crate::support::postgres::database().await;
    let with = |from: &str, to: &str| good.replace(from, to);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let database = good.rsplit_once('/').unwrap().1;
    for (url, words) in [
        (with(database, "nowhere"), "has no database \"nowhere\"; create it"),
        (with("postgres@", "mallory:s3cret@"), "does not let the user \"mallory\" in"),
        (format!("postgres://postgres:s3cret@127.0.0.1:{closed}/x"), "nothing answers at 127.0.0.1:"),
        ("postgres://postgres:s3cret@127.0.0.1:notaport/x".to_owned(), "is not well formed"),
        ("postgres:///x".to_owned(), "names no host"),
        ("mysql://root:s3cret@localhost/x".to_owned(), "mysql: is not a database Acclaim knows"),
        ("acclaim.db".to_owned(), "it should look like"),
        ("sqlite::memory:".to_owned(), "names no file"),
        ("sqlite://:memory:".to_owned(), "names no file"),
        ("sqlite://".to_owned(), "names no file"),
        ("sqlite:///nonexistent/folder/acclaim.db".to_owned(), "the folder /nonexistent/folder for the ledger"),
        (format!("sqlite://{}", std::env::temp_dir().display()), "can not be opened"),
    ] {
        let began = Instant::now();
        let error = Ledger::connect(&url).await.err().unwrap_or_else(|| panic!("{url} was opened")).to_string();
        assert!(error.contains(words), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(4), "{url}");
    }
}
