//! The network between a node and Redis or Postgres, as bad as it is told to be.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What happens to what passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Pass,
    /// Everything comes late, by up to so much at each step.
    Delay(Duration),
    /// Everything comes in pieces of a few bytes.
    Slice,
    /// Nothing passes, and nothing says so; what was sent arrives afterwards, as TCP would send it again.
    Hold,
    /// One in so many requests never arrives, and its connection breaks.
    CutBefore(u32),
    /// One in so many requests arrives and is answered, but the connection breaks before the answer, or in it.
    CutAfter(u32),
    /// One in so many messages of pub/sub is lost.
    LosePushes(u32),
}

#[derive(Clone, Copy)]
struct Setting {
    target: u16,
    mode: Mode,
    /// How often all connections were cut; those made before the last time end.
    cuts: u64,
    /// Whether nobody behind it hears of refused entries: a bug planted from outside.
    is_deaf: bool,
}

pub struct Proxy {
    port: u16,
    setting: watch::Sender<Setting>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Leads to `target`, a port of this machine. A deaf one keeps back what is told of refused entries.
    pub async fn start(target: u16, seed: u64, is_deaf: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (setting, heard) = watch::channel(Setting { target, mode: Mode::Pass, cuts: 0, is_deaf });
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            loop {
                // Out of file handles, say: the client tries again.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(connection(client, heard.clone(), StdRng::from_rng(&mut random)));
            }
        });
        Ok(Self { port, setting, _task: AbortOnDropHandle::new(task) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set_mode(&self, mode: Mode) {
        self.setting.send_modify(|setting| setting.mode = mode);
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.setting.send_modify(|setting| setting.cuts += 1);
    }

    /// Leads elsewhere from now on; connections to where it led before break.
    pub fn lead_to(&self, target: u16) {
        self.setting.send_modify(|setting| {
            setting.target = target;
            setting.cuts += 1;
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// Both directions, until either ends; then both sides are closed.
async fn connection(client: TcpStream, mut heard: watch::Receiver<Setting>, mut random: StdRng) {
    let born = *heard.borrow_and_update();
    // Connecting takes part in what the network does.
    if born.mode == Mode::Hold && heard.wait_for(|now| now.mode != Mode::Hold || now.cuts != born.cuts).await.is_err() {
        return;
    }
    let setting = *heard.borrow_and_update();
    let Ok(server) = TcpStream::connect(("127.0.0.1", setting.target)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (one, other) = (StdRng::from_rng(&mut random), StdRng::from_rng(&mut random));
    let cuts = setting.cuts;
    tokio::select! {
        () = pump(Direction::Requests, from_client, to_server, heard.clone(), cuts, one) => {}
        () = pump(Direction::Replies, from_server, to_client, heard.clone(), cuts, other) => {}
        _ = heard.wait_for(|now| now.cuts != cuts) => {}
    }
}

/// Passes on until something ends or cuts it.
async fn pump(
    direction: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut heard: watch::Receiver<Setting>,
    cuts: u64,
    mut random: StdRng,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let Setting { mode, is_deaf, .. } = *heard.borrow_and_update();
        let (mut bytes, heard_of);
        bytes = &buffer[..len];
        if is_deaf && direction == Direction::Replies {
            heard_of = without_refusals(bytes);
            bytes = &heard_of;
        }
        let kept;
        let mut piece_len = len;
        match mode {
            Mode::Pass => {}
            Mode::Delay(longest) => tokio::time::sleep(longest.mul_f64(random.random())).await,
            Mode::Slice => piece_len = random.random_range(1..8),
            Mode::Hold => {
                let goes_on = heard.wait_for(|now| now.mode != Mode::Hold || now.cuts != cuts).await;
                if goes_on.is_err() {
                    return;
                }
            }
            Mode::CutBefore(one_in) => {
                if direction == Direction::Requests && random.random_ratio(1, one_in) {
                    return;
                }
            }
            Mode::CutAfter(one_in) => {
                if direction == Direction::Replies && random.random_ratio(1, one_in) {
                    let part = random.random_range(0..len);
                    to.write_all(&bytes[..part]).await.ok();
                    return;
                }
            }
            Mode::LosePushes(one_in) => {
                if direction == Direction::Replies {
                    kept = without_some_pushes(bytes, || random.random_ratio(1, one_in));
                    bytes = &kept;
                }
            }
        }
        // Slices beyond some thousand bytes would only be slow, and say nothing new.
        let (sliced, rest) = bytes.split_at(if piece_len < len { bytes.len().min(2_000) } else { 0 });
        for piece in sliced.chunks(piece_len) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if to.write_all(rest).await.is_err() {
            return;
        }
    }
}

/// Leaves the lines that tell of refused entries out of the whole messages of pub/sub that the bytes begin with.
fn without_refusals(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(len) = push_len(rest) {
        let (push, later) = rest.split_at(len);
        let text = String::from_utf8_lossy(push);
        // The head, the channel, the message's length, and the message with its end.
        let parts: Vec<&str> = text.splitn(7, "\r\n").collect();
        match parts[..] {
            [.., message] if parts.len() == 7 && message.contains("refused ") => {
                let lines = message.trim_end_matches("\r\n").split('\n');
                let told = lines.filter(|line| !line.starts_with("refused ")).collect::<Vec<_>>().join("\n");
                kept.extend(format!("{}\r\n${}\r\n{told}\r\n", parts[..5].join("\r\n"), told.len()).bytes());
            }
            _ => kept.extend_from_slice(push),
        }
        rest = later;
    }
    kept.extend_from_slice(rest);
    kept
}

/// Leaves out some of the whole messages of pub/sub that the bytes begin with; what follows them stays as it is.
fn without_some_pushes(bytes: &[u8], mut is_lost: impl FnMut() -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(len) = push_len(rest) {
        if !is_lost() {
            kept.extend_from_slice(&rest[..len]);
        }
        rest = &rest[len..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// The length of the message of pub/sub that the bytes begin with, if all of it is there.
/// <https://redis.io/docs/latest/develop/reference/protocol-spec/>
fn push_len(bytes: &[u8]) -> Option<usize> {
    const HEAD: &[u8] = b"$7\r\nmessage\r\n";
    let rest = bytes.strip_prefix(b"*3\r\n").or_else(|| bytes.strip_prefix(b">3\r\n"))?.strip_prefix(HEAD)?;
    let channel = bulk_len(rest)?;
    let text = bulk_len(rest.get(channel..)?)?;
    let len = 4 + HEAD.len() + channel + text;
    (len <= bytes.len()).then_some(len)
}

fn bulk_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let digits = bytes[..end].strip_prefix(b"$")?;
    let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(end + 2 + len + 2)
}
