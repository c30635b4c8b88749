//! Subscribers of one board: thousands whose chains are followed, and some whose every frame is read and applied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Faults;
use super::frame::{self, Frame};
use super::probe::Probe;
use super::reader::Reader;
use super::socket::{Door, Lost, Socket};
use super::view::{self, Broken, Chain, Event, Head, Place, Step, View};

/// Sockets that are opened at a time: enough to keep the server busy, few enough for any listener's backlog.
const OPENING_MAX: usize = 64;
/// A board that has ever been shown greets a subscriber at once.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

/// What all subscribers of a crowd are sent, counted.
#[derive(Default)]
pub struct Tallies {
    /// Snapshots and deltas.
    pub deliveries: AtomicU64,
    /// Of the texts that bear them, without the WebSocket's own few bytes.
    pub bytes: AtomicU64,
    pub heartbeats: AtomicU64,
    pub gaps: AtomicU64,
    snapshots: Mutex<BTreeMap<String, u64>>,
    /// What each subscriber holds, by its number.
    seqs: Vec<AtomicU64>,
    faults: Arc<Faults>,
}

impl Tallies {
    /// How many snapshots came for which reason.
    pub fn snapshots(&self) -> String {
        let snapshots = self.snapshots.lock().expect("nothing panics while it holds the lock");
        let said: Vec<String> = snapshots.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        said.join(", ")
    }

    fn count(&self, head: Head<'_>, len: usize) {
        if head.step == Step::Heartbeat {
            self.heartbeats.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        if let Step::Snapshot { reason } = head.step {
            let mut snapshots = self.snapshots.lock().expect("as above");
            *snapshots.entry(reason.to_owned()).or_default() += 1;
        }
    }
}

/// A subscriber whose frames are read in full.
struct Watcher {
    number: usize,
    view: Mutex<View>,
    updates: AtomicU64,
    /// False from a fault until the next snapshot: what is shown meanwhile says nothing more about the server.
    is_whole: AtomicBool,
}

impl Watcher {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("nothing panics while it holds a view")
    }

    fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// Applies an event to a whole view, and tells the probe when it shows the mark.
    fn apply(&self, event: Event, probe: Option<&Probe>, received: Instant) -> Result<(), Broken> {
        let marked = probe.map(Probe::product);
        let mut view = self.view();
        let score = |view: &View| marked.as_ref().and_then(|product| view.score(product));
        let before = score(&view);
        if !matches!(event, Event::Heartbeat { .. }) {
            self.updates.fetch_add(1, Ordering::Relaxed);
        }
        match event {
            Event::Snapshot { .. } => self.is_whole.store(true, Ordering::Relaxed),
            _ if !self.is_whole() => return Ok(()),
            _ => {}
        }
        view.apply(event)?;
        let after = score(&view);
        if let (Some(probe), Some(product)) = (probe, &marked)
            && after.is_some()
            && after != before
        {
            probe.shown(self.number, product, received);
        }
        Ok(())
    }
}

/// One connection and what is known of it.
struct Subscriber {
    number: usize,
    socket: Socket,
    chain: Chain,
    watcher: Option<Arc<Watcher>>,
    probe: Option<Arc<Probe>>,
    tallies: Arc<Tallies>,
}

impl Subscriber {
    /// Connects, subscribes, and takes the first snapshot.
    async fn open(plan: &Plan, tallies: &Arc<Tallies>, number: usize) -> anyhow::Result<Self> {
        let watcher = plan.is_watched(number).then(|| {
            Arc::new(Watcher {
                number,
                view: Mutex::new(View::new(plan.top)),
                updates: AtomicU64::new(0),
                is_whole: AtomicBool::new(true),
            })
        });
        let begin = async {
            let mut socket = plan.door.open().await?;
            socket.send(plan.subscribe.as_str()).await?;
            let (probe, tallies) = (plan.probe.clone(), tallies.clone());
            let mut subscriber = Self { number, socket, chain: Chain::default(), watcher, probe, tallies };
            subscriber.greeted().await?;
            Ok::<_, anyhow::Error>(subscriber)
        };
        begin.await.with_context(|| format!("subscriber {} of {}", number + 1, plan.subscribers))
    }

    /// Takes what comes until the first state of the board.
    async fn greeted(&mut self) -> anyhow::Result<()> {
        let greeting = async {
            while !self.receive().await? {}
            Ok::<_, Lost>(())
        };
        match tokio::time::timeout(SNAPSHOT_TIMEOUT, greeting).await {
            Ok(greeted) => Ok(greeted?),
            Err(_) => bail!("the board sends nothing within {} s", SNAPSHOT_TIMEOUT.as_secs()),
        }
    }

    async fn follow(mut self) {
        loop {
            if let Err(lost) = self.receive().await {
                return self.fault(&lost);
            }
        }
    }

    /// Takes one message; whether it was a state of the board.
    async fn receive(&mut self) -> Result<bool, Lost> {
        let text = self.socket.receive().await?;
        if self.watcher.is_none()
            && let Some(head) = frame::head(&text)
        {
            self.step(head, text.len());
            return Ok(head.step != Step::Heartbeat);
        }
        let received = Instant::now();
        match Socket::parse(&text)? {
            Frame::Next { payload } => {
                if let Some(error) = payload.errors.into_iter().next() {
                    return Err(error.into());
                }
                let Some(data) = payload.data else { return Err(Lost::Foreign("a next without data".to_owned())) };
                let is_state = !matches!(data.board_changes, Event::Heartbeat { .. });
                self.step(data.board_changes.head(), text.len());
                if let Some(watcher) = &self.watcher
                    && let Err(broken) = watcher.apply(data.board_changes, self.probe.as_deref(), received)
                {
                    self.fault(&broken);
                }
                Ok(is_state)
            }
            Frame::Error { payload } => match payload.into_iter().next() {
                Some(error) => Err(error.into()),
                None => Err(Lost::Foreign("an error that says nothing".to_owned())),
            },
            Frame::Complete => Err(Lost::Completed),
            Frame::Ping => self.socket.pong().await.map(|()| false),
            Frame::ConnectionAck | Frame::Pong => Ok(false),
        }
    }

    fn step(&mut self, head: Head<'_>, len: usize) {
        self.tallies.count(head, len);
        self.tallies.seqs[self.number].store(head.seq, Ordering::Relaxed);
        if let Err(broken) = self.chain.take(head) {
            if matches!(broken, Broken::Gap { .. }) {
                self.tallies.gaps.fetch_add(1, Ordering::Relaxed);
            }
            self.fault(&broken);
        }
    }

    fn fault(&self, fault: &dyn std::error::Error) {
        self.tallies.faults.add(format!("subscriber {}: {fault}", self.number));
        if let Some(watcher) = &self.watcher {
            watcher.is_whole.store(false, Ordering::Relaxed);
        }
    }
}

/// What a crowd subscribes to.
pub struct Plan {
    pub door: Door,
    /// The message that subscribes.
    pub subscribe: String,
    pub top: usize,
    pub subscribers: usize,
    /// How many of them are read in full, evenly spread.
    pub watchers: usize,
    pub probe: Option<Arc<Probe>>,
}

impl Plan {
    /// Whether the subscriber is one of those, evenly spread, that are read in full. The first one is.
    fn is_watched(&self, number: usize) -> bool {
        let share = |number: usize| number * self.watchers / self.subscribers;
        number == 0 || share(number) > share(number - 1)
    }
}

/// Subscribers, from their snapshot on until they are dropped.
pub struct Crowd {
    pub tallies: Arc<Tallies>,
    watchers: Vec<Arc<Watcher>>,
    tasks: JoinSet<()>,
    reader: Reader,
    plan: Arc<Plan>,
}

impl Crowd {
    /// The first subscriber, who is read in full.
    pub async fn open(plan: Plan, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let seqs = (0..plan.subscribers).map(|_| AtomicU64::new(0)).collect();
        let tallies = Arc::new(Tallies { seqs, faults, ..Tallies::default() });
        let (reader, plan) = (Reader::start()?, Arc::new(plan));
        let mut crowd = Self { tallies, watchers: Vec::new(), tasks: JoinSet::new(), reader, plan };
        let first = crowd.subscriber(0).await?;
        crowd.admit(first);
        Ok(crowd)
    }

    /// All the others, each with its first snapshot.
    pub async fn fill(&mut self) -> anyhow::Result<()> {
        let mut numbers = 1..self.plan.subscribers;
        let mut opening = FuturesUnordered::new();
        loop {
            opening.extend(numbers.by_ref().take(OPENING_MAX - opening.len()).map(|number| self.subscriber(number)));
            let Some(opened) = opening.next().await else { return Ok(()) };
            self.admit(opened?);
        }
    }

    /// Opens a subscriber where it is going to be read.
    fn subscriber(&self, number: usize) -> impl Future<Output = anyhow::Result<Subscriber>> + use<> {
        let handle = self.handle(self.plan.is_watched(number));
        let (plan, tallies) = (self.plan.clone(), self.tallies.clone());
        let opening = handle.spawn(async move { Subscriber::open(&plan, &tallies, number).await });
        async move { opening.await? }
    }

    fn admit(&mut self, subscriber: Subscriber) {
        self.watchers.extend(subscriber.watcher.clone());
        let handle = self.handle(subscriber.watcher.is_some());
        self.tasks.spawn_on(subscriber.follow(), &handle);
    }

    /// Frames that tell a time are read as they come, the others in turns.
    fn handle(&self, is_watched: bool) -> Handle {
        if is_watched { Handle::current() } else { self.reader.handle().clone() }
    }

    pub fn len(&self) -> usize {
        self.plan.subscribers
    }

    fn whole(&self) -> impl Iterator<Item = &Arc<Watcher>> {
        self.watchers.iter().filter(|watcher| watcher.is_whole())
    }

    /// The numbers of the subscribers that are read in full and met no fault.
    pub fn watching(&self) -> impl Iterator<Item = usize> {
        self.whole().map(|watcher| watcher.number)
    }

    /// How many states a subscriber was sent, by the first one's count.
    pub fn updates(&self) -> u64 {
        self.watchers[0].updates.load(Ordering::Relaxed)
    }

    /// What the first subscriber shows.
    pub fn places(&self) -> Vec<Place> {
        self.watchers[0].view().places().to_vec()
    }

    /// Whether the product is in the better half of what is shown.
    pub fn stands_well(&self, product: &str) -> bool {
        let places = self.places();
        let better_half = &places[..places.len().div_ceil(2)];
        better_half.iter().any(|place| place.product_id == product)
    }

    /// The first subscriber whose view is not this, and how it differs.
    pub fn difference(&self, ranking: &[Place]) -> Option<String> {
        self.whole().find_map(|watcher| {
            let differs = view::difference(watcher.view().places(), ranking)?;
            Some(format!("subscriber {} {differs}", watcher.number))
        })
    }

    /// The lowest seq that one of those subscribers holds.
    pub fn seq_of_watchers(&self) -> Option<u64> {
        self.watching().map(|number| self.seq(number)).min()
    }

    /// A subscriber that holds less than this seq.
    pub fn behind(&self, seq: u64) -> Option<usize> {
        (0..self.len()).find(|number| self.seq(*number) < seq)
    }

    pub fn seq(&self, number: usize) -> u64 {
        self.tallies.seqs[number].load(Ordering::Relaxed)
    }
}
