//! Policing by the generic cell rate algorithm: one word of state a bucket, no timer.

use super::time::Nanos;

/// A rate to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds one unit (byte or packet) takes, times 2^16.
    cost: u64,
    /// How far ahead of real time a burst may run.
    burst: u64,
}

impl Rate {
    /// `units` per second with bursts of up to `burst` of time; zero units lets nothing through.
    pub const fn per_second(units: u64, burst: Nanos) -> Rate {
        let cost = match (1_000_000_000u64 << 16).checked_div(units) {
            Some(cost) => cost,
            None => u64::MAX,
        };
        Rate { cost, burst: burst.0 }
    }

    /// `bits` per second, charged by the byte.
    pub const fn bits_per_second(bits: u64, burst: Nanos) -> Rate {
        Rate::per_second(bits / 8, burst)
    }
}

impl Rate {
    /// Nanoseconds that `units` take.
    #[inline(always)]
    const fn duration(self, units: u64) -> u64 {
        ((self.cost as u128 * units as u128) >> 16) as u64
    }
}

/// A bucket's state: when it would be empty again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_until: u64,
}

impl Bucket {
    /// Whether `units` more fit now; takes them if so.
    #[inline(always)]
    pub fn take(&mut self, rate: Rate, units: u64, now: Nanos) -> bool {
        let start = self.full_until.max(now.0);
        if start - now.0 > rate.burst {
            return false;
        }
        self.full_until = start.saturating_add(rate.duration(units));
        true
    }

    /// Gives `units` back that were taken and turned out not to count.
    pub fn give_back(&mut self, rate: Rate, units: u64) {
        self.full_until = self.full_until.saturating_sub(rate.duration(units));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_run_rate_is_the_limit() {
        let rate = Rate::bits_per_second(8_000_000, Nanos::from_millis(100));
        let mut bucket = Bucket::default();
        let mut bytes = 0;
        for us in 0..10_000_000u64 / 100 {
            if bucket.take(rate, 1000, Nanos(us * 100_000)) {
                bytes += 1000;
            }
        }
        // 10 s at 1 MB/s, plus one burst of 100 ms.
        assert!((10_000_000..=10_102_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn zero_rate_passes_one_unit_at_most() {
        let rate = Rate::per_second(0, Nanos::from_millis(1));
        let mut bucket = Bucket::default();
        let passed = (0..1000).filter(|ms| bucket.take(rate, 1, Nanos::from_millis(*ms))).count();
        assert!(passed <= 1);
    }
}
