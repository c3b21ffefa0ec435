//! The units of work a provider takes: one packet to seal, one packet to open. A batch holds jobs of
//! one profile and one direction; keys differ from job to job.

use crate::index::{PacketIndex, Ssrc};
use crate::key::SessionKeys;
use crate::window::SendIndex;

/// One RTP packet to seal out of place: header already in `frame`, payload shared with other receivers.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// Keys of the receiving leg.
    pub keys: &'a SessionKeys,
    /// SSRC written in the header.
    pub ssrc: Ssrc,
    /// The index this packet is sealed under; consumed so that it cannot be used twice.
    pub index: SendIndex,
    /// Payload in clear.
    pub plain: &'a [u8],
    /// The RTP packet to be: `header_len` finished bytes, then room for the payload and
    /// [`Profile::MAX_TAG`](crate::Profile::MAX_TAG) bytes.
    pub frame: &'a mut [u8],
    /// RTP header length including CSRCs and extensions, in bytes (12 to 12+60+4+4*65535 by the RFC; callers
    /// stay below the frame).
    pub header_len: usize,
}

/// One SRTP packet to open out of place.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// Keys of the sending leg.
    pub keys: &'a SessionKeys,
    /// SSRC from the header.
    pub ssrc: Ssrc,
    /// The estimated index.
    pub index: PacketIndex,
    /// The whole SRTP packet.
    pub packet: &'a [u8],
    /// RTP header length, in bytes.
    pub header_len: usize,
    /// Where the payload goes; at least `packet.len() - header_len - tag` bytes.
    pub out: &'a mut [u8],
    /// Set by the provider: payload length, or why the packet was refused.
    pub result: Result<usize, OpenError>,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The tag did not match.
    #[error("authentication tag does not match")]
    Tag,
    /// Shorter than its header and tag.
    #[error("packet is shorter than its header and tag")]
    Short,
    /// The caller broke the provider's contract: keys of another provider or profile, or `out` too short.
    #[error("refused: keys of another provider or profile, or no room for the payload")]
    Refused,
    /// Not attempted yet.
    #[error("not opened")]
    Pending,
}
