//! Requests for key frames: picture loss indication (RFC 4585 §6.3.1) and full intra request (RFC 5104 §4.3.1).

use sluice_srtp::Ssrc;

use super::{kind, put32, write_head};
use crate::wire::be32;

/// Feedback message type of a picture loss indication.
pub const PLI: u8 = 1;
/// Feedback message type of a full intra request.
pub const FIR: u8 = 4;

/// A full intra request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender: Ssrc,
    entries: &'a [u8],
}

impl<'a> Fir<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let entries = body.get(8..)?;
        Some(Fir { sender: Ssrc(be32(body, 0)), entries })
    }

    /// The streams asked for, each with the request's number.
    pub fn streams(&self) -> impl Iterator<Item = (Ssrc, u8)> + 'a {
        self.entries.as_chunks::<8>().0.iter().map(|entry| (Ssrc(be32(entry, 0)), entry[4]))
    }
}

/// Writes a picture loss indication.
pub fn write_pli(out: &mut [u8], sender: Ssrc, media: Ssrc) -> Option<usize> {
    let out = out.get_mut(..12)?;
    write_head(out, kind::PAYLOAD_FEEDBACK, PLI, 12);
    put32(out, 4, sender.0);
    put32(out, 8, media.0);
    Some(12)
}

/// Writes a full intra request. `number` grows by one with every new request and stays for a repeated one.
pub fn write_fir(out: &mut [u8], sender: Ssrc, media: Ssrc, number: u8) -> Option<usize> {
    let out = out.get_mut(..20)?;
    write_head(out, kind::PAYLOAD_FEEDBACK, FIR, 20);
    put32(out, 4, sender.0);
    put32(out, 8, 0);
    put32(out, 12, media.0);
    put32(out, 16, u32::from(number) << 24);
    Some(20)
}
