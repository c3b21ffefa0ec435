//! Send side: an index is issued once per (key, SSRC) and consumed by sealing (RFC 3711 §9.1: a reused index
//! gives the plaintext away). Never seals and never derives keys.

use std::fmt;

use crate::bitmap::{Ring, WINDOW};
use crate::index::PacketIndex;

/// One past the highest index that a key may protect.
const END: u64 = PacketIndex::MAX.as_u64() + 1;

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
    /// 2^48 while every bit of the ring is set, and an index in order leaves the ring as it is; 0 otherwise. So one
    /// comparison tells of both limits.
    straight_below: u64,
    /// One above the highest index issued; 2^48 when the key is used up.
    next: u64,
}

impl SentWindow {
    /// Indexes remembered one by one.
    pub const LEN: u64 = WINDOW;

    /// A window whose lowest index to issue is `next`; everything below counts as issued.
    pub const fn new(next: PacketIndex) -> Self {
        SentWindow { ring: Ring::full(), straight_below: END, next: next.as_u64() }
    }

    /// Issues `index`, or refuses it: it was issued already or is too old to know. Jumping ahead is allowed;
    /// what was jumped over stays available while it is within the window.
    #[inline]
    pub fn issue(&mut self, index: PacketIndex) -> Result<SendIndex, IssueError> {
        if index.as_u64() == self.next
            && let Some(issued) = self.issue_next()
        {
            return Ok(issued);
        }
        self.issue_any(index)
    }

    /// Issues the next index in order, which [`next`](Self::next) tells. `None`, and nothing has changed, when indexes
    /// before it were left out or the key is used up: [`issue`](Self::issue) decides then.
    #[inline(always)]
    pub fn issue_next(&mut self) -> Option<SendIndex> {
        let at = self.next;
        if at >= self.straight_below {
            return None;
        }
        self.next = at + 1;
        Some(SendIndex(PacketIndex::below_end(at)))
    }

    #[inline(never)]
    fn issue_any(&mut self, index: PacketIndex) -> Result<SendIndex, IssueError> {
        let at = index.as_u64();
        if at >= self.next {
            if at > self.next {
                self.ring.advance(self.next, at);
                self.straight_below = 0;
            }
            self.next = at + 1;
        } else if self.next - at > WINDOW {
            return Err(IssueError::TooOld);
        } else if self.ring.get(at) {
            return Err(IssueError::Used);
        }
        self.ring.set(at);
        // Looked at once in 64 packets: what is jumped over closes again within a window, and rarely sooner.
        if at.is_multiple_of(64) && self.ring.is_full() {
            self.straight_below = END;
        }
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

    /// One past the highest index issued, at most 2^48.
    #[inline(always)]
    pub const fn end(&self) -> u64 {
        self.next
    }

    /// The next index in order; `None` once all 2^48 are used and the key must be replaced.
    #[inline]
    pub const fn next(&self) -> Option<PacketIndex> {
        PacketIndex::from_u64(self.next)
    }
}

/// The indexes issued under one (key, SSRC) whose packets are sealed in the order they are issued, as those of a repair
/// stream are: never one twice, never one out of order. Lives as long as the key, and is not `Clone`.
#[derive(Debug)]
pub struct SentSequence {
    next: u64,
}

impl SentSequence {
    /// A sequence whose lowest index to issue is `next`.
    pub const fn new(next: PacketIndex) -> Self {
        SentSequence { next: next.as_u64() }
    }

    /// Issues the next index; `None` once all 2^48 are used and the key must be replaced.
    pub fn issue(&mut self) -> Option<SendIndex> {
        let index = PacketIndex::from_u64(self.next)?;
        self.next += 1;
        Some(SendIndex(index))
    }
}

impl fmt::Debug for SentWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentWindow").field("next", &self.next).finish_non_exhaustive()
    }
}
