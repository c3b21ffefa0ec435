//! A bad network between generator and forwarder: seeded loss, duplicates, delay and reordering of sealed packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use clap::Args;
use serde::Serialize;

use crate::random::Random;

/// How bad.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Impairment {
    /// Fraction of packets lost
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    pub(crate) loss: f64,
    /// Fraction of packets sent twice
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    pub(crate) duplicate: f64,
    /// Fraction of packets held back for --reorder-ms, so that later ones overtake them
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    pub(crate) reorder: f64,
    /// How long reordered packets are held back
    #[arg(long, default_value_t = 5.0, value_parser = milliseconds)]
    pub(crate) reorder_ms: f64,
    /// Delay of every packet
    #[arg(long, default_value_t = 0.0, value_parser = milliseconds)]
    pub(crate) delay_ms: f64,
    /// Up to this much more delay, drawn for every packet; may reorder
    #[arg(long, default_value_t = 0.0, value_parser = milliseconds)]
    pub(crate) jitter_ms: f64,
}

fn fraction(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.0..=1.0).contains(value)).ok_or("expected 0 to 1, e.g. 0.01".to_owned())
}

fn milliseconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.0..=60_000.0).contains(value)).ok_or("expected 0 to 60000".to_owned())
}

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Impaired {
    /// Not sent at all.
    pub(crate) lost: u64,
    /// Sent twice.
    pub(crate) duplicated: u64,
    /// Held back so that others overtake.
    pub(crate) reordered: u64,
    /// Sent later than due for any of the reasons.
    pub(crate) delayed: u64,
}

/// What happens to one packet: how long each copy of it is held, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Never sent.
    Lost,
    /// Sent once.
    Once(u64),
    /// Sent twice.
    Twice(u64, u64),
}

/// Decides fates and holds delayed packets.
#[derive(Debug)]
pub(crate) struct Impairer {
    settings: Impairment,
    random: Random,
    held: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    count: u64,
    totals: Impaired,
}

impl Impairer {
    /// Equal seeds give equal fates.
    pub(crate) fn new(settings: Impairment, seed: u64) -> Self {
        let random = Random::new(seed, 0x696d_7061);
        Impairer { settings, random, held: BinaryHeap::new(), count: 0, totals: Impaired::default() }
    }

    /// Whether anything can happen at all.
    pub(crate) fn is_active(&self) -> bool {
        let s = &self.settings;
        [s.loss, s.duplicate, s.reorder, s.delay_ms, s.jitter_ms].iter().any(|value| *value > 0.0)
    }

    /// What happens to the next packet.
    pub(crate) fn decide(&mut self) -> Fate {
        if self.random.chance(self.settings.loss) {
            self.totals.lost += 1;
            return Fate::Lost;
        }
        let reordered = self.random.chance(self.settings.reorder);
        self.totals.reordered += u64::from(reordered);
        let first = self.hold() + if reordered { nanoseconds(self.settings.reorder_ms) } else { 0 };
        self.totals.delayed += u64::from(first > 0);
        if self.random.chance(self.settings.duplicate) {
            self.totals.duplicated += 1;
            return Fate::Twice(first, self.hold());
        }
        Fate::Once(first)
    }

    fn hold(&mut self) -> u64 {
        let jitter = nanoseconds(self.settings.jitter_ms);
        nanoseconds(self.settings.delay_ms) + if jitter > 0 { self.random.below(jitter + 1) } else { 0 }
    }

    /// Holds a frame until `until`.
    pub(crate) fn keep(&mut self, until: u64, frame: &[u8]) {
        self.count += 1;
        self.held.push(Reverse((until, self.count, frame.to_vec())));
    }

    /// The next held frame whose time has come.
    pub(crate) fn due(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.held.peek().is_none_or(|Reverse((until, ..))| *until > now) {
            return None;
        }
        self.held.pop().map(|Reverse((.., frame))| frame)
    }

    /// Frames still held.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Totals so far.
    pub(crate) fn totals(&self) -> Impaired {
        self.totals
    }
}

fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_nothing_done() {
        let mut impairer = Impairer::new(Impairment::default(), 1);
        assert!(!impairer.is_active());
        assert!((0..1000).all(|_| impairer.decide() == Fate::Once(0)));
        assert_eq!(impairer.totals(), Impaired::default());
    }

    #[test]
    fn fates_follow_the_settings_and_the_seed() {
        let settings =
            Impairment { loss: 0.1, duplicate: 0.05, reorder: 0.02, reorder_ms: 5.0, delay_ms: 1.0, jitter_ms: 0.5 };
        let run = |seed| {
            let mut impairer = Impairer::new(settings, seed);
            let fates: Vec<Fate> = (0..20_000).map(|_| impairer.decide()).collect();
            (fates, impairer.totals())
        };
        let (fates, totals) = run(3);
        assert_eq!(run(3).0, fates);
        assert_ne!(run(4).0, fates);
        assert!((1_800..2_200).contains(&totals.lost), "{totals:?}");
        assert!((800..1_000).contains(&totals.duplicated), "{totals:?}");
        assert!((300..420).contains(&totals.reordered), "{totals:?}");
        for fate in fates {
            if let Fate::Once(hold) = fate {
                assert!((1_000_000..=1_500_000).contains(&hold) || (6_000_000..=6_500_000).contains(&hold), "{hold}");
            }
        }
    }

    #[test]
    fn held_frames_come_out_by_time_and_equal_times_in_order() {
        let mut impairer = Impairer::new(Impairment::default(), 1);
        for (until, byte) in [(30, 3), (10, 1), (10, 2)] {
            impairer.keep(until, &[byte]);
        }
        assert_eq!(impairer.due(9), None);
        assert_eq!([impairer.due(10), impairer.due(10), impairer.due(29)], [Some(vec![1]), Some(vec![2]), None]);
        assert_eq!((impairer.held(), impairer.due(30)), (1, Some(vec![3])));
    }
}
