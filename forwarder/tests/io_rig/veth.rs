//! A veth pair between two fresh network namespaces: one end has the XDP program and an `AF_XDP` socket, the other a
//! packet socket. The namespaces have no names and end with their threads and sockets.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use sluice_forwarder::io::headers::Headers;
use sluice_forwarder::io::xdp::XdpOptions;
use sluice_forwarder::io::{IoCounters, PacketIo, PollMode, RxBurst, RxFrame, TxFrame, XdpIo};
use sluice_forwarder::xdp::{Options, Steering};

use super::{Peer, Rig, frame_to};

pub(crate) const PORT: &str = "port0";
pub(crate) const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const PACKET_IGNORE_OUTGOING: i32 = 23;

/// A veth pair; the calling thread is in the port's namespace from now on.
pub(crate) struct Veth {
    pub(crate) ifindex: u32,
    pub(crate) peer: OwnedFd,
}

/// Moves the thread into a namespace of its own and makes the pair. `None`, said on stderr, where that is not
/// allowed and this is not CI.
pub(crate) fn veth() -> Option<Veth> {
    if let Err(error) = new_namespace() {
        assert!(std::env::var_os("CI").is_none(), "CI must allow network namespaces: {error}");
        eprintln!("skipped: a network namespace needs CAP_SYS_ADMIN: {error}");
        return None;
    }
    run("ip link add port0 address 02:00:00:00:00:01 mtu 1700 type veth peer name peer0");
    run("ip link set peer0 address 02:00:00:00:00:02 mtu 1700");
    let (tell, thread) = mpsc::channel();
    let (moved, wait) = mpsc::channel::<()>();
    let peer = std::thread::spawn(move || {
        new_namespace().unwrap();
        // SAFETY: a plain system call without arguments.
        tell.send(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap();
        wait.recv().unwrap();
        run("ip link set peer0 up");
        let index = index_of(c"peer0");
        packet_socket(index)
    });
    let id = thread.recv().unwrap();
    run(&format!("ip link set peer0 netns {id}"));
    run("ip link set lo up");
    run("ip addr add 192.0.2.1/24 dev port0");
    run("ip -6 addr add 2001:db8::1/64 dev port0 nodad");
    run("ip link set port0 up");
    moved.send(()).unwrap();
    let peer = peer.join().unwrap();
    Some(Veth { ifindex: index_of(c"port0"), peer })
}

/// The rig over `AF_XDP`, with the tuple known and the socket registered.
pub(crate) fn rig(name: &'static str, (local, remote): (SocketAddr, SocketAddr), vlan: Option<u16>) -> Option<Rig> {
    let veth = veth()?;
    let mut steering = Steering::load(&Options::default()).unwrap();
    let mode = steering.attach(veth.ifindex).unwrap();
    let options = XdpOptions { poll: PollMode::Interrupt, ..XdpOptions::new(PORT, 0, mode) };
    let io = XdpIo::open(&options).unwrap();
    steering.register_socket(0, io.fd()).unwrap();
    steering.insert_endpoint(local, false).unwrap();
    steering.insert_tuple(local, remote, 1).unwrap();
    let peer = Box::new(PacketPeer { veth, local, remote, vlan });
    let port = Box::new(Attached { io, _steering: steering });
    Some(Rig { name, port, peer, local, remote, vlan, overflow: 5000 })
}

/// A port that keeps its program attached.
struct Attached {
    io: XdpIo,
    _steering: Steering,
}

impl PacketIo for Attached {
    fn wants_checksum(&self) -> bool {
        self.io.wants_checksum()
    }
    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        self.io.receive(burst)
    }
    fn release(&mut self, frame: RxFrame) {
        self.io.release(frame);
    }
    fn credit(&mut self) -> usize {
        self.io.credit()
    }
    fn acquire(&mut self) -> Option<TxFrame> {
        self.io.acquire()
    }
    fn submit(&mut self, frame: TxFrame, len: usize) {
        self.io.submit(frame, len);
    }
    fn cancel(&mut self, frame: TxFrame) {
        self.io.cancel(frame);
    }
    fn flush(&mut self) {
        self.io.flush();
    }
    fn wait(&mut self, timeout: Duration) {
        self.io.wait(timeout);
    }
    fn counters(&mut self) -> IoCounters {
        self.io.counters()
    }
}

/// Sends and receives whole frames at the far end of the pair.
pub(crate) struct PacketPeer {
    pub(crate) veth: Veth,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) vlan: Option<u16>,
}

impl Peer for PacketPeer {
    fn send(&mut self, payload: &[u8]) -> bool {
        let frame = frame_to(self.local, self.remote, self.vlan, payload);
        // SAFETY: the frame lives during the call.
        let sent = unsafe { libc::send(self.veth.peer.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        sent == frame.len() as isize
    }

    fn receive_all(&mut self, limit: usize, quiet: Duration, visit: &mut dyn FnMut(Headers, &[u8])) -> usize {
        let mut total = 0;
        while total < limit {
            let Some(frame) = receive_packet(&self.veth.peer, quiet) else { break };
            // The kernels of both namespaces talk too (neighbours, multicast groups).
            let Some((headers, range)) = Headers::parse(&frame) else { continue };
            if headers.destination == self.remote {
                visit(headers, &frame[range]);
                total += 1;
            }
        }
        total
    }
}

/// One frame with its tag, which the kernel hands over beside it.
fn receive_packet(socket: &OwnedFd, timeout: Duration) -> Option<Vec<u8>> {
    let mut fd = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, alive during the call.
    if unsafe { libc::poll(&raw mut fd, 1, timeout.as_millis() as i32) } <= 0 {
        return None;
    }
    let mut buffer = [0_u8; 2048];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero header is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to locals.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let mut frame = buffer[..usize::try_from(len).ok()?].to_vec();
    // SAFETY: the kernel filled the control block in.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if !header.is_null() {
        // SAFETY: the only option asked for is the auxiliary data.
        let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
        if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tci = data.tp_vlan_tci.to_be_bytes();
            frame.splice(12..12, [0x81, 0x00, tci[0], tci[1]]);
        }
    }
    Some(frame)
}

fn packet_socket(index: u32) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: a plain system call; the descriptor is checked and owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let fd = socket.as_raw_fd();
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20),
        (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1),
        (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
    ] {
        let value: i32 = value;
        // SAFETY: the value is a local of the size given.
        let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: the address is a local of the size given.
    let bound =
        unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t) };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    socket
}

pub(crate) fn new_namespace() -> io::Result<()> {
    // SAFETY: changes the namespace of this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn index_of(name: &std::ffi::CStr) -> u32 {
    // SAFETY: a terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?} does not exist");
    index
}

pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}
