//! Those who watch: each keeps its view of a board by what it is sent, checks that nothing is left out in silence, and
//! connects again, mostly where it left off, when its connection ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::node::{Node, places};
use crate::record::Record;
use crate::redis::position;
use crate::world::World;

const LIVE: &str = "subscription($board: ID!, $top: Int!, $rate: Float!, $resume: String) { boardChanges(board: $board, top: $top, maxRate: $rate, resume: $resume, resumeWith: DELTA) { __typename position seq ... on BoardSnapshot { reason entries { productId score } } ... on BoardDelta { fromSeq changes { productId toRank score product { name } } } } }";

/// Boards whose shown scores change only by what happens, so that a view can be compared with a query as a whole.
pub const BOARDS: [&str; 4] = ["daily", "hourly", "weekly", "all-time"];
/// A node says that it lives every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Subscriptions of a connection that stalls: as many as it may have, so that no buffer between takes what they are sent.
const STALLING_SUBSCRIPTIONS: usize = 20;
const STALLING_BUFFER_LEN: u32 = 128 << 10;
/// A view that is right only then is worth a word.
const LATE: Duration = Duration::from_secs(5);
/// Connections that stall.
pub const STALLING: usize = 4;

/// What a client shows.
#[derive(Clone, Debug)]
pub struct View {
    pub board: &'static str,
    pub top: usize,
    pub node: usize,
    pub shown: Vec<(String, f64)>,
    /// Epoch and seq of what is shown; `None` before the first snapshot.
    held: Option<(u64, u64)>,
    position: Option<String>,
    /// The last thing that was heard, and when.
    heard: (&'static str, Instant),
}

impl View {
    fn new(board: &'static str, top: usize) -> Self {
        let heard = ("nothing", Instant::now());
        Self { board, top, node: 0, shown: Vec::new(), held: None, position: None, heard }
    }

    /// Applies an event as the schema says; an error is a violation of what it promises.
    fn take(&mut self, event: &Value) -> anyhow::Result<()> {
        let seq = event["seq"].as_u64().with_context(|| format!("no seq in {event}"))?;
        let at = event["position"].as_str().unwrap_or_default();
        match event["__typename"].as_str().unwrap_or_default() {
            "BoardSnapshot" => {
                let at = position(at)?;
                let goes_back = self.held.is_some_and(|held| at < held);
                ensure!(!goes_back, "{at:?} after {:?}: seq goes back", self.held);
                self.shown = places(&event["entries"]).with_context(|| format!("{event}"))?;
                self.held = Some(at);
                self.heard = ("a snapshot", Instant::now());
            }
            "BoardDelta" => {
                let at = position(at)?;
                let held = self.held.context("changes before any snapshot")?;
                let from = event["fromSeq"].as_u64().context("a delta says from where")?;
                ensure!((at.0, from) == held, "a gap: changes lead from {from} to {at:?}, and {held:?} is shown");
                ensure!(at > held, "{at:?} after {held:?}: seq does not grow");
                let changes = event["changes"].as_array().context("a delta has changes")?;
                self.shown.retain(|(product, _)| changes.iter().all(|change| change["productId"] != product.as_str()));
                for change in changes.iter().filter(|change| !change["toRank"].is_null()) {
                    let product = change["productId"].as_str().context("a change has a product")?.to_owned();
                    let place = (product, change["score"].as_f64().context("a place has a score")?);
                    let rank = change["toRank"].as_u64().context("a rank")? as usize;
                    ensure!((1..=self.shown.len() + 1).contains(&rank), "changes do not fit what is shown: {event}");
                    self.shown.insert(rank - 1, place);
                }
                self.held = Some(at);
                self.heard = ("changes", Instant::now());
            }
            "BoardHeartbeat" => {
                self.heard = ("a heartbeat", Instant::now());
                // Before anything is shown, nothing was published.
                let Some(held) = self.held else { return Ok(()) };
                ensure!(seq == held.1, "a heartbeat names {seq}, and {held:?} is shown");
            }
            other => bail!("an event {other:?}: {event}"),
        }
        self.position = event["position"].as_str().map(str::to_owned);
        Ok(())
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn connect(node: &Node, buffer_len: Option<u32>) -> anyhow::Result<Socket> {
    let address = node.url.trim_start_matches("http://");
    let socket = TcpSocket::new_v4()?;
    if let Some(len) = buffer_len {
        socket.set_recv_buffer_size(len)?;
    }
    let stream = socket.connect(address.parse()?).await?;
    let mut request = format!("ws://{address}/graphql/ws").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse()?);
    let config = WebSocketConfig::default().read_buffer_size(4_096);
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    socket.send(Message::text(json!({ "type": "connection_init" }).to_string())).await?;
    let acknowledged = receive(&mut socket).await?;
    ensure!(acknowledged["type"] == "connection_ack", "{acknowledged}");
    Ok(socket)
}

/// The next message that is not a ping.
async fn receive(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        let message = timeout(SILENCE_MAX, socket.next()).await?.context("the connection has ended")??;
        match message {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text)?;
                if message["type"] != "ping" {
                    return Ok(message);
                }
            }
            Message::Close(_) => bail!("closed"),
            _ => {}
        }
    }
}

/// Subscribers of one connection.
pub struct Subscriber {
    world: Arc<World>,
    random: StdRng,
    /// By the number that is the subscription's id.
    views: Vec<Arc<Mutex<View>>>,
    rate: f64,
    stalls: bool,
}

impl Subscriber {
    pub fn new(n: usize, world: &Arc<World>) -> Self {
        let mut random = StdRng::seed_from_u64(world.options.seed ^ ((n as u64 + 1) << 16));
        let board = BOARDS[random.random_range(0..BOARDS.len())];
        let top = [5, 20, 100][random.random_range(0..3)];
        let rate = [1.0, 4.0, 10.0][random.random_range(0..3)];
        let views = vec![Arc::new(Mutex::new(View::new(board, top)))];
        Self { world: world.clone(), random, views, rate, stalls: false }
    }

    /// One with many subscriptions, which takes nothing while readers are stalled.
    pub fn stalling(n: usize, world: &Arc<World>) -> Self {
        let random = StdRng::seed_from_u64(world.options.seed ^ ((n as u64 + 1) << 24));
        let view = || Arc::new(Mutex::new(View::new("daily", 100)));
        let views = (0..STALLING_SUBSCRIPTIONS).map(|_| view()).collect();
        Self { world: world.clone(), random, views, rate: 5.0, stalls: true }
    }

    pub fn views(&self) -> Vec<Arc<Mutex<View>>> {
        self.views.clone()
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let world = self.world.clone();
        let mut n = self.random.random_range(0..world.nodes.len());
        loop {
            let node = &world.nodes[n];
            let buffer_len = self.stalls.then_some(STALLING_BUFFER_LEN);
            if let Ok(Ok(socket)) = timeout(CONNECT_LIMIT, connect(node, buffer_len)).await {
                world.record.count("subscribers' connections", 1);
                self.watch(socket, n).await;
            }
            sleep(Duration::from_millis(self.random.random_range(100..600))).await;
            n = (n + 1) % world.nodes.len();
        }
    }

    /// Until the connection ends, in whatever way.
    async fn watch(&mut self, mut socket: Socket, node: usize) {
        for (id, view) in self.views.iter().enumerate() {
            let variables = {
                let mut view = view.lock().expect("nothing panics while it holds a view");
                view.node = node;
                if self.random.random_ratio(1, 4) {
                    *view = View { node, ..View::new(view.board, view.top) };
                }
                json!({ "board": view.board, "top": view.top, "rate": self.rate, "resume": view.position })
            };
            let payload = json!({ "query": LIVE, "variables": variables });
            let message = json!({ "id": id.to_string(), "type": "subscribe", "payload": payload });
            if socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
        let mut stalled = self.world.stalled.subscribe();
        loop {
            if self.stalls && stalled.wait_for(|stalled| !stalled).await.is_err() {
                return;
            }
            let Ok(message) = receive(&mut socket).await else { return };
            let view = message["id"].as_str().and_then(|id| id.parse::<usize>().ok()).and_then(|id| self.views.get(id));
            let Some(view) = view else { return };
            // An error, or a subscription that has ended: all are begun again.
            if message["type"] != "next" {
                self.note_end(&message);
                return;
            }
            let event = &message["payload"]["data"]["boardChanges"];
            let mut view = view.lock().expect("as above");
            if event.is_null() {
                // What could not be executed; a snapshot follows.
                continue;
            }
            if let Err(error) = view.take(event) {
                let (board, top) = (view.board, view.top);
                let node = &self.world.nodes[node].name;
                self.world.record.violation(format!("a subscriber of {board} (first {top}) at {node}: {error}"));
                *view = View::new(board, top);
                return;
            }
        }
    }
}

impl Subscriber {
    /// Only what passes by itself may be said to a client that does nothing wrong.
    fn note_end(&self, message: &Value) {
        let code = message["payload"][0]["extensions"]["code"].as_str().unwrap_or("by the server");
        self.world.record.count(&format!("subscriptions ended: {code}"), 1);
        if message["type"] == "error" && code != "UNAVAILABLE" {
            self.world.record.violation(format!("a subscription is answered {message}"));
        }
    }
}

/// Reads rankings all the time, and counts how many are answered by nodes that are up.
pub async fn read_rankings(world: Arc<World>, n: usize) {
    use std::sync::atomic::Ordering::Relaxed;
    const EVERY: Duration = Duration::from_millis(100);
    let node = &world.nodes[n];
    loop {
        sleep(EVERY).await;
        if !node.is_up() {
            continue;
        }
        let answered = node.ranking("daily", 20).await.is_ok();
        // It may have been taken down meanwhile.
        if node.is_up() {
            world.reads[0].fetch_add(u64::from(answered), Relaxed);
            world.reads[1].fetch_add(1, Relaxed);
        }
    }
}

/// Waits until every view is what a query shows; says how long that took, or notes those that are not.
pub async fn compare(world: &World, views: &[Arc<Mutex<View>>], limit: Duration) -> Duration {
    let began = Instant::now();
    let mut is_said = false;
    loop {
        let differing = differing(world, views).await;
        if let (Ok([first, ..]), false) = (differing.as_deref(), is_said || began.elapsed() < LATE) {
            is_said = true;
            world.say(&format!("views are late: {first}"));
        }
        match differing {
            Ok(differing) if differing.is_empty() => return began.elapsed(),
            Ok(differing) if began.elapsed() > limit => {
                note(&world.record, &differing, views.len(), limit);
                return began.elapsed();
            }
            Err(error) if began.elapsed() > limit => {
                world.record.violation(format!("rankings can't be read {limit:?} after the last fault: {error:#}"));
                return began.elapsed();
            }
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn differing(world: &World, views: &[Arc<Mutex<View>>]) -> anyhow::Result<Vec<String>> {
    let mut boards = Vec::new();
    for node in &world.nodes {
        let mut of_node = Vec::new();
        for board in BOARDS {
            of_node.push((board, node.ranking(board, 100).await?));
        }
        boards.push(of_node);
    }
    let mut differing = Vec::new();
    if boards[0] != boards[1] {
        differing.push("two nodes show different boards".to_owned());
    }
    for view in views {
        let view = view.lock().expect("as above").clone();
        let (_, board) = boards[view.node].iter().find(|(board, _)| *board == view.board).context("a board of ours")?;
        let expected = &board[..view.top.min(board.len())];
        if view.held.is_none() {
            differing.push(format!("a subscriber of {} at node {} was shown nothing", view.board, view.node + 1));
        } else if view.shown != expected {
            let first = view.shown.iter().zip(expected).position(|(shown, expected)| shown != expected);
            let first = first.unwrap_or(view.shown.len().min(expected.len()));
            differing.push(format!(
                "a view of {} at node {}, {:?}, which was last told {} {:.1} s ago, has at rank {} {:?} instead of {:?}",
                view.board,
                view.node + 1,
                view.held,
                view.heard.0,
                view.heard.1.elapsed().as_secs_f64(),
                first + 1,
                view.shown.get(first),
                expected.get(first)
            ));
        }
    }
    Ok(differing)
}

fn note(record: &Record, differing: &[String], views: usize, limit: Duration) {
    let first = differing[0].clone();
    record.violation(format!("{} of {views} views differ {limit:?} after the load: {first}", differing.len()));
}
