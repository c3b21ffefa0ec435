//! SRTCP indexes: 31 bits, written in every packet, never estimated (RFC 3711 §3.4). One state per (key, SSRC) and
//! direction. Holds no keys.

use crate::replay::ReplayError;

/// The largest SRTCP index, 2^31 - 1.
pub const MAX_SRTCP_INDEX: u32 = (1 << 31) - 1;

/// All 2^31 SRTCP indexes of a key are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all 2^31 SRTCP indexes of this key and SSRC are used; a new key is needed")]
pub struct SrtcpExhausted;

/// Issues SRTCP indexes in order, each once.
#[derive(Debug)]
pub struct SrtcpSender {
    next: u32,
}

impl SrtcpSender {
    /// A sender whose next index is `next` (0 for a fresh key; above 2^31 - 1 nothing is left to issue).
    pub const fn new(next: u32) -> Self {
        SrtcpSender { next }
    }

    /// The index for the next packet.
    pub fn issue(&mut self) -> Result<u32, SrtcpExhausted> {
        if self.next > MAX_SRTCP_INDEX {
            return Err(SrtcpExhausted);
        }
        let index = self.next;
        self.next += 1;
        Ok(index)
    }

    /// The index the next packet will get; 2^31 when none is left.
    pub const fn next(&self) -> u32 {
        self.next
    }
}

/// Replay state of one SSRC's SRTCP: the highest authenticated index and the 128 up to it.
#[derive(Debug)]
pub struct SrtcpReceiver {
    highest: Option<u32>,
    /// Bit `n` is set when `highest - n` was accepted.
    seen: u128,
}

impl SrtcpReceiver {
    /// Indexes the replay window covers.
    pub const LEN: u32 = 128;

    /// State before the first packet.
    pub const fn new() -> Self {
        SrtcpReceiver { highest: None, seen: 0 }
    }

    /// Continues behind the highest index a former process accepted; nothing at or below it is accepted again.
    pub const fn resume(highest: u32) -> Self {
        SrtcpReceiver { highest: Some(highest), seen: u128::MAX }
    }

    /// Whether a packet with this index is new.
    pub fn check(&self, index: u32) -> Result<(), ReplayError> {
        let Some(highest) = self.highest else { return Ok(()) };
        match highest.checked_sub(index) {
            Some(behind) if behind >= Self::LEN => Err(ReplayError::TooOld),
            Some(behind) if self.seen >> behind & 1 == 1 => Err(ReplayError::Replayed),
            None | Some(_) => Ok(()),
        }
    }

    /// Records an authenticated packet that [`check`](Self::check) allowed.
    pub fn accept(&mut self, index: u32) {
        let highest = self.highest.unwrap_or(index);
        if index > highest {
            self.seen = self.seen.checked_shl(index - highest).unwrap_or(0);
        }
        let highest = highest.max(index);
        if highest - index < Self::LEN {
            self.seen |= 1 << (highest - index);
        }
        self.highest = Some(highest);
    }

    /// The highest index accepted; `None` before the first packet.
    pub const fn highest(&self) -> Option<u32> {
        self.highest
    }
}

impl Default for SrtcpReceiver {
    fn default() -> Self {
        Self::new()
    }
}
