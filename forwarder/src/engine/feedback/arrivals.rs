//! When packets with a transport-wide number arrived on one leg: a bounded window, told to the peer piece by piece.

use sluice_srtp::Ssrc;

use super::super::time::Nanos;
use crate::wire::rtcp::transport::{self, MAX_STATUSES, TICK};

/// Numbers remembered.
const WINDOW: u64 = MAX_STATUSES as u64;
/// Untold numbers that make a message due at once.
const MANY: u64 = 256;
/// How long an arrival waits to be told at most, at first and later: a browser probes in its first seconds.
const EARLY: Nanos = Nanos::from_millis(50);
const LATER: Nanos = Nanos::from_millis(100);
const FIRST_SECONDS: Nanos = Nanos::from_millis(3_000);

/// The window of one leg.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// By number modulo the window: arrival in ticks modulo 2^32, 0 for none.
    ticks: [u32; WINDOW as usize],
    /// Lowest number the window holds; numbers are extended beyond 16 bits.
    start: u64,
    /// Lowest number not told yet.
    next: u64,
    /// One past the highest; 0 before the first.
    end: u64,
    /// When the first packet arrived.
    began: Nanos,
    /// Number of the next message.
    number: u8,
    /// Stream of the last packet.
    media: Ssrc,
}

impl Default for Arrivals {
    fn default() -> Self {
        let ticks = [0; WINDOW as usize];
        Arrivals { ticks, start: 0, next: 0, end: 0, began: Nanos(0), number: 0, media: Ssrc(0) }
    }
}

impl Arrivals {
    /// Notes a packet; says when the peer should be told, `None` if it was noted before or is too old.
    pub(super) fn note(&mut self, now: Nanos, number: u16, media: Ssrc) -> Option<Nanos> {
        if self.end == 0 {
            self.end = 0x1_0000 + u64::from(number);
            (self.start, self.next, self.began) = (self.end, self.end, now);
        }
        let ahead = number.wrapping_sub(self.end as u16) as i16;
        let at = self.end.wrapping_add_signed(i64::from(ahead));
        if at >= self.end {
            if at - self.end >= WINDOW {
                (self.start, self.next) = (at, at); // what is that far apart is not told of
                self.ticks.fill(0);
            } else {
                for lost in self.end..at {
                    self.ticks[(lost % WINDOW) as usize] = 0;
                }
            }
            self.end = at + 1;
            self.start = self.start.max(self.end.saturating_sub(WINDOW));
            self.next = self.next.max(self.start);
        } else if at < self.start || self.ticks[(at % WINDOW) as usize] != 0 {
            return None;
        } else {
            self.next = self.next.min(at); // told as lost before; told again now
        }
        self.ticks[(at % WINDOW) as usize] = ((now.0 / TICK) as u32).max(1);
        self.media = media;
        let patience = if now.since(self.began) < FIRST_SECONDS { EARLY } else { LATER };
        Some(if self.end - self.next >= MANY { now } else { now + patience })
    }

    /// Whether something is untold.
    pub(super) fn waits(&self) -> bool {
        self.next < self.end
    }

    /// Writes the next message; 0 when nothing is untold.
    pub(super) fn write(&mut self, out: &mut [u8], sender: Ssrc) -> usize {
        if !self.waits() {
            return 0;
        }
        let (next, ticks) = (self.next, &self.ticks);
        let tick = |at: usize| Some(ticks[((next + at as u64) % WINDOW) as usize]).filter(|tick| *tick != 0);
        let total = (self.end - next) as usize;
        let head = (next as u16, self.number);
        let Some(written) = transport::write(out, (sender, self.media), head, total, tick) else {
            self.next = self.end; // no room for a single one
            return 0;
        };
        self.next += written.packets as u64;
        self.number = self.number.wrapping_add(1);
        written.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::rtcp::{Message, Walk};

    fn drain(arrivals: &mut Arrivals, room: usize, told: &mut BTreeMap<u16, Option<u32>>) -> usize {
        let mut messages = 0;
        loop {
            let mut out = vec![0; room];
            let len = arrivals.write(&mut out, Ssrc(1));
            if len == 0 {
                return messages;
            }
            messages += 1;
            let packet = Walk::new(&out[..len]).next().unwrap();
            let Some(Message::Transport(feedback)) = packet.message() else { panic!("unreadable") };
            for (seq, tick) in feedback.arrivals() {
                let known = told.insert(seq, tick).flatten();
                assert!(known.is_none() || known == tick, "{seq} has two arrivals");
            }
        }
    }

    #[test]
    fn losses_reordering_and_the_wrap_are_told_as_they_were() {
        let mut arrivals = Arrivals::default();
        let mut state = 5u64;
        let (mut told, mut model) = (BTreeMap::new(), BTreeMap::new());
        let mut held = Vec::new();
        for n in 0..600u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let now = Nanos(40_000_000_000 + n * 3_100_000);
            let seq = (65_300 + n) as u16;
            model.insert(seq, None);
            match (state >> 40) % 8 {
                0 if n > 0 => {}
                1 if n > 0 => held.push(seq),
                _ => {
                    model.insert(seq, Some((now.0 / TICK) as u32));
                    assert!(arrivals.note(now, seq, Ssrc(9)).is_some());
                    assert_eq!(arrivals.note(now, seq, Ssrc(9)), None, "noted once");
                }
            }
            if held.len() > 3 {
                let late = held.remove(0);
                model.insert(late, Some((now.0 / TICK) as u32));
                arrivals.note(now, late, Ssrc(9));
            }
            if n % 25 == 0 {
                drain(&mut arrivals, 60, &mut told);
            }
        }
        arrivals.note(Nanos(42_000_000_000), (65_300 + 600u64) as u16, Ssrc(9));
        drain(&mut arrivals, 1_000, &mut told);
        told.remove(&((65_300 + 600u64) as u16));
        assert_eq!(told, model);
    }

    #[test]
    fn bounded_whatever_comes() {
        let mut arrivals = Arrivals::default();
        let mut told = BTreeMap::new();
        for n in 0..1_000u64 {
            arrivals.note(Nanos::from_millis(n), (n * n * 31) as u16, Ssrc(9));
            assert!(arrivals.end - arrivals.start <= WINDOW && arrivals.next >= arrivals.start);
        }
        assert!(drain(&mut arrivals, 200, &mut told) <= 30);
        let due: Vec<Nanos> = (0..300).filter_map(|n| Arrivals::default().note(Nanos(7), n, Ssrc(9))).collect();
        assert!(due.iter().all(|due| *due == Nanos(7) + EARLY));
    }
}
