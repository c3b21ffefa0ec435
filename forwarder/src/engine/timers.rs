//! One timer a slot, earliest first: a binary heap that knows where each slot is, so that setting, clearing and
//! firing cost O(log n) and nothing is allocated after start.

use super::time::Nanos;

const NOWHERE: u32 = u32::MAX;

/// Timers of slots 0 to `slots` - 1.
#[derive(Debug)]
pub struct Timers {
    heap: Vec<(Nanos, u32)>,
    /// Position in the heap by slot.
    place: Vec<u32>,
}

impl Timers {
    /// No timer set.
    pub fn new(slots: usize) -> Self {
        Timers { heap: Vec::with_capacity(slots), place: vec![NOWHERE; slots] }
    }

    /// Sets or moves a slot's timer.
    pub fn set(&mut self, slot: u32, at: Nanos) {
        let Some(place) = self.place.get(slot as usize).copied() else { return };
        let start = if place == NOWHERE {
            self.heap.push((at, slot));
            self.place[slot as usize] = (self.heap.len() - 1) as u32;
            self.heap.len() - 1
        } else {
            self.heap[place as usize].0 = at;
            place as usize
        };
        let up = self.rise(start);
        self.sink(up);
    }

    /// Unsets a slot's timer.
    pub fn clear(&mut self, slot: u32) {
        let Some(place) = self.place.get(slot as usize).copied().filter(|place| *place != NOWHERE) else { return };
        self.remove(place as usize);
    }

    /// When the next timer fires; [`Nanos::NEVER`] if none is set.
    pub fn next(&self) -> Nanos {
        self.heap.first().map_or(Nanos::NEVER, |(at, _)| *at)
    }

    /// Takes one slot whose timer is due.
    pub fn due(&mut self, now: Nanos) -> Option<u32> {
        let (at, slot) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(slot)
    }

    fn remove(&mut self, at: usize) {
        let (_, slot) = self.heap.swap_remove(at);
        self.place[slot as usize] = NOWHERE;
        if let Some((_, moved)) = self.heap.get(at) {
            self.place[*moved as usize] = at as u32;
            let up = self.rise(at);
            self.sink(up);
        }
    }

    fn rise(&mut self, mut at: usize) -> usize {
        while at > 0 && self.heap[at].0 < self.heap[(at - 1) / 2].0 {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        at
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2].into_iter().filter(|child| *child < self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child].0) else { return };
            if self.heap[at].0 <= self.heap[least].0 {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place[self.heap[a].1 as usize] = a as u32;
        self.place[self.heap[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is searched: the same slots fire in the same order of time.
        #[test]
        fn fires_like_a_sorted_list(work in proptest::collection::vec((0u32..24, 0u64..100, 0u8..5), 0..300)) {
            let mut timers = Timers::new(24);
            let mut model: Vec<Option<u64>> = vec![None; 24];
            let mut now = 0;
            for (slot, at, what) in work {
                match what {
                    0 => {
                        timers.clear(slot);
                        model[slot as usize] = None;
                    }
                    1 => {
                        now += at / 4;
                        while let Some(fired) = timers.due(Nanos(now)) {
                            let at = model[fired as usize].take();
                            prop_assert!(at.is_some_and(|at| at <= now));
                            prop_assert!(model.iter().flatten().all(|other| at.unwrap_or(0) <= *other));
                        }
                        prop_assert!(model.iter().flatten().all(|at| *at > now));
                    }
                    _ => {
                        timers.set(slot, Nanos(now + at));
                        model[slot as usize] = Some(now + at);
                    }
                }
                let next = model.iter().flatten().min().map_or(Nanos::NEVER, |at| Nanos(*at));
                prop_assert_eq!(timers.next(), next);
            }
        }
    }
}
