//! When which stream sends how much: a schedule that is fixed before the run starts and never waits for anything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::random::Random;
use crate::stamp::STAMP_LEN;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// How a stream's packets are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// 50 packets a second of 100 to 160 bytes.
    Audio,
    /// 30 frames a second, each a burst of packets; every tenth second a key frame of eight times the size.
    Video,
    /// Packets of one size at equal distances.
    Constant,
}

/// What a schedule is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The shape of every stream.
    pub(crate) shape: Shape,
    /// Packets per second of all streams together; only for [`Shape::Constant`].
    pub(crate) rate: f64,
    /// Payload bytes: of every packet ([`Shape::Constant`]), at most ([`Shape::Video`]).
    pub(crate) payload: usize,
    /// Bits per second of one video stream.
    pub(crate) video_bits: u64,
    /// Seed of sizes and phases.
    pub(crate) seed: u64,
}

/// One packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Nanoseconds after the start.
    pub(crate) at: u64,
    /// Stream number.
    pub(crate) stream: u32,
    /// Payload bytes.
    pub(crate) len: usize,
    /// Last packet of a frame.
    pub(crate) marker: bool,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
}

const FRAMES_PER_SECOND: u64 = 30;
const KEY_FRAME_EVERY: u64 = 10 * FRAMES_PER_SECOND;
const KEY_FRAME_FACTOR: u64 = 8;
const AUDIO_PERIOD: u64 = SECOND / 50;

/// Packets of all streams in the order they are due.
#[derive(Debug)]
pub(crate) struct Schedule {
    plan: Plan,
    streams: Vec<Stream>,
    /// (due time, stream).
    heap: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Stream {
    random: Random,
    phase: u64,
    /// Nanoseconds between packets of [`Shape::Constant`].
    interval: f64,
    /// Packets (audio, constant) or frames (video) so far.
    count: u64,
    /// Bytes left of the current frame.
    left: usize,
}

impl Schedule {
    /// A schedule of `streams` streams (at least 1).
    pub(crate) fn new(plan: Plan, streams: u32) -> Schedule {
        let streams = streams.max(1);
        let interval = f64::from(streams) * SECOND as f64 / plan.rate.max(1e-3);
        let mut schedule = Schedule { plan, streams: Vec::new(), heap: BinaryHeap::new() };
        for number in 0..streams {
            let mut random = Random::new(plan.seed, u64::from(number) + 1);
            let phase = match plan.shape {
                Shape::Constant => (interval * f64::from(number) / f64::from(streams)) as u64,
                Shape::Audio => random.below(AUDIO_PERIOD),
                Shape::Video => random.below(SECOND / FRAMES_PER_SECOND),
            };
            schedule.heap.push(Reverse((phase, number)));
            schedule.streams.push(Stream { random, phase, interval, count: 0, left: 0 });
        }
        schedule
    }

    /// Adds a stream with `rate` packets per second of its own; only for [`Shape::Constant`].
    pub(crate) fn with_probe(mut self, rate: f64) -> Schedule {
        let number = self.streams.len() as u32;
        let interval = SECOND as f64 / rate.max(1e-3);
        let random = Random::new(self.plan.seed, u64::from(number) + 1);
        self.heap.push(Reverse((interval as u64 / 2, number)));
        self.streams.push(Stream { random, phase: interval as u64 / 2, interval, count: 0, left: 0 });
        self
    }

    /// When the next packet is due, in nanoseconds after the start.
    pub(crate) fn next_at(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((at, _))| *at)
    }

    /// Takes the next packet if it is due before or at `limit`.
    pub(crate) fn pop(&mut self, limit: u64) -> Option<Due> {
        let Reverse((at, number)) = *self.heap.peek()?;
        if at > limit {
            return None;
        }
        let stream = &mut self.streams[number as usize];
        let (due, next) = match self.plan.shape {
            Shape::Constant => {
                stream.count += 1;
                let next = stream.phase + (stream.count as f64 * stream.interval) as u64;
                let timestamp = (u128::from(at) * 90_000 / u128::from(SECOND)) as u32;
                (Due { at, stream: number, len: self.plan.payload, marker: true, timestamp }, next)
            }
            Shape::Audio => {
                let len = 100 + stream.random.below(61) as usize;
                let timestamp = (stream.count * 960) as u32;
                stream.count += 1;
                (Due { at, stream: number, len, marker: false, timestamp }, stream.phase + stream.count * AUDIO_PERIOD)
            }
            Shape::Video => stream.video(at, number, &self.plan),
        };
        // One sift instead of a pop and a push.
        if let Some(mut top) = self.heap.peek_mut() {
            *top = Reverse((next, number));
        }
        Some(due)
    }

    /// The next packet of a stream without regard to time, for sending as fast as possible.
    pub(crate) fn pop_now(&mut self) -> Option<Due> {
        self.pop(u64::MAX)
    }
}

impl Stream {
    fn video(&mut self, at: u64, number: u32, plan: &Plan) -> (Due, u64) {
        if self.left == 0 {
            self.left = self.frame_bytes(plan);
        }
        let len = self.left.min(plan.payload).max(STAMP_LEN);
        self.left = self.left.saturating_sub(len);
        let timestamp = (self.count * 90_000 / FRAMES_PER_SECOND) as u32;
        let marker = self.left == 0;
        self.count += u64::from(marker);
        let next = if marker { self.phase + self.count * SECOND / FRAMES_PER_SECOND } else { at };
        (Due { at, stream: number, len, marker, timestamp }, next)
    }

    /// Sizes vary by a quarter around their mean, which makes up for key frames.
    fn frame_bytes(&mut self, plan: &Plan) -> usize {
        let group = KEY_FRAME_EVERY + KEY_FRAME_FACTOR - 1;
        let mean = plan.video_bits / 8 * KEY_FRAME_EVERY / FRAMES_PER_SECOND / group;
        let base = if self.count.is_multiple_of(KEY_FRAME_EVERY) { mean * KEY_FRAME_FACTOR } else { mean };
        (base * 3 / 4 + self.random.below(base / 2 + 1)).max(STAMP_LEN as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shape: Shape) -> Plan {
        Plan { shape, rate: 1000.0, payload: 1200, video_bits: 1_500_000, seed: 1 }
    }

    fn all(plan: Plan, streams: u32, until: u64) -> Vec<Due> {
        let mut schedule = Schedule::new(plan, streams);
        let dues: Vec<Due> = std::iter::from_fn(|| schedule.pop(until)).collect();
        assert!(schedule.next_at() > until);
        assert!(dues.windows(2).all(|pair| pair[0].at <= pair[1].at));
        dues
    }

    #[test]
    fn constant_rate_is_exact_and_spread_over_streams() {
        for (rate, streams) in [(1000.0, 1), (333.0, 7), (700_000.0, 3)] {
            let dues = all(Plan { rate, ..plan(Shape::Constant) }, streams, SECOND - 1);
            assert!((dues.len() as f64 - rate).abs() <= f64::from(streams), "{rate} {streams} {}", dues.len());
            for stream in 0..streams {
                let own = dues.iter().filter(|due| due.stream == stream).count() as f64;
                assert!((own - rate / f64::from(streams)).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn constant_rate_does_not_drift() {
        let mut schedule = Schedule::new(Plan { rate: 333_333.0, ..plan(Shape::Constant) }, 1);
        let last = (0..1_000_001).filter_map(|_| schedule.pop_now()).last().unwrap();
        assert!(last.at.abs_diff(3_000_003_000) < 10, "{}", last.at);
    }

    #[test]
    fn a_probe_has_its_own_rate() {
        let mut schedule = Schedule::new(Plan { rate: 10_000.0, ..plan(Shape::Constant) }, 2).with_probe(100.0);
        let dues: Vec<Due> = std::iter::from_fn(|| schedule.pop(SECOND - 1)).collect();
        let of = |stream| dues.iter().filter(|due| due.stream == stream).count();
        assert_eq!([of(0), of(1), of(2)], [5_000, 5_000, 100]);
    }

    #[test]
    fn audio_is_fifty_small_packets_a_second() {
        let dues = all(plan(Shape::Audio), 4, 10 * SECOND - 1);
        assert_eq!(dues.len(), 4 * 500);
        assert!(dues.iter().all(|due| (100..=160).contains(&due.len)));
        let own: Vec<&Due> = dues.iter().filter(|due| due.stream == 2).collect();
        assert!(own.windows(2).all(|pair| pair[1].at - pair[0].at == AUDIO_PERIOD));
        assert!(own.windows(2).all(|pair| pair[1].timestamp - pair[0].timestamp == 960));
        assert!(own.iter().any(|due| due.len != own[0].len));
    }

    #[test]
    fn video_comes_in_frames_with_key_frames() {
        let dues = all(plan(Shape::Video), 1, 20 * SECOND - 1);
        let bytes: usize = dues.iter().map(|due| due.len).sum();
        assert!((bytes as f64 * 8.0 / 20.0 - 1_500_000.0).abs() < 150_000.0, "{bytes}");
        let mut frames: Vec<Vec<Due>> = vec![Vec::new()];
        for due in dues {
            frames.last_mut().unwrap().push(due);
            if due.marker {
                frames.push(Vec::new());
            }
        }
        frames.pop();
        assert_eq!(frames.len(), 600);
        for frame in &frames {
            assert!(frame.iter().all(|due| due.at == frame[0].at && due.timestamp == frame[0].timestamp));
            assert!(frame.iter().all(|due| (STAMP_LEN..=1200).contains(&due.len)));
            assert_eq!(frame.iter().filter(|due| due.marker).count(), 1);
        }
        let size = |at: usize| frames[at].iter().map(|due| due.len).sum::<usize>();
        assert!(size(0) > 5 * size(1) && size(300) > 5 * size(299));
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        for shape in [Shape::Audio, Shape::Video, Shape::Constant] {
            assert_eq!(all(plan(shape), 3, SECOND), all(plan(shape), 3, SECOND));
        }
        assert_ne!(all(plan(Shape::Audio), 3, SECOND), all(Plan { seed: 2, ..plan(Shape::Audio) }, 3, SECOND));
    }
}
