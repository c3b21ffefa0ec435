//! The level of one stream, and when it is worth telling. Never knows who competes with it.

use super::{SILENT, UNKNOWN};
use crate::engine::Nanos;

/// A loud stream is reported this often.
const LOUD_EVERY: Nanos = Nanos::from_millis(20);
/// A stream that just went silent is reported this often,
const SILENT_EVERY: Nanos = Nanos::from_millis(100);
/// for this long: whoever forgets a silent stream needs to tell it from one that stopped.
const SILENT_FOR: Nanos = Nanos::from_millis(1_200);
/// Reports may come this much early, so that packets every 20 ms that jitter are not reported every 40 ms.
const EARLY: Nanos = Nanos::from_millis(4);

/// The level of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    level: u8,
    reported: Nanos,
    /// When it was last loud.
    loud: Option<Nanos>,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { level: 127, reported: Nanos(0), loud: None }
    }
}

impl Meter {
    /// Takes a packet in: its level, or `None` if it does not tell although it could. Gives the smoothed level if
    /// that is to be reported now.
    #[inline]
    pub fn hear(&mut self, now: Nanos, level: Option<u8>) -> Option<u8> {
        let was_silent = self.level >= SILENT;
        if let Some(level) = level {
            // Half old, half new, as Wire's own servers do.
            self.level = self.level.midpoint(level.min(127));
        }
        let is_silent = self.level >= SILENT;
        let since = now.since(self.reported) + EARLY;
        let due = if is_silent {
            let trails = self.loud.is_some_and(|loud| now.since(loud) <= SILENT_FOR);
            !was_silent || (trails && since >= SILENT_EVERY)
        } else {
            self.loud = Some(now);
            was_silent || since >= LOUD_EVERY
        };
        due.then(|| {
            self.reported = now;
            self.level
        })
    }

    /// Takes a packet in that cannot tell its level.
    pub fn count(&mut self, now: Nanos) -> Option<u8> {
        let was_silent = self.level >= SILENT;
        self.level = UNKNOWN;
        self.loud = Some(now);
        (was_silent || now.since(self.reported) + EARLY >= LOUD_EVERY).then(|| {
            self.reported = now;
            self.level
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_the_first_loud_packet_at_once_and_of_silence_once_and_for_a_while() {
        let mut meter = Meter::default();
        let at = Nanos::from_millis;
        assert_eq!(meter.hear(at(1_000), Some(127)), None);
        assert_eq!(meter.hear(at(1_020), Some(40)), Some(83));
        assert_eq!(meter.hear(at(1_025), Some(40)), None);
        assert_eq!(meter.hear(at(1_040), Some(40)), Some(50));
        assert_eq!(meter.hear(at(1_060), None), Some(50));
        let silent: Vec<u64> =
            (0..200).map(|n| 1_080 + n * 20).filter(|ms| meter.hear(at(*ms), Some(127)).is_some()).collect();
        assert!(silent.len() > 8 && silent.len() < 20, "{silent:?}");
        assert!(*silent.last().unwrap() < 2_500, "{silent:?}");
    }

    #[test]
    fn streams_that_cannot_tell_count_as_loud() {
        let mut meter = Meter::default();
        let reports = (0..50).filter(|n| meter.count(Nanos::from_millis(5_000 + n * 10)).is_some()).count();
        assert_eq!(reports, 25);
    }
}
