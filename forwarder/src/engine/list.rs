//! Fan-out lists: which egress streams of this worker carry a source, and which virtual sources a source feeds.
//! Membership may be wider than the truth; the rows say, version by version, what really applies.

use super::inputs::Inputs;
use super::staged::Staged;
use super::time::Nanos;

/// An empty position: no slot.
pub(super) const HOLE: u32 = u32::MAX;

/// Slots in no particular order. Positions never move while they are taken, so a cursor can stop anywhere.
#[derive(Debug, Default)]
pub struct Members {
    slots: Vec<u32>,
    holes: u32,
    /// No hole is before this position.
    first_hole: u32,
}

/// Where egress streams are in their lists: in one, and while a commit moves a stream in two.
#[derive(Debug)]
pub(super) struct Places(Vec<[u32; 2]>);

impl Places {
    pub(super) fn new(slots: usize) -> Self {
        Places(vec![[HOLE; 2]; slots])
    }

    /// Adds a stream to a list; the caller made room.
    pub(super) fn add(&mut self, slot: u32, members: &mut Members) {
        let position = members.add(slot);
        let [first, second] = &mut self.0[slot as usize];
        *if *first == HOLE { first } else { second } = position;
    }

    /// Takes a stream out of a list if it is there.
    pub(super) fn remove(&mut self, slot: u32, members: &mut Members) {
        let places = &mut self.0[slot as usize];
        if let Some(place) = places.iter_mut().find(|place| members.at(**place as usize) == Some(slot)) {
            members.remove_at(std::mem::replace(place, HOLE) as usize);
        }
    }
}

impl Members {
    /// How many positions a walk has to look at.
    #[inline(always)]
    pub fn positions(&self) -> usize {
        self.slots.len()
    }

    /// All positions; what is no slot is empty.
    #[inline(always)]
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The member at a position.
    #[inline(always)]
    pub fn at(&self, position: usize) -> Option<u32> {
        self.slots.get(position).copied().filter(|slot| *slot != HOLE)
    }

    /// Whether another member fits without allocating.
    pub fn has_room(&self) -> bool {
        self.holes > 0 || self.slots.len() < self.slots.capacity()
    }

    /// Adds a member and gives its position; the caller made room.
    pub fn add(&mut self, slot: u32) -> u32 {
        let first = self.first_hole as usize;
        let hole = self.slots.get(first..).filter(|_| self.holes > 0);
        let Some(ahead) = hole.and_then(|slots| slots.iter().position(|s| *s == HOLE)) else {
            self.slots.push(slot);
            return (self.slots.len() - 1) as u32;
        };
        self.slots[first + ahead] = slot;
        self.holes -= 1;
        self.first_hole = (first + ahead + 1) as u32;
        (first + ahead) as u32
    }

    /// Removes a member if it is there; looks through all of them.
    pub fn remove(&mut self, slot: u32) {
        if let Some(position) = self.slots.iter().position(|s| *s == slot) {
            self.remove_at(position);
        }
    }

    /// Removes the member at a position that is taken.
    fn remove_at(&mut self, position: usize) {
        self.slots[position] = HOLE;
        self.holes += 1;
        self.first_hole = self.first_hole.min(position as u32);
        while self.slots.last() == Some(&HOLE) {
            self.slots.pop();
            self.holes -= 1;
        }
    }

    /// Moves the members into larger storage; returns the old one for the management thread to free.
    pub fn grow(&mut self, mut storage: Vec<u32>) -> Vec<u32> {
        if storage.capacity() > self.slots.capacity() {
            storage.clear();
            storage.extend_from_slice(&self.slots);
            std::mem::swap(&mut self.slots, &mut storage);
        }
        storage
    }

    /// Storage held, in members.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}

/// The list of one source at one worker.
#[derive(Debug, Default)]
pub struct List {
    /// Egress streams.
    pub members: Members,
    /// Virtual sources that may carry this source now.
    pub attached: Members,
    /// At the worker its packets arrive at: workers with receivers, one bit each.
    pub workers: u64,
    /// For a virtual source: what it carries.
    pub inputs: Staged<Inputs>,
    /// For an ingress stream: which source number a key frame was asked of last, and when.
    pub(super) asked: Option<(u32, Nanos)>,
    /// Video packets waiting: first and last cursor.
    pub(super) queue: Option<(u32, u32)>,
}

/// Time between two requests for a key frame of one source.
const ASK_AGAIN: Nanos = Nanos::from_millis(100);

impl List {
    /// Whether a key frame of the source is to be asked for now.
    pub(super) fn ask(&mut self, source: u32, now: Nanos) -> bool {
        let due = self.asked.is_none_or(|(of, at)| of != source || now.since(at) >= ASK_AGAIN);
        if due {
            self.asked = Some((source, now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_and_holes_are_reused() {
        let mut members = Members::default();
        for slot in 0..5 {
            members.add(slot);
        }
        members.remove(2);
        assert_eq!((members.positions(), members.at(2), members.at(3)), (5, None, Some(3)));
        members.add(9);
        assert_eq!(members.at(2), Some(9));
        for slot in [4, 3, 9] {
            members.remove(slot);
        }
        assert_eq!(members.positions(), 2);
        members.remove(77);
        let old = members.grow(Vec::with_capacity(64));
        assert!(old.capacity() < 64 && members.capacity() >= 64);
        assert_eq!((members.at(0), members.at(1)), (Some(0), Some(1)));
    }

    #[test]
    fn a_stream_is_found_in_both_of_its_lists() {
        let (mut places, mut lists) = (Places::new(8), [Members::default(), Members::default()]);
        for slot in 0..6 {
            places.add(slot, &mut lists[usize::from(slot > 3)]);
        }
        // A commit moves two streams: in both lists until it is swept.
        for slot in [2, 3] {
            places.add(slot, &mut lists[1]);
        }
        assert_eq!([lists[0].slots(), lists[1].slots()], [&[0, 1, 2, 3][..], &[4, 5, 2, 3]]);
        for slot in [2, 3] {
            places.remove(slot, &mut lists[0]);
        }
        assert_eq!([lists[0].slots(), lists[1].slots()], [&[0, 1][..], &[4, 5, 2, 3]]);
        // And back, at a hole.
        places.remove(0, &mut lists[0]);
        places.add(2, &mut lists[0]);
        places.remove(2, &mut lists[1]);
        places.remove(7, &mut lists[1]);
        assert_eq!([lists[0].slots(), lists[1].slots()], [&[2, 1][..], &[4, 5, HOLE, 3]]);
        assert_eq!(lists[1].add(6), 2);
    }
}
