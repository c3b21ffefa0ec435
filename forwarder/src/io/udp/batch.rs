//! Message headers for `recvmmsg` and `sendmmsg`, kept between calls. Never decides what is sent.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr::NonNull;

use crate::io::BURST;

const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

/// Room for a traffic class and a segment size.
const CONTROL: usize = 64;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Up to [`BURST`] messages and the buffers their headers point to.
pub(super) struct Batch {
    headers: Box<[libc::mmsghdr; BURST]>,
    buffers: Box<[libc::iovec; BURST]>,
    names: Box<[libc::sockaddr_storage; BURST]>,
    controls: Box<[Control; BURST]>,
    messages: usize,
    used: usize,
}

// SAFETY: the raw pointers in the headers point to the other boxes or to memory that the caller vouches for
// at each call.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("messages", &self.messages).field("buffers", &self.used).finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: all-zero message headers, vectors and addresses are valid and mean "nothing".
        let (header, buffer, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Batch {
            headers: Box::new([header; BURST]),
            buffers: Box::new([buffer; BURST]),
            names: Box::new([name; BURST]),
            controls: Box::new([Control([0; CONTROL]); BURST]),
            messages: 0,
            used: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.messages = 0;
        self.used = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == BURST
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Appends a buffer to the last message.
    pub(super) fn push_buffer(&mut self, data: NonNull<u8>, len: usize) {
        self.buffers[self.used] = libc::iovec { iov_base: data.as_ptr().cast(), iov_len: len };
        self.used += 1;
        if let Some(last) = self.messages.checked_sub(1) {
            self.headers[last].msg_hdr.msg_iovlen += 1;
        }
    }

    /// Starts a message; its buffers follow.
    fn push_message(&mut self, name_len: usize) -> usize {
        let at = self.messages;
        let header = &mut self.headers[at];
        header.msg_len = 0;
        let message = &mut header.msg_hdr;
        message.msg_name = (&raw mut self.names[at]).cast();
        message.msg_namelen = name_len as libc::socklen_t;
        // The next buffer is this message's first; `push_buffer` counts it.
        message.msg_iov = self.buffers[self.used..].as_mut_ptr();
        message.msg_iovlen = 0;
        message.msg_control = std::ptr::null_mut();
        message.msg_controllen = 0;
        message.msg_flags = 0;
        self.messages = at + 1;
        at
    }

    /// Adds a message to be received into `len` bytes at `data`.
    pub(super) fn push_receive(&mut self, data: NonNull<u8>, len: usize) {
        self.push_message(size_of::<libc::sockaddr_storage>());
        self.push_buffer(data, len);
    }

    /// Starts a message to `destination`; its buffers follow.
    pub(super) fn push_send(&mut self, destination: SocketAddr, scope: u32, traffic_class: u8) {
        let at = self.push_message(0);
        let name_len = write_name(&mut self.names[at], destination, scope);
        self.headers[at].msg_hdr.msg_namelen = name_len as libc::socklen_t;
        if traffic_class != 0 {
            let (level, kind) = match destination {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            self.push_control(at, level, kind, &i32::from(traffic_class).to_ne_bytes());
        }
    }

    /// Makes the kernel cut the last message into packets of `size` bytes.
    pub(super) fn segment(&mut self, size: u16) {
        if let Some(last) = self.messages.checked_sub(1) {
            self.push_control(last, SOL_UDP, UDP_SEGMENT, &size.to_ne_bytes());
        }
    }

    fn push_control(&mut self, at: usize, level: i32, kind: i32, value: &[u8]) {
        let control = &mut self.controls[at].0;
        let message = &mut self.headers[at].msg_hdr;
        let start = message.msg_controllen;
        let header =
            libc::cmsghdr { cmsg_len: size_of::<libc::cmsghdr>() + value.len(), cmsg_level: level, cmsg_type: kind };
        let space = header.cmsg_len.next_multiple_of(size_of::<usize>());
        debug_assert!(start + space <= CONTROL);
        let target = &mut control[start..start + space];
        // SAFETY: the slice has room for a header. The kernel finds it aligned: the block is, and every entry's size
        // is a multiple of a word.
        unsafe { target.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        target[size_of::<libc::cmsghdr>()..][..value.len()].copy_from_slice(value);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = start + space;
    }

    /// Receives into the messages; returns how many were filled.
    ///
    /// # Safety
    /// The buffers pushed since `clear` must be writable and reachable through nothing else.
    pub(super) unsafe fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        let count = self.messages as libc::c_uint;
        // SAFETY: headers, names and controls live in this value; the caller vouches for the buffers.
        let result =
            unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the messages; returns how many went.
    ///
    /// # Safety
    /// The buffers pushed since `clear` must be readable.
    pub(super) unsafe fn send(&mut self, fd: RawFd) -> io::Result<usize> {
        let count = self.messages as libc::c_uint;
        // SAFETY: as for `receive`.
        let result = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Length and source of received message `at`; `None` if it was longer than its buffer.
    pub(super) fn received(&self, at: usize) -> Option<(usize, SocketAddr)> {
        let header = &self.headers[at];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        Some((header.msg_len as usize, read_name(&self.names[at])?))
    }
}

fn write_name(storage: &mut libc::sockaddr_storage, address: SocketAddr, scope: u32) -> usize {
    let target = &raw mut *storage;
    match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is made to hold and to be aligned for every address.
            unsafe { target.cast::<libc::sockaddr_in>().write(name) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: scope,
            };
            // SAFETY: as above.
            unsafe { target.cast::<libc::sockaddr_in6>().write(name) };
            size_of::<libc::sockaddr_in6>()
        }
    }
}

fn read_name(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let source = &raw const *storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote an address of this family.
            let name = unsafe { source.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { source.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}
