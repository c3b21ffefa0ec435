//! The two network namespaces of the lab and the veth pair between them. Uses those that `scripts/lab up` made, or
//! makes them and removes what it made. Never touches another namespace's devices.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sluice_forwarder::wire::template::Hop;

use crate::error::BenchError;
use crate::generate::on_signal;

/// Namespace of generator and sink.
pub(crate) const PEER: &str = "sluice-lab-peer";
/// Namespace of the forwarder.
pub(crate) const SFU: &str = "sluice-lab-sfu";
/// Device of generator and sink.
pub(crate) const PEER_DEVICE: &str = "peer0";
/// Device of the forwarder.
pub(crate) const SFU_DEVICE: &str = "media0";
/// Where the forwarder receives media.
pub(crate) const MEDIA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), 5004);
/// Address of generator and sink.
pub(crate) const PEER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));
/// Hardware address that nobody has: what is sent to it is counted and dropped.
pub(crate) const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0xde, 0xad];
/// Addresses of receivers that cost nothing: 10.78.1.1 and up.
const FREE: u32 = 250;
const LOCK: &str = "/run/lock/sluice-bench.lock";

/// The lab while it is up.
#[derive(Debug)]
pub(crate) struct Net {
    made: bool,
    /// One measurement at a time.
    _lock: File,
    stop: Arc<AtomicBool>,
    peer_mac: [u8; 6],
    sfu_mac: [u8; 6],
}

/// Address of a receiver that costs nothing.
pub(crate) fn free_receiver(number: u32) -> SocketAddr {
    let ip = Ipv4Addr::new(10, 78, 1, (1 + number % FREE) as u8);
    SocketAddr::new(ip.into(), (40_000 + number / FREE) as u16)
}

impl Net {
    /// Finds or makes the namespaces.
    pub(crate) fn up(workers: u8) -> Result<Net, BenchError> {
        // SAFETY: a plain system call without arguments.
        if unsafe { libc::geteuid() } != 0 {
            let why = "network namespaces need root".to_owned();
            return Err(BenchError::Refused { what: "setting up the lab".to_owned(), why });
        }
        let lock = lock()?;
        let exists = |name: &str| Path::new("/run/netns").join(name).exists();
        let made = !(exists(PEER) && exists(SFU));
        // Before anything is made, so that a signal ends in `drop`.
        let stop = on_signal()?;
        let mut net = Net { made, _lock: lock, stop, peer_mac: [0; 6], sfu_mac: [0; 6] };
        if made {
            make()?;
        }
        command(&["netns", "exec", SFU, "ethtool", "-L", SFU_DEVICE, "rx", &workers.to_string()])
            .or_else(|error| if workers == 1 { Ok(()) } else { Err(error) })?;
        net.peer_mac = mac(PEER, PEER_DEVICE)?;
        net.sfu_mac = mac(SFU, SFU_DEVICE)?;
        Ok(net)
    }

    /// Set by SIGINT and SIGTERM.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// How frames from the generator to the forwarder leave. With `nobody` what comes back by swapped addresses is
    /// counted and dropped.
    pub(crate) fn hop(&self, nobody: bool) -> Hop {
        let source_mac = if nobody { NOBODY } else { self.peer_mac };
        Hop { source_mac, destination_mac: self.sfu_mac, vlan: None }
    }
}

fn make() -> Result<(), BenchError> {
    remove();
    let queues = std::thread::available_parallelism().map_or(1, usize::from);
    let mut script = String::new();
    for name in [PEER, SFU] {
        let _ = writeln!(script, "netns add {name}");
    }
    let _ = writeln!(
        script,
        "link add {SFU_DEVICE} netns {SFU} numrxqueues {queues} numtxqueues {queues} type veth \
         peer name {PEER_DEVICE} netns {PEER} numrxqueues {queues} numtxqueues {queues}"
    );
    batch(None, &script)?;
    for (name, device, address) in [(SFU, SFU_DEVICE, MEDIA.ip()), (PEER, PEER_DEVICE, PEER_IP)] {
        for scope in ["all", "default"] {
            let key = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
            // Without IPv6 nothing unasked is sent; a kernel without it needs no telling.
            let _ = command(&["netns", "exec", name, "sysctl", "-qw", &key]);
        }
        batch(Some(name), &format!("addr add {address}/24 dev {device}\nlink set lo up\nlink set {device} up\n"))?;
        // Without these a frame reaches XDP with its checksum not filled in, or several packets as one.
        for feature in ["tx", "rx", "sg", "tso", "gso", "gro", "tx-udp-segmentation"] {
            let _ = command(&["netns", "exec", name, "ethtool", "-K", device, feature, "off"]);
        }
        let _ = command(&["netns", "exec", name, "ethtool", "-L", device, "rx", "1", "tx", "1"]);
    }
    // Everybody knows everybody from the start: no first packet waits for ARP.
    let mut script = format!("route add 10.78.1.0/24 dev {SFU_DEVICE}\n");
    for number in 0..FREE {
        let nobody = text(NOBODY);
        let ip = free_receiver(number).ip();
        let _ = writeln!(script, "neigh add {ip} lladdr {nobody} nud permanent dev {SFU_DEVICE}");
    }
    let peer = text(mac(PEER, PEER_DEVICE)?);
    let _ = writeln!(script, "neigh replace {PEER_IP} lladdr {peer} nud permanent dev {SFU_DEVICE}");
    batch(Some(SFU), &script)?;
    let sfu = text(mac(SFU, SFU_DEVICE)?);
    let script = format!("neigh replace {} lladdr {sfu} nud permanent dev {PEER_DEVICE}\n", MEDIA.ip());
    batch(Some(PEER), &script)
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.made {
            remove();
        }
    }
}

fn lock() -> Result<File, BenchError> {
    let _ = fs::create_dir_all("/run/lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(LOCK);
    let file = file.map_err(BenchError::system(format!("opening {LOCK}")))?;
    // SAFETY: a system call on a descriptor that is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let why = format!("another measurement is running (it holds {LOCK}); wait for it");
        return Err(BenchError::Refused { what: "measuring".to_owned(), why });
    }
    Ok(file)
}

fn remove() {
    for name in [PEER, SFU] {
        if Path::new("/run/netns").join(name).exists() {
            let _ = command(&["netns", "del", name]);
        }
    }
}

/// Runs `ip ARGUMENTS`.
fn command(arguments: &[&str]) -> Result<(), BenchError> {
    let what = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(BenchError::system(what()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Refused { what: what(), why: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Runs `ip` commands, one a line.
fn batch(namespace: Option<&str>, script: &str) -> Result<(), BenchError> {
    let what = || format!("ip -batch ({})", script.lines().next().unwrap_or_default());
    let mut ip = Command::new("ip");
    if let Some(name) = namespace {
        ip.args(["-n", name]);
    }
    let child = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(BenchError::system(what()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).map_err(BenchError::system(what()))?;
    }
    let output = child.wait_with_output().map_err(BenchError::system(what()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Refused { what: what(), why: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

fn mac(namespace: &str, device: &str) -> Result<[u8; 6], BenchError> {
    let what = format!("reading the address of {device} in {namespace}");
    let output = Command::new("ip").args(["-n", namespace, "-o", "link", "show", "dev", device]).output();
    let output = output.map_err(BenchError::system(what.clone()))?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = line.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).and_then(parse_mac);
    found.ok_or(BenchError::Refused { what, why: "there is no such device; `scripts/lab down` and again".to_owned() })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Moves the calling thread, and what it starts, into a namespace.
pub(crate) fn enter(namespace: &str) -> Result<(), BenchError> {
    let what = format!("entering {namespace}");
    let file = File::open(format!("/run/netns/{namespace}")).map_err(BenchError::system(what.clone()))?;
    // SAFETY: a system call on a descriptor that is open.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(BenchError::system(what)(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Packets that a device of the calling thread's namespace received.
pub(crate) fn rx_packets(device: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    parse_rx(&text, device)
}

fn parse_rx(text: &str, device: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// The interface index of a device of the calling thread's namespace.
pub(crate) fn interface_index(device: &str) -> Option<u32> {
    let name = CString::new(device).ok()?;
    // SAFETY: the name is a C string that lives during the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_addresses_are_read() {
        let text = "Inter-|   Receive\n face |bytes packets\n    lo: 5 6 0 0 0\n peer0: 100 42 0 0 0 0 0 0 7 8\n";
        assert_eq!((parse_rx(text, "peer0"), parse_rx(text, "lo"), parse_rx(text, "peer")), (42, 6, 0));
        assert_eq!(parse_mac("02:00:00:00:de:ad"), Some(NOBODY));
        assert_eq!([parse_mac("02:00"), parse_mac("02:00:00:00:de:ad:01"), parse_mac("x")], [None; 3]);
        assert_eq!(super::text(NOBODY), "02:00:00:00:de:ad");
    }

    #[test]
    fn free_receivers_have_addresses_of_their_own() {
        let mut all: Vec<SocketAddr> = (0..3_000).map(free_receiver).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3_000);
        assert!(all.iter().all(|one| one.ip() != MEDIA.ip() && one.ip() != PEER_IP));
    }
}
