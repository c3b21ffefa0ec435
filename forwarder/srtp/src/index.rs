//! Sequence numbers, SSRCs and 48-bit packet indexes as types of their own (RFC 3711 §3.3.1).

use serde::{Deserialize, Serialize};

/// A synchronisation source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ssrc(pub u32);

/// An RTP sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u16);

/// An SRTP packet index: rollover counter in the upper 32 bits, sequence number in the lower 16.
/// Always below 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PacketIndex(u64);

impl PacketIndex {
    /// The largest index a key may protect.
    pub const MAX: PacketIndex = PacketIndex((1 << 48) - 1);

    /// Builds an index from its rollover counter and sequence number.
    pub const fn new(roc: u32, seq: Seq) -> Self {
        PacketIndex(((roc as u64) << 16) | seq.0 as u64)
    }

    /// An index from its 48-bit value; `None` above [`PacketIndex::MAX`].
    pub const fn from_u64(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(PacketIndex(value)) } else { None }
    }

    /// An index from a value that was found to be below 2^48.
    #[inline(always)]
    pub(crate) const fn below_end(value: u64) -> Self {
        debug_assert!(value <= Self::MAX.0);
        PacketIndex(value)
    }

    /// The 48-bit value.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The rollover counter.
    pub const fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The sequence number on the wire.
    pub const fn seq(self) -> Seq {
        Seq(self.0 as u16)
    }
}
