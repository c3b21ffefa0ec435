//! RTP fixed headers (RFC 3550 §5.1): a checked view and nothing copied.

use sluice_srtp::{Seq, Ssrc};

use super::{be16, be32};

/// Fixed header length in bytes.
pub const FIXED_LEN: usize = 12;

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpError {
    /// Shorter than the fixed header.
    Truncated,
    /// CSRC list or header extension run past the packet, or the version is not 2, of which
    /// [`frame::classify`](super::frame::classify) lets none through.
    Header,
}

/// The header of an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// Whether padding bytes end the payload.
    pub padding: bool,
    /// The marker bit.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: Seq,
    /// Timestamp in the stream's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// Number of CSRCs, 0 to 15.
    pub csrc_count: u8,
    /// Extension profile and where its elements start and end; `None` without extension.
    pub extension: Option<ExtensionBlock>,
    /// Header length in bytes, with CSRCs and extension.
    pub len: usize,
}

/// Where a header extension is in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionBlock {
    /// The 16-bit "defined by profile" field.
    pub profile: u16,
    /// First byte of the elements.
    pub start: u16,
    /// One past the last byte of the elements.
    pub end: u16,
}

/// Parses the header of an RTP packet of up to 65,535 bytes.
#[inline]
pub fn parse(packet: &[u8]) -> Result<RtpHeader, RtpError> {
    if packet.len() < FIXED_LEN {
        return Err(RtpError::Truncated);
    }
    let first = packet[0];
    if first >> 6 != 2 {
        return Err(RtpError::Header);
    }
    let csrc_count = first & 0x0f;
    let mut len = FIXED_LEN + usize::from(csrc_count) * 4;
    let mut extension = None;
    if first & 0x10 != 0 {
        if packet.len() < len + 4 {
            return Err(RtpError::Header);
        }
        let start = len + 4;
        let end = start + usize::from(be16(packet, len + 2)) * 4;
        if end > packet.len() {
            return Err(RtpError::Header);
        }
        extension = Some(ExtensionBlock { profile: be16(packet, len), start: start as u16, end: end as u16 });
        len = end;
    }
    if len > packet.len() {
        return Err(RtpError::Header);
    }
    Ok(RtpHeader {
        padding: first & 0x20 != 0,
        marker: packet[1] & 0x80 != 0,
        payload_type: packet[1] & 0x7f,
        seq: Seq(be16(packet, 2)),
        timestamp: be32(packet, 4),
        ssrc: Ssrc(be32(packet, 8)),
        csrc_count,
        extension,
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_field() {
        let mut packet = vec![0xb1, 0xef, 0x12, 0x34, 0, 0, 0, 9, 0xaa, 0xbb, 0xcc, 0xdd];
        packet.extend_from_slice(&[1, 2, 3, 4]);
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x85, 0, 0]);
        packet.extend_from_slice(b"media");
        let header = parse(&packet).unwrap();
        assert!(header.padding && header.marker);
        assert_eq!((header.payload_type, header.seq, header.timestamp), (111, Seq(0x1234), 9));
        assert_eq!((header.ssrc, header.csrc_count, header.len), (Ssrc(0xaabb_ccdd), 1, 24));
        assert_eq!(header.extension, Some(ExtensionBlock { profile: 0xbede, start: 20, end: 24 }));
        for len in 0..24 {
            assert!(parse(&packet[..len]).is_err(), "len {len}");
        }
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0u8, 1, 3] {
            let mut packet = [0u8; 12];
            packet[0] = version << 6;
            assert_eq!(parse(&packet), Err(RtpError::Header));
        }
    }
}
