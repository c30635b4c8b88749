//! Private Postgres servers. One is shared by the whole test process, with a fresh database for each test; a test that
//! stops its server starts one of its own.
//!
//! The server dies with the process, whatever ends it, and its folder goes with it.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

/// The URL of a new, empty database on the shared server.
pub async fn database() -> String {
    static SHARED: LazyLock<Server> = LazyLock::new(Server::start);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // The first to come starts the server, which takes a second or two.
    let server = tokio::task::spawn_blocking(|| &*SHARED).await.unwrap();
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(&server.url("postgres"), &format!("CREATE DATABASE {name}")).await;
    server.url(&name)
}

/// Runs statements on a connection of their own.
pub async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

/// The texts of a query's only column.
pub async fn column(url: &str, query: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let rows = client.query(query, &[]).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A database as it was, as a dump keeps it.
pub struct Backup(tempfile::NamedTempFile);

/// Takes a backup of a database that may be in use.
pub fn backup(url: &str) -> Backup {
    let file = tempfile::NamedTempFile::new().unwrap();
    run("pg_dump", url, &["--file", file.path().to_str().unwrap()]);
    Backup(file)
}

impl Backup {
    /// Puts it in place of a database that may be in use: those who use it lose their connections, and find this one.
    pub async fn restore(&self, url: &str) {
        let (server, name) = url.rsplit_once('/').unwrap();
        let owner = format!("{server}/postgres");
        execute(&owner, &format!("CREATE DATABASE {name}_restored")).await;
        let restored = format!("{server}/{name}_restored");
        run("psql", &restored, &["--quiet", "--set", "ON_ERROR_STOP=1", "--file", self.0.path().to_str().unwrap()]);
        let aside = format!("{name}_before_{:08x}", rand::random::<u32>());
        for statement in [
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"),
            format!("ALTER DATABASE {name} RENAME TO {aside}"),
            format!("ALTER DATABASE {name}_restored RENAME TO {name}"),
        ] {
            execute(&owner, &statement).await;
        }
    }
}

/// Runs a program of Postgres on a database.
fn run(program: &str, url: &str, arguments: &[&str]) {
    let output = Command::new(BINARIES.join(program)).args(["--dbname", url]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where Postgres has its programs.
static BINARIES: LazyLock<PathBuf> = LazyLock::new(|| {
    let asked = Command::new("pg_config").arg("--bindir").output();
    let asked = asked.expect("pg_config runs; Debian has it in the packages postgresql and libpq-dev");
    PathBuf::from(String::from_utf8(asked.stdout).unwrap().trim())
});

/// Has a server ask all but its owner for passwords, as SCRAM does.
pub async fn ask_for_passwords(owner: &str) {
    admit(owner, "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256").await;
}

/// Has a server let in whom these lines of its pg_hba.conf name, and nobody else.
pub async fn admit(owner: &str, lines: &str) {
    let file = column(owner, "SELECT current_setting('hba_file')").await.remove(0);
    std::fs::write(file, lines.to_owned() + "\n").unwrap();
    reload(owner).await;
}

/// Has a server read its settings anew, and waits until it has.
pub async fn reload(owner: &str) {
    let loaded = "SELECT CAST(pg_conf_load_time() AS TEXT)";
    let before = column(owner, loaded).await;
    execute(owner, "SELECT pg_reload_conf()").await;
    super::until("the settings are loaded", Duration::from_secs(20), async || column(owner, loaded).await != before)
        .await;
}

/// Gives a file to the user as which servers run, to read alone: Postgres uses no other key.
pub fn give(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = other_user() {
        chown(file, Some(user), Some(group)).unwrap();
    }
}

pub struct Server {
    folder: PathBuf,
    port: u16,
    running: Mutex<Option<Running>>,
}

struct Running {
    pid: i32,
    /// Hears when the process has ended.
    ended: mpsc::Receiver<()>,
}

/// How a server goes down.
#[derive(Clone, Copy)]
pub enum Stop {
    /// Connections are told so and closed (SIGINT).
    Fast,
    /// As if the machine had failed (SIGQUIT): it recovers from its log at the next start.
    Crash,
}

impl Server {
    /// Blocks until it takes connections.
    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir())
    }

    /// As [`Self::start`], with its data in a folder within this one.
    pub fn start_in(parent: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("acclaim-pg-").tempdir_in(parent).unwrap().keep();
        remove_at_exit(folder.clone());
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let made = command("initdb", &folder)
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"])
            .arg(folder.join("data"))
            .output()
            .expect("initdb runs; Debian has it in the package postgresql");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = Self { folder, port: free_port(), running: Mutex::new(None) };
        server.start_again();
        server
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Lets no process that it starts from now on, which is one for each connection, make a file longer than this.
    pub fn limit_files(&self, len: &str) {
        let pid = self.running.lock().unwrap().as_ref().expect("it runs").pid;
        let mut limit = Command::new("prlimit");
        limit.args([format!("--pid={pid}"), format!("--fsize={len}:")]);
        // Whom it runs as may do so, and root not everywhere.
        if let Some((user, group)) = other_user() {
            limit.uid(user).gid(group);
        }
        let limited = limit.status();
        assert!(limited.expect("prlimit runs; it is part of util-linux").success());
    }

    /// Starts it on the same data and port, and blocks until it takes connections.
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "it is stopped");
        let mut postgres = command("postgres", &self.folder);
        postgres.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        postgres.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        postgres.args(["-c", "max_connections=300", "-c", "shared_buffers=64MB"]);
        let (told, hears) = mpsc::channel();
        let (sends_pid, pid) = mpsc::channel();
        // A thread of its own that lives as long as the server: the kernel ends a child when the thread that started it
        // ends, and the threads of tests do not last.
        std::thread::spawn(move || {
            let mut child = postgres.spawn().expect("postgres runs");
            sends_pid.send(child.id() as i32).unwrap();
            child.wait().unwrap();
            // Nobody listens any more when the process is ending.
            let _ = told.send(());
        });
        *running = Some(Running { pid: pid.recv().unwrap(), ended: hears });
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || {
            let mut ask = command("pg_isready", &self.folder);
            ask.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-d", "postgres"]);
            ask.status().unwrap().success()
        };
        while !ready() {
            assert!(Instant::now() < deadline, "postgres does not start; see {}/log", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Blocks until it is gone.
    pub fn stop(&self, how: Stop) {
        let running = self.running.lock().unwrap().take().expect("it runs");
        let signal = match how {
            Stop::Fast => libc::SIGINT,
            Stop::Crash => libc::SIGQUIT,
        };
        // SAFETY: a signal to a child of ours that has not been waited for, since `ended` has not been told.
        unsafe { libc::kill(running.pid, signal) };
        running.ended.recv_timeout(Duration::from_secs(60)).expect("it stops when told");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.lock().unwrap().is_some() {
            self.stop(Stop::Crash);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program of Postgres, run by a user it accepts: it refuses root.
fn command(program: &str, folder: &Path) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(BINARIES.join(program));
    command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    // SAFETY: prctl is safe to call between fork and exec. After the change of user, which would undo it.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
            Ok(())
        });
    }
    command
}

/// `postgres`, for a test run by root.
pub fn other_user() -> Option<(u32, u32)> {
    // SAFETY: geteuid has no way to fail.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let id = |flag: &str| {
        let said = Command::new("id").args([flag, "postgres"]).output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().parse::<u32>().expect("there is a user postgres")
    };
    Some((id("-u"), id("-g")))
}

/// Free now; nobody else is likely to ask for it in the moment until the server does.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Statics are never dropped, so the shared server is stopped and its folder removed by hand.
fn remove_at_exit(folder: PathBuf) {
    static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    extern "C" fn remove() {
        for folder in FOLDERS.lock().unwrap().iter() {
            let pid_file = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
            if let Some(pid) = pid_file.lines().next().and_then(|pid| pid.parse::<i32>().ok()) {
                let deadline = Instant::now() + Duration::from_secs(10);
                // SAFETY: signals to the server whose folder this is. It is gone once its own thread has waited for it.
                unsafe {
                    libc::kill(pid, libc::SIGQUIT);
                    while libc::kill(pid, 0) == 0 && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            let _ = std::fs::remove_dir_all(folder);
        }
    }
    let mut folders = FOLDERS.lock().unwrap();
    if folders.is_empty() {
        // SAFETY: `remove` needs nothing that ends before it does.
        unsafe { libc::atexit(remove) };
    }
    folders.push(folder);
}
