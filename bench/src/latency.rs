//! Latency by histogram, reported in microseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart, in nanoseconds; longer ones count as this.
const LONGEST: u64 = 60_000_000_000;

/// A histogram of nanoseconds, three significant digits.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub(crate) struct Percentiles {
    /// Values recorded.
    pub(crate) count: u64,
    /// Median.
    pub(crate) p50: f64,
    /// 99 of 100 are not above this.
    pub(crate) p99: f64,
    /// 999 of 1,000 are not above this.
    pub(crate) p999: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Latency {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        // The bounds are constants that the crate accepts; without them it would grow by itself.
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|_| unreachable!("bounds are valid"));
        Latency(histogram)
    }

    /// Records one value in nanoseconds; negative ones (clock noise) count as 0.
    pub(crate) fn record(&mut self, nanoseconds: i64) {
        self.0.saturating_record(u64::try_from(nanoseconds).unwrap_or(0).min(LONGEST));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// `None` if nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile: f64| micros(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        })
    }
}

fn micros(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 10.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        for value in 1..=1000 {
            latency.record(value * 1_000);
        }
        let p = latency.percentiles().unwrap();
        assert_eq!(p.count, 1000);
        for (got, want) in [(p.p50, 500.0), (p.p99, 990.0), (p.p999, 999.0), (p.max, 1000.0)] {
            assert!((got - want).abs() <= want * 0.002, "{got} {want}");
        }
        latency.record(-5);
        latency.record(i64::MAX);
        assert!((latency.percentiles().unwrap().max - 60e6).abs() < 60e6 * 0.002);
        latency.clear();
        assert_eq!(latency.percentiles(), None);
    }
}
