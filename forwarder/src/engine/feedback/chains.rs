//! The streams of each leg, as chains through the streams' slots: nothing is allocated after start.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    leg: u32,
    next: u32,
    before: u32,
}

/// Slots by leg.
#[derive(Debug)]
pub(super) struct Chains {
    first: Vec<u32>,
    links: Vec<Link>,
}

impl Chains {
    pub(super) fn new(legs: usize, slots: usize) -> Self {
        Chains { first: vec![NONE; legs], links: vec![Link { leg: NONE, next: NONE, before: NONE }; slots] }
    }

    /// Adds a slot to a leg; `false` if it is there already.
    pub(super) fn add(&mut self, leg: u32, slot: u32) -> bool {
        if self.links[slot as usize].leg == leg {
            return false;
        }
        self.remove(slot);
        let first = std::mem::replace(&mut self.first[leg as usize], slot);
        self.links[slot as usize] = Link { leg, next: first, before: NONE };
        if let Some(link) = self.links.get_mut(first as usize) {
            link.before = slot;
        }
        true
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Link { leg, next, before } = self.links[slot as usize];
        if leg == NONE {
            return;
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.before = before;
        }
        match self.links.get_mut(before as usize) {
            Some(link) => link.next = next,
            None => self.first[leg as usize] = next,
        }
        self.links[slot as usize] = Link { leg: NONE, next: NONE, before: NONE };
    }

    /// The first slot of a leg.
    pub(super) fn first(&self, leg: u32) -> Option<u32> {
        Some(self.first[leg as usize]).filter(|slot| *slot != NONE)
    }

    /// The slot after one of a leg's.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        Some(self.links[slot as usize].next).filter(|slot| *slot != NONE)
    }

    /// The slots of a leg, newest first.
    pub(super) fn iter(&self, leg: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.first(leg), |slot| self.after(*slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_sets() {
        let mut chains = Chains::new(2, 8);
        for slot in 0..6 {
            assert!(chains.add(slot % 2, slot));
        }
        assert!(!chains.add(0, 4));
        chains.remove(2);
        chains.remove(2);
        chains.add(1, 0); // moves
        chains.remove(5);
        assert_eq!(chains.iter(0).collect::<Vec<_>>(), [4]);
        assert_eq!(chains.iter(1).collect::<Vec<_>>(), [0, 3, 1]);
    }
}
