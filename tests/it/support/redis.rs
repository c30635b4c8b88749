//! A private Redis: started on a free port, killed when the test process ends, however that ends.
//!
//! Tests that only need an engine share one server and have a key prefix each ([`engine`]). Tests that restart, flush or
//! stop theirs start one of their own ([`RedisServer::start`]).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use acclaim::domain::{BoardId, UserId, partition_of};
use acclaim::engine::redis::RedisEngine;
use acclaim::engine::redis::keys::{BoardKey, Key, Keys};
use acclaim::engine::{Engine, EngineLimits};
use futures_util::future::BoxFuture;
use tempfile::TempDir;

/// A server that does not answer by then never will.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Keeps a server for as long as its own standard input is open: the pipe closes when the test process is gone, even by
/// SIGKILL, when no destructor runs. Its folder goes as well, unless there is data in it.
const WRAPPER: &str = r#"
dir=$1; shift
redis-server --dir "$dir" --pidfile "$dir/redis.pid" "$@" & server=$!
cat
kill -9 $server; wait $server
rm -f "$dir/redis.pid"; rmdir "$dir"
"#;

pub struct RedisServer {
    port: u16,
    options: Vec<String>,
    /// Where it keeps its data: the same one after a restart.
    dir: TempDir,
    wrapper: Option<Child>,
}

impl RedisServer {
    /// Keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Has on disk what it acknowledged, so that a restart brings it back.
    pub fn start_durable() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { port: 0, options, dir, wrapper: None };
        // Between the look for a free port and the start another process may take it.
        for _ in 0..5 {
            server.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if server.try_run() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut wrapper) = self.wrapper.take() {
            drop(wrapper.stdin.take());
            wrapper.wait().unwrap();
        }
    }

    /// Starts it again at the same address, with what it had on disk.
    pub fn run(&mut self) {
        assert!(self.try_run(), "redis-server does not start again on port {}", self.port);
    }

    /// Kills it and starts it again with nothing of what it had.
    pub fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.path().join("appendonlydir")).ok();
        std::fs::remove_file(self.dir.path().join("dump.rdb")).ok();
        self.run();
    }

    /// Kills it and starts it again from what SAVE wrote, as if a backup had been restored.
    pub fn restart_from_copy(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.path().join("appendonlydir")).ok();
        self.options = ["--save", "", "--appendonly", "no"].map(str::to_owned).to_vec();
        self.run();
    }

    pub fn pid(&self) -> u32 {
        std::fs::read_to_string(self.pid_file()).unwrap().trim().parse().unwrap()
    }

    /// Stops it without closing its connections, as a hung machine would; [`RedisServer::thaw`] lets it go on.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sends one command over a connection of its own.
    pub fn command(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection_with_timeout(START_LIMIT).unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// As [`Self::command`]: the answer as a text, or what Redis says against it.
    pub fn ask(&self, words: &[&str]) -> Result<String, String> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection_with_timeout(START_LIMIT).unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).map_err(|error| error.to_string())
    }

    pub async fn engine(&self, prefix: &str, limits: EngineLimits) -> RedisEngine {
        RedisEngine::connect(&self.url(), prefix, limits).await.unwrap()
    }

    /// False where it ends again, because the port is taken.
    fn try_run(&mut self) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", WRAPPER, "redis"]).arg(self.dir.path());
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]).args(&self.options);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::fs::create_dir_all(self.dir.path()).unwrap();
        self.wrapper = Some(command.spawn().unwrap());
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            // Redis writes the file once it has the port, so whoever answers then is this server.
            if self.pid_file().exists() && self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    fn pid_file(&self) -> std::path::PathBuf {
        self.dir.path().join("redis.pid")
    }

    fn answers(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let Ok(mut stream) = TcpStream::connect_timeout(&address, START_LIMIT) else { return false };
        stream.set_read_timeout(Some(START_LIMIT)).unwrap();
        let mut answer = [0; 5];
        // While it loads its data it answers -LOADING.
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG"
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The name of a key of a server with nothing set.
pub fn named(key: Key) -> String {
    Keys::new("acc", 0, EngineLimits::default().partitions).name(&key)
}

pub fn board_key(board: &BoardId, key: BoardKey) -> String {
    named(Key::Board(board.clone(), key))
}

pub fn likes_key(user: &str) -> String {
    let partition = partition_of(user, EngineLimits::default().partitions);
    named(Key::Likes(partition, UserId::new(user).unwrap()))
}

/// The server of all tests that leave it as it is.
pub fn shared() -> &'static RedisServer {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    SHARED.get_or_init(RedisServer::start)
}

/// A key prefix that no other test has.
pub fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A new engine on the shared server.
pub fn engine(limits: EngineLimits) -> BoxFuture<'static, Arc<dyn Engine>> {
    Box::pin(async move { Arc::new(shared().engine(&prefix(), limits).await) as Arc<dyn Engine> })
}
