//! A proxy between a server and Redis that loses some of what is told by pub/sub, as a network or a busy node may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

pub struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    _task: AbortOnDropHandle<()>,
}

/// Messages of the feed.
#[derive(Default)]
struct Counts {
    told: AtomicUsize,
    lost: AtomicUsize,
}

impl Proxy {
    /// Of what Redis at `port` publishes, loses the share `loss` at random, by a seed that it prints. Everything else
    /// passes.
    pub async fn start(port: u16, loss: f64) -> Self {
        let seed: u64 = rand::random();
        println!("the proxy's seed is {seed}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let mut connection = 0;
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                connection += 1;
                let random = StdRng::seed_from_u64(seed ^ connection);
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                // Either ends when the other side of its own is closed, and closes what it writes to.
                tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                tokio::spawn(pass_most(from_server, to_client, random, loss, counted.clone()));
            }
        });
        Self { address, counts, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// How many messages of the feed were told, and lost.
    pub fn counts(&self) -> (usize, usize) {
        (self.counts.told.load(Ordering::Relaxed), self.counts.lost.load(Ordering::Relaxed))
    }
}

/// Passes whole replies on, and not all of those that are messages of pub/sub.
async fn pass_most(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut random: StdRng,
    loss: f64,
    counts: Arc<Counts>,
) {
    let mut held = Vec::new();
    while let Ok(1..) = from.read_buf(&mut held).await {
        let mut begin = 0;
        let mut passed = Vec::new();
        while let Some(len) = reply_len(&held[begin..]) {
            let reply = &held[begin..begin + len];
            begin += len;
            if let Some(channel) = channel(reply) {
                let is_lost = random.random_bool(loss);
                if channel.ends_with(b":feed") {
                    counts.told.fetch_add(1, Ordering::Relaxed);
                    counts.lost.fetch_add(usize::from(is_lost), Ordering::Relaxed);
                }
                if is_lost {
                    continue;
                }
            }
            passed.extend_from_slice(reply);
        }
        held.drain(..begin);
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

/// The line at the start, without its end, and the length of both.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// How long the first reply is, once all of it is there.
/// <https://redis.io/docs/latest/develop/reference/protocol-spec/>
fn reply_len(bytes: &[u8]) -> Option<usize> {
    let (line, head) = line(bytes)?;
    let len = match line[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => head,
        b'$' | b'=' | b'!' => match number(&line[1..]) {
            -1 => head,
            len => head + len as usize + 2,
        },
        kind @ (b'*' | b'>' | b'~' | b'%') => {
            let each = if kind == b'%' { 2 } else { 1 };
            let mut len = head;
            for _ in 0..number(&line[1..]).max(0) * each {
                len += reply_len(bytes.get(len..)?)?;
            }
            len
        }
        other => panic!("a reply of the unknown kind {}", char::from(other)),
    };
    (len <= bytes.len()).then_some(len)
}

/// The channel of a reply that is a message of pub/sub.
fn channel(reply: &[u8]) -> Option<&[u8]> {
    let rest = reply.strip_prefix(b"*3\r\n").or_else(|| reply.strip_prefix(b">3\r\n"))?;
    let rest = rest.strip_prefix(b"$7\r\nmessage\r\n")?;
    let (_, head) = line(rest)?;
    line(&rest[head..]).map(|(channel, _)| channel)
}

#[test]
fn replies_are_told_apart() {
    let message = b"*3\r\n$7\r\nmessage\r\n$8\r\nacc:feed\r\n$4\r\na\r\nb\r\n";
    let others: [&[u8]; 5] =
        [b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"*2\r\n:1\r\n*1\r\n$0\r\n\r\n", b"%1\r\n+a\r\n>1\r\n_\r\n"];
    for reply in others.into_iter().chain([&message[..]]) {
        let more = [reply, b"+OK\r\n"].concat();
        assert_eq!(reply_len(&more), Some(reply.len()));
        assert!((0..reply.len()).all(|len| reply_len(&reply[..len]).is_none()));
    }
    assert_eq!(channel(message), Some(&b"acc:feed"[..]));
    assert!(others.iter().all(|reply| channel(reply).is_none()));
}
