//! What the kernel knows of network interfaces: netlink, ethtool ioctls, BPF programs. Asks more than it
//! changes; the only change it can make is to detach an XDP program.

pub mod bpf;
pub mod ethtool;
pub mod link;
pub mod netlink;

use std::ffi::CString;
use std::io;

/// The index of an interface by name.
pub fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the argument is a zero-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
