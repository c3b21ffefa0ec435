//! What is on the wire, as views over bytes: Ethernet to UDP, RTP headers and their extensions, checksums.
//! Parsers take hostile input and never panic; builders write into frames. Knows no tables and no keys.

pub mod checksum;
#[cfg(target_arch = "x86_64")]
pub(crate) mod closing;
pub mod extension;
pub mod frame;
pub mod rtcp;
pub mod rtp;
pub mod template;

/// Reads a big-endian `u16`; the caller has checked the bounds.
#[inline(always)]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big-endian `u32`; the caller has checked the bounds.
#[inline(always)]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
