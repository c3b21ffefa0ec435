//! Sequence and timestamp continuity of one egress stream. A source is mapped by a constant offset, so its
//! losses stay visible; a switch starts a new epoch behind everything sent so far. State is an offset and a
//! bitmap of deliberately dropped packets, not a table per packet.

use super::time::Nanos;

/// Indexes left out between two sources, so that a loss at the end of the old one is not masked.
pub const SWITCH_GAP: u64 = 1;
/// How far behind the newest packet a late one can still be mapped when packets were left out on purpose.
const MEMORY: u64 = 128;

/// Where a packet goes in the outgoing stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Extended sequence number out.
    pub index: u64,
    /// Timestamp out.
    pub timestamp: u32,
}

/// A packet as the rewriter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Its source.
    pub source: u32,
    /// Extended sequence number in.
    pub index: u64,
    /// Timestamp in.
    pub timestamp: u32,
    /// When it arrived.
    pub arrival: Nanos,
}

/// What the next packet must show to go straight through: two words of whoever set the stream up for it, its source
/// and its index. Compared in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ticket([u64; 4]);

impl Ticket {
    const STATE: usize = 2;
    const EXPECTED: usize = 3;

    /// What a packet shows to streams that are set up by `context`.
    pub fn new(context: [u64; 2], packet: &Incoming) -> Ticket {
        Ticket([context[0], context[1], u64::from(packet.source), packet.index])
    }
}

/// The mapping of one egress stream. How far it came is not kept here but by the stream's sent window, and given to
/// whatever needs it: `next` is one past the highest index issued.
#[derive(Clone, Debug)]
#[repr(C)] // what a packet in order needs comes first, in 48 bytes
pub struct Rewriter {
    /// The context; the source, with [`HOLED`](Self::HOLED) while something behind the newest packet was left out; and
    /// one past the highest index in.
    ticket: Ticket,
    last_arrival: Nanos,
    last_timestamp: u32,
    timestamp_offset: u32,
    /// Added to an incoming index (wrapping).
    offset: u64,
    /// First index of this epoch.
    base: u64,
    /// Bit n: the packet n behind the highest in was left out. In halves, to be aligned like the rest.
    left_out: [u64; 2],
    clock_rate: u32,
    /// Switches of source so far.
    epochs: u32,
    has_sent: bool,
    /// Index in from which on nothing was left out.
    closed: u64,
}

impl Default for Rewriter {
    fn default() -> Self {
        Rewriter {
            ticket: Ticket([u64::MAX, u64::MAX, Self::NO_SOURCE, 0]),
            last_arrival: Nanos(0),
            last_timestamp: 0,
            timestamp_offset: 0,
            offset: 0,
            base: 0,
            left_out: [0; 2],
            clock_rate: 0,
            epochs: 0,
            has_sent: false,
            closed: 0,
        }
    }
}

impl Rewriter {
    const HOLED: u64 = 1 << 32;
    const NO_SOURCE: u64 = 1 << 33;
    const INTERRUPTED: u64 = 1 << 34;

    /// A stream that was not sent yet.
    pub fn new(clock_rate: u32) -> Self {
        Rewriter { clock_rate, ..Rewriter::default() }
    }

    /// Continues a stream of an earlier process, whose last timestamp was sent at `sent`.
    pub fn resume(clock_rate: u32, timestamp: u32, sent: Nanos) -> Self {
        Rewriter { last_timestamp: timestamp, last_arrival: sent, has_sent: true, ..Rewriter::new(clock_rate) }
    }

    /// The words of whoever sets the stream up; all ones at first.
    #[inline(always)]
    pub fn context(&self) -> [u64; 2] {
        [self.ticket.0[0], self.ticket.0[1]]
    }

    /// Sets the stream up for packets with another context.
    pub fn set_context(&mut self, context: [u64; 2]) {
        [self.ticket.0[0], self.ticket.0[1]] = context;
    }

    /// How many times the source changed.
    pub fn epochs(&self) -> u32 {
        self.epochs
    }

    /// The source now mapped.
    pub fn source(&self) -> Option<u32> {
        (self.state() != Self::NO_SOURCE).then_some(self.state() as u32)
    }

    /// Timestamp offset of the source now mapped, as sender reports need it.
    pub fn timestamp_offset(&self) -> u32 {
        self.timestamp_offset
    }

    /// The newest timestamp given out, and when its packet arrived.
    pub fn newest(&self) -> (Nanos, u32) {
        (self.last_arrival, self.last_timestamp)
    }

    /// Whether a packet follows the newest one of the same source, and nothing was left out: it goes out under `next`,
    /// behind everything sent.
    #[inline(always)]
    pub fn is_straight(&self, ticket: &Ticket) -> bool {
        self.ticket == *ticket
    }

    /// The timestamp of such a packet; it must be sent.
    #[inline(always)]
    pub fn take_straight(&mut self, packet: &Incoming) -> u32 {
        let timestamp = packet.timestamp.wrapping_add(self.timestamp_offset);
        self.ticket.0[Ticket::EXPECTED] += 1;
        self.note(timestamp, packet.arrival);
        timestamp
    }

    /// Maps a packet that will be sent; `None` when it is too late to have a place.
    #[inline(always)]
    pub fn map(&mut self, packet: &Incoming, next: u64) -> Option<Mapped> {
        if self.is_straight(&Ticket::new(self.context(), packet)) {
            debug_assert_eq!(next, packet.index.wrapping_add(self.offset));
            return Some(Mapped { index: next, timestamp: self.take_straight(packet) });
        }
        self.map_any(packet, next)
    }

    /// As [`map`](Self::map), for the first packet of a source, gaps, late packets and packets after one left out.
    #[inline(never)]
    fn map_any(&mut self, packet: &Incoming, next: u64) -> Option<Mapped> {
        if self.source() != Some(packet.source) || self.is_interrupted() {
            self.start_epoch(packet, next);
        }
        let ahead = packet.index.wrapping_sub(self.highest_in()) as i64;
        let index = if ahead > 0 || (ahead == 0 && self.left_out() & 1 == 0) {
            self.advance(ahead as u64);
            self.set_expected(packet.index.wrapping_add(1));
            packet.index.wrapping_add(self.offset)
        } else {
            self.late(packet.index, ahead.unsigned_abs())?
        };
        if index < self.base {
            return None;
        }
        let timestamp = packet.timestamp.wrapping_add(self.timestamp_offset);
        if index >= next {
            self.note(timestamp, packet.arrival);
            self.has_sent = true;
        }
        Some(Mapped { index, timestamp })
    }

    /// Remembers the highest packet sent.
    #[inline(always)]
    fn note(&mut self, timestamp: u32, arrival: Nanos) {
        self.last_timestamp = timestamp;
        self.last_arrival = arrival;
    }

    /// Leaves a packet out on purpose: later ones close the gap. Too late a packet changes nothing.
    pub fn leave_out(&mut self, source: u32, index: u64) {
        if self.source() != Some(source) || self.is_interrupted() {
            return;
        }
        let ahead = index.wrapping_sub(self.highest_in()) as i64;
        if ahead <= 0 {
            return; // its place was given away or kept already; a gap is allowed, a collision is not
        }
        self.advance(ahead as u64);
        self.set_expected(index.wrapping_add(1));
        self.set_left_out(self.left_out() | 1);
        self.offset = self.offset.wrapping_sub(1);
        self.closed = index.wrapping_add(1);
    }

    /// Which packet went out under an index, or would have: its source and index in. `None` for another source's, and
    /// for one behind which too much was left out.
    pub fn origin(&self, index: u64, next: u64) -> Option<(u32, u64)> {
        let source = self.source()?;
        if index < self.base || index >= next {
            return None;
        }
        let straight = index.wrapping_sub(self.offset);
        if straight >= self.closed {
            return Some((source, straight));
        }
        let mut behind = (0..MEMORY).filter(|_| self.left_out() != 0);
        let at = behind.find(|behind| self.late(self.highest_in().wrapping_sub(*behind), *behind) == Some(index))?;
        Some((source, self.highest_in().wrapping_sub(at)))
    }

    /// Has the next packet start an epoch even if its source is the one before: packets of it were kept back, and
    /// that is no loss.
    pub fn interrupt(&mut self) {
        if self.source().is_some() {
            self.ticket.0[Ticket::STATE] |= Self::INTERRUPTED;
        }
    }

    fn state(&self) -> u64 {
        self.ticket.0[Ticket::STATE]
    }

    fn set_expected(&mut self, index: u64) {
        self.ticket.0[Ticket::EXPECTED] = index;
    }

    fn is_interrupted(&self) -> bool {
        self.state() & Self::INTERRUPTED != 0
    }

    fn highest_in(&self) -> u64 {
        self.ticket.0[Ticket::EXPECTED].wrapping_sub(1)
    }

    fn left_out(&self) -> u128 {
        u128::from(self.left_out[0]) | (u128::from(self.left_out[1]) << 64)
    }

    fn set_left_out(&mut self, bits: u128) {
        self.left_out = [bits as u64, (bits >> 64) as u64];
        let state = &mut self.ticket.0[Ticket::STATE];
        *state = if bits == 0 { *state & !Self::HOLED } else { *state | Self::HOLED };
    }

    fn advance(&mut self, by: u64) {
        if self.left_out != [0; 2] {
            self.set_left_out(if by >= 128 { 0 } else { self.left_out() << by });
        }
    }

    /// Maps a packet behind the newest one: every packet left out between the two moved the newer ones down.
    fn late(&self, index: u64, behind: u64) -> Option<u64> {
        let left_out = self.left_out();
        if left_out == 0 {
            return Some(index.wrapping_add(self.offset));
        }
        if behind >= MEMORY {
            return None;
        }
        let bit = 1u128 << behind;
        if left_out & bit != 0 {
            return None; // it was left out itself
        }
        let newer = (left_out & (bit - 1)).count_ones();
        Some(index.wrapping_add(self.offset).wrapping_add(u64::from(newer)))
    }

    #[cold]
    fn start_epoch(&mut self, packet: &Incoming, next: u64) {
        let switched = self.source().is_some();
        self.base = if switched { next + SWITCH_GAP } else { next };
        self.offset = self.base.wrapping_sub(packet.index);
        self.timestamp_offset = if self.has_sent {
            let elapsed = packet.arrival.since(self.last_arrival).0;
            let ticks = (u128::from(elapsed) * u128::from(self.clock_rate) / 1_000_000_000) as u32;
            self.last_timestamp.wrapping_add(ticks.max(1)).wrapping_sub(packet.timestamp)
        } else {
            0
        };
        self.set_expected(packet.index.wrapping_add(1));
        self.left_out = [0; 2];
        self.closed = 0;
        self.epochs += u32::from(switched);
        self.ticket.0[Ticket::STATE] = u64::from(packet.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rewriter and how far its stream came, as a sent window would say.
    struct Stream(Rewriter, u64);

    impl Stream {
        fn new(clock_rate: u32, first: u64) -> Stream {
            Stream(Rewriter::new(clock_rate), first)
        }

        fn map(&mut self, packet: Incoming) -> Option<Mapped> {
            let mapped = self.0.map(&packet, self.1)?;
            self.1 = self.1.max(mapped.index + 1);
            Some(mapped)
        }
    }

    fn packet(source: u32, index: u64, ms: u64) -> Incoming {
        Incoming { source, index, timestamp: (index * 960) as u32, arrival: Nanos::from_millis(ms) }
    }

    #[test]
    fn losses_and_reordering_of_one_source_stay_as_they_are() {
        let mut rewriter = Stream::new(48_000, 100);
        let order = [1000u64, 1001, 1003, 1002, 1007, 1005, 1000];
        let out: Vec<u64> = order.iter().map(|i| rewriter.map(packet(1, *i, 0)).unwrap().index).collect();
        assert_eq!(out, [100, 101, 103, 102, 107, 105, 100]);
        assert_eq!(rewriter.map(packet(1, 999, 0)), None); // before the first packet there is nothing
    }

    #[test]
    fn a_switch_leaves_a_gap_and_time_goes_on() {
        let mut rewriter = Stream::new(48_000, 5);
        let first = rewriter.map(packet(1, 50, 1000)).unwrap();
        assert_eq!(first, Mapped { index: 5, timestamp: 48_000 });
        let second = rewriter.map(packet(2, 9_000_000, 1020)).unwrap();
        assert_eq!(second.index, 6 + SWITCH_GAP);
        assert_eq!(second.timestamp, 48_000 + 960);
        assert_eq!(rewriter.map(packet(2, 8_999_999, 1020)), None); // may not run into the old source
        let back = rewriter.map(packet(1, 51, 1020)).unwrap();
        assert_eq!(back.index, second.index + 1 + SWITCH_GAP);
        assert_eq!(back.timestamp, second.timestamp + 1); // never backwards, never equal
        assert_eq!(rewriter.0.epochs(), 2);
    }

    #[test]
    fn an_interruption_is_no_loss() {
        let mut rewriter = Stream::new(48_000, 5);
        rewriter.0.interrupt();
        assert_eq!(rewriter.map(packet(1, 50, 1_000)).unwrap().index, 5);
        assert_eq!(rewriter.map(packet(1, 51, 1_020)).unwrap().index, 6);
        rewriter.0.interrupt();
        assert_eq!(rewriter.0.source(), Some(1));
        rewriter.0.leave_out(1, 52);
        let next = rewriter.map(packet(1, 500, 2_020)).unwrap();
        assert_eq!(next, Mapped { index: 7 + SWITCH_GAP, timestamp: 51 * 960 + 48_000 });
        assert_eq!(rewriter.map(packet(1, 499, 2_020)), None);
        assert_eq!(rewriter.map(packet(1, 501, 2_040)).unwrap().index, next.index + 1);
    }

    #[test]
    fn resuming_continues_index_and_time() {
        let mut rewriter = Stream(Rewriter::resume(90_000, 1_000, Nanos::from_millis(500)), 77);
        let got = rewriter.map(packet(4, 12, 600)).unwrap();
        assert_eq!(got, Mapped { index: 77, timestamp: 1_000 + 9_000 });
    }

    /// Against a table that remembers every packet.
    #[test]
    fn left_out_packets_close_up_exactly() {
        let mut state = 11u64;
        for round in 0..200u64 {
            let mut rewriter = Stream::new(90_000, 1_000);
            let mut sent: Vec<Option<u64>> = Vec::new(); // by index in: where it went
            let (mut next_in, mut left_out) = (0u64, 0u64);
            let mut held: Vec<u64> = Vec::new();
            for _ in 0..300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407 + round);
                let roll = (state >> 40) % 10;
                if next_in > 0 && roll == 0 && !held.is_empty() {
                    let late = held.remove(0);
                    let expected = 1_000 + late - sent[..late as usize].iter().filter(|p| p.is_none()).count() as u64;
                    match rewriter.map(packet(1, late, 0)) {
                        Some(m) => assert_eq!(m.index, expected),
                        None => assert!(next_in - late > MEMORY - 2),
                    }
                } else if next_in > 0 && roll <= 3 {
                    rewriter.0.leave_out(1, next_in);
                    sent.push(None);
                    left_out += 1;
                    next_in += 1;
                } else if next_in > 0 && roll == 4 {
                    held.push(next_in); // arrives later
                    sent.push(Some(0));
                    next_in += 1;
                } else {
                    let got = rewriter.map(packet(1, next_in, 0)).unwrap();
                    assert_eq!(got.index, 1_000 + next_in - left_out, "round {round}");
                    for back in 0..next_in.min(200) {
                        let (Some(Some((_, from))), at) = (
                            (got.index.checked_sub(back)).map(|index| rewriter.0.origin(index, rewriter.1)),
                            got.index - back,
                        ) else {
                            continue;
                        };
                        let before = if from == next_in { &sent[..] } else { &sent[..from as usize] };
                        let gone = before.iter().filter(|p| p.is_none()).count() as u64;
                        assert_eq!(1_000 + from - gone, at, "round {round}, {back} back");
                        assert!(from == next_in || sent[from as usize].is_some());
                    }
                    sent.push(Some(got.index));
                    next_in += 1;
                }
            }
        }
    }
}
