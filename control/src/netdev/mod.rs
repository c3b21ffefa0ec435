//! What the kernel knows of network interfaces: netlink, ethtool ioctls, BPF programs. Asks more than it
//! changes; the only change it can make is to detach an XDP program.

pub mod address;
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

/// The name of an interface by index; `None` if it is gone.
pub fn name(index: u32) -> Option<String> {
    let mut buffer = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call asks for.
    let found = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the call wrote a zero-terminated string into the buffer, which still lives.
    let name = unsafe { std::ffi::CStr::from_ptr(found) };
    name.to_str().ok().map(str::to_owned)
}
