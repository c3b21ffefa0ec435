//! When a source's timestamps are: taken from its sender's reports, shared between workers, used for the reports to
//! receivers. All streams of a peer share one offset between its clock and ours, so that they stay in step.

use super::super::time::Nanos;

/// A moment of a source: this timestamp is at this time of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// The source; 0 is none.
    pub source: u32,
    /// Its timestamp.
    pub timestamp: u32,
    /// When.
    pub at: Nanos,
}

impl Anchor {
    /// The source's timestamp at `now`.
    pub(super) fn timestamp_at(&self, now: Nanos, clock_rate: u32) -> u32 {
        let elapsed = now.0.wrapping_sub(self.at.0) as i64;
        let ticks = i128::from(elapsed) * i128::from(clock_rate) / 1_000_000_000;
        self.timestamp.wrapping_add(ticks as u32)
    }
}

/// Anchors by source. A bounded cache: two sources may share a place, then the later one has it.
#[derive(Debug)]
pub(super) struct Anchors(Vec<Anchor>);

impl Anchors {
    pub(super) fn new(sources: usize) -> Self {
        Anchors(vec![Anchor::default(); (sources * 2).next_power_of_two().max(8)])
    }

    fn place(&self, source: u32) -> usize {
        // Numbers are given out in order; those of learned streams have their worker in the high byte.
        (source ^ (source >> 24).wrapping_mul(0x9e37_79b9)) as usize & (self.0.len() - 1)
    }

    pub(super) fn put(&mut self, anchor: Anchor) {
        let place = self.place(anchor.source);
        self.0[place] = anchor;
    }

    pub(super) fn get(&self, source: u32) -> Option<Anchor> {
        Some(self.0[self.place(source)]).filter(|anchor| anchor.source == source && source != 0)
    }
}

/// The difference between a peer's clock and ours, from its sender reports: what the fastest of them showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offset(Option<i64>);

impl Offset {
    /// Steps larger than this mean that the peer set its clock.
    const STEP: i64 = 1_000_000_000;

    /// Takes a report's time and arrival; gives the report's time in ours.
    pub(super) fn take(&mut self, ntp: u64, arrival: Nanos) -> Nanos {
        let theirs = ((ntp >> 32) * 1_000_000_000 + (((ntp & 0xffff_ffff) * 1_000_000_000) >> 32)) as i64;
        let sample = (arrival.0 as i64).wrapping_sub(theirs);
        let offset = match self.0 {
            Some(offset) => {
                let off = sample.wrapping_sub(offset);
                // A report that took longer says little; clocks that drift apart are followed slowly.
                if off.unsigned_abs() > Self::STEP.unsigned_abs() || off < 0 { sample } else { offset + off / 64 }
            }
            None => sample,
        };
        self.0 = Some(offset);
        Nanos(theirs.wrapping_add(offset) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_peer_stay_in_step_whatever_their_reports_took() {
        let mut offset = Offset::default();
        let ntp = |ms: u64| ((3_900_000_000 + ms / 1_000) << 32) | (((ms % 1_000) << 32) / 1_000);
        let ms = |n: u64| Nanos::from_millis(n);
        offset.take(ntp(0), ms(5_010));
        let audio = Anchor { source: 1, timestamp: 48_000, at: offset.take(ntp(1_000), ms(6_000)) };
        let video = Anchor { source: 2, timestamp: 90_000, at: offset.take(ntp(1_000), ms(6_030)) };
        // Both were at the same moment, one report took 30 ms longer.
        assert_eq!(audio.timestamp_at(ms(7_000), 48_000), 96_000);
        let off = video.timestamp_at(ms(7_000), 90_000).wrapping_sub(180_000) as i32;
        assert!(off.abs() <= 90, "{off} ticks of 90 kHz apart");
        assert_eq!(audio.timestamp_at(ms(5_500), 48_000), 24_000);
        // A clock that was set is believed at once.
        assert_eq!(offset.take(ntp(100_000), ms(7_000)), ms(7_000));
    }

    #[test]
    fn a_place_is_never_mistaken() {
        let mut anchors = Anchors::new(2);
        for source in 1..100 {
            anchors.put(Anchor { source, timestamp: source, at: Nanos(0) });
            assert_eq!(anchors.get(source).unwrap().timestamp, source);
        }
        assert_eq!(anchors.get(1), None);
        assert_eq!(anchors.get(0), None);
    }
}
