//! Streams of one synthetic client, sealed with the keys of its handshake. Never decides when something is sent.

use std::cell::RefCell;
use std::rc::Rc;

use sluice_srtp::job::SealJob;
use sluice_srtp::key::MasterKey;
use sluice_srtp::{AnyProvider, PacketIndex, Profile, Provider as _, SentWindow, Seq, SessionKeys, Ssrc};

/// RTP header without extensions.
const FIXED: usize = 12;
/// Payload bytes of the speaker while others join: what Opus needs at a low rate, so that a packet every 4 ms stays
/// below the policer's 200 kbit/s.
const PAYLOAD: usize = 40;
/// Longest payload.
const LONGEST: usize = 1_100;
/// The payload types and the extension id that the node offers (`opus`, `VP8`, `ssrc-audio-level`).
pub(super) const OPUS: u8 = 111;
pub(super) const VP8: u8 = 100;
pub(super) const LEVEL: u8 = 1;
/// Voice at -10 dBov (RFC 6464).
pub(super) const LOUD: u8 = 0x80 | 0x0a;

/// One stream.
pub(super) struct Stream {
    provider: Rc<RefCell<AnyProvider>>,
    keys: Rc<SessionKeys>,
    profile: Profile,
    window: SentWindow,
    payload_type: u8,
    ssrc: u32,
    timestamp: u32,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    /// One-byte header extensions (RFC 8285), whole words.
    pub(super) extensions: &'a [u8],
    /// Payload bytes, at most [`LONGEST`].
    pub(super) payload: usize,
    /// The last of a frame.
    pub(super) marker: bool,
    /// Added to the timestamp behind it.
    pub(super) step: u32,
}

impl Stream {
    /// A stream that has not begun.
    pub(super) fn new(provider: Rc<RefCell<AnyProvider>>, key: &MasterKey, payload_type: u8, ssrc: u32) -> Stream {
        let keys = Rc::new(provider.borrow_mut().expand(key));
        let window = SentWindow::new(PacketIndex::new(0, Seq(1)));
        Stream { provider, keys, profile: key.profile(), window, payload_type, ssrc, timestamp: 0 }
    }

    /// Another one under the same keys.
    pub(super) fn beside(&self, payload_type: u8, ssrc: u32) -> Stream {
        let window = SentWindow::new(PacketIndex::new(0, Seq(1)));
        let (provider, keys) = (self.provider.clone(), self.keys.clone());
        Stream { provider, keys, profile: self.profile, window, payload_type, ssrc, timestamp: 0 }
    }

    /// The next packet; `None` once the key is worn.
    pub(super) fn packet(&mut self, content: &Content<'_>) -> Option<Vec<u8>> {
        let index = self.window.next().and_then(|next| self.window.issue(next).ok())?;
        let header_len = FIXED + 4 + content.extensions.len();
        let mut frame = vec![0; header_len + content.payload + Profile::MAX_TAG];
        frame[0] = 0x90;
        frame[1] = self.payload_type | u8::from(content.marker) << 7;
        frame[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        frame[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        frame[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        frame[12..16].copy_from_slice(&[0xbe, 0xde, 0, (content.extensions.len() / 4) as u8]);
        frame[16..header_len].copy_from_slice(content.extensions);
        self.timestamp = self.timestamp.wrapping_add(content.step);
        let plain = &[0x5a; LONGEST][..content.payload];
        let job = SealJob { keys: &self.keys, ssrc: Ssrc(self.ssrc), index, plain, frame: &mut frame, header_len };
        self.provider.borrow_mut().seal(&mut [job]);
        frame.truncate(header_len + content.payload + self.profile.rtp_tag_len());
        Some(frame)
    }

    /// The next packet of a speaker that sends one every `every_ms`.
    pub(super) fn speech(&mut self, every_ms: u32) -> Option<Vec<u8>> {
        let extensions = &[LEVEL << 4, LOUD, 0, 0];
        self.packet(&Content { extensions, payload: PAYLOAD, marker: false, step: every_ms * 48 })
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
        let mut voice = Stream::new(provider, &key, OPUS, 5);
        let (first, second) = (voice.speech(20).unwrap(), voice.speech(20).unwrap());
        assert_eq!((&first[2..4], &second[2..8]), (&[0, 1][..], &[0, 2, 0, 0, 3, 192][..]));
        assert_eq!((first.len(), first[17]), (20 + PAYLOAD + 16, LOUD));
        assert!(is_rtp(&first) && first[20..20 + PAYLOAD] != [0x5a; PAYLOAD]);
        let content = Content { extensions: &[1; 8], payload: LONGEST, marker: true, step: 0 };
        let picture = voice.beside(VP8, 6).packet(&content).unwrap();
        assert_eq!((picture[1], &picture[2..4], picture.len()), (0x80 | VP8, &[0, 1][..], 24 + LONGEST + 16));
        assert!(!is_rtp(&[0x80, 200, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]) && !is_rtp(&[22; 40]) && !is_rtp(&[]));
    }
}
