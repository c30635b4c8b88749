//! PgBouncer before a Postgres of a test's own; ends with the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::postgres::{free_port, other_user};
use super::until;

pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// `pool_mode` is session, transaction or statement.
    pub async fn start(postgres_port: u16, pool_mode: &str, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("acclaim-pgbouncer-").tempdir().unwrap();
        let port = free_port();
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={postgres_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\nunix_socket_dir =\npool_mode = {pool_mode}\n{more}\n"
        );
        std::fs::write(&settings, text).unwrap();
        let in_path = Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status().is_ok();
        let mut command = Command::new(if in_path { "pgbouncer" } else { "/usr/sbin/pgbouncer" });
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.arg(&settings).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // It refuses to run as root.
        if let Some((user, group)) = other_user() {
            chown(folder.path(), Some(user), Some(group)).unwrap();
            chown(&settings, Some(user), Some(group)).unwrap();
            command.uid(user).gid(group);
        }
        let child = command.spawn().expect("pgbouncer runs; Debian has it in the package pgbouncer");
        until("pgbouncer takes connections", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { child, port, _folder: folder }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
