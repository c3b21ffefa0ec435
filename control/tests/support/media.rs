//! SRTP of a client: seals its voice, opens what arrives and remembers which indexes it saw. One index twice is a
//! failure unless it is the same packet.

use std::collections::{BTreeMap, HashMap};

use sluice_srtp::job::{OpenError, OpenJob, SealJob};
use sluice_srtp::{
    AnyProvider, MasterKey, PacketIndex, Provider as _, ProviderKind, Receiver, SentWindow, SessionKeys, Ssrc,
};

/// What a client sends.
pub struct Voice {
    ssrc: Ssrc,
    keys: SessionKeys,
    crypto: AnyProvider,
    window: SentWindow,
    tag: usize,
    next: u64,
}

const FIRST: u64 = 100;

impl Voice {
    pub fn new(key: &MasterKey, ssrc: u32) -> Voice {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        let keys = crypto.expand(key);
        let window = SentWindow::new(PacketIndex::from_u64(FIRST).unwrap());
        Voice { ssrc: Ssrc(ssrc), keys, crypto, window, tag: key.profile().rtp_tag_len(), next: FIRST }
    }

    /// The next packet: a loud one, with its level in extension 1.
    pub fn packet(&mut self) -> Vec<u8> {
        let index = self.window.issue(PacketIndex::from_u64(self.next).unwrap()).unwrap();
        let plain = self.next.to_be_bytes();
        let mut header = vec![0x90, 111];
        header.extend_from_slice(&index.index().seq().0.to_be_bytes());
        header.extend_from_slice(&((self.next * 960) as u32).to_be_bytes());
        header.extend_from_slice(&self.ssrc.0.to_be_bytes());
        // One one-byte element: voice, 20 dB below the loudest.
        header.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x80 | 0x14, 0, 0]);
        self.next += 1;
        let header_len = header.len();
        let mut frame = header;
        frame.resize(header_len + plain.len() + self.tag, 0);
        let mut jobs =
            [SealJob { keys: &self.keys, ssrc: self.ssrc, index, plain: &plain, frame: &mut frame, header_len }];
        self.crypto.seal(&mut jobs);
        frame
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
        if length == 8 {
            self.last = self.last.max(u64::from_be_bytes(out[..8].try_into().unwrap()));
        }
    }
}
