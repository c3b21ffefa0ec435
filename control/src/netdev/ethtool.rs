//! Driver, features and receive hashing of an interface by ethtool ioctls. Never sets anything.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GRXFH: u32 = 0x29;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const GCHANNELS: u32 = 0x3c;
/// `ETH_SS_FEATURES`.
const FEATURES: u32 = 4;
/// Most features a kernel is believed to have; today's have about 60.
const MAX_FEATURES: u32 = 1024;

/// `struct ifreq` with a data pointer.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    data: *mut u8,
    rest: [u8; 16],
}

/// Calls ethtool with a command buffer of 32-bit words.
fn call(interface: &str, words: &mut [u32]) -> io::Result<()> {
    if interface.is_empty() || interface.len() > 15 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = IfReq { name: [0; 16], data: words.as_mut_ptr().cast(), rest: [0; 16] };
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: `request` is a valid ifreq, its name is terminated, and `data` points to a buffer that is as long as
    // the command in its first word says; callers below size it so.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes of words in memory order.
fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// The driver's name.
pub fn driver(interface: &str) -> io::Result<String> {
    // struct ethtool_drvinfo is 196 bytes; the name is 32 bytes after the command.
    let mut words = [0u32; 49];
    words[0] = GDRVINFO;
    call(interface, &mut words)?;
    let text = bytes(&words[1..9]);
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// Receive queues in use and possible: combined and receive-only ones.
pub fn channels(interface: &str) -> io::Result<(u32, u32)> {
    // cmd, max rx, tx, other, combined, then the counts in the same order.
    let mut words = [0u32; 9];
    words[0] = GCHANNELS;
    call(interface, &mut words)?;
    Ok((words[5] + words[8], words[1].max(words[4])))
}

/// Whether ports take part in the receive hash of UDP over IPv4 or IPv6.
pub fn udp_ports_hashed(interface: &str, v6: bool) -> io::Result<bool> {
    // struct ethtool_rxnfc is 192 bytes: command, flow type, then 64 bits of hash fields.
    let mut words = [0u32; 48];
    words[0] = GRXFH;
    words[1] = if v6 { 6 } else { 2 };
    call(interface, &mut words)?;
    let fields = u64::from_ne_bytes(bytes(&words[2..4]).try_into().unwrap_or([0; 8]));
    // RXH_L4_B_0_1 and RXH_L4_B_2_3.
    Ok(fields & 0xc0 == 0xc0)
}

/// Every feature with whether it is on.
pub fn features(interface: &str) -> io::Result<BTreeMap<String, bool>> {
    // cmd, reserved, 64-bit mask of string sets, one count.
    let mut words = [GSSET_INFO, 0, 1 << FEATURES, 0, 0];
    if cfg!(target_endian = "big") {
        words.swap(2, 3);
    }
    call(interface, &mut words)?;
    let count = words[4].min(MAX_FEATURES);
    let blocks = count.div_ceil(32);
    // cmd, set, count, then 32 bytes for each string.
    let mut names = vec![0u32; 3 + count as usize * 8];
    names[..3].copy_from_slice(&[GSTRINGS, FEATURES, count]);
    call(interface, &mut names)?;
    // cmd, blocks, then for each: available, requested, active, never changed.
    let mut states = vec![0u32; 2 + blocks as usize * 4];
    states[..2].copy_from_slice(&[GFEATURES, blocks]);
    call(interface, &mut states)?;
    let text = bytes(&names[3..]);
    let mut features = BTreeMap::new();
    for (at, name) in text.chunks_exact(32).enumerate() {
        let end = name.iter().position(|b| *b == 0).unwrap_or(32);
        let on = states[2 + at / 32 * 4 + 2] >> (at % 32) & 1 == 1;
        if end > 0 {
            features.insert(String::from_utf8_lossy(&name[..end]).into_owned(), on);
        }
    }
    Ok(features)
}
