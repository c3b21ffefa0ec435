//! A naive peer on each side of an engine: publishers that seal, receivers that open and remember everything.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod rtcp;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use sluice_forwarder::engine::{Capacity, Nanos, Path, ports::Single};
use sluice_forwarder::io::memory::MemoryIo;
use sluice_forwarder::io::{PacketIo, RxBurst};
use sluice_forwarder::manage::local::{self, Local};
use sluice_forwarder::wire::frame::{Class, classify, parse};
use sluice_forwarder::wire::rtp;
use sluice_forwarder::wire::template::{Hop, Template};
use sluice_srtp::job::{OpenError, OpenJob, SealJob};
use sluice_srtp::{
    AnyProvider, MasterKey, PacketIndex, Profile, Provider, ProviderKind, Receiver, SentWindow, SessionKeys, Ssrc,
};
use sluice_table::{Egress, Ingress, Kind, Name, Table};

pub const LOCAL: &str = "10.0.0.1:5000";

/// A seeded generator; the same seed gives the same run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn key(profile: Profile, seed: u8) -> MasterKey {
    let bytes: Vec<u8> =
        (0..profile.key_len() + profile.salt_len()).map(|i| (i as u8).wrapping_mul(7) ^ seed).collect();
    MasterKey::from_bytes(profile, &bytes).unwrap()
}

pub fn peer(n: u32) -> SocketAddr {
    SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 6000))
}

/// A publisher's stream.
pub struct Publisher {
    pub remote: SocketAddr,
    pub ssrc: Ssrc,
    pub payload_type: u8,
    keys: SessionKeys,
    window: SentWindow,
    pub next: u64,
    profile: Profile,
    crypto: AnyProvider,
}

impl Publisher {
    pub fn new(remote: SocketAddr, ssrc: Ssrc, payload_type: u8, key: &MasterKey, first: u64) -> Self {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        let keys = crypto.expand(key);
        let window = SentWindow::new(PacketIndex::from_u64(first).unwrap());
        Publisher { remote, ssrc, payload_type, keys, window, next: first, profile: key.profile(), crypto }
    }

    /// The next packet as a frame to the endpoint.
    pub fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        let packet = self.packet(payload, &[]);
        self.wrap(&packet)
    }

    pub fn wrap(&self, packet: &[u8]) -> Vec<u8> {
        wrap(self.remote, packet)
    }

    /// The next SRTP packet, with header extension bytes (a whole block) if given.
    pub fn packet(&mut self, payload: &[u8], extension: &[u8]) -> Vec<u8> {
        let index = self.window.issue(PacketIndex::from_u64(self.next).unwrap()).unwrap();
        self.next += 1;
        let header_len = 12 + extension.len();
        let mut packet = vec![0u8; header_len + payload.len() + self.profile.rtp_tag_len()];
        packet[0] = 0x80 | if extension.is_empty() { 0 } else { 0x10 };
        packet[1] = self.payload_type;
        packet[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        packet[4..8].copy_from_slice(&((self.next * 960) as u32).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());
        packet[12..header_len].copy_from_slice(extension);
        let mut jobs =
            [SealJob { keys: &self.keys, ssrc: self.ssrc, index, plain: payload, frame: &mut packet, header_len }];
        self.crypto.seal(&mut jobs);
        packet
    }
}

/// A UDP payload from `remote` to the endpoint, as a frame.
pub fn wrap(remote: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let hop = Hop { source_mac: [4; 6], destination_mac: [2; 6], vlan: None };
    let template = Template::new(hop, remote, LOCAL.parse().unwrap()).unwrap();
    let mut frame = vec![0u8; template.len() + packet.len()];
    frame[template.len()..].copy_from_slice(packet);
    template.write(&mut frame, packet.len(), 0, true);
    frame
}

/// What a receiver got on one SSRC.
#[derive(Default)]
pub struct Received {
    /// (index, timestamp, payload type, payload), in order of arrival.
    pub packets: Vec<(u64, u32, u8, Vec<u8>)>,
    /// The only CSRC of each, 0 without one.
    pub csrcs: Vec<u32>,
    /// Sealed bytes by index: two different ones would be a disaster.
    sealed: HashMap<u64, Vec<u8>>,
    receiver: Option<Receiver>,
    /// Indexes that came again with the same bytes, where that is allowed.
    pub repeated: Vec<u64>,
    /// DSCPs they came with.
    pub marks: BTreeSet<u8>,
}

/// DSCP of an Ethernet frame with IPv4 or IPv6.
fn dscp(frame: &[u8]) -> u8 {
    let class = if frame[14] >> 4 == 4 { frame[15] } else { (frame[14] << 4) | (frame[15] >> 4) };
    class >> 2
}

/// One receiving peer.
pub struct Peer {
    keys: SessionKeys,
    crypto: AnyProvider,
    profile: Profile,
    pub streams: BTreeMap<Ssrc, Received>,
}

impl Peer {
    pub fn new(key: &MasterKey) -> Self {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        Peer { keys: crypto.expand(key), crypto, profile: key.profile(), streams: BTreeMap::new() }
    }

    fn take(&mut self, packet: &[u8], dscp: u8, repeats: bool) {
        let header = rtp::parse(packet).unwrap();
        let stream = self.streams.entry(header.ssrc).or_default();
        stream.marks.insert(dscp);
        let receiver = stream.receiver.get_or_insert_with(|| Receiver::new(0));
        let index = receiver.estimate(header.seq);
        let mut out = vec![0u8; packet.len()];
        let mut jobs = [OpenJob {
            keys: &self.keys,
            ssrc: header.ssrc,
            index,
            packet,
            header_len: header.len,
            out: &mut out,
            result: Err(OpenError::Pending),
        }];
        self.crypto.open(&mut jobs);
        let len = jobs[0]
            .result
            .unwrap_or_else(|e| panic!("{:?} index {index:?} profile {:?}: {e}", header.ssrc, self.profile));
        out.truncate(len);
        if repeats && stream.sealed.get(&index.as_u64()).is_some_and(|known| known == packet) {
            stream.repeated.push(index.as_u64());
            return;
        }
        assert!(receiver.check(index).is_ok(), "index {index:?} of {:?} sent twice", header.ssrc);
        receiver.accept(index);
        let other = stream.sealed.insert(index.as_u64(), packet.to_vec());
        assert!(other.is_none(), "one index, two packets");
        let csrc = if packet[0] & 0x0f == 1 { u32::from_be_bytes(packet[12..16].try_into().unwrap()) } else { 0 };
        stream.csrcs.push(csrc);
        stream.packets.push((index.as_u64(), header.timestamp, header.payload_type, out));
    }
}

/// Engines with peers around them.
pub struct World {
    pub local: Local,
    pub peers: HashMap<SocketAddr, Peer>,
    pub now: Nanos,
    /// STUN, DTLS and RTCP that was sent: where to and what.
    pub control: Vec<(SocketAddr, Vec<u8>)>,
    /// Whether packets may come again as they were.
    pub repeats: bool,
    /// The earliest deadline of the last steps.
    pub deadline: Nanos,
    ports: Vec<(MemoryIo, MemoryIo)>,
}

impl World {
    pub fn new(kind: ProviderKind, workers: u8, capacity: Capacity) -> Self {
        World::around(Local::new(kind, workers, capacity).unwrap())
    }

    pub fn around(local: Local) -> Self {
        let workers = local.engines.len();
        let ports = (0..workers).map(|_| MemoryIo::pair(4096)).collect();
        World {
            local,
            peers: HashMap::new(),
            now: Nanos::from_millis(1),
            control: Vec::new(),
            repeats: false,
            deadline: Nanos::NEVER,
            ports,
        }
    }

    /// Puts frames in front of a worker.
    pub fn arrive(&mut self, worker: usize, frame: &[u8]) {
        assert!(self.ports[worker].1.send(frame));
    }

    /// Runs every worker until nothing moves; outgoing frames go to their peers.
    pub fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            let mut moved = false;
            self.deadline = Nanos::NEVER;
            for worker in 0..self.ports.len() {
                let mut burst = RxBurst::new();
                let (port, far) = &mut self.ports[worker];
                port.receive(&mut burst);
                moved |= !burst.is_empty();
                let outcome = self.local.engines[worker].step(self.now, &burst, Path::Fast, &mut Single(port));
                for frame in burst {
                    port.release(frame);
                }
                port.flush();
                moved |= outcome.sent > 0 || outcome.waiting || outcome.deadline <= self.now;
                self.deadline = self.deadline.min(outcome.deadline);
                let mut frames = Vec::new();
                far.drain(|frame| frames.push(frame.to_vec()));
                for frame in frames {
                    let datagram = parse(&frame).unwrap();
                    assert_eq!(SocketAddr::from(datagram.source), LOCAL.parse().unwrap());
                    let payload = &frame[datagram.payload_at..datagram.payload_at + datagram.payload_len];
                    let to = SocketAddr::from(datagram.destination);
                    if classify(payload) != Class::Rtp {
                        self.control.push((to, payload.to_vec()));
                        continue;
                    }
                    self.peers.get_mut(&to).unwrap_or_else(|| panic!("nobody at {to}")).take(
                        payload,
                        dscp(&frame),
                        self.repeats,
                    );
                }
            }
            // A packet may pass through the queues of two workers without a frame moving.
            idle = if moved { 0 } else { idle + 1 };
            if idle > 3 {
                return;
            }
        }
        panic!("never settles");
    }

    pub fn dropped(&self, reason: sluice_table::DropReason) -> u64 {
        self.local.engines.iter().map(|e| e.counters().dropped(reason)).sum()
    }

    /// Every drop of every worker, for messages.
    pub fn drops(&self) -> String {
        let of = |e: &sluice_forwarder::engine::Engine<AnyProvider>| {
            format!("{:?}", e.counters().drops().collect::<Vec<_>>())
        };
        self.local.engines.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    pub fn assert_no_cell_is_lost(&self, cells: usize) {
        for engine in &self.local.engines {
            assert_eq!(engine.free_cells(), cells, "cells are lost");
        }
    }
}

/// A block of one one-byte extension element of one byte.
pub fn element(id: u8, value: u8) -> Vec<u8> {
    vec![0xbe, 0xde, 0, 1, id << 4, value, 0, 0]
}

/// A table with one endpoint.
pub fn base_table() -> Table {
    let mut table = Table::default();
    table.endpoints.insert(name("media"), local::endpoint(LOCAL.parse().unwrap()));
    table
}

pub fn publisher_leg(table: &mut Table, leg: &str, remote: SocketAddr, key: &MasterKey) {
    let mut row = local::leg(&name("media"), remote);
    row.inbound = Some(key.clone());
    table.legs.insert(name(leg), row);
}

pub fn receiver_leg(table: &mut Table, leg: &str, remote: SocketAddr, key: &MasterKey) {
    let mut row = local::leg(&name("media"), remote);
    row.outbound = Some(key.clone());
    table.legs.insert(name(leg), row);
}

pub fn ingress(table: &mut Table, stream: &str, leg: &str, ssrc: u32, kind: Kind) {
    let row = Ingress {
        leg: name(leg),
        ssrc: Ssrc(ssrc),
        kind,
        clock_rate: 48_000,
        payload_types: vec![111],
        role: sluice_table::StreamRole::default(),
    };
    table.ingress.insert(name(stream), row);
}

pub fn egress(table: &mut Table, stream: &str, leg: &str, ssrc: u32, source: &str) {
    let row = Egress {
        leg: name(leg),
        ssrc: Ssrc(ssrc),
        source: name(source),
        payload_types: vec![(111, 96)],
        first_sequence: None,
        mid: None,
        csrc: false,
        dscp: None,
        layer: None,
        rtx: None,
        history: 0,
    };
    table.egress.insert(name(stream), row);
}
