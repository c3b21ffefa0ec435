//! The kernel socket of one endpoint and its options. Never reads or writes packets.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};

/// Bytes asked for as receive and send buffer: a quarter of a second of one worker's traffic.
const BUFFER: i32 = 8 << 20;
const SO_MEMINFO: i32 = 55;
const MEMINFO_VARS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// A bound, non-blocking socket and its address.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    /// Whether this port takes its packets in. A socket shared by several ports has one reader, or a stream's packets
    /// overtake each other.
    pub(super) receives: bool,
}

impl Endpoint {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        if local.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a media socket must be bound to one address, not to all of them",
            ));
        }
        socket.set_nonblocking(true)?;
        Ok(Endpoint { socket, local, receives: true })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether frames from `source` leave by this socket. Scope and flow label are no part of a frame's address.
    pub(super) fn sends_from(&self, source: SocketAddr) -> bool {
        self.local.ip() == source.ip() && self.local.port() == source.port()
    }

    /// Packets the kernel dropped because the receive buffer was full.
    pub(super) fn drops(&self) -> u64 {
        if !self.receives {
            return 0; // the reader counts them
        }
        let mut values = [0_u32; MEMINFO_VARS];
        let mut length = size_of::<[u32; MEMINFO_VARS]>() as libc::socklen_t;
        // SAFETY: both pointers are to locals of the sizes given.
        let result = unsafe {
            libc::getsockopt(self.fd(), libc::SOL_SOCKET, SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut length)
        };
        if result == 0 { u64::from(values[MEMINFO_DROPS]) } else { 0 }
    }
}

/// Binds the kernel socket of an endpoint: one address, large buffers, "don't fragment" whatever ICMP claims.
pub fn bind_endpoint(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let fd = socket.as_raw_fd();
    // Beyond net.core.rmem_max where we may, up to it otherwise.
    set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)
        .or_else(|_| set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER))?;
    set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER)
        .or_else(|_| set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER))?;
    match local.ip() {
        IpAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?,
        IpAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?,
    }
    Endpoint::new(socket).map(|endpoint| endpoint.socket)
}

fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is a local of the size given.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
