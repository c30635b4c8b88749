//! What is told to every node: published states, progress, changed definitions; and listening to it.
//!
//! Invariant: a listener that nobody drains holds one slot for each board and each partition, where the newest wins, so
//! it never grows; a published state is whole, so a state that was overtaken is not missed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream};
use redis::aio::PubSub;
use redis::{Client, Msg, RedisError, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::keys::{BoardKey, Channels, Key, Keys};
use super::link::{Args, CONNECT_LIMIT, STEP_LIMIT, refusal};
use super::reply::{flag, list, text, tuple, unexpected};
use super::{RedisEngine, script};
use crate::domain::{BoardId, FeedState, Position};
use crate::engine::{Backoff, Notice, Progress, Result};

/// Published states kept for clients that come back: one minute of ticks of 100 ms, some 2.4 MB a board.
const HISTORY_LEN: usize = 600;

/// Refused entries that a listener nobody drains keeps: more than any node has likes in flight.
const REFUSED_MAX: usize = 4_096;

/// How often a listener tries its connection: a node looks for missed states after 2 s of silence, and a dead
/// connection should have been replaced by then.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// For which ledger this node speaks and listens.
#[derive(Clone)]
pub struct Speaker {
    ledger: Arc<str>,
    channels: Arc<Channels>,
}

impl Speaker {
    pub fn of(keys: &Keys, ledger: &str) -> Self {
        Self { ledger: ledger.into(), channels: Arc::new(keys.channels(ledger)) }
    }

    /// A message as it is sent.
    fn message(&self, text: &str) -> String {
        format!("{}\n{text}", self.ledger)
    }

    /// What a message says; `None` for one that names another ledger.
    fn heard<'a>(&self, message: &'a [u8]) -> Option<&'a str> {
        let (ledger, text) = std::str::from_utf8(message).ok()?.split_once('\n')?;
        (*ledger == *self.ledger).then_some(text)
    }
}

impl RedisEngine {
    pub(super) fn do_speak_for(&self, ledger: &str) {
        *self.speaker.lock().expect("nothing panics while it holds the lock") = Speaker::of(&self.keys, ledger);
    }

    fn speaker(&self) -> Speaker {
        self.speaker.lock().expect("as above").clone()
    }

    pub(super) async fn do_publish(&self, state: &FeedState) -> Result<bool> {
        let json = serde_json::to_string(state).expect("a state is plain text and numbers");
        let keys = self.board_keys(&state.board, [BoardKey::Meta, BoardKey::Top, BoardKey::Feed]);
        let mut args = Args::default();
        let Speaker { ledger, channels } = self.speaker();
        args.push(state.generation).push(state.seq).push(HISTORY_LEN).push(&channels.feed).push(ledger).push(json);
        flag(&self.link.eval(&script::PUBLISH, &keys, &args, STEP_LIMIT).await?)
    }

    pub(super) async fn do_published(&self, board: &BoardId) -> Result<Option<FeedState>> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.keys.name(&Key::Board(board.clone(), BoardKey::Top)));
        match self.link.call(&cmd, STEP_LIMIT).await? {
            Value::Nil => Ok(None),
            json => serde_json::from_str(text(&json)?).map(Some).map_err(|_| unexpected(&json)),
        }
    }

    pub(super) async fn do_published_at(&self, board: &BoardId, seq: u64) -> Result<Option<FeedState>> {
        let mut cmd = redis::cmd("XRANGE");
        let id = format!("{seq}-0");
        cmd.arg(self.keys.name(&Key::Board(board.clone(), BoardKey::Feed))).arg(&id).arg(&id);
        let Some(entry) = list(self.link.call(&cmd, STEP_LIMIT).await?)?.into_iter().next() else { return Ok(None) };
        let [_, fields] = tuple(entry)?;
        let [_, json] = tuple(fields)?;
        serde_json::from_str(text(&json)?).map(Some).map_err(|_| unexpected(&json))
    }

    pub(super) async fn do_announce(&self, progress: &[Progress]) -> Result<()> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut committed: BTreeMap<u16, (Position, Vec<String>)> = BTreeMap::new();
        let mut others = Vec::new();
        for progress in progress {
            let line = encode_progress(progress);
            match *progress {
                Progress::Ledger { partition, position, .. } => {
                    let (furthest, lines) = committed.entry(partition).or_default();
                    *furthest = position.max(*furthest);
                    lines.push(line);
                }
                // One message with, and before, the progress that passes it.
                Progress::Refused { partition, .. } => committed.entry(partition).or_default().1.push(line),
                Progress::Likes { .. } => others.push(line),
            }
        }
        let speaker = self.speaker();
        let committed = committed.into_iter().map(|(partition, (position, lines))| {
            let message = speaker.message(&lines.join("\n"));
            self.tell_committed(partition, position, &speaker.channels.progress, message)
        });
        let committed = try_join_all(committed);
        if others.is_empty() {
            return committed.await.map(drop);
        }
        let told = self.tell(&speaker.channels.progress, speaker.message(&others.join("\n")));
        tokio::try_join!(committed, told).map(drop)
    }

    async fn tell_committed(&self, partition: u16, upto: Position, channel: &str, message: String) -> Result<()> {
        let mut args = Args::default();
        args.push(upto.epoch).push(upto.seq).push(channel).push(message);
        let keys = [self.keys.name(&Key::Meta(partition))];
        self.link.eval(&script::ANNOUNCE, &keys, &args, STEP_LIMIT).await.map(drop)
    }

    pub(super) async fn do_announce_definitions(&self) -> Result<()> {
        let speaker = self.speaker();
        self.tell(&speaker.channels.definitions, speaker.message("changed")).await
    }

    async fn tell(&self, channel: &str, message: String) -> Result<()> {
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(channel).arg(message);
        self.link.call(&cmd, STEP_LIMIT).await.map(drop)
    }

    pub(super) async fn do_listen(&self) -> Result<BoxStream<'static, Notice>> {
        let client = self.link.client().clone();
        let speaker = self.speaker();
        let pubsub = subscribe(&client, &speaker.channels).await.map_err(refusal)?;
        let inbox = Arc::new(Inbox::default());
        inbox.put(|slots| slots.missed = true);
        let task = tokio::spawn(follow(client, speaker, pubsub, Arc::clone(&inbox)));
        let state = (inbox, AbortOnDropHandle::new(task), VecDeque::new());
        let notices = stream::unfold(state, |(inbox, task, mut taken)| async move {
            while taken.is_empty() {
                taken = inbox.take().await;
            }
            taken.pop_front().map(|notice| (notice, (inbox, task, taken)))
        });
        Ok(notices.boxed())
    }
}

/// What was heard and not yet taken.
#[derive(Default)]
struct Inbox {
    slots: Mutex<Slots>,
    filled: Notify,
}

#[derive(Default)]
struct Slots {
    missed: bool,
    definitions: bool,
    /// Messages that named another ledger.
    foreign: u64,
    /// From where to where the ledger has come.
    ledger: HashMap<u16, (Position, Position)>,
    likes: HashMap<u16, Position>,
    /// At most [`REFUSED_MAX`].
    refused: BTreeSet<(u16, Position)>,
    feeds: HashMap<BoardId, FeedState>,
}

impl Inbox {
    fn put(&self, change: impl FnOnce(&mut Slots)) {
        change(&mut self.slots.lock().expect("nothing panics while it holds the lock"));
        self.filled.notify_one();
    }

    /// Everything there is, at once, so that nothing that comes often keeps the rest waiting.
    async fn take(&self) -> VecDeque<Notice> {
        self.filled.notified().await;
        let slots = std::mem::take(&mut *self.slots.lock().expect("nothing panics while it holds the lock"));
        let missed = slots.missed.then_some(Notice::Missed);
        let definitions = slots.definitions.then_some(Notice::Definitions);
        let foreign = (slots.foreign > 0).then_some(Notice::Foreign { messages: slots.foreign });
        let ledger = slots.ledger.into_iter();
        let ledger = ledger.map(|(partition, (from, position))| Progress::Ledger { partition, from, position });
        let likes = slots.likes.into_iter().map(|(partition, position)| Progress::Likes { partition, position });
        let refused = slots.refused.into_iter().map(|(partition, position)| Progress::Refused { partition, position });
        // What was refused goes before the progress that passes it.
        let progress = refused.chain(ledger).chain(likes).map(Notice::Progress);
        let feeds = slots.feeds.into_values().map(Notice::Feed);
        missed.into_iter().chain(foreign).chain(definitions).chain(progress).chain(feeds).collect()
    }
}

impl Slots {
    fn hear(&mut self, speaker: &Speaker, message: &Msg) {
        let Some(heard) = speaker.heard(message.get_payload_bytes()) else {
            self.foreign += 1;
            return;
        };
        let (channel, channels) = (message.get_channel_name(), &speaker.channels);
        if channel == channels.feed {
            match serde_json::from_str::<FeedState>(heard) {
                Ok(state) => {
                    self.feeds.insert(state.board.clone(), state);
                }
                Err(_) => self.missed = true,
            }
        } else if channel == channels.progress {
            for line in heard.lines() {
                match decode_progress(line) {
                    Some(Progress::Ledger { partition, from, position }) => self.hear_ledger(partition, from, position),
                    Some(Progress::Likes { partition, position }) => newest(&mut self.likes, partition, position),
                    Some(Progress::Refused { partition, position }) if self.refused.len() < REFUSED_MAX => {
                        self.refused.insert((partition, position));
                    }
                    Some(Progress::Refused { partition, position }) => {
                        // One too many to be remembered must not pass for committed.
                        self.hear_ledger(partition, position, position);
                        self.missed = true;
                    }
                    None => self.missed = true,
                }
            }
        } else {
            self.definitions = true;
        }
    }

    /// Joined to what was heard before, unless there is a gap between them, or one is behind the other.
    fn hear_ledger(&mut self, partition: u16, from: Position, position: Position) {
        let slot = self.ledger.entry(partition).or_insert((from, position));
        if position > slot.1 {
            *slot = (if from > slot.1 { from } else { slot.0 }, position);
        }
    }
}

/// Nodes' announcements overtake each other; the furthest says it all.
fn newest(slots: &mut HashMap<u16, Position>, partition: u16, position: Position) {
    let slot = slots.entry(partition).or_default();
    *slot = position.max(*slot);
}

/// `ledger <partition> <position> <from>`; `likes` and `refused` likewise, without the last.
fn encode_progress(progress: &Progress) -> String {
    match progress {
        Progress::Ledger { partition, from, position } => format!("ledger {partition} {position} {from}"),
        Progress::Likes { partition, position } => format!("likes {partition} {position}"),
        Progress::Refused { partition, position } => format!("refused {partition} {position}"),
    }
}

fn decode_progress(line: &str) -> Option<Progress> {
    let words: Vec<_> = line.split(' ').collect();
    let (partition, position) = (words.get(1)?.parse().ok()?, words.get(2)?.parse().ok()?);
    match (words[0], &words[3..]) {
        ("ledger", [from]) => Some(Progress::Ledger { partition, from: from.parse().ok()?, position }),
        ("likes", []) => Some(Progress::Likes { partition, position }),
        ("refused", []) => Some(Progress::Refused { partition, position }),
        _ => None,
    }
}

async fn subscribe(client: &Client, channels: &Channels) -> Result<PubSub, RedisError> {
    let subscribed = async {
        let mut pubsub = client.get_async_pubsub().await?;
        pubsub.subscribe(&[&channels.feed, &channels.progress, &channels.definitions]).await?;
        Ok(pubsub)
    };
    let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(CONNECT_LIMIT, subscribed).await.unwrap_or_else(|_| Err(late()))
}

/// Puts what is told into the inbox, and connects again for ever.
async fn follow(client: Client, speaker: Speaker, mut pubsub: PubSub, inbox: Arc<Inbox>) {
    loop {
        hear_all(&speaker, pubsub, &inbox).await;
        let mut backoff = Backoff::default();
        pubsub = loop {
            backoff.wait().await;
            match subscribe(&client, &speaker.channels).await {
                Ok(pubsub) => break pubsub,
                Err(error) => tracing::debug!(%error, "can not listen to Redis yet"),
            }
        };
        inbox.put(|slots| slots.missed = true);
    }
}

/// Returns when the connection is dead.
async fn hear_all(speaker: &Speaker, pubsub: PubSub, inbox: &Inbox) {
    let (mut sink, mut messages) = pubsub.split();
    let mut probe = tokio::time::interval_at(Instant::now() + PROBE_INTERVAL, PROBE_INTERVAL);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => inbox.put(|slots| slots.hear(speaker, &message)),
                None => return,
            },
            _ = probe.tick() => {
                let answer: Result<Result<Value, RedisError>, _> = timeout(PROBE_INTERVAL, sink.ping()).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_back() {
        let position = Position::new(7, 12);
        let ledger = Progress::Ledger { partition: 3, from: Position::new(7, 9), position };
        let refused = Progress::Refused { partition: 2, position };
        for progress in [ledger, Progress::Likes { partition: 0, position }, refused] {
            assert_eq!(decode_progress(&encode_progress(&progress)), Some(progress));
        }
        for bad in [
            "",
            "ledger",
            "ledger 1",
            "ledger x 1-1 1-0",
            "ledger 1 1-1",
            "other 1 1-1",
            "likes 1 1",
            "likes 1 1-1 1-0",
        ] {
            assert_eq!(decode_progress(bad), None);
        }
    }

    #[tokio::test]
    async fn the_furthest_progress_stands_in_the_slot() {
        let inbox = Inbox::default();
        for seq in [3, 9, 5] {
            inbox.put(|slots| newest(&mut slots.likes, 1, Position::new(1, seq)));
        }
        let likes = Progress::Likes { partition: 1, position: Position::new(1, 9) };
        assert_eq!(inbox.take().await, [Notice::Progress(likes)]);
    }

    #[tokio::test]
    async fn commits_are_joined_as_far_as_none_is_missing() {
        let at = |seq| Position::new(1, seq);
        for (heard, joined) in [
            (&[(0, 3), (3, 9)][..], (0, 9)),
            (&[(0, 3), (5, 9)], (5, 9)),
            (&[(4, 9), (0, 4)], (4, 9)),
            (&[(0, 9), (5, 5)], (0, 9)),
            (&[(2, 5), (9, 9)], (9, 9)),
        ] {
            let inbox = Inbox::default();
            heard.iter().for_each(|&(from, to)| inbox.put(|slots| slots.hear_ledger(1, at(from), at(to))));
            let ledger = Progress::Ledger { partition: 1, from: at(joined.0), position: at(joined.1) };
            assert_eq!(inbox.take().await, [Notice::Progress(ledger)], "{heard:?}");
        }
    }
}
