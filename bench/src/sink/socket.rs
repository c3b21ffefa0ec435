//! Kernel sockets that receive many packets at a time with the time the kernel got each: what a sink does late is
//! not charged to the forwarder. Never sends.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

/// Packets received by one call.
const BATCH: usize = 32;
/// Longest packet taken.
const LONGEST: usize = 2048;
const CONTROL: usize = 64;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// A receiving socket and its buffers.
pub(crate) struct Stamped {
    socket: UdpSocket,
    port: u16,
    headers: Vec<libc::mmsghdr>,
    _vectors: Vec<libc::iovec>,
    buffers: Vec<[u8; LONGEST]>,
    controls: Vec<Control>,
}

// SAFETY: the raw pointers in the headers point into the other vectors of the same value, which never grow.
unsafe impl Send for Stamped {}

impl Stamped {
    /// Makes a bound socket non-blocking and asks for time stamps.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let on: i32 = 1;
        // SAFETY: the value is a local of the size given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPNS,
                (&raw const on).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut buffers = vec![[0; LONGEST]; BATCH];
        let mut controls = vec![Control([0; CONTROL]); BATCH];
        let mut vectors: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: LONGEST })
            .collect();
        let headers = vectors
            .iter_mut()
            .zip(&mut controls)
            .map(|(vector, control)| {
                // SAFETY: an all-zero message header is valid and means "nothing".
                let mut header: libc::mmsghdr = unsafe { zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header
            })
            .collect();
        Ok(Stamped { socket, port, headers, _vectors: vectors, buffers, controls })
    }

    /// Gives every waiting packet, at most `limit` calls' worth, to `take` with its port and the kernel's time
    /// (`CLOCK_REALTIME`, nanoseconds; 0 if there was none). Returns how many.
    pub(crate) fn receive(&mut self, limit: usize, mut take: impl FnMut(u16, &[u8], u64)) -> usize {
        let mut total = 0;
        for _ in 0..limit {
            for header in &mut self.headers {
                header.msg_hdr.msg_controllen = CONTROL;
            }
            // SAFETY: headers, vectors, buffers and controls live in this value and nothing else reaches them.
            let result = unsafe {
                libc::recvmmsg(
                    self.socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            let got = usize::try_from(result).unwrap_or(0);
            for at in 0..got {
                let len = (self.headers[at].msg_len as usize).min(LONGEST);
                let used = self.headers[at].msg_hdr.msg_controllen.min(CONTROL);
                take(self.port, &self.buffers[at][..len], stamp(&self.controls[at].0[..used]));
            }
            total += got;
            if got < BATCH {
                break;
            }
        }
        total
    }
}

impl std::fmt::Debug for Stamped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stamped").field("port", &self.port).finish_non_exhaustive()
    }
}

/// The time stamp among control messages.
fn stamp(mut control: &[u8]) -> u64 {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_ne_bytes);
    while control.len() >= HEADER {
        let len = word(control, 0).unwrap_or(0) as usize;
        let int = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().unwrap_or_default());
        if len < HEADER || len > control.len() {
            break;
        }
        if int(8) == libc::SOL_SOCKET && int(12) == libc::SCM_TIMESTAMPNS {
            let (seconds, rest) = (word(control, HEADER).unwrap_or(0), word(control, HEADER + 8).unwrap_or(0));
            return seconds as u64 * 1_000_000_000 + rest as u64;
        }
        control = control.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn packets_come_with_the_kernels_time() {
        let mut sink = Stamped::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = sink.socket.local_addr().unwrap();
        let before = clock::monotonic();
        for n in 0..100_u8 {
            source.send_to(&[n; 50], to).unwrap();
        }
        let (after, offset) = (clock::monotonic(), clock::realtime_offset());
        let mut got = Vec::new();
        assert_eq!(sink.receive(100, |port, bytes, at| got.push((port, bytes.to_vec(), at))), 100);
        for (n, (port, bytes, at)) in got.iter().enumerate() {
            assert_eq!((*port, bytes), (to.port(), &vec![n as u8; 50]));
            let at = (*at as i64 - offset) as u64;
            // A millisecond of slack for the offset.
            assert!(at + 1_000_000 >= before && at <= after + 1_000_000, "{before} {at} {after}");
        }
        assert_eq!(sink.receive(1, |_, _, _| ()), 0);
    }

    #[test]
    fn control_messages_without_a_stamp_give_none() {
        assert_eq!(stamp(&[]), 0);
        assert_eq!(stamp(&[0; 64]), 0);
        assert_eq!(stamp(&[0xff; 64]), 0);
    }
}
