//! Initialisation vectors: what makes one packet's keystream differ from every other of its key.

use crate::index::{PacketIndex, Ssrc};

/// The AES-CM counter block of a packet (RFC 3711 §4.1.1): `salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16`. For
/// SRTCP the index is the 31-bit one.
#[inline]
pub(crate) fn counter_mode(salt: &[u8; 14], ssrc: Ssrc, index: u64) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..14].copy_from_slice(salt);
    (u128::from_be_bytes(padded) ^ (ssrc.0 as u128) << 64 ^ (index as u128) << 16).to_be_bytes()
}

/// The GCM IV of an SRTP packet (RFC 7714 §8.1).
#[inline]
pub(crate) fn gcm_rtp(salt: &[u8; 12], ssrc: Ssrc, index: PacketIndex) -> [u8; 12] {
    gcm(salt, ssrc, index.as_u64())
}

/// The GCM IV of an SRTCP packet (RFC 7714 §9.1).
#[inline]
pub(crate) fn gcm_rtcp(salt: &[u8; 12], ssrc: Ssrc, index: u32) -> [u8; 12] {
    gcm(salt, ssrc, index as u64)
}

/// Both layouts are two zero bytes, SSRC, 48 bits of index.
#[inline]
fn gcm(salt: &[u8; 12], ssrc: Ssrc, index: u64) -> [u8; 12] {
    let mut padded = [0; 16];
    padded[4..].copy_from_slice(salt);
    let mixed = (u128::from_be_bytes(padded) ^ (ssrc.0 as u128) << 48 ^ index as u128).to_be_bytes();
    let mut iv = [0; 12];
    iv.copy_from_slice(&mixed[4..]);
    iv
}
