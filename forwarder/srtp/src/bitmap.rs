//! A ring of 1,024 bits over the last 1,024 indexes, shared by the sent and the replay window.

/// Indexes a window covers.
pub(crate) const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// Bit `i mod 1024` belongs to the one index of the current window that maps to it.
#[derive(Clone)]
pub(crate) struct Ring([u64; WORDS]);

impl Ring {
    pub(crate) const fn full() -> Self {
        Ring([u64::MAX; WORDS])
    }

    pub(crate) const fn empty() -> Self {
        Ring([0; WORDS])
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> bool {
        self.0[(index >> 6) as usize % WORDS] >> (index & 63) & 1 == 1
    }

    #[inline]
    pub(crate) fn set(&mut self, index: u64) {
        self.0[(index >> 6) as usize % WORDS] |= 1 << (index & 63);
    }

    /// Whether every bit is set.
    pub(crate) fn is_full(&self) -> bool {
        self.0.iter().all(|word| *word == u64::MAX)
    }

    /// Moves the window's end from `from` to `to` (both exclusive): the bits of `from..to` become clear.
    pub(crate) fn advance(&mut self, from: u64, to: u64) {
        if to - from >= WINDOW {
            self.0 = [0; WORDS];
            return;
        }
        let mut at = from;
        while at < to {
            let low = at & 63;
            let count = (64 - low).min(to - at);
            let mask = (u64::MAX >> (64 - count)) << low;
            self.0[(at >> 6) as usize % WORDS] &= !mask;
            at += count;
        }
    }
}
