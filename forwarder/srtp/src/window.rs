//! Send side: an index is issued once per (key, SSRC) and consumed by sealing (RFC 3711 §9.1: a reused index
//! gives the plaintext away). Never seals and never derives keys.

use std::fmt;

use crate::bitmap::{Ring, WINDOW};
use crate::index::PacketIndex;

/// The right to seal one packet under one index of one (key, SSRC). Not `Clone`, made only by a sent window.
#[derive(Debug)]
#[must_use = "an issued index that seals nothing leaves a gap"]
pub struct SendIndex(PacketIndex);

impl SendIndex {
    /// The index.
    #[inline]
    pub const fn index(&self) -> PacketIndex {
        self.0
    }
}

/// Why an index was not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// It was issued before; sealing again would reuse a keystream.
    #[error("packet index was issued before under this key and SSRC")]
    Used,
    /// It lies more than [`SentWindow::LEN`] behind the highest, or below the index the window started at.
    #[error("packet index is older than the sent window")]
    TooOld,
}

/// The indexes issued under one (key, SSRC): the last 1,024 exactly, all older ones as issued. 144 bytes; lives
/// as long as the key, never shorter, and is not `Clone`.
#[repr(C)] // what every packet needs comes last, next to the state that the owner keeps behind the window
pub struct SentWindow {
    ring: Ring,
    /// Bits of the ring that are clear. While none is, an index in order leaves the ring as it is.
    holes: u64,
    /// One above the highest index issued; 2^48 when the key is used up.
    next: u64,
}

impl SentWindow {
    /// Indexes remembered one by one.
    pub const LEN: u64 = WINDOW;

    /// A window whose lowest index to issue is `next`; everything below counts as issued.
    pub const fn new(next: PacketIndex) -> Self {
        SentWindow { ring: Ring::full(), holes: 0, next: next.as_u64() }
    }

    /// Issues `index`, or refuses it: it was issued already or is too old to know. Jumping ahead is allowed;
    /// what was jumped over stays available while it is within the window.
    #[inline]
    pub fn issue(&mut self, index: PacketIndex) -> Result<SendIndex, IssueError> {
        let at = index.as_u64();
        if at == self.next {
            // The bit of `at - 1024` becomes the bit of `at`: it is set already unless there are holes.
            if self.holes != 0 {
                self.fill(at);
            }
            self.next = at + 1;
            return Ok(SendIndex(index));
        }
        self.issue_out_of_order(index)
    }

    fn fill(&mut self, at: u64) {
        self.holes -= u64::from(!self.ring.get(at));
        self.ring.set(at);
    }

    #[cold]
    fn issue_out_of_order(&mut self, index: PacketIndex) -> Result<SendIndex, IssueError> {
        let at = index.as_u64();
        if at > self.next {
            self.ring.advance(self.next, at);
            self.holes = self.ring.clear_bits();
            self.next = at + 1;
        } else if self.next - at > WINDOW {
            return Err(IssueError::TooOld);
        } else if self.ring.get(at) {
            return Err(IssueError::Used);
        }
        self.fill(at);
        Ok(SendIndex(index))
    }

    /// The highest index issued (or taken as issued at the start); `None` if that is before index 0.
    #[inline]
    pub const fn highest(&self) -> Option<PacketIndex> {
        match self.next.checked_sub(1) {
            Some(highest) => PacketIndex::from_u64(highest),
            None => None,
        }
    }

    /// The next index in order; `None` once all 2^48 are used and the key must be replaced.
    #[inline]
    pub const fn next(&self) -> Option<PacketIndex> {
        PacketIndex::from_u64(self.next)
    }
}

impl fmt::Debug for SentWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentWindow").field("next", &self.next).finish_non_exhaustive()
    }
}
