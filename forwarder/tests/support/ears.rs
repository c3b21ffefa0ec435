//! A receiving peer with a socket: opens everything that arrives, with one receive context a stream that is never
//! reset, and remembers the sealed bytes of every index.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sluice_forwarder::wire::rtp;
use sluice_srtp::job::{OpenError, OpenJob};
use sluice_srtp::{AnyProvider, MasterKey, Provider, ProviderKind, Receiver, SessionKeys, Ssrc};

use crate::process::{Lab, PATIENCE};

/// One packet, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub timestamp: u32,
    pub payload_type: u8,
    pub payload: Vec<u8>,
}

#[derive(Default)]
pub struct Stream {
    /// Opened packets by index.
    pub packets: BTreeMap<u64, Heard>,
    sealed: HashMap<u64, Vec<u8>>,
    receiver: Option<Receiver>,
}

pub struct Ears {
    pub socket: UdpSocket,
    pub streams: BTreeMap<Ssrc, Stream>,
    keys: SessionKeys,
    crypto: AnyProvider,
}

impl Ears {
    pub fn new(lab: &Lab, key: &MasterKey) -> Ears {
        Ears::with(lab.peer(), key)
    }

    pub fn with(socket: UdpSocket, key: &MasterKey) -> Ears {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        Ears { socket, streams: BTreeMap::new(), keys: crypto.expand(key), crypto }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Opens all that arrived; returns how many packets.
    pub fn drain(&mut self) -> usize {
        let mut buffer = [0u8; 2048];
        let mut count = 0;
        while let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
            self.take(&buffer[..len]);
            count += 1;
        }
        count
    }

    /// Listens until `enough`; panics when that never comes.
    pub fn until(&mut self, what: &str, mut enough: impl FnMut(&Ears) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.drain();
            if enough(self) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}; heard {}", self.total());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn total(&self) -> usize {
        self.streams.values().map(|s| s.packets.len()).sum()
    }

    pub fn last_index(&self, ssrc: Ssrc) -> Option<u64> {
        self.streams.get(&ssrc)?.packets.last_key_value().map(|(index, _)| *index)
    }

    fn take(&mut self, packet: &[u8]) {
        let header = rtp::parse(packet).unwrap();
        let stream = self.streams.entry(header.ssrc).or_default();
        let receiver = stream.receiver.get_or_insert_with(|| Receiver::new(0));
        let index = receiver.estimate(header.seq);
        // The disaster first, whatever the replay window says about it.
        if let Some(other) = stream.sealed.insert(index.as_u64(), packet.to_vec()) {
            assert_eq!(other, packet, "index {index:?} of {:?} sealed twice", header.ssrc);
            panic!("index {index:?} of {:?} sent twice", header.ssrc);
        }
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
        let len = jobs[0].result.unwrap_or_else(|error| panic!("{:?} index {index:?}: {error}", header.ssrc));
        assert!(receiver.check(index).is_ok(), "index {index:?} of {:?} is behind the window", header.ssrc);
        receiver.accept(index);
        out.truncate(len);
        let heard = Heard { timestamp: header.timestamp, payload_type: header.payload_type, payload: out };
        stream.packets.insert(index.as_u64(), heard);
    }
}
