//! Many subscribers, slow ones, lost messages, nodes that die or stop: whoever follows a board is shown what a query shows,
//! and is told why wherever something was left out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use acclaim::domain::BoardId;
use acclaim::engine::redis::keys::{BoardKey, Key};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::{PRODUCTS, Record, assert_nothing_lost, load};
use crate::support::live::{Socket, View};
use crate::support::proxy::Proxy;
use crate::support::redis::{board_key, named};
use crate::support::stack::{RECORD, Server, Setup, Stack};
use crate::support::until;

/// Nothing that is awaited here takes longer on a loaded machine, where nothing else is said.
const TIME_MAX: Duration = Duration::from_secs(30);

type Board = Vec<(String, f64)>;

/// Views of all products, counted, so that the board they make is known.
struct Churn {
    server: Arc<Server>,
    views: Vec<usize>,
    turns: usize,
}

impl Churn {
    async fn new(server: &Arc<Server>, products: usize) -> Self {
        server.with_products(products).await;
        Self { server: server.clone(), views: vec![0; products], turns: 0 }
    }

    /// Changes the points of every product, and the ranks of most.
    async fn turn(&mut self) {
        let turn = self.turns;
        let counts = (0..self.views.len()).map(|n| 1 + (n * 37 + turn * 61) % 97);
        let events: Vec<_> = counts
            .enumerate()
            .map(|(n, count)| {
                self.views[n] += count;
                json!({ "id": format!("v-{turn}-{n}"), "signal": "VIEW", "productId": format!("p{n}"), "count": count })
            })
            .collect();
        let recorded = self.server.graphql("shop", RECORD, json!({ "events": events })).await;
        assert_eq!(recorded["recordEvents"]["recorded"], self.views.len());
        self.turns += 1;
    }

    /// The first places as they must be.
    fn board(&self, top: usize) -> Board {
        let mut places: Board =
            self.views.iter().enumerate().map(|(n, views)| (format!("p{n}"), *views as f64 / 10.0)).collect();
        places.sort_by(|(a, points_a), (b, points_b)| points_b.total_cmp(points_a).then_with(|| b.cmp(a)));
        places.truncate(top);
        places
    }

    /// Turns without end, in a task.
    fn storm(mut self, pause: Duration) -> Storm {
        let calm = CancellationToken::new();
        let told = calm.clone();
        let task = tokio::spawn(async move {
            while !told.is_cancelled() {
                self.turn().await;
                told.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
            self
        });
        Storm { calm, task }
    }
}

struct Storm {
    calm: CancellationToken,
    task: JoinHandle<Churn>,
}

impl Storm {
    async fn calm(self) -> Churn {
        self.calm.cancel();
        self.task.await.unwrap()
    }
}

/// A subscriber that takes all it is told, in a task of its own.
struct Follower {
    view: Arc<Mutex<View>>,
    received_len: Arc<AtomicUsize>,
    task: AbortOnDropHandle<()>,
}

impl Follower {
    async fn start(server: &Server, variables: Value) -> Self {
        let mut socket = Socket::connect(&server.url, json!({})).await;
        socket.subscribe("board", variables).await;
        let (view, received_len) = (Arc::new(Mutex::new(View::default())), Arc::new(AtomicUsize::new(0)));
        let (shared, counted) = (view.clone(), received_len.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let message = socket.receive().await;
                shared.lock().unwrap().take(&message);
                counted.store(socket.received_len, Ordering::Relaxed);
            }
        }));
        let follower = Self { view, received_len, task };
        until("the first snapshot is there", TIME_MAX, async || follower.reasons().len() == 1).await;
        follower
    }

    fn reasons(&self) -> Vec<String> {
        assert!(!self.task.is_finished(), "the subscriber has ended: its panic says why");
        self.view.lock().unwrap().reasons.clone()
    }

    fn shows(&self, board: &Board) -> bool {
        self.reasons();
        self.view.lock().unwrap().shown == *board
    }
}

/// The longest that a client may take nothing.
const STALL_MAX: Duration = Duration::from_secs(10);
/// More than a server's send buffer grows to: 4 MiB on Linux (`net.ipv4.tcp_wmem`).
const BACKLOG_LEN: usize = 5 << 20;
/// Subscriptions of one client that takes nothing, or little, so that there is soon too much for it: as many as it may have.
const SUBSCRIPTIONS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_closed_and_nobody_else_notices() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = Arc::new(stack.serve().await);
    let churn = Churn::new(&server, 100).await;
    let asked = json!({ "top": 100, "maxRate": 5 });
    let neighbours = join_all((0..3).map(|_| Follower::start(&server, asked.clone()))).await;
    let mut deaf = Socket::connect_narrow(&server.url, 4 << 10).await;
    for n in 0..SUBSCRIPTIONS {
        deaf.subscribe(&n.to_string(), asked.clone()).await;
    }
    let began = Instant::now();
    let storm = churn.storm(Duration::from_millis(50));
    until("more is owed than buffers hold", TIME_MAX, async || {
        neighbours[0].received_len.load(Ordering::Relaxed) * SUBSCRIPTIONS >= BACKLOG_LEN
    })
    .await;
    let deltas = |follower: &Follower| follower.view.lock().unwrap().deltas;
    let before: Vec<_> = neighbours.iter().map(deltas).collect();
    // It has stalled by now. Writing to a connection that the other side has given up fails.
    until("it is closed", STALL_MAX + Duration::from_secs(5), async || deaf.ping().await.is_err()).await;
    let took = began.elapsed();
    println!("closed {took:?} after the first event");
    assert!(took >= STALL_MAX, "closed after {took:?}, before it had taken nothing for {STALL_MAX:?}");
    for (neighbour, before) in neighbours.iter().zip(before) {
        // Of some 5 a second.
        assert!(deltas(neighbour) >= before + 10, "the board stood still for others");
    }
    let board = storm.calm().await.board(100);
    until("the others show what was counted", TIME_MAX, async || neighbours.iter().all(|n| n.shows(&board))).await;
    assert!(neighbours.iter().all(|n| n.reasons() == ["INITIAL"]), "no change was kept from them");
    assert_eq!(server.ranking(100).await, board);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_told_that_it_fell_behind() {
    let stack = Stack::new(Setup::Embedded).await;
    let server = Arc::new(stack.serve().await);
    let churn = Churn::new(&server, 100).await;
    let mut slow = Socket::connect_narrow(&server.url, 64 << 10).await;
    let mut views: HashMap<String, View> = HashMap::new();
    for n in 0..SUBSCRIPTIONS {
        slow.subscribe(&n.to_string(), json!({ "top": 100 })).await;
    }
    let mut take = async |views: &mut HashMap<String, View>| {
        let message = slow.receive().await;
        views.entry(message["id"].as_str().unwrap().to_owned()).or_default().take(&message);
    };
    let storm = churn.storm(Duration::from_millis(50));
    let began = Instant::now();
    // Ever longer pauses, each shorter than what a client is closed for: the last one is too long for any buffer.
    for pause in [1, 2, 4, 8] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        // What has gathered, up to the first moment at which there is nothing more.
        while timeout(Duration::from_millis(50), take(&mut views)).await.is_ok() {}
        if views.values().any(|view| view.reasons.contains(&"LAGGED".to_owned())) {
            break;
        }
    }
    let board = storm.calm().await.board(100);
    while views.len() < SUBSCRIPTIONS || views.values().any(|view| view.shown != board) {
        assert!(began.elapsed() < Duration::from_secs(90), "a slow view does not become what was counted");
        take(&mut views).await;
    }
    let reasons: Vec<_> = views.values().flat_map(|view| &view.reasons[1..]).collect();
    assert!(!reasons.is_empty(), "nothing was left out for a client that took nothing for 8 s");
    assert!(reasons.iter().all(|reason| *reason == "LAGGED"), "{reasons:?}");
    println!("{} times in {:?} a view had fallen behind", reasons.len(), began.elapsed());
}

const CROWD: usize = 2_000;

/// Files that this process and those it starts may open: at both ends a socket for each of a crowd, and some for the rest.
fn open_files(count: u64) {
    let allowed = rlimit::increase_nofile_limit(count).unwrap();
    assert!(allowed >= count, "this needs {count} open files; `ulimit -Hn` says {allowed}");
}

/// Counts what clients ask of the daily board's history, by listening to all that Redis is told.
async fn history_reads(port: u16) -> (Arc<AtomicUsize>, AbortOnDropHandle<()>) {
    let mut monitor = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let read = format!(r#""XRANGE" "{}""#, board_key(&BoardId::daily(), BoardKey::Feed));
    let mut lines = monitor.lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
    let task = tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            counted.fetch_add(usize::from(line.contains(&read)), Ordering::Relaxed);
        }
    });
    (reads, AbortOnDropHandle::new(task))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_come_back_at_once() {
    open_files(CROWD as u64 + 1_000);
    let stack = Stack::new(Setup::Servers).await;
    let server = Arc::new(stack.serve().await);
    let mut churn = Churn::new(&server, 20).await;
    churn.turn().await;
    let asked = |view: &View| {
        let resume = if view.position.is_empty() { Value::Null } else { json!(view.position) };
        json!({ "top": 10, "maxRate": 2, "resume": resume })
    };
    let connect = async |mut view: View| {
        let mut socket = Socket::connect(&server.url, json!({})).await;
        socket.subscribe("board", asked(&view)).await;
        view.take(&socket.receive().await);
        (socket, view)
    };
    // As many at a time as queue for acceptance on any system.
    let all = async |views: Vec<View>| -> Vec<(Socket, View)> {
        stream::iter(views).map(&connect).buffer_unordered(100).collect().await
    };
    let follow = async |crowd: Vec<(Socket, View)>, board: Board| -> Vec<(Socket, View)> {
        let board = &board;
        join_all(crowd.into_iter().map(|(mut socket, mut view)| async move {
            view.follow_until(&mut socket, "the view is what was counted", async |shown| shown == board).await;
            (socket, view)
        }))
        .await
    };

    let began = Instant::now();
    let crowd = all((0..CROWD).map(|_| View::default()).collect()).await;
    let crowd = follow(crowd, churn.board(10)).await;
    println!("{CROWD} were there after {:?}", began.elapsed());

    // All are gone at once, without a word; the board moves while they are away, and while they come back.
    let views: Vec<_> = crowd.into_iter().map(|(_, view)| view).collect();
    churn.turn().await;
    let (reads, _monitor) = history_reads(stack.redis.as_ref().unwrap().port()).await;
    let storm = churn.storm(Duration::from_millis(200));
    let began = Instant::now();
    let deltas_before: usize = views.iter().map(|view| view.deltas).sum();
    let crowd = all(views).await;
    println!("{CROWD} were back after {:?}", began.elapsed());
    let resumed = crowd.iter().map(|(_, view)| view.deltas).sum::<usize>() - deltas_before;
    let reads = reads.load(Ordering::Relaxed);
    println!("{resumed} were given the changes that they had missed; the history was read {reads} times for that");
    let crowd = follow(crowd, storm.calm().await.board(10)).await;
    println!("all show what was counted after {:?}", began.elapsed());

    // The first ones at a step make its one read; a minute's history is there, so that nobody starts anew.
    assert_eq!(resumed, CROWD);
    assert!((1..=CROWD / 20).contains(&reads), "{reads} reads of the history");
    for (_, view) in &crowd {
        assert_eq!(view.reasons[0], "INITIAL");
        assert!(view.reasons[1..].iter().all(|reason| reason == "LAGGED"), "{:?}", view.reasons);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_converge_though_a_fifth_of_all_messages_is_lost() {
    let mut stack = Stack::new(Setup::Servers).await;
    let proxy = Proxy::start(stack.redis.as_ref().unwrap().port(), 0.2).await;
    stack.redis_url = Some(proxy.url());
    // Many states in little time, each a message that can be lost.
    stack.arguments = ["--tick-ms", "20"].map(str::to_owned).to_vec();
    // What is committed is told by pub/sub too; answers need not wait until a lost word of it is looked up.
    stack.ack_timeout_ms = 20;
    let server = Arc::new(stack.serve().await);
    let mut churn = Churn::new(&server, 30).await;
    let tops = [1, 10, 30];
    let mut followers = Vec::new();
    for top in tops {
        for rate in [2, 10, 50] {
            followers.push((top, Follower::start(&server, json!({ "top": top, "maxRate": rate })).await));
        }
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..8 {
        for _ in 0..15 {
            churn.turn().await;
        }
        let began = Instant::now();
        let boards = tops.map(|top| (top, churn.board(top)));
        until("every view is what was counted", TIME_MAX, async || {
            followers.iter().all(|(top, follower)| boards.iter().all(|(of, board)| of != top || follower.shows(board)))
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    let (told, lost) = proxy.counts();
    println!(
        "{lost} of {told} messages of the feed were lost; the slowest view was right {slowest:?} after the last event"
    );
    assert!(lost >= 5, "{lost} of {told} were lost: too few to say anything");
    // A silent board is looked at every 2 s.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    for (_, follower) in &followers {
        let reasons = follower.reasons();
        assert!(reasons[1..].iter().all(|reason| reason == "LAGGED" || reason == "GAP"), "{reasons:?}");
    }
    server.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_with_every_lease_is_followed_within_seconds() {
    let stack = Stack::new(Setup::Servers).await;
    let lease = named(Key::Lease("pipeline".to_owned()));
    let holder = || match stack.redis.as_ref().unwrap().command(&["GET", &lease]) {
        redis::Value::BulkString(name) => Some(name),
        _ => None,
    };
    let first = stack.serve().await;
    until("the first one leads", TIME_MAX, async || holder().is_some()).await;
    let of_first = holder();
    let second = stack.serve().await;
    first.with_products(PRODUCTS).await;
    let mut socket = Socket::connect(&second.url, json!({})).await;
    let mut view = socket.watch_board(10).await;

    let records = [(); 2].map(|()| Arc::new(Record::default()));
    let stops = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let loads = [(&first, 0), (&second, 1)].map(|(server, n)| load(server, &records[n], usize::MAX, &stops[n], n));
    let answered = |n: usize| records[n].answered.load(Ordering::Relaxed);
    while answered(0) < 200 || answered(1) < 200 {
        view.take(&socket.receive().await);
    }
    assert_eq!(holder(), of_first, "the first one still leads");
    first.kill();
    let (killed, killed_at) = (Instant::now(), jiff::Timestamp::now());
    stops[0].store(true, Ordering::Relaxed);
    // Nothing that was published before bears a later time.
    let news = loop {
        let message = socket.receive().await;
        view.take(&message);
        let event = &message["payload"]["data"]["boardChanges"];
        let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
        if event["__typename"] != "BoardHeartbeat" && at > killed_at {
            break killed.elapsed();
        }
    };
    println!("the feed went on {news:?} after the kill");
    // 3 s are promised; the rest is for a machine that does other things.
    assert!(news < Duration::from_secs(8), "{news:?}");
    assert_ne!(holder(), of_first);
    let before = answered(1);
    while answered(1) < before + 200 {
        view.take(&socket.receive().await);
    }
    stops[1].store(true, Ordering::Relaxed);
    for load in loads {
        load.join_all().await;
    }
    // The records are of different users, and one ledger has both.
    let record = Record::default();
    for one in &records {
        record.sent.lock().unwrap().extend(one.sent.lock().unwrap().drain());
    }
    println!("{} likes were answered COMMITTED", record.committed().len());
    assert_nothing_lost(&stack, &second, &record).await;
    let expected = second.ranking(10).await;
    view.follow_until(&mut socket, "the view is what a query shows", async |shown| *shown == expected).await;
    // A node took over, and nothing else: the same generation goes on without a snapshot.
    assert_eq!(view.reasons, ["INITIAL"]);
}

crate::both_setups!(a_server_that_stops_says_so_to_everyone);

async fn a_server_that_stops_says_so_to_everyone(setup: Setup) {
    let stack = Stack::new(setup).await;
    let mut server = stack.serve().await;
    server.with_products(1).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut sockets = Vec::new();
    for n in 0..50 {
        let mut socket = Socket::connect(&server.url, json!({})).await;
        // Some have said who they are, and wait.
        if n % 2 == 0 {
            socket.watch_board(5).await;
        }
        sockets.push(socket);
    }
    // A request that never comes to its end holds the server up for a while.
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(
        b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .await
    .unwrap();
    // Accepted after it.
    assert!(server.ranking(1).await.is_empty());
    let began = Instant::now();
    server.ask_to_stop();
    for mut socket in sockets {
        assert_eq!(socket.closed_with().await, Some(1001));
    }
    until("new connections are refused", TIME_MAX, async || TcpStream::connect(&address).await.is_err()).await;
    assert!(server.is_running(), "that was to be seen while it is stopping");
    let (status, _) = server.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
