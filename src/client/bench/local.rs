//! The server's process, where it runs on this machine: what it holds in memory and how long it has computed.
//!
//! All of it comes from Linux's /proc; elsewhere, and for a server of another user, there is nothing to read.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

/// /proc counts CPU time in hundredths of a second on every Linux, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// The process with this id, if there is one.
    pub fn with_id(id: u32) -> Option<Self> {
        Some(Self(id)).filter(|process| process.memory_bytes().is_some())
    }

    /// The process that listens where `url` leads, if that is this machine's own loopback.
    pub async fn listening(url: &str) -> Option<Self> {
        let url = reqwest::Url::parse(url).ok()?;
        let (host, port) = (url.host_str()?.trim_matches(['[', ']']), url.port_or_known_default()?);
        let addresses = tokio::net::lookup_host((host, port)).await.ok()?;
        let loopback: Vec<IpAddr> = addresses.map(|address| address.ip()).filter(IpAddr::is_loopback).collect();
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        let inodes: Vec<String> = lines
            .filter_map(listener)
            .filter(|(address, at, _)| *at == port && (loopback.contains(address) || address.is_unspecified()))
            .map(|(_, _, inode)| format!("socket:[{inode}]"))
            .collect();
        if loopback.is_empty() || inodes.is_empty() {
            return None;
        }
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.find(|id| holds(*id, &inodes)).map(Self)
    }

    /// Resident memory.
    pub fn memory_bytes(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// User and system time since it started.
    pub fn cpu(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The name before stands in brackets and may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
    }
}

/// How many files, sockets among them, this process may have open.
pub fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Address, port and inode of a line of /proc/net/tcp, if it is a socket that listens.
fn listener(line: &str) -> Option<(IpAddr, u16, &str)> {
    const LISTENS: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != LISTENS {
        return None;
    }
    // Words of 32 bits, each in the machine's own byte order.
    let mut octets = Vec::new();
    for word in 0..address.len() / 8 {
        octets.extend(u32::from_str_radix(&address[word * 8..word * 8 + 8], 16).ok()?.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?),
    };
    Some((address.to_canonical(), u16::from_str_radix(port, 16).ok()?, fields.get(9)?))
}

/// Whether a process has one of the sockets open. Those of other users can't be looked at.
fn holds(id: u32, inodes: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{id}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| link.to_str().is_some_and(|link| inodes.iter().any(|inode| inode == link)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_of_this_machine_is_found_by_its_port() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let here = std::net::TcpListener::bind(address).unwrap();
            let port = here.local_addr().unwrap().port();
            assert_eq!(Process::listening(&format!("http://localhost:{port}")).await, Some(Process::own()));
            assert_eq!(Process::listening(&format!("http://192.0.2.1:{port}")).await, None);
            drop(here);
            assert_eq!(Process::listening(&format!("http://127.0.0.1:{port}")).await, None);
        }
    }

    #[test]
    fn a_process_has_memory_and_has_computed() {
        let own = Process::with_id(std::process::id()).unwrap();
        assert!(own.memory_bytes().unwrap() > 1_000_000);
        let busy_until = own.cpu().unwrap() + Duration::from_millis(20);
        while own.cpu().unwrap() < busy_until {}
        assert!(open_files_max().unwrap() > 0);
        assert_eq!(Process::with_id(u32::MAX), None);
    }
}
