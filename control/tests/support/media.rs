//! SRTP of a client: seals its voice, opens what arrives and remembers which indexes it saw. One index twice is a
//! failure unless it is the same packet.

use std::collections::{BTreeMap, HashMap};

use sluice_srtp::job::{OpenError, OpenJob, SealJob};
use sluice_srtp::{
    AnyProvider, MasterKey, PacketIndex, Provider as _, ProviderKind, Receiver, SentWindow, SessionKeys, Ssrc,
};

/// A stream that a client sends.
struct Stream {
    ssrc: Ssrc,
    payload_type: u8,
    keys: SessionKeys,
    crypto: AnyProvider,
    window: SentWindow,
    tag: usize,
    next: u64,
}

impl Stream {
    fn new(key: &MasterKey, ssrc: u32, payload_type: u8, first: u64) -> Stream {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        let keys = crypto.expand(key);
        let window = SentWindow::new(PacketIndex::from_u64(first).unwrap());
        Stream { ssrc: Ssrc(ssrc), payload_type, keys, crypto, window, tag: key.profile().rtp_tag_len(), next: first }
    }

    /// The next packet, with one word of one-byte header extensions.
    fn packet(&mut self, plain: &[u8], extensions: [u8; 4]) -> Vec<u8> {
        let index = self.window.issue(PacketIndex::from_u64(self.next).unwrap()).unwrap();
        let mut header = vec![0x90, self.payload_type];
        header.extend_from_slice(&index.index().seq().0.to_be_bytes());
        header.extend_from_slice(&((self.next * 960) as u32).to_be_bytes());
        header.extend_from_slice(&self.ssrc.0.to_be_bytes());
        header.extend_from_slice(&[0xbe, 0xde, 0, 1]);
        header.extend_from_slice(&extensions);
        self.next += 1;
        let header_len = header.len();
        let mut frame = header;
        frame.resize(header_len + plain.len() + self.tag, 0);
        let mut jobs = [SealJob { keys: &self.keys, ssrc: self.ssrc, index, plain, frame: &mut frame, header_len }];
        self.crypto.seal(&mut jobs);
        frame
    }
}

/// What a client says.
pub struct Voice(Stream);

impl Voice {
    pub fn new(key: &MasterKey, ssrc: u32) -> Voice {
        Voice(Stream::new(key, ssrc, 111, 100))
    }

    /// The next packet: a loud one, with its level in extension 1.
    pub fn packet(&mut self) -> Vec<u8> {
        let plain = self.0.next.to_be_bytes();
        // Voice, 20 dB below the loudest.
        self.0.packet(&plain, [0x10, 0x94, 0, 0])
    }
}

/// What a client shows, in the layers `l` and `h`.
pub struct Camera {
    layers: [Stream; 2],
    /// Whether packets name their rid. Browsers stop that with the first receiver report.
    pub announces: bool,
}

impl Camera {
    /// Layers whose sequence numbers soon begin anew.
    pub fn new(key: &MasterKey, ssrc: u32) -> Camera {
        Camera { layers: [1, 2].map(|n| Stream::new(key, ssrc + n, 100, 0xff80)), announces: true }
    }

    /// The next packet of each layer, every 25th of them a key frame by extension 11.
    pub fn packets(&mut self) -> [Vec<u8>; 2] {
        let mut layer = 0;
        self.layers.each_mut().map(|stream| {
            let rid = [b'l', b'h'][usize::from(layer)];
            let flags = if stream.next % 25 == 0 { 0xb0 } else { 0xf8 };
            let named = if self.announces { [0x40, rid] } else { [0, 0] };
            let mut plain = [layer; 9];
            plain[1..].copy_from_slice(&stream.next.to_be_bytes());
            layer += 1;
            stream.packet(&plain, [named[0], named[1], 0xb0, flags])
        })
    }

    /// Rollover counters of the layers.
    pub fn rollovers(&self) -> [u64; 2] {
        self.layers.each_ref().map(|stream| (stream.next - 1) >> 16)
    }
}

/// What a client hears.
pub struct Ear {
    keys: SessionKeys,
    crypto: AnyProvider,
    receivers: HashMap<Ssrc, Receiver>,
    /// Sealed packets by stream and index.
    sealed: BTreeMap<(Ssrc, u64), Vec<u8>>,
    /// Packets opened.
    pub heard: u64,
    /// Packets of each layer of pictures among them.
    pub seen: [u64; 2],
    /// Numbers the other side's voice counts.
    pub last: u64,
    /// Packets that do not open.
    pub unopened: u64,
    /// Indexes used twice for different packets.
    pub twice: u64,
}

impl Ear {
    pub fn new(key: &MasterKey) -> Ear {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        let keys = crypto.expand(key);
        Ear {
            keys,
            crypto,
            receivers: HashMap::new(),
            sealed: BTreeMap::new(),
            heard: 0,
            seen: [0; 2],
            last: 0,
            unopened: 0,
            twice: 0,
        }
    }

    pub fn take(&mut self, packet: &[u8]) {
        if packet.len() < 12 {
            self.unopened += 1;
            return;
        }
        let ssrc = Ssrc(u32::from_be_bytes(packet[8..12].try_into().unwrap()));
        let csrcs = usize::from(packet[0] & 15) * 4;
        let mut header_len = 12 + csrcs;
        if packet[0] & 0x10 != 0 {
            let words = u16::from_be_bytes(packet[header_len + 2..header_len + 4].try_into().unwrap());
            header_len += 4 + usize::from(words) * 4;
        }
        let receiver = self.receivers.entry(ssrc).or_insert_with(|| Receiver::new(0));
        let index = receiver.estimate(sluice_srtp::Seq(u16::from_be_bytes([packet[2], packet[3]])));
        let mut out = vec![0; packet.len()];
        let mut jobs = [OpenJob {
            keys: &self.keys,
            ssrc,
            index,
            packet,
            header_len,
            out: &mut out,
            result: Err(OpenError::Pending),
        }];
        self.crypto.open(&mut jobs);
        let Ok(length) = jobs[0].result else {
            self.unopened += 1;
            return;
        };
        if let Some(known) = self.sealed.insert((ssrc, index.as_u64()), packet.to_vec()) {
            self.twice += u64::from(known != packet);
            return;
        }
        if receiver.check(index).is_ok() {
            receiver.accept(index);
        }
        self.heard += 1;
        if length == 9 {
            self.seen[usize::from(out[0])] += 1;
        }
        if length == 8 {
            self.last = self.last.max(u64::from_be_bytes(out[..8].try_into().unwrap()));
        }
    }
}
