//! A proxy in front of a server that does what networks do: cut connections before or after an answer, swallow everything,
//! and lead to another server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    way: watch::Sender<Way>,
    cut: Mutex<Option<Cut>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Way {
    port: u16,
    /// Bytes are taken and go nowhere until this ends.
    is_hole: bool,
}

/// Where a connection breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Before the request has got through.
    Request,
    /// After it has: the answer is lost.
    Answer,
}

struct Cut {
    needle: Vec<u8>,
    side: Side,
    times: usize,
}

impl Gate {
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way { port, is_hole: false });
        let shared = Arc::new(Shared { way, cut: Mutex::new(None) });
        let passing = shared.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connect(client, passing.clone()));
            }
        });
        Self { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Swallows everything, or lets through what was held back and all that follows.
    pub fn set_hole(&self, is_hole: bool) {
        self.shared.way.send_modify(|way| way.is_hole = is_hole);
    }

    /// Breaks all connections; new ones lead to another server.
    pub fn lead_to(&self, port: u16) {
        self.shared.way.send_modify(|way| way.port = port);
    }

    /// Breaks the connection of each of the next `times` requests that contain `needle`.
    pub fn cut(&self, side: Side, needle: &str, times: usize) {
        *self.shared.cut.lock().unwrap() = Some(Cut { needle: needle.as_bytes().to_vec(), side, times });
    }

    /// How many cuts are left.
    pub fn cuts_left(&self) -> usize {
        self.shared.cut.lock().unwrap().as_ref().map_or(0, |cut| cut.times)
    }
}

impl Shared {
    fn side_to_cut(&self, request: &[u8]) -> Option<Side> {
        let mut cut = self.cut.lock().unwrap();
        let cut = cut.as_mut().filter(|cut| cut.times > 0)?;
        request.windows(cut.needle.len()).any(|window| window == cut.needle).then(|| {
            cut.times -= 1;
            cut.side
        })
    }
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let way = *shared.way.borrow();
    let Ok(server) = TcpStream::connect(("127.0.0.1", way.port)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let broken = CancellationToken::new();
    let answer_is_lost = Arc::new(AtomicBool::new(false));
    let lost = answer_is_lost.clone();
    let cutting = shared.clone();
    let requests =
        pass(from_client, to_server, shared.clone(), way.port, move |bytes| match cutting.side_to_cut(bytes) {
            Some(Side::Request) => false,
            Some(Side::Answer) => {
                lost.store(true, Ordering::Relaxed);
                true
            }
            None => true,
        });
    let answers = pass(from_server, to_client, shared, way.port, move |_| !answer_is_lost.load(Ordering::Relaxed));
    for direction in [Box::pin(requests) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>, Box::pin(answers)] {
        let broken = broken.clone();
        tokio::spawn(async move {
            broken.run_until_cancelled(direction).await;
            broken.cancel();
        });
    }
}

/// Passes bytes on until the connection ends, leads to another port, or `goes_on` says no.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    port: u16,
    goes_on: impl Fn(&[u8]) -> bool,
) {
    let mut way = shared.way.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let len = tokio::select! {
            read = from.read(&mut bytes) => match read {
                Ok(len @ 1..) => len,
                _ => return,
            },
            _ = way.wait_for(|way| way.port != port) => return,
        };
        let Ok(now) = way.wait_for(|way| !way.is_hole || way.port != port).await.map(|way| *way) else { return };
        if now.port != port || !goes_on(&bytes[..len]) || to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}
