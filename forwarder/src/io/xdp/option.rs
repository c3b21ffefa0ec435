//! Socket options of an `AF_XDP` socket that its crate has no names for.

use std::io;
use std::mem::size_of;
use std::os::fd::RawFd;

const SO_BUSY_POLL: i32 = 46;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
const XDP_OPTIONS: i32 = 8;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// Preferred busy polling (Linux 5.11): the worker drives the driver, interrupts stay off while it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds of polling per call, 1-1,000.
    pub micros: u32,
    /// Packets per call, 1-64 without `CAP_NET_ADMIN`.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        BusyPoll { micros: 20, budget: 64 }
    }
}

pub(super) fn set_busy_poll(fd: RawFd, options: BusyPoll) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL, options.micros)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, options.budget)
}

/// Descriptors that one wake-up may send in copy mode (Linux 6.18; 32 before).
pub(super) fn set_tx_budget(fd: RawFd, descriptors: u32) -> io::Result<()> {
    set(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, descriptors)
}

/// Whether the kernel really bound the socket without copies.
pub(super) fn is_zero_copy(fd: RawFd) -> io::Result<bool> {
    let mut flags = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: both pointers are to locals of the sizes given.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_XDP, XDP_OPTIONS, (&raw mut flags).cast(), &raw mut length) };
    if result == 0 { Ok(flags & XDP_OPTIONS_ZEROCOPY != 0) } else { Err(io::Error::last_os_error()) }
}

fn set(fd: RawFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    // SAFETY: the value is a local of the size given.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<u32>() as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
