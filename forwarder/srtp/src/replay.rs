//! Receive side: index estimation and the replay window (RFC 3711 §3.3.1, §3.3.2, appendix A).
//! Holds no keys and never opens a packet: the caller checks before and accepts after authentication.

use std::fmt;

use crate::bitmap::{Ring, WINDOW};
use crate::index::{PacketIndex, Seq};

/// Why a packet's index is refused before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A packet with this index was accepted before.
    #[error("packet index was received before")]
    Replayed,
    /// The index lies more than 1,024 (SRTCP: 128) behind the highest accepted.
    #[error("packet index is older than the replay window")]
    TooOld,
}

/// Index state of one ingress SSRC: highest authenticated index and the 1,024 before it. 144 bytes.
///
/// Use per packet: [`estimate`](Self::estimate), [`check`](Self::check), open, and only when the packet
/// authenticated [`accept`](Self::accept). An unauthenticated packet changes nothing.
pub struct Receiver {
    /// Highest index accepted; before the first one, the given rollover counter with sequence number 0.
    highest: u64,
    started: bool,
    ring: Ring,
}

impl Receiver {
    /// Indexes the replay window covers.
    pub const LEN: u64 = WINDOW;

    /// State before the first packet, whose rollover counter is taken to be `roc` (0 for a fresh key).
    pub const fn new(roc: u32) -> Self {
        Receiver { highest: (roc as u64) << 16, started: false, ring: Ring::empty() }
    }

    /// Continues behind the highest index a former process accepted. Which older ones it had accepted is not
    /// known, so none of them is accepted again.
    pub const fn resume(highest: PacketIndex) -> Self {
        Receiver { highest: highest.as_u64(), started: true, ring: Ring::full() }
    }

    /// The likely index of a packet with sequence number `seq` (RFC 3711 §3.3.1). Where the RFC's guess would leave
    /// the 48-bit range, the rollover counter stays: below the first index no packet can exist, and above the
    /// last one the key is used up.
    #[inline]
    pub const fn estimate(&self, seq: Seq) -> PacketIndex {
        let roc = (self.highest >> 16) as u32;
        let last = self.highest as u16;
        if !self.started {
            return PacketIndex::new(roc, seq);
        }
        let guess = if last < 0x8000 {
            if seq.0 as i32 - last as i32 > 0x8000 { roc.saturating_sub(1) } else { roc }
        } else if last as i32 - 0x8000 > seq.0 as i32 {
            roc.saturating_add(1)
        } else {
            roc
        };
        PacketIndex::new(guess, seq)
    }

    /// Whether a packet with this index may still be opened.
    #[inline]
    pub fn check(&self, index: PacketIndex) -> Result<(), ReplayError> {
        let at = index.as_u64();
        if at > self.highest || !self.started {
            Ok(())
        } else if self.highest - at >= WINDOW {
            Err(ReplayError::TooOld)
        } else if self.ring.get(at) {
            Err(ReplayError::Replayed)
        } else {
            Ok(())
        }
    }

    /// Records an authenticated packet. Call it only with an index that [`check`](Self::check) allowed since the
    /// last `accept`; when several packets of one burst share an index, check again before each.
    #[inline]
    pub fn accept(&mut self, index: PacketIndex) {
        let at = index.as_u64();
        if !self.started {
            self.started = true;
            self.highest = at;
        } else if at > self.highest {
            if at - self.highest > 1 {
                self.ring.advance(self.highest + 1, at);
            }
            self.highest = at;
        } else if self.highest - at >= WINDOW {
            return;
        }
        self.ring.set(at);
    }

    /// The highest index accepted; `None` before the first packet.
    #[inline]
    pub const fn highest(&self) -> Option<PacketIndex> {
        if self.started { PacketIndex::from_u64(self.highest) } else { None }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("highest", &self.highest()).finish_non_exhaustive()
    }
}
