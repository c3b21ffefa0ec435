//! What the forwarder remembers of a received stream to tell its sender: loss, jitter, its last report, and whether a
//! key frame is wanted.

use sluice_srtp::Ssrc;
use sluice_table::KeyFrameRequest;

use super::super::time::Nanos;
use crate::wire::rtcp::payload;
use crate::wire::rtcp::report::ReportBlock;

/// Times from one repetition to the next.
const REPEATS: [Nanos; 4] =
    [Nanos::from_millis(1_000), Nanos::from_millis(1_000), Nanos::from_millis(2_000), Nanos::from_millis(4_000)];
/// How long a key frame may take before it is asked for again: the request may be lost.
const ANSWER: Nanos = Nanos::from_millis(1_000);
/// How often it is asked for again without an answer.
const RETRIES: u8 = 3;
/// Time between two requests for a key frame of one stream.
pub(super) const KEY_FRAME_PAUSE: Nanos = Nanos::from_millis(500);

/// Figures of a received stream for receiver reports (RFC 3550 §6.4.1, appendix A.3 and A.8).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reception {
    /// Which incarnation of the stream this is of.
    incarnation: u64,
    base: Option<u64>,
    highest: u64,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: u32,
    /// Jitter in 1/16 of the stream's clock.
    jitter: u32,
    /// Middle 32 bits of the last sender report, and when it came.
    report: Option<(u32, Nanos)>,
    /// Report round it was last told in.
    pub(super) round: u32,
}

impl Reception {
    /// Notes a packet of the stream itself; repaired ones are none.
    #[inline]
    pub(super) fn note(&mut self, now: Nanos, incarnation: u64, index: u64, timestamp: u32, clock_rate: u32) {
        if self.incarnation != incarnation {
            *self = Reception { incarnation, round: self.round, report: self.report, ..Reception::default() };
        }
        let arrival = (now.0 / 1_000 * u64::from(clock_rate) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if self.base.is_none() {
            self.base = Some(index);
            self.highest = index;
        } else {
            let moved = (transit.wrapping_sub(self.transit) as i32).unsigned_abs().min(1 << 26);
            self.jitter = (self.jitter + moved).saturating_sub((self.jitter + 8) >> 4);
        }
        self.transit = transit;
        self.base = self.base.map(|base| base.min(index));
        self.highest = self.highest.max(index);
        self.received = self.received.wrapping_add(1);
    }

    /// Notes a sender report.
    pub(super) fn reported(&mut self, now: Nanos, short_ntp: u32) {
        self.report = Some((short_ntp, now));
    }

    /// The block to tell, `None` if nothing arrived since the last one.
    pub(super) fn block(&mut self, now: Nanos, ssrc: Ssrc) -> Option<ReportBlock> {
        let base = self.base?;
        if self.received == self.received_before {
            return None;
        }
        let expected = (self.highest - base + 1) as u32;
        let interval = expected.wrapping_sub(self.expected_before);
        let arrived = self.received.wrapping_sub(self.received_before);
        let lost = interval.wrapping_sub(arrived) as i32;
        let fraction_lost =
            if interval == 0 || lost <= 0 { 0 } else { ((lost as u64 * 256) / u64::from(interval)).min(255) as u8 };
        (self.expected_before, self.received_before) = (expected, self.received);
        let delay = |at: Nanos| (u128::from(now.since(at).0) * 65_536 / 1_000_000_000) as u32;
        Some(ReportBlock {
            ssrc: ssrc.0,
            fraction_lost,
            lost: expected.wrapping_sub(self.received) as i32,
            highest: self.highest as u32,
            jitter: self.jitter >> 4,
            last_report: self.report.map_or(0, |(ntp, _)| ntp),
            delay: self.report.map_or(0, |(_, at)| delay(at)),
        })
    }
}

/// Key frames of a received stream: who asks is asked for, at most twice a second and never in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyFrames {
    wanted: bool,
    last: Option<Nanos>,
    /// Repetitions left for whoever came new.
    repeats: u8,
    /// When the next of them is due.
    again: Option<Nanos>,
    /// Whether this stream's key frames can be told from other packets, so that silence is no answer.
    shows: bool,
    /// Requests since the last answer that were none of `repeats`, and when the next is due.
    retries: u8,
    retry: Option<Nanos>,
    number: u8,
}

impl KeyFrames {
    /// Somebody wants one. Whoever is `new` may not be able to read the first ones, since end-to-end keys travel their
    /// own way, and cannot tell us: one is asked for again after 1, 2, 4 and 8 s.
    pub(super) fn want(&mut self, new: bool) {
        self.wanted = true;
        if new {
            self.repeats = REPEATS.len() as u8;
        }
    }

    /// One arrived; `true` if a request became needless. Repetitions stay.
    pub(super) fn seen(&mut self, now: Nanos) -> bool {
        let wanted = std::mem::take(&mut self.wanted);
        (self.shows, self.retries, self.retry) = (true, 0, None);
        if wanted && self.again.is_none() {
            self.repeat(now);
        }
        wanted
    }

    /// Nobody can be asked: nothing waits any more.
    pub(super) fn give_up(&mut self) {
        (self.wanted, self.repeats, self.again, self.retry) = (false, 0, None, None);
    }

    /// Plans the next repetition, if one is left.
    fn repeat(&mut self, now: Nanos) {
        self.again = REPEATS.len().checked_sub(usize::from(self.repeats)).and_then(|at| REPEATS.get(at)).map(|pause| {
            self.repeats -= 1;
            now + *pause
        });
    }

    /// When the next request may go out; `None` if none waits.
    pub(super) fn due(&self) -> Option<Nanos> {
        let pause = self.last.map_or(Nanos(0), |last| last + KEY_FRAME_PAUSE);
        if self.wanted { Some(pause) } else { self.again.into_iter().chain(self.retry).min().map(|at| at.max(pause)) }
    }

    /// Writes a request; the caller looked at [`due`](Self::due).
    pub(super) fn write(
        &mut self,
        now: Nanos,
        how: KeyFrameRequest,
        us: Ssrc,
        media: Ssrc,
        out: &mut [u8],
    ) -> Option<usize> {
        let len = match how {
            KeyFrameRequest::Pli => payload::write_pli(out, us, media),
            KeyFrameRequest::Fir => payload::write_fir(out, us, media, self.number),
        }?;
        self.number = self.number.wrapping_add(1);
        let anew = self.wanted || self.again.is_some_and(|again| again <= now);
        self.retries = if anew { 0 } else { self.retries + 1 };
        self.retry = (self.shows && self.retries < RETRIES).then_some(now + ANSWER);
        self.wanted = false;
        self.last = Some(now);
        if anew {
            self.repeat(now);
        }
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_jitter_are_those_of_the_rfc() {
        let mut reception = Reception::default();
        let mut at = Nanos::from_millis(1_000);
        assert_eq!(reception.block(at, Ssrc(7)), None);
        for n in 0..100u64 {
            at = at + Nanos::from_millis(20);
            if n % 10 != 5 {
                reception.note(at, 1, 0x1_fff0 + n, (n * 960) as u32, 48_000);
            }
        }
        reception.reported(at, 0xabcd_1234);
        let block = reception.block(at + Nanos::from_millis(500), Ssrc(7)).unwrap();
        assert_eq!((block.lost, block.fraction_lost, block.highest), (10, 25, 0x1_fff0 + 99));
        assert_eq!((block.jitter, block.last_report, block.delay), (0, 0xabcd_1234, 32_768));
        assert_eq!(reception.block(at, Ssrc(7)), None, "nothing new");
        // 16 ms late, then on time: both steps move the estimate by 768/16.
        reception.note(at + Nanos::from_millis(36), 1, 0x1_fff0 + 100, 100 * 960, 48_000);
        reception.note(at + Nanos::from_millis(40), 1, 0x1_fff0 + 101, 101 * 960, 48_000);
        let block = reception.block(at, Ssrc(7)).unwrap();
        assert_eq!((block.lost, block.fraction_lost, block.jitter), (10, 0, 93));
        reception.note(at, 2, 5, 0, 48_000);
        assert_eq!(reception.block(at, Ssrc(7)).unwrap().lost, 0, "a new key starts over");
    }

    #[test]
    fn key_frames_are_asked_for_twice_a_second_and_not_in_vain() {
        let mut frames = KeyFrames::default();
        let mut out = [0; 20];
        assert_eq!(frames.due(), None);
        frames.want(false);
        assert_eq!(frames.due(), Some(Nanos(0)));
        let at = Nanos::from_millis(700);
        assert_eq!(frames.write(at, KeyFrameRequest::Pli, Ssrc(1), Ssrc(2), &mut out), Some(12));
        assert_eq!(frames.due(), None);
        frames.want(false);
        frames.want(false);
        assert_eq!(frames.due(), Some(Nanos::from_millis(1_200)));
        assert!(frames.seen(at) && !frames.seen(at));
        assert_eq!(frames.due(), None);
        frames.want(false);
        frames.write(Nanos::from_millis(1_200), KeyFrameRequest::Fir, Ssrc(1), Ssrc(2), &mut out);
        assert_eq!(out[16], 1, "its number is the next");
    }

    #[test]
    fn without_an_answer_it_is_asked_for_again() {
        let mut frames = KeyFrames::default();
        let mut out = [0; 20];
        frames.seen(Nanos::from_millis(1));
        frames.want(false);
        let mut at = Nanos::from_millis(10);
        let mut asked = Vec::new();
        while let Some(due) = frames.due() {
            at = at.max(due);
            frames.write(at, KeyFrameRequest::Pli, Ssrc(1), Ssrc(2), &mut out).unwrap();
            asked.push(at.0 / 1_000_000);
        }
        assert_eq!(asked, [10, 1_010, 2_010, 3_010]);
        frames.want(false);
        frames.write(Nanos::from_millis(9_000), KeyFrameRequest::Pli, Ssrc(1), Ssrc(2), &mut out).unwrap();
        assert_eq!(frames.due(), Some(Nanos::from_millis(10_000)));
        frames.seen(Nanos::from_millis(9_100));
        assert_eq!(frames.due(), None, "answered");
    }

    #[test]
    fn for_a_new_receiver_it_is_asked_for_again_and_again() {
        let mut frames = KeyFrames::default();
        let mut out = [0; 20];
        frames.want(true);
        let mut at = Nanos::from_millis(10);
        let mut asked = Vec::new();
        while let Some(due) = frames.due() {
            at = at.max(due);
            assert_eq!(frames.write(at, KeyFrameRequest::Pli, Ssrc(1), Ssrc(2), &mut out), Some(12));
            asked.push(at.0 / 1_000_000);
            // That one arrived does not mean that the receiver could read it.
            frames.seen(at);
        }
        assert_eq!(asked, [10, 1_010, 2_010, 4_010, 8_010]);

        let mut frames = KeyFrames::default();
        frames.want(true);
        assert!(frames.seen(Nanos::from_millis(10)), "the stream starts with one, which nobody could read yet");
        assert_eq!(frames.due(), Some(Nanos::from_millis(1_010)));
    }
}
