//! Packets lost on the way here: remembered by the gap they left, asked for a few times, then given up.

use arrayvec::ArrayVec;
use sluice_srtp::PacketIndex;
use sluice_srtp::replay::Receiver;

use super::super::time::Nanos;

/// How long a packet may be out of order before it is asked for.
const PATIENCE: Nanos = Nanos::from_millis(15);
/// Shortest time between two requests for a packet.
const PAUSE: Nanos = Nanos::from_millis(50);
/// How often a packet is asked for.
const TRIES: u8 = 5;
/// When a packet is of no more use.
const GIVE_UP: Nanos = Nanos::from_millis(400);
/// Gaps of one stream.
const GAPS: usize = 12;
/// Packets of one gap that are asked for: the newest.
const MOST: u64 = 128;
/// Packets asked for in one message.
pub(super) const ASKED: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Gap {
    first: u64,
    end: u64,
    found: Nanos,
    next: Nanos,
    tries: u8,
}

/// The gaps of one stream, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps(ArrayVec<Gap, GAPS>);

impl Gaps {
    /// Packets from `first` to before `end` did not arrive before the one at `end`. Gives when they are asked for, and
    /// how many were given up to make room.
    pub(super) fn found(&mut self, now: Nanos, first: u64, end: u64) -> (Nanos, u64) {
        let kept = first.max(end.saturating_sub(MOST));
        let mut given_up = kept - first;
        if self.0.is_full() {
            let oldest = self.0.remove(0);
            given_up += oldest.end - oldest.first;
        }
        self.0.push(Gap { first: kept, end, found: now, next: now + PATIENCE, tries: 0 });
        (now + PATIENCE, given_up)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When something is to be asked for next.
    pub(super) fn due(&self) -> Nanos {
        self.0.iter().map(|gap| gap.next).min().unwrap_or(Nanos::NEVER)
    }

    /// Takes what is to be asked for now, in ascending order, into `lost`; returns how many packets were given up.
    pub(super) fn take(
        &mut self,
        now: Nanos,
        rtt: Option<Nanos>,
        receiver: &Receiver,
        lost: &mut ArrayVec<u16, ASKED>,
    ) -> u64 {
        let mut given_up = 0;
        self.0.retain(|gap| {
            if gap.next > now {
                return true;
            }
            let missing = (gap.first..gap.end)
                .filter_map(PacketIndex::from_u64)
                .filter(|index| receiver.check(*index).is_ok())
                .map(|index| index.seq().0);
            if gap.tries == TRIES || now.since(gap.found) >= GIVE_UP {
                given_up += missing.count() as u64;
                return false;
            }
            let before = lost.len();
            for seq in missing {
                if lost.try_push(seq).is_err() {
                    break; // the next time
                }
            }
            gap.tries += 1;
            gap.next = now + rtt.unwrap_or(PAUSE).max(PAUSE).min(GIVE_UP);
            lost.len() > before || lost.is_full()
        });
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_a_few_times_and_gives_up() {
        let mut receiver = Receiver::new(0);
        let accept = |receiver: &mut Receiver, n| receiver.accept(PacketIndex::from_u64(n).unwrap());
        for n in [10, 11, 15] {
            accept(&mut receiver, n);
        }
        let mut gaps = Gaps::default();
        let mut now = Nanos::from_millis(1_000);
        assert_eq!(gaps.found(now, 12, 15), (Nanos::from_millis(1_015), 0));
        let (mut asked, mut given_up) = (Vec::new(), 0);
        for ms in 1..600u64 {
            now = now + Nanos::from_millis(1);
            if ms == 80 {
                accept(&mut receiver, 13);
            }
            if gaps.due() <= now {
                let mut lost = ArrayVec::new();
                given_up += gaps.take(now, None, &receiver, &mut lost);
                asked.push((ms, lost.to_vec()));
            }
        }
        let (all, rest) = (vec![12, 13, 14], vec![12, 14]);
        let times =
            [(15, all.clone()), (65, all), (115, rest.clone()), (165, rest.clone()), (215, rest), (265, vec![])];
        assert_eq!(asked, times);
        assert_eq!((given_up, gaps.due()), (2, Nanos::NEVER));
    }

    #[test]
    fn bounded_and_in_order() {
        let mut gaps = Gaps::default();
        let receiver = Receiver::new(0);
        assert_eq!(gaps.found(Nanos(0), 100, 1_000).1, 900 - MOST);
        let given_up: u64 = (0..20).map(|n| gaps.found(Nanos(0), 2_000 + n * 10, 2_005 + n * 10).1).sum();
        assert_eq!(given_up, MOST + 8 * 5);
        let mut lost = ArrayVec::new();
        gaps.take(Nanos::from_millis(20), Some(Nanos::from_millis(120)), &receiver, &mut lost);
        assert_eq!(lost.len(), 60);
        assert!(lost.is_sorted());
        assert_eq!(gaps.due(), Nanos::from_millis(140));
    }
}
