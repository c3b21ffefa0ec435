//! Generic NACK (RFC 4585 §6.2.1).

use sluice_srtp::Ssrc;

use super::{kind, put32, write_head};
use crate::wire::{be16, be32};

/// Feedback message type.
pub const FORMAT: u8 = 1;

/// Packets asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender: Ssrc,
    /// The stream.
    pub media: Ssrc,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let entries = body.get(8..)?;
        Some(Nack { sender: Ssrc(be32(body, 0)), media: Ssrc(be32(body, 4)), entries })
    }

    /// Every sequence number asked for, in order of the entries.
    pub fn lost(&self) -> impl Iterator<Item = u16> + 'a {
        self.entries.as_chunks::<4>().0.iter().flat_map(|entry| {
            let (first, mask) = (be16(entry, 0), be16(entry, 2));
            let followers = (0..16u16).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| bit + 1);
            std::iter::once(0).chain(followers).map(move |ahead| first.wrapping_add(ahead))
        })
    }
}

/// Writes a request for `lost`, in ascending order; stops where there is no room. Returns bytes written and sequence
/// numbers taken, `None` if not even one fits.
pub fn write(out: &mut [u8], sender: Ssrc, media: Ssrc, lost: &[u16]) -> Option<(usize, usize)> {
    if out.len() < 16 || lost.is_empty() {
        return None;
    }
    let (mut len, mut taken) = (12, 0);
    while taken < lost.len() && len + 4 <= out.len() {
        let first = lost[taken];
        let mut mask = 0u16;
        taken += 1;
        while let Some(ahead) = lost.get(taken).map(|seq| seq.wrapping_sub(first)).filter(|n| (1..=16).contains(n)) {
            mask |= 1 << (ahead - 1);
            taken += 1;
        }
        put32(out, len, u32::from(first) << 16 | u32::from(mask));
        len += 4;
    }
    write_head(out, kind::TRANSPORT_FEEDBACK, FORMAT, len);
    put32(out, 4, sender.0);
    put32(out, 8, media.0);
    Some((len, taken))
}
