//! Audio of one synthetic client: loud Opus-like packets sealed with the keys of its handshake.

use std::cell::RefCell;
use std::rc::Rc;

use sluice_srtp::job::SealJob;
use sluice_srtp::key::MasterKey;
use sluice_srtp::{AnyProvider, PacketIndex, Profile, Provider as _, SentWindow, Seq, SessionKeys, Ssrc};

/// RTP header and one header extension of four bytes.
const HEADER: usize = 20;
/// Payload bytes: what Opus needs at a low rate, so that a packet every 4 ms stays below the policer's 200 kbit/s.
const PAYLOAD: usize = 40;
/// The payload type and the extension id that the node offers (`opus`, `ssrc-audio-level`).
const OPUS: u8 = 111;
const LEVEL: u8 = 1;
/// Voice at -10 dBov (RFC 6464).
const LOUD: u8 = 0x80 | 0x0a;

/// A stream of audio.
pub(super) struct Voice {
    provider: Rc<RefCell<AnyProvider>>,
    keys: SessionKeys,
    profile: Profile,
    window: SentWindow,
    ssrc: u32,
    timestamp: u32,
    /// Added to the timestamp for each packet.
    step: u32,
    /// Packets made.
    pub(super) sent: u64,
}

impl Voice {
    /// A stream that sends a packet every `every_ms`.
    pub(super) fn new(provider: Rc<RefCell<AnyProvider>>, key: &MasterKey, ssrc: u32, every_ms: u32) -> Voice {
        let keys = provider.borrow_mut().expand(key);
        let window = SentWindow::new(PacketIndex::new(0, Seq(1)));
        let profile = key.profile();
        Voice { provider, keys, profile, window, ssrc, timestamp: 0, step: every_ms * 48, sent: 0 }
    }

    /// The next packet; `None` once the key is worn.
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        let index = self.window.next().and_then(|next| self.window.issue(next).ok())?;
        let mut frame = vec![0; HEADER + PAYLOAD + Profile::MAX_TAG];
        frame[0] = 0x90;
        frame[1] = OPUS;
        frame[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        frame[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        frame[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        frame[12..18].copy_from_slice(&[0xbe, 0xde, 0, 1, LEVEL << 4, LOUD]);
        self.timestamp = self.timestamp.wrapping_add(self.step);
        let job = SealJob {
            keys: &self.keys,
            ssrc: Ssrc(self.ssrc),
            index,
            plain: &[0x5a; PAYLOAD],
            frame: &mut frame,
            header_len: HEADER,
        };
        self.provider.borrow_mut().seal(&mut [job]);
        frame.truncate(HEADER + PAYLOAD + self.profile.rtp_tag_len());
        self.sent += 1;
        Some(frame)
    }
}

/// Whether a datagram is RTP: neither STUN nor DTLS (RFC 7983) nor RTCP (RFC 5761).
pub(super) fn is_rtp(bytes: &[u8]) -> bool {
    bytes.len() > 12 && bytes[0] >> 6 == 2 && !(192..=223).contains(&bytes[1])
}

#[cfg(test)]
mod tests {
    use sluice_srtp::ProviderKind;

    use super::*;

    #[test]
    fn packets_are_sealed_loud_and_in_order() {
        let provider = Rc::new(RefCell::new(AnyProvider::new(ProviderKind::Portable).unwrap()));
        let key = MasterKey::new(Profile::AeadAes256Gcm, &[7; 32], &[9; 12]).unwrap();
        let mut voice = Voice::new(provider, &key, 5, 20);
        let (first, second) = (voice.packet().unwrap(), voice.packet().unwrap());
        assert_eq!((&first[2..4], &second[2..8]), (&[0, 1][..], &[0, 2, 0, 0, 3, 192][..]));
        assert_eq!((first.len(), first[17], voice.sent), (HEADER + PAYLOAD + 16, LOUD, 2));
        assert!(is_rtp(&first) && first[HEADER..HEADER + PAYLOAD] != [0x5a; PAYLOAD]);
        assert!(!is_rtp(&[0x80, 200, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]) && !is_rtp(&[22; 40]) && !is_rtp(&[]));
    }
}
