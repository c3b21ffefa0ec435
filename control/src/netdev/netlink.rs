//! Netlink requests and attribute walking. Never keeps a socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Most answers taken for one request, so that a broken kernel cannot hold us.
const MAX_ANSWERS: usize = 100_000;

/// A request being built: payload after the netlink header.
#[derive(Debug, Default)]
pub struct Request {
    payload: Vec<u8>,
}

impl Request {
    /// A request that starts with a fixed structure.
    pub fn new(fixed: &[u8]) -> Request {
        Request { payload: fixed.to_vec() }
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        put(&mut self.payload, kind, value);
    }
}

/// Appends an attribute with its header and padding.
pub fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Sends a request and returns the payload of every answer up to the acknowledgement or the end of a dump.
pub fn ask(protocol: i32, kind: u16, flags: u16, request: &Request) -> io::Result<Vec<Vec<u8>>> {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let timeout = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // SAFETY: pointer and length describe `timeout`.
    unsafe {
        let size = size_of::<libc::timeval>() as u32;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), size);
    }
    let mut message = Vec::with_capacity(HEADER + request.payload.len());
    message.extend_from_slice(&((HEADER + request.payload.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&request.payload);
    // SAFETY: pointer and length describe `message`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answers = Vec::new();
    let mut buffer = vec![0u8; 64 << 10];
    let acknowledged = flags & (libc::NLM_F_ACK | libc::NLM_F_DUMP) as u16 != 0;
    loop {
        // SAFETY: pointer and length describe `buffer`.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut rest = &buffer[..got as usize];
        while let Some((kind, payload, after)) = split(rest) {
            rest = after;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(answers),
                libc::NLMSG_ERROR => {
                    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                    return if code == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => answers.push(payload.to_vec()),
            }
        }
        if (!acknowledged && !answers.is_empty()) || answers.len() > MAX_ANSWERS {
            return Ok(answers);
        }
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..len)?;
    Some((kind, payload, bytes.get(len.next_multiple_of(4)..).unwrap_or(&[])))
}

/// Walks attributes: kind without its flag bits, and value. Stops at the first malformed one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_and_nonsense_ends() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"abc");
        put(&mut bytes, 4 | 0x8000, &[]);
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(3, b"abc".as_slice()), (4, b"".as_slice())]);
        for len in 0..bytes.len() {
            assert!(attributes(&bytes[..len]).count() <= 2);
        }
        assert_eq!(attributes(&[1, 0, 0, 0, 9]).count(), 0, "a length below the header's own");
    }
}
