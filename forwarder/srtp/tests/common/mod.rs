//! What the provider tests share: seeded bytes, keys and packets.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part; a test may stop")]

use sluice_srtp::job::{OpenError, OpenJob, SealJob};
use sluice_srtp::{
    AnyProvider, MasterKey, PacketIndex, Profile, Provider, ProviderKind, SentWindow, SessionKeys, Ssrc,
};

/// Xorshift64*; the seed is the test's.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 40) as u8).collect()
    }
}

pub(crate) fn master(profile: Profile, random: &mut Random) -> MasterKey {
    MasterKey::from_bytes(profile, &random.bytes(profile.key_len() + profile.salt_len())).unwrap()
}

/// The provider kinds with real cryptography that this build has.
pub(crate) fn real_kinds() -> Vec<ProviderKind> {
    let mut kinds = vec![ProviderKind::Portable];
    kinds.extend(cfg!(all(feature = "ipsec-mb", target_arch = "x86_64")).then_some(ProviderKind::IpsecMb));
    kinds
}

pub(crate) fn start(kind: ProviderKind) -> AnyProvider {
    AnyProvider::new(kind).unwrap()
}

/// One packet to seal: which of the keys, header bytes, payload.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) key: usize,
    pub(crate) ssrc: Ssrc,
    pub(crate) index: PacketIndex,
    pub(crate) header: Vec<u8>,
    pub(crate) plain: Vec<u8>,
}

impl Case {
    /// A header of `header_len` bytes (12 to 72 and more, a multiple of four): CSRCs first, the rest an extension.
    pub(crate) fn new(random: &mut Random, keys: usize, header_len: usize, payload: usize) -> Case {
        let words = header_len / 4 - 3;
        let csrcs = random.below(words.min(15) + 1);
        let mut header = random.bytes(header_len);
        header[0] = 0x80 | csrcs as u8;
        if let Some(extension) = (words - csrcs).checked_sub(1) {
            header[0] |= 0x10;
            let at = 12 + csrcs * 4;
            header[at..at + 4].copy_from_slice(&[0xbe, 0xde, (extension >> 8) as u8, extension as u8]);
        }
        let index = PacketIndex::from_u64(random.next() & PacketIndex::MAX.as_u64()).unwrap();
        let ssrc = Ssrc(random.next() as u32);
        Case { key: random.below(keys), ssrc, index, header, plain: random.bytes(payload) }
    }
}

/// Seals the cases in one batch; each frame has `slack` bytes behind the tag's room that must stay as they are.
pub(crate) fn seal(provider: &mut AnyProvider, keys: &[SessionKeys], cases: &[Case]) -> Vec<Vec<u8>> {
    let tag = keys[0].profile().rtp_tag_len();
    let mut frames: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| [case.header.as_slice(), &vec![0xaa; case.plain.len() + Profile::MAX_TAG], &[0x77; 8]].concat())
        .collect();
    let mut jobs: Vec<SealJob<'_>> = cases
        .iter()
        .zip(&mut frames)
        .map(|(case, frame)| SealJob {
            keys: &keys[case.key],
            ssrc: case.ssrc,
            index: SentWindow::new(case.index).issue(case.index).unwrap(),
            plain: &case.plain,
            frame,
            header_len: case.header.len(),
        })
        .collect();
    provider.seal(&mut jobs);
    drop(jobs);
    for (case, frame) in cases.iter().zip(&mut frames) {
        assert!(frame.ends_with(&[0x77; 8]), "wrote behind the frame");
        frame.truncate(case.header.len() + case.plain.len() + tag);
    }
    frames
}

/// Opens packets in one batch: result and what `out` (filled with 0xEE before) then holds.
pub(crate) fn open(
    provider: &mut AnyProvider,
    keys: &[SessionKeys],
    cases: &[Case],
    packets: &[Vec<u8>],
) -> Vec<(Result<usize, OpenError>, Vec<u8>)> {
    let mut outs: Vec<Vec<u8>> = packets.iter().map(|packet| vec![0xee; packet.len()]).collect();
    let mut jobs: Vec<OpenJob<'_>> = cases
        .iter()
        .zip(packets)
        .zip(&mut outs)
        .map(|((case, packet), out)| OpenJob {
            keys: &keys[case.key],
            ssrc: case.ssrc,
            index: case.index,
            packet,
            header_len: case.header.len(),
            out,
            result: Err(OpenError::Pending),
        })
        .collect();
    provider.open(&mut jobs);
    let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
    drop(jobs);
    results.into_iter().zip(outs).collect()
}
