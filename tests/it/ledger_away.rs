//! What Postgres may do to us: likes of users who are loaded go on as ACCEPTED, everything drains afterwards, and nothing
//! becomes a dead letter.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::postgres::{self, Stop};
use crate::support::stack::{Server, Setup, Stack, TOGGLE};
use crate::support::until;

/// Few, since what counts is that they go on, and not how many there are.
const USERS: usize = 8;
const PRODUCTS: usize = 20;
/// Between two likes of a user: an outage of 20 s is to fill the journal, not this machine.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    committed: AtomicUsize,
    slowest_ms: AtomicUsize,
}

impl Counts {
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }
}

/// Every user likes and unlikes, one product after the other; no like may be refused.
fn likes(server: &Server, counts: &Arc<Counts>, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut users = JoinSet::new();
    for user in 0..USERS {
        let (url, http) = (format!("{}/graphql", server.url), server.http.clone());
        let (counts, stop) = (counts.clone(), stop.clone());
        users.spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let variables = json!({ "product": format!("p{}", n % PRODUCTS) });
                let body = json!({ "query": TOGGLE, "variables": variables });
                let began = Instant::now();
                let answer = http.post(&url).header("x-acclaim-user", format!("user-{user}")).json(&body).send();
                let answer: Value = answer.await.unwrap().json().await.unwrap();
                let took_ms = began.elapsed().as_millis() as usize;
                match answer["data"]["toggleLike"]["durability"].as_str() {
                    Some("ACCEPTED") => counts.accepted.fetch_add(1, Ordering::Relaxed),
                    Some("COMMITTED") => counts.committed.fetch_add(1, Ordering::Relaxed),
                    _ => panic!("a like was refused: {answer}"),
                };
                counts.slowest_ms.fetch_max(took_ms, Ordering::Relaxed);
                n += 1;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    users
}

/// A server on a Postgres of its own, to which something happens while likes go on.
async fn likes_go_on_while(what: &str, happens: impl AsyncFnOnce(&Arc<postgres::Server>, &Stack, &Counts, &Server)) {
    on(tokio::task::spawn_blocking(postgres::Server::start).await.unwrap(), what, happens).await;
}

async fn on(
    postgres: postgres::Server,
    what: &str,
    happens: impl AsyncFnOnce(&Arc<postgres::Server>, &Stack, &Counts, &Server),
) {
    let postgres = Arc::new(postgres);
    let mut stack = Stack::new(Setup::Servers).await;
    stack.postgres = Some(postgres.url("postgres"));
    stack.ack_timeout_ms = 250;
    stack.arguments = ["--like-rate", "0"].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    server.with_products(PRODUCTS).await;
    let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let users = likes(&server, &counts, &stop);
    // All users are loaded and all products are known by then.
    until("likes are flowing", Duration::from_secs(60), async || counts.committed() >= 2 * USERS * PRODUCTS).await;
    counts.slowest_ms.store(0, Ordering::Relaxed);
    let (accepted, all) = (counts.accepted(), counts.accepted() + counts.committed());
    happens(&postgres, &stack, &counts, &server).await;
    let slowest_ms = counts.slowest_ms.load(Ordering::Relaxed);
    let committed = counts.committed();
    until("likes are COMMITTED again", Duration::from_secs(30), async || counts.committed() >= committed + 50).await;
    let began = Instant::now();
    stop.store(true, Ordering::Relaxed);
    users.join_all().await;
    let likes = (counts.accepted() + counts.committed()) as u64;
    until("everything is drained", Duration::from_secs(30), async || {
        stack.count("SELECT COUNT(*) FROM events").await == likes
    })
    .await;
    println!(
        "{what}: {} likes meanwhile, {} ACCEPTED; slowest {slowest_ms} ms; drained {:?} after the last",
        likes as usize - all,
        counts.accepted() - accepted,
        began.elapsed()
    );
    assert_eq!(stack.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    until("the boards follow", Duration::from_secs(30), async || server.verify().await["differing"] == 0).await;
    server.assert_verified().await;
    drop(server);
    tokio::task::spawn_blocking(move || drop(postgres)).await.unwrap();
}

async fn stopped_for(postgres: &Arc<postgres::Server>, how: Stop, away: Duration, counts: &Counts) {
    let stopping = postgres.clone();
    tokio::task::spawn_blocking(move || stopping.stop(how)).await.unwrap();
    let (until, accepted) = (Instant::now() + away, counts.accepted());
    crate::support::until("likes are ACCEPTED", Duration::from_secs(30), async || {
        Instant::now() >= until && counts.accepted() >= accepted + 50
    })
    .await;
    let starting = postgres.clone();
    tokio::task::spawn_blocking(move || starting.start_again()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_postgres_is_restarted() {
    likes_go_on_while("restarted", async |postgres, _, counts, _| {
        stopped_for(postgres, Stop::Fast, Duration::ZERO, counts).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_postgres_has_crashed() {
    likes_go_on_while("crashed", async |postgres, _, counts, _| {
        stopped_for(postgres, Stop::Crash, Duration::ZERO, counts).await;
    })
    .await;
}

/// Long enough for every wait and back-off to have reached its longest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_postgres_is_away_for_long() {
    likes_go_on_while("away for 20 s", async |postgres, _, counts, server| {
        let away = stopped_for(postgres, Stop::Fast, Duration::from_secs(20), counts);
        let known = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // It is known by now, so nobody waits for it; of some likes the quickest counts.
            let mut quickest = Duration::MAX;
            for n in 0..10 {
                let began = Instant::now();
                let liked = server.toggle("user-0", &format!("p{n}"), None).await;
                assert_eq!(liked["durability"], "ACCEPTED");
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                quickest = quickest.min(began.elapsed());
            }
            println!("a like is ACCEPTED within {quickest:?}");
            assert!(quickest < Duration::from_millis(100), "{quickest:?}");
            // Somebody who is not loaded hears soon that this can't be answered.
            let began = Instant::now();
            let answer = server.try_graphql(Some("new"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
            assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
            assert!(answer["errors"][0]["extensions"]["outcome"].is_null(), "nothing was written");
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        };
        tokio::join!(away, known);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_backends_are_terminated() {
    likes_go_on_while("backends terminated", async |_, stack, counts, _| {
        for _ in 0..10 {
            stack
                .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'acclaim'")
                .await;
            let all = counts.accepted() + counts.committed();
            until("likes go on", Duration::from_secs(30), async || {
                counts.accepted() + counts.committed() >= all + USERS
            })
            .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_tables_are_locked() {
    likes_go_on_while("tables locked for 5 s", async |_, stack, counts, server| {
        let accepted = counts.accepted();
        let locked = stack.sql(
            // Of this and a commit that each wait for the other Postgres may refuse this.
            "BEGIN; DO $$ BEGIN LOOP BEGIN
                 LOCK TABLE events, likes, activity, cursors, meta, boards, products IN ACCESS EXCLUSIVE MODE; EXIT;
             EXCEPTION WHEN deadlock_detected THEN NULL; END; END LOOP; END $$;
             SELECT pg_sleep(5); ROLLBACK",
        );
        let meanwhile = async {
            until("likes are ACCEPTED", Duration::from_secs(4), async || counts.accepted() >= accepted + USERS).await;
            let began = Instant::now();
            let answer = server.try_graphql(Some("new"), TOGGLE, json!({ "product": "p0" })).await.unwrap();
            assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        };
        tokio::join!(locked, meanwhile);
    })
    .await;
}

/// Those who write can't know yet that it hangs, and wait no longer all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_needs_a_ledger_that_begins_to_hang_hears_so_soon() {
    likes_go_on_while("hangs", async |_, stack, _, server| {
        let began = Instant::now();
        let locked = stack.sql("BEGIN; LOCK TABLE likes IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); ROLLBACK");
        let meanwhile = async {
            const HELD: &str = "SELECT COUNT(*) FROM pg_locks WHERE relation = 'likes'::regclass AND granted
                AND mode = 'AccessExclusiveLock'";
            until("the table is locked", Duration::from_secs(3), async || stack.count(HELD).await == 1).await;
            // Of some the quickest counts: it is about what they wait for, and not about this machine.
            let ask = async |n: usize| {
                let began = Instant::now();
                let user = format!("new-{n}");
                let answer = server.try_graphql(Some(&user), TOGGLE, json!({ "product": "p0" })).await.unwrap();
                let told = &answer["errors"][0]["extensions"];
                assert_eq!((&told["code"], &told["outcome"]), (&json!("UNAVAILABLE"), &Value::Null), "{answer}");
                assert!(told["retryAfterMs"].is_number(), "{answer}");
                began.elapsed()
            };
            let took = futures_util::future::join_all((0..4).map(ask)).await;
            assert!(began.elapsed() < Duration::from_secs(3), "the lock was held meanwhile");
            assert!(took.iter().any(|took| *took < Duration::from_millis(250)), "{took:?}");
        };
        tokio::join!(locked, meanwhile);
    })
    .await;
}

/// A file system of its own, so that its being full is nobody else's trouble.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// A new cluster takes some 60 MB, and what a test writes some more.
    const SIZE: &str = "size=160m";

    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", Self::SIZE, "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "root may mount");
        // The server runs as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let error = std::iter::repeat_with(|| file.write_all(&[0; 4096])).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_go_on_while_the_disk_is_full() {
    // SAFETY: geteuid has no way to fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("only root can mount the small disk that this fills");
        return;
    }
    let disk = SmallDisk::mount();
    let path = disk.0.path().to_owned();
    let postgres = tokio::task::spawn_blocking(move || postgres::Server::start_in(&path)).await.unwrap();
    on(postgres, "disk full", async |_, _, counts, server| {
        disk.fill();
        let accepted = counts.accepted();
        until("likes are ACCEPTED", Duration::from_secs(30), async || counts.accepted() >= accepted + 200).await;
        assert!(server.log().contains("sync waits"), "the ledger was in trouble");
        std::fs::remove_file(disk.filler()).unwrap();
    })
    .await;
}
