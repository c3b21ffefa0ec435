//! When memory that a burst of work needed goes back to the system. Never decides by a clock of its own.

use std::time::{Duration, Instant};

/// How long work is counted before it is judged.
const WINDOW: Duration = Duration::from_secs(1);
/// Packets of a burst that may leave memory worth giving back: several megabytes of them.
const BURST: u64 = 8_192;
/// Packets of a second that is quiet.
const QUIET: u64 = 512;

/// Counts work.
#[derive(Debug)]
pub(super) struct Trim {
    window: Instant,
    /// Packets in this window, and before it since memory was last given back.
    recent: u64,
    before: u64,
}

impl Trim {
    pub(super) fn new(now: Instant) -> Trim {
        Trim { window: now, recent: 0, before: 0 }
    }

    /// Notes packets sent.
    pub(super) fn sent(&mut self, packets: u64) {
        self.recent += packets;
    }

    /// Whether memory should go back now: a burst is over. Says so once for each.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.window + WINDOW {
            return false;
        }
        let quiet = self.recent < QUIET;
        self.before += std::mem::take(&mut self.recent);
        self.window = now;
        let due = quiet && self.before >= BURST;
        if due {
            self.before = 0;
        }
        due
    }
}

/// Gives back what is free at any place of the heap; by itself the allocator only gives back its end.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a call without pointers, allowed at any time and from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_once_a_burst_is_over() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut trim = Trim::new(start);
        trim.sent(BURST);
        assert!(!trim.is_due(at(500)), "too early to say");
        assert!(!trim.is_due(at(1_000)), "still busy");
        trim.sent(QUIET - 1);
        assert!(trim.is_due(at(2_000)));
        assert!(!trim.is_due(at(3_000)), "once");
        trim.sent(BURST / 2);
        assert!(!trim.is_due(at(4_000)) && !trim.is_due(at(5_000)), "not worth it");
    }
}
