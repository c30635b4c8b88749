//! What only a Redis can do to its engine: lose its scripts, its data or its connection, hang, refuse, and answer what
//! nobody wrote.

use std::time::{Duration, Instant};

use acclaim::domain::{
    Basis, BoardId, Cursors, EntryBody, FeedState, IdempotencyKey, PageStart, Points, Position, ProductId,
    SnapshotReason, Timestamp, UserId,
};
use acclaim::engine::redis::keys::{BoardKey, Key, Keys};
use acclaim::engine::redis::{RedisEngine, SettingsError};
use acclaim::engine::{
    Apply, Build, Desired, Engine, EngineError, EngineLimits, LikeOutcome, LikeRequest, Move, Notice, Progress, Result,
    UserLikes,
};
use futures_util::StreamExt;

use crate::support::gate::Gate;
use crate::support::redis::{RedisServer, prefix, shared};

/// Long enough for anything that happens at all, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);
/// The ledger that engines are opened for.
const LEDGER: &str = "a ledger";
const AT: Timestamp = Timestamp::from_ms(1_700_000_000_000);

fn limits() -> EngineLimits {
    EngineLimits { partitions: 2, like_rate: 0, ..EngineLimits::default() }
}

fn named(prefix: &str, key: Key) -> String {
    Keys::new(prefix, 0, limits().partitions).name(&key)
}

fn ann() -> UserId {
    UserId::new("ann").unwrap()
}

fn product(id: &str) -> ProductId {
    ProductId::new(id).unwrap()
}

/// A toggle by ann, whose partition is 0.
fn request(key: &str) -> LikeRequest {
    let key = IdempotencyKey::new(key).unwrap();
    LikeRequest { is_key_new: false, user: ann(), product: product("cup"), key, desired: Desired::Toggled, at: AT }
}

async fn open(engine: &RedisEngine, epoch: u64) {
    engine.open(epoch, 7, LEDGER).await.unwrap();
    let loaded = UserLikes { as_of: Position::default(), user: ann(), likes: vec![], unliked: vec![], answers: vec![] };
    engine.load_likes(epoch, &[loaded], AT).await.unwrap();
}

/// Likes once, and gives the position.
async fn like(engine: &RedisEngine, epoch: u64, key: &str) -> Position {
    match engine.like(epoch, &request(key)).await.unwrap() {
        LikeOutcome::Done(answer) => answer.position,
        other => panic!("{other:?}"),
    }
}

async fn show(engine: &RedisEngine, board: &BoardId) -> u64 {
    let cursors = Cursors::from([(0, Position::new(1, 0))]);
    let generation = engine.begin_generation(board, &cursors).await.unwrap();
    assert!(engine.load_scores(board, generation, &[(product("cup"), Points::from_millionths(5))]).await.unwrap());
    let reason = SnapshotReason::Initial;
    let build = Build { epoch: 1, period: "all".to_owned(), revision: 0, basis: Basis::default(), reason };
    assert!(engine.switch(board, generation, &build).await.unwrap());
    generation
}

async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_lost<T: std::fmt::Debug>(answer: Result<T>) -> bool {
    matches!(answer, Err(EngineError::Lost(_)))
}

fn is_unavailable<T: std::fmt::Debug>(answer: Result<T>) -> bool {
    matches!(answer, Err(EngineError::Unavailable(_) | EngineError::Unanswered(_)))
}

#[tokio::test]
async fn lost_scripts_are_a_lost_engine_until_it_is_opened_again() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    assert!(!engine.survey().await.unwrap().has_witness);
    assert!(is_lost(engine.like(1, &request("k0")).await), "never opened");
    open(&engine, 1).await;
    assert_eq!(like(&engine, 1, "k1").await, Position::new(1, 1));
    let board = BoardId::daily();
    show(&engine, &board).await;

    server.command(&["SCRIPT", "FLUSH"]);
    assert!(is_lost(engine.like(1, &request("k2")).await));
    assert!(is_lost(engine.viewer_likes(1, &ann(), &[], AT).await));
    assert!(is_lost(engine.record(1, 0, &[], AT).await));
    assert!(is_lost(engine.page(&board, &PageStart::Rank(1), 1).await));
    assert!(is_lost(engine.whole(&board).await));
    assert!(is_lost(engine.lease("project", "one", DEADLINE, AT).await));
    assert!(is_lost(
        engine
            .announce(&[Progress::Ledger { partition: 0, from: Position::default(), position: Position::new(1, 1) }])
            .await
    ));
    // What recovery needs works without them, and does not bring them back.
    let survey = engine.survey().await.unwrap();
    assert!(!survey.has_witness);
    assert_eq!(survey.partitions[0].last, Some(Position::new(1, 1)));
    engine.close().await.unwrap();
    let mut reader = engine.journal_reader().await.unwrap();
    assert_eq!(reader.read(&[(0, Position::new(1, 0))], 10, Duration::ZERO).await.unwrap()[0].1.len(), 1);
    engine.trim(0, Position::new(1, 1)).await.unwrap();
    assert!(!engine.survey().await.unwrap().has_witness);

    open(&engine, 2).await;
    assert!(engine.survey().await.unwrap().has_witness);
    assert_eq!(like(&engine, 2, "k2").await, Position::new(2, 1));
}

/// As every version writes it.
fn witness(epoch: u64, history: u64) -> String {
    format!("-- Acclaim: this server has seen epoch {epoch} begin, in history {history}\nreturn 1")
}

/// Another version has opened the epoch: its steps have other hashes, and only the witness is the same.
#[tokio::test]
async fn a_version_that_lacks_only_its_own_scripts_joins() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    assert_eq!(like(&engine, 1, "k1").await, Position::new(1, 1));
    server.command(&["SCRIPT", "FLUSH"]);
    server.command(&["SCRIPT", "LOAD", &witness(1, 7)]);
    assert!(is_lost(engine.like(1, &request("k2")).await), "a step never loads itself");
    assert!(engine.survey().await.unwrap().has_witness);
    engine.join(1, 7).await.unwrap();
    assert_eq!(like(&engine, 1, "k2").await, Position::new(1, 2));
    assert!(is_lost(engine.join(1, 8).await), "of another history");
    assert!(is_lost(engine.join(2, 7).await), "of another epoch");
    assert_eq!(like(&engine, 1, "k3").await, Position::new(1, 3));
}

#[tokio::test]
async fn nothing_is_loaded_where_the_witness_is_not() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    server.command(&["SCRIPT", "FLUSH"]);
    server.command(&["SCRIPT", "LOAD", &witness(1, 8)]);
    server.command(&["SCRIPT", "LOAD", &witness(2, 7)]);
    assert!(!engine.survey().await.unwrap().has_witness);
    assert!(is_lost(engine.join(1, 7).await));
    let info: String = redis::from_redis_value(server.command(&["INFO", "memory"])).unwrap();
    assert!(info.contains("number_of_cached_scripts:2"), "{info}");
}

/// A replica that was promoted has all data and, since it was a primary before, all steps: only the witness is missing.
#[tokio::test]
async fn a_promoted_replica_with_every_step_is_lost() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let earlier = replica.engine("acc", limits()).await;
    earlier.open(1, 9, "another ledger").await.unwrap();
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let gate = Gate::start(primary.port()).await;
    let engine = RedisEngine::connect(&gate.url(), "acc", limits()).await.unwrap();
    open(&engine, 1).await;
    like(&engine, 1, "k1").await;
    let journal = named("acc", Key::Journal(0));
    eventually(async || (replica.ask(&["XLEN", &journal]) == Ok("1".to_owned())).then_some(())).await;
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    gate.lead_to(replica.port());
    let answer = eventually(async || match engine.like(1, &request("k2")).await {
        answer if is_unavailable(answer.clone()) => None,
        answer => Some(answer),
    });
    assert!(is_lost(answer.await));
    assert!(!engine.survey().await.unwrap().has_witness);
    assert!(is_lost(engine.join(1, 7).await));
    // Back at the old primary it is what it was.
    gate.lead_to(primary.port());
    assert_eq!(eventually(async || engine.like(1, &request("k2")).await.ok()).await, {
        let again = engine.like(1, &request("k2")).await.unwrap();
        let LikeOutcome::Replayed(answer) = again else { panic!("{again:?}") };
        LikeOutcome::Done(answer)
    });
}

/// The number of partitions decides where they lie, and yet another ledger with another number finds that the keys are not its own.
#[tokio::test]
async fn keys_have_one_owner_whatever_the_number_of_partitions() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    let other = server.engine("acc", EngineLimits { partitions: 5, ..limits() }).await;
    assert_eq!(other.survey().await.unwrap().ledgers.into_iter().collect::<Vec<_>>(), [LEDGER]);
    assert!(is_lost(other.open(1, 8, "another ledger").await));
    like(&engine, 1, "k1").await;
}

/// A step back leaves a key as much longer as the step was.
#[tokio::test]
async fn a_lease_of_a_holder_that_is_gone_ends_although_the_clock_of_redis_was_set_back() {
    const TTL: Duration = Duration::from_millis(300);
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    assert!(engine.lease("project", "one", TTL, AT).await.unwrap());
    server.command(&["PEXPIRE", &named("acc", Key::Lease("project".to_owned())), "600000"]);
    let lease = async || engine.lease("project", "two", TTL, AT).await.unwrap().then_some(());
    assert_eq!(lease().await, None, "it has a holder still");
    eventually(lease).await;
}

#[tokio::test]
async fn a_redis_that_refuses_is_not_told_to_be_away() {
    let server = RedisServer::start();
    let refusal = async |credentials: &str, database: &str| {
        let url = format!("redis://{credentials}127.0.0.1:{}/{database}", server.port());
        let error = RedisEngine::connect(&url, "acc", limits()).await.err().expect("it refuses").to_string();
        assert!(error.contains("refuses") && !error.contains("hunter2"), "{error}");
        error
    };
    assert!(refusal("", "99").await.contains("database"));
    server.command(&["ACL", "SETUSER", "ann", "on", ">secret", "+@all", "~*"]);
    assert!(refusal("ann:hunter2@", "").await.contains("Password authentication failed"));
    server.command(&["ACL", "SETUSER", "default", "off"]);
    assert!(refusal("", "").await.contains("NOAUTH"));
}

#[tokio::test]
async fn lost_data_is_a_lost_engine() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    like(&engine, 1, "k1").await;
    server.command(&["FLUSHALL"]);
    assert!(is_lost(engine.like(1, &request("k1")).await));
    assert!(is_lost(engine.viewer_likes(1, &ann(), &[], AT).await));
    let survey = engine.survey().await.unwrap();
    assert!(survey.partitions.iter().all(|partition| partition.epoch.is_none() && partition.last.is_none()));
}

#[tokio::test]
async fn what_an_earlier_version_wrote_is_understood() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    // Answers without their product.
    let answers = named("acc", Key::Answers(0, ann()));
    server.command(&["RPUSH", &answers, "old\t1 1 1700000000000 1-7", "older\t0 0 1700000000000 1-6"]);
    for (key, expected) in [("old", (true, true, 7)), ("older", (false, false, 6))] {
        let answer = engine.like(1, &request(key)).await.unwrap();
        let LikeOutcome::Replayed(answer) = answer else { panic!("{answer:?}") };
        assert_eq!((answer.liked, answer.changed, answer.position.seq), expected);
    }
}

#[tokio::test]
async fn a_restart_brings_back_the_journal_and_not_the_scripts() {
    let mut server = RedisServer::start_durable();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 3).await;
    for key in ["k1", "k2", "k3"] {
        like(&engine, 3, key).await;
    }
    engine.trim(0, Position::new(3, 2)).await.unwrap();
    let mut reader = engine.journal_reader().await.unwrap();
    let mut heard = engine.listen().await.unwrap();
    assert_eq!(heard.next().await, Some(Notice::Missed));

    server.kill();
    let asked = Instant::now();
    assert!(is_unavailable(engine.like(3, &request("k4")).await));
    assert!(is_unavailable(engine.survey().await));
    assert!(is_unavailable(reader.read(&[(0, Position::new(3, 0))], 10, DEADLINE).await));
    assert!(asked.elapsed() < DEADLINE, "a lost connection is no reason to wait");
    server.run();

    let survey = eventually(async || engine.survey().await.ok()).await;
    assert!(!survey.has_witness);
    assert_eq!((survey.partitions[0].epoch, survey.partitions[0].last), (Some(3), Some(Position::new(3, 3))));
    // A partition that has never had an entry remembers its beginning as well.
    assert_eq!((survey.partitions[1].epoch, survey.partitions[1].last), (Some(3), Some(Position::new(3, 0))));
    assert!(is_lost(engine.like(3, &request("k4")).await));
    let read = reader.read(&[(0, Position::new(3, 0))], 10, Duration::ZERO).await.unwrap();
    assert_eq!(read[0].1[0].position, Position::new(3, 3));
    // The listener came back by itself, and says that it was away.
    assert_eq!(tokio::time::timeout(DEADLINE, heard.next()).await.unwrap(), Some(Notice::Missed));
    engine.announce_definitions().await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, heard.next()).await.unwrap(), Some(Notice::Definitions));
    open(&engine, 4).await;
    assert_eq!(like(&engine, 4, "k4").await, Position::new(4, 1));
}

#[tokio::test]
async fn a_hung_redis_is_given_up_in_time_and_used_again() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    server.freeze();
    let mut quickest = Duration::MAX;
    // The machine itself may be busy, so the quickest of some counts.
    for n in 0..5 {
        let asked = Instant::now();
        assert!(is_unavailable(engine.like(1, &request(&format!("k{n}"))).await));
        quickest = quickest.min(asked.elapsed());
    }
    assert!(quickest < Duration::from_millis(250), "{quickest:?}");
    server.thaw();
    eventually(async || engine.ping().await.ok()).await;
    // Whether the likes given up on took place is unknown to the caller, but each key has one effect.
    let again = eventually(async || engine.like(1, &request("k0")).await.ok()).await;
    assert!(matches!(again, LikeOutcome::Done(_) | LikeOutcome::Replayed(_)), "{again:?}");
    assert!(matches!(engine.like(1, &request("k0")).await.unwrap(), LikeOutcome::Replayed(_)));
}

#[tokio::test]
async fn a_full_redis_refuses_and_has_changed_nothing() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    open(&engine, 1).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(matches!(engine.like(1, &request("k1")).await, Err(EngineError::Full(_))));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(like(&engine, 1, "k1").await, Position::new(1, 1));
    assert_eq!(engine.viewer_likes(1, &ann(), &[product("cup")], AT).await.unwrap(), Some(vec![Some(AT)]));
}

#[tokio::test]
async fn a_read_given_up_does_not_spoil_the_next() {
    let prefix = prefix();
    let engine = shared().engine(&prefix, limits()).await;
    open(&engine, 1).await;
    let mut reader = engine.journal_reader().await.unwrap();
    let after = [(0, Position::new(1, 0)), (1, Position::new(1, 0))];
    let waiting = reader.read(&after, 10, DEADLINE);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    like(&engine, 1, "k1").await;
    let asked = Instant::now();
    let read = reader.read(&after, 10, DEADLINE).await.unwrap();
    assert_eq!((read.len(), read[0].0, read[0].1[0].position), (1, 0, Position::new(1, 1)));
    assert!(asked.elapsed() < DEADLINE / 2);
    assert!(reader.read(&[(0, Position::new(1, 1))], 10, Duration::from_millis(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_event_stands_in_the_journal_as_malformed() {
    let prefix = prefix();
    let engine = shared().engine(&prefix, limits()).await;
    open(&engine, 1).await;
    shared().command(&["XADD", &named(&prefix, Key::Journal(0)), "1-*", "signal", "ninety"]);
    assert_eq!(like(&engine, 1, "k1").await, Position::new(1, 2));
    let mut reader = engine.journal_reader().await.unwrap();
    let read = reader.read(&[(0, Position::new(1, 0))], 10, Duration::ZERO).await.unwrap();
    let bodies: Vec<_> = read[0].1.iter().map(|entry| &entry.body).collect();
    let raw = r#"["signal","ninety"]"#;
    assert!(matches!(bodies[0], EntryBody::Malformed { raw: shown, .. } if shown == raw), "{:?}", bodies[0]);
    assert!(matches!(bodies[1], EntryBody::Event(_)));
}

#[tokio::test]
async fn foreign_values_are_errors_and_no_panics() {
    let prefix = prefix();
    let engine = shared().engine(&prefix, limits()).await;
    let board = BoardId::daily();
    open(&engine, 1).await;
    show(&engine, &board).await;
    let mut heard = engine.listen().await.unwrap();
    assert_eq!(heard.next().await, Some(Notice::Missed));
    let of_daily = |key| named(&prefix, Key::Board(board.clone(), key));
    for channel in ["feed", "progress"] {
        let channel = format!("{prefix}:0:{LEDGER}:{channel}");
        for (message, notice) in [
            (format!("{LEDGER}\nwhat is this?"), Notice::Missed),
            ("another\nledger 0 1-9 1-0".to_owned(), Notice::Foreign { messages: 1 }),
            ("nobody's".to_owned(), Notice::Foreign { messages: 1 }),
        ] {
            shared().command(&["PUBLISH", &channel, &message]);
            assert_eq!(tokio::time::timeout(DEADLINE, heard.next()).await.unwrap(), Some(notice));
        }
    }
    shared().command(&["SET", &of_daily(BoardKey::Top), "[]"]);
    assert!(is_unavailable(engine.published(&board).await));
    shared().command(&["HSET", &of_daily(BoardKey::Meta), "reason", "BOREDOM"]);
    assert!(is_unavailable(engine.page(&board, &PageStart::Rank(1), 1).await));
    assert!(is_unavailable(engine.board(&board).await));
    shared().command(&["ZADD", &of_daily(BoardKey::Scores), "0.5", "half"]);
    shared().command(&["HSET", &of_daily(BoardKey::Meta), "reason", "INITIAL"]);
    assert!(is_unavailable(engine.whole(&board).await));
    // The entry goes first, so a like that can not be in the journal has no other effect either.
    let journal = named(&prefix, Key::Journal(0));
    shared().command(&["RENAME", &journal, &format!("{journal}:aside")]);
    shared().command(&["SET", &journal, "not a stream"]);
    assert!(is_unavailable(engine.like(1, &request("k1")).await));
    assert!(is_unavailable(engine.survey().await));
    assert_eq!(engine.viewer_likes(1, &ann(), &[product("cup")], AT).await.unwrap(), Some(vec![None]));
}

#[tokio::test]
async fn a_listener_that_nobody_drains_keeps_the_newest_of_each() {
    let engine = shared().engine(&prefix(), limits()).await;
    open(&engine, 1).await;
    let board = BoardId::daily();
    let generation = show(&engine, &board).await;
    let mut undrained = engine.listen().await.unwrap();
    let mut drained = engine.listen().await.unwrap();
    const LAST: u64 = 300;
    for seq in 1..=LAST {
        let state = FeedState {
            board: board.clone(),
            epoch: 1,
            history: None,
            seq,
            generation,
            reason: SnapshotReason::Initial,
            period: "all".to_owned(),
            at: AT,
            basis: Basis::default(),
            cursors: Cursors::new(),
            total: 1,
            places: vec![],
        };
        assert!(engine.publish(&state).await.unwrap());
    }
    engine.announce_definitions().await.unwrap();
    let to_end = async |heard: &mut futures_util::stream::BoxStream<'static, Notice>| {
        let mut seqs = vec![];
        let mut ended = false;
        while !ended || seqs.last() != Some(&LAST) {
            match tokio::time::timeout(DEADLINE, heard.next()).await.unwrap() {
                Some(Notice::Feed(state)) => seqs.push(state.seq),
                Some(Notice::Definitions) => ended = true,
                Some(Notice::Missed) => {}
                other => panic!("{other:?}"),
            }
        }
        seqs
    };
    to_end(&mut drained).await;
    // Both connections were told at the same time; the other one's task may be a moment behind.
    let seqs = to_end(&mut undrained).await;
    assert!(seqs.len() <= 3, "{seqs:?}");
}

#[tokio::test]
async fn every_key_has_a_hash_tag_and_no_generation_is_left_behind() {
    let prefix = prefix();
    let engine = shared().engine(&prefix, limits()).await;
    let board = BoardId::daily();
    open(&engine, 1).await;
    like(&engine, 1, "k1").await;
    for _ in 0..3 {
        let cursors = Cursors::from([(0, Position::new(1, 0))]);
        let abandoned = engine.begin_generation(&board, &cursors).await.unwrap();
        engine.load_scores(&board, abandoned, &[(product("cup"), Points::from_millionths(1))]).await.unwrap();
        show(&engine, &board).await;
    }
    let names: Vec<String> = redis::from_redis_value(shared().command(&["KEYS", &format!("{prefix}:*")])).unwrap();
    let keys: Vec<_> = names.iter().map(|name| Keys::new(&prefix, 0, 2).read(name).expect(name)).collect();
    assert!(names.iter().all(|name| name.contains(":{")), "{names:?}");
    let of_board = keys.into_iter().filter_map(|key| match key {
        Key::Board(of, key) if of == board => Some(format!("{key:?}")),
        _ => None,
    });
    let mut of_board: Vec<_> = of_board.collect();
    of_board.sort();
    assert_eq!(of_board, ["Cursor", "Meta", "Scores"]);
}

#[tokio::test]
async fn large_users_boards_and_batches_pass() {
    let engine = shared().engine(&prefix(), limits()).await;
    engine.open(1, 7, LEDGER).await.unwrap();
    let products: Vec<_> = (0..20_001).map(|n| product(&format!("p{n:05}"))).collect();
    let likes = products.iter().map(|product| (product.clone(), AT)).collect();
    let small = UserLikes {
        as_of: Position::default(),
        user: UserId::new("small").unwrap(),
        likes: vec![],
        unliked: vec![],
        answers: vec![],
    };
    let large = UserLikes { as_of: Position::default(), user: ann(), likes, unliked: vec![], answers: vec![] };
    engine.load_likes(1, &[small.clone(), large, small], AT).await.unwrap();
    let viewer = engine.viewer_likes(1, &ann(), &products, AT).await.unwrap().unwrap();
    assert!(viewer.len() == products.len() && viewer.iter().all(|at| *at == Some(AT)));

    let board = BoardId::daily();
    let cursors = Cursors::from([(0, Position::new(1, 0))]);
    let generation = engine.begin_generation(&board, &cursors).await.unwrap();
    let scores: Vec<_> = products.iter().zip(1..).map(|(id, n)| (id.clone(), Points::from_millionths(n))).collect();
    assert!(engine.load_scores(&board, generation, &scores).await.unwrap());
    let deltas = scores.clone();
    let (from, to) = (Position::new(1, 0), Position::new(1, 20_001));
    let moves = vec![Move { partition: 0, from, to }];
    let batch = Apply { board: board.clone(), generation, moves, deltas };
    assert!(engine.apply(&batch).await.unwrap());
    let reason = SnapshotReason::Initial;
    let build = Build { epoch: 1, period: "all".to_owned(), revision: 0, basis: Basis::default(), reason };
    assert!(engine.switch(&board, generation, &build).await.unwrap());
    let (_, cursors, places) = engine.whole(&board).await.unwrap().unwrap();
    assert_eq!(cursors[&0], to);
    assert_eq!(places.len(), 20_001);
    assert!(places.iter().rev().zip(1..).all(|(place, n)| place.points.millionths() == 2 * n));
}

#[tokio::test]
async fn settings_that_lose_data_are_found() {
    let server = RedisServer::start();
    let engine = server.engine("acc", limits()).await;
    let warnings = engine.check_settings().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("appendonly"), "{warnings:?}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(engine.check_settings().await, Err(SettingsError::Evicts("allkeys-lru".to_owned())));
    let durable = RedisServer::start_durable();
    assert_eq!(durable.engine("acc", limits()).await.check_settings().await, Ok(vec![]));
}

#[tokio::test]
async fn a_wrong_address_is_named_without_its_password() {
    let mut server = RedisServer::start();
    server.kill();
    let url = format!("redis://ann:secret@127.0.0.1:{}/", server.port());
    let error = RedisEngine::connect(&url, "acc", limits()).await.err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", server.port())) && !error.contains("secret"), "{error}");
    assert_eq!(error.lines().count(), 1);
    assert!(RedisEngine::connect("postgres://127.0.0.1", "acc", limits()).await.is_err());
    let none = EngineLimits { partitions: 0, ..limits() };
    assert!(RedisEngine::connect(&shared().url(), "acc", none).await.is_err());
}
