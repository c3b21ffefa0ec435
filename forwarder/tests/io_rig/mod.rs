//! Ports under test, each with a peer that sends and receives what a network would.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod veth;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sluice_forwarder::io::headers::{Headers, write_udp_checksum};
use sluice_forwarder::io::udp::{UdpOptions, bind_endpoint};
use sluice_forwarder::io::{MemoryIo, PacketIo, PollMode, UdpIo};

/// A port, its addresses and its peer.
pub(crate) struct Rig {
    pub(crate) name: &'static str,
    pub(crate) port: Box<dyn PacketIo>,
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) vlan: Option<u16>,
    /// Frames of 900 bytes that are too many for the receive side.
    pub(crate) overflow: usize,
}

impl Rig {
    /// Headers from the port to the peer.
    pub(crate) fn outgoing(&self) -> Headers {
        let headers = Headers::new(self.local, self.remote);
        Headers { vlan: self.vlan, mac_destination: veth::PEER_MAC, mac_source: veth::PORT_MAC, ..headers }
    }
}

/// The other end.
pub(crate) trait Peer {
    /// Sends a payload to the port; whether it was queued.
    fn send(&mut self, payload: &[u8]) -> bool;
    /// Visits what arrived, until `limit` frames came or nothing for `quiet`; returns how many.
    fn receive_all(&mut self, limit: usize, quiet: Duration, visit: &mut dyn FnMut(Headers, &[u8])) -> usize;
}

/// A payload that looks like RTP and depends on its size and on `salt`.
pub(crate) fn payload(size: usize, salt: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at * 31 + size * 7) as u8 ^ salt).collect();
    bytes[0] = 0x80;
    bytes
}

/// Runs `test` over every port, each in a thread of its own so that namespaces end with it.
pub(crate) fn each_rig(test: fn(Rig)) {
    let v4: (SocketAddr, SocketAddr) = ("192.0.2.1:5004".parse().unwrap(), "192.0.2.2:6004".parse().unwrap());
    let v6: (SocketAddr, SocketAddr) = ("[2001:db8::1]:5004".parse().unwrap(), "[2001:db8::2]:6004".parse().unwrap());
    let makers: Vec<Box<dyn FnOnce() -> Option<Rig> + Send>> = vec![
        Box::new(move || Some(memory("memory", v4, None))),
        Box::new(move || Some(memory("memory v6", v6, None))),
        Box::new(move || Some(memory("memory vlan", v4, Some(7)))),
        Box::new(|| Some(udp("udp", "127.0.0.1:0", false))),
        Box::new(|| Some(udp("udp v6", "[::1]:0", false))),
        Box::new(|| Some(udp("udp segmented", "127.0.0.1:0", true))),
        Box::new(move || veth::rig("xdp", v4, None)),
        Box::new(move || veth::rig("xdp v6", v6, None)),
        Box::new(move || veth::rig("xdp vlan", v4, Some(7))),
    ];
    for make in makers {
        let result = std::thread::spawn(move || {
            if let Some(rig) = make() {
                test(rig);
            }
        })
        .join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The frame that carries `payload` to the port.
pub(crate) fn frame_to(local: SocketAddr, remote: SocketAddr, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let headers =
        Headers { vlan, mac_destination: veth::PORT_MAC, mac_source: veth::PEER_MAC, ..Headers::new(remote, local) };
    let mut frame = vec![0; headers.len() + payload.len()];
    let at = headers.write(&mut frame, payload.len()).unwrap();
    frame[at..].copy_from_slice(payload);
    assert!(write_udp_checksum(&mut frame));
    frame
}

struct MemoryPeer {
    io: MemoryIo,
    local: SocketAddr,
    remote: SocketAddr,
    vlan: Option<u16>,
}

impl Peer for MemoryPeer {
    fn send(&mut self, payload: &[u8]) -> bool {
        self.io.send(&frame_to(self.local, self.remote, self.vlan, payload))
    }

    fn receive_all(&mut self, _limit: usize, _quiet: Duration, visit: &mut dyn FnMut(Headers, &[u8])) -> usize {
        self.io.drain(|frame| {
            let (headers, range) = Headers::parse(frame).unwrap();
            visit(headers, &frame[range]);
        })
    }
}

fn memory(name: &'static str, (local, remote): (SocketAddr, SocketAddr), vlan: Option<u16>) -> Rig {
    let (port, io) = MemoryIo::pair(256);
    let peer = Box::new(MemoryPeer { io, local, remote, vlan });
    Rig { name, port: Box::new(port), peer, local, remote, vlan, overflow: 600 }
}

struct SocketPeer {
    socket: UdpSocket,
    port: SocketAddr,
}

impl Peer for SocketPeer {
    fn send(&mut self, payload: &[u8]) -> bool {
        self.socket.send_to(payload, self.port).is_ok()
    }

    fn receive_all(&mut self, limit: usize, quiet: Duration, visit: &mut dyn FnMut(Headers, &[u8])) -> usize {
        self.socket.set_nonblocking(quiet.is_zero()).unwrap();
        self.socket.set_read_timeout(Some(quiet.max(Duration::from_millis(1)))).unwrap();
        let local = self.socket.local_addr().unwrap();
        let (mut buffer, mut total) = ([0; 2048], 0);
        while total < limit {
            let Ok((len, source)) = self.socket.recv_from(&mut buffer) else { break };
            visit(Headers::new(source, local), &buffer[..len]);
            total += 1;
        }
        self.socket.set_nonblocking(false).unwrap();
        total
    }
}

fn udp(name: &'static str, any: &str, segmentation: bool) -> Rig {
    let socket = bind_endpoint(any.parse().unwrap()).unwrap();
    let peer = bind_endpoint(any.parse().unwrap()).unwrap();
    peer.set_nonblocking(false).unwrap();
    let (local, remote) = (socket.local_addr().unwrap(), peer.local_addr().unwrap());
    let options = UdpOptions { segmentation, poll: PollMode::Interrupt, ..UdpOptions::default() };
    let port = UdpIo::new(vec![socket], &options).unwrap();
    let peer = Box::new(SocketPeer { socket: peer, port: local });
    Rig { name, port: Box::new(port), peer, local, remote, vlan: None, overflow: 30_000 }
}
