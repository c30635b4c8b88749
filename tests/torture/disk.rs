//! Disks of limited size, which faults fill to the last page: file systems in memory that only the torture sees.
//!
//! The torture runs in a mount namespace of its own. The kernel takes its mounts away with its last process, so that no
//! end of a run, not even by SIGKILL, leaves any behind.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// The argument with which the torture starts itself again.
pub const IN_NAMESPACE: &str = "--has-own-mounts";
/// Room for the data of an hour, of which a server has some hundred MB, and for Postgres's WAL, about 1 GB by its
/// settings. Two of these may be full at once, and a full one is in memory.
const SIZE: &str = "size=2g";
/// What servers delete while they have no room is taken from them again that often.
const FILL_EVERY: Duration = Duration::from_millis(50);

/// Starts this program anew in a mount namespace of its own, in place of this process. Returns only where that, or a mount
/// there, is not permitted.
pub fn enter_namespace() -> anyhow::Result<()> {
    // Away again with its namespace.
    let words = ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"];
    let tried = Command::new("unshare").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let program = std::env::current_exe()?;
    let error = Command::new("unshare").arg("--mount").arg(program).args(arguments).arg(IN_NAMESPACE).exec();
    Err(error).context("unshare starts")
}

/// A folder for a server's data, where mounts are permitted on a disk of its own.
pub struct Disk {
    folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// In a server's folder.
    pub fn new(dir: &TempDir, may_mount: bool) -> anyhow::Result<Self> {
        let folder = dir.path().join("disk");
        std::fs::create_dir(&folder)?;
        let disk = Self { folder, is_mounted: may_mount };
        if may_mount {
            let made = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&disk.folder).output()?;
            ensure!(made.status.success(), "mount: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(disk)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Fills it, keeps it full, and sets it right again.
    pub async fn be_full(&self, lasts: Duration) -> anyhow::Result<()> {
        ensure!(self.is_mounted, "there is no disk to fill");
        let ballast = self.folder.join("ballast");
        let filled = async {
            // Filling takes its time; it lasts from when it is full.
            let mut until = None;
            loop {
                let file = OpenOptions::new().create(true).append(true).open(&ballast)?;
                tokio::task::spawn_blocking(|| fill(file)).await??;
                if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + lasts) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(FILL_EVERY).await;
            }
        };
        let filled = filled.await;
        std::fs::remove_file(&ballast).context("the ballast goes")?;
        filled
    }
}

/// Writes until there is no room.
fn fill(mut file: File) -> anyhow::Result<()> {
    let zeros = vec![0; 1 << 20];
    loop {
        match file.write(&zeros) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("the ballast is written"),
        }
    }
}

impl Drop for Disk {
    /// Lazily: whoever still ends has files open there.
    fn drop(&mut self) {
        if self.is_mounted {
            Command::new("umount").arg("--lazy").arg(&self.folder).status().ok();
        }
    }
}
