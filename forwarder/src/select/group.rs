//! One group: slots, candidates, and the rules by which a candidate gets a slot. Never switches anything itself.

use std::collections::BTreeMap;

use super::SILENT;
use crate::engine::Nanos;

/// A challenger must be louder than a slot's owner by this many decibels,
pub const LOUDER_BY: u8 = 6;
/// for this long;
pub const LOUDER_FOR: Nanos = Nanos::from_millis(60);
/// and an owner keeps its slot for at least this long.
pub const KEEPS_FOR: Nanos = Nanos::from_millis(300);
/// An owner that is silent for this long gives its slot back.
pub const SILENT_FOR: Nanos = Nanos::from_millis(1_000);
/// An owner that sends nothing for this long gives its slot back.
pub const GONE_AFTER: Nanos = Nanos::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Candidate {
    level: u8,
    heard: Nanos,
    /// When it was last loud.
    loud: Nanos,
    /// Since when it has been louder than the quietest owner by enough.
    louder: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Slot<C> {
    owner: C,
    since: Nanos,
}

/// Slots `S` that candidates `C` compete for.
#[derive(Clone, Debug)]
pub struct Group<S, C> {
    slots: BTreeMap<S, Option<Slot<C>>>,
    /// Candidates heard of; one that holds no slot is forgotten once it is silent or gone.
    candidates: BTreeMap<C, Candidate>,
}

impl<S, C> Default for Group<S, C> {
    fn default() -> Self {
        Group { slots: BTreeMap::new(), candidates: BTreeMap::new() }
    }
}

impl<S: Ord + Clone, C: Ord + Clone> Group<S, C> {
    /// Adds a slot; one that is there already keeps its owner.
    pub fn add_slot(&mut self, slot: S) {
        self.slots.entry(slot).or_insert(None);
    }

    /// Removes a slot.
    pub fn remove_slot(&mut self, slot: &S) {
        self.slots.remove(slot);
    }

    /// Removes a candidate; what it held is free at once and not a change to carry out, because the stream is gone.
    pub fn remove(&mut self, candidate: &C) {
        self.candidates.remove(candidate);
        for held in self.slots.values_mut().filter(|held| held.as_ref().is_some_and(|h| h.owner == *candidate)) {
            *held = None;
        }
    }

    /// Who holds a slot.
    pub fn owner(&self, slot: &S) -> Option<&C> {
        self.slots.get(slot)?.as_ref().map(|held| &held.owner)
    }

    /// Whether there is neither slot nor candidate.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.candidates.is_empty()
    }

    /// Whether nothing can change before the next report.
    pub fn is_idle(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Takes a report of a candidate's smoothed level in.
    pub fn report(&mut self, candidate: C, level: u8, now: Nanos) {
        if level >= SILENT && !self.candidates.contains_key(&candidate) {
            return;
        }
        let entry = self.candidates.entry(candidate);
        let entry = entry.or_insert(Candidate { level, heard: now, loud: now, louder: None });
        (entry.level, entry.heard) = (level, now);
        if level < SILENT {
            entry.loud = now;
        }
    }

    /// Gives every slot its owner of now; returns the slots whose owner changed.
    pub fn tick(&mut self, now: Nanos) -> Vec<(S, Option<C>)> {
        let before: BTreeMap<S, Option<C>> =
            self.slots.iter().map(|(slot, held)| (slot.clone(), held.as_ref().map(|h| h.owner.clone()))).collect();
        self.candidates
            .retain(|_, c| now.since(c.heard) < GONE_AFTER && (c.level < SILENT || now.since(c.loud) < SILENT_FOR));
        for held in self.slots.values_mut() {
            if held.as_ref().is_some_and(|h| !self.candidates.contains_key(&h.owner)) {
                *held = None;
            }
        }
        while let Some(candidate) = self.loudest_waiting() {
            if let Some(free) = self.slots.values_mut().find(|held| held.is_none()) {
                *free = Some(Slot { owner: candidate, since: now });
            } else if !self.challenge(now) {
                break;
            }
        }
        let changed = |(slot, was): (S, Option<C>)| {
            let is = self.owner(&slot).cloned();
            (is != was).then_some((slot, is))
        };
        before.into_iter().filter_map(changed).collect()
    }

    fn holds(&self, candidate: &C) -> bool {
        self.slots.values().flatten().any(|held| held.owner == *candidate)
    }

    /// The loudest candidate that is not silent and holds no slot.
    fn loudest_waiting(&self) -> Option<C> {
        let waiting = self.candidates.iter().filter(|(name, c)| c.level < SILENT && !self.holds(name));
        waiting.min_by_key(|(_, c)| c.level).map(|(name, _)| name.clone())
    }

    /// Lets waiting candidates challenge the quietest owner; whether one of them took its slot.
    fn challenge(&mut self, now: Nanos) -> bool {
        let level = |owner: &C| self.candidates.get(owner).map_or(u8::MAX, |c| c.level);
        let owners = self.slots.iter().filter_map(|(slot, held)| held.as_ref().map(|held| (slot, held)));
        let Some((slot, held)) = owners.max_by_key(|(_, held)| level(&held.owner)) else { return false };
        let (quietest, kept, slot) = (level(&held.owner), now.since(held.since) >= KEEPS_FOR, slot.clone());
        let owners: Vec<C> = self.slots.values().flatten().map(|held| held.owner.clone()).collect();
        let mut best: Option<(u8, C)> = None;
        for (name, candidate) in &mut self.candidates {
            let louder = candidate.level < SILENT
                && !owners.contains(name)
                && candidate.level.saturating_add(LOUDER_BY) <= quietest;
            candidate.louder = louder.then(|| candidate.louder.unwrap_or(now));
            let ready = candidate.louder.is_some_and(|since| now.since(since) >= LOUDER_FOR);
            if ready && best.as_ref().is_none_or(|(level, _)| candidate.level < *level) {
                best = Some((candidate.level, name.clone()));
            }
        }
        let Some((_, winner)) = best.filter(|_| kept) else { return false };
        if let Some(candidate) = self.candidates.get_mut(&winner) {
            candidate.louder = None;
        }
        self.slots.insert(slot, Some(Slot { owner: winner, since: now }));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(10_000 + ms)
    }

    fn group(slots: u8) -> Group<u8, u32> {
        let mut group = Group::default();
        (0..slots).for_each(|slot| group.add_slot(slot));
        group
    }

    #[test]
    fn a_free_slot_is_taken_at_once_and_given_back_after_silence_or_absence() {
        let mut group = group(2);
        group.report(1, 127, at(0));
        assert_eq!(group.tick(at(0)), []);
        group.report(1, 80, at(20));
        assert_eq!(group.tick(at(20)), [(0, Some(1))]);
        group.report(2, 90, at(21));
        assert_eq!(group.tick(at(25)), [(1, Some(2))]);
        // 1 goes silent but is there, 2 stops.
        let mut changes = Vec::new();
        for ms in (40..1_500).step_by(5) {
            if ms % 100 == 0 {
                group.report(1, 127, at(ms));
            }
            changes.extend(group.tick(at(ms)).into_iter().map(|change| (ms, change)));
        }
        assert_eq!(changes, [(525, (1, None)), (1_020, (0, None))]);
        assert!(group.is_idle());
    }

    #[test]
    fn taking_a_slot_needs_six_decibels_for_a_while() {
        let mut group = group(1);
        let mut changes = Vec::new();
        for ms in (0..2_000).step_by(10) {
            group.report(1, 50, at(ms));
            // 5 dB louder for a second, then 6; before that a cough of 30 ms.
            let level = if ms >= 1_000 {
                44
            } else if (500..530).contains(&ms) {
                20
            } else {
                45
            };
            group.report(2, level, at(ms));
            changes.extend(group.tick(at(ms)).into_iter().map(|change| (ms, change)));
        }
        assert_eq!(changes, [(0, (0, Some(2)))], "the louder one has the slot already");
        let mut group = Group::<u8, u32>::default();
        group.add_slot(0);
        group.report(1, 50, at(0));
        let mut changes = vec![(0, group.tick(at(0)))];
        for ms in (10..2_000).step_by(10) {
            group.report(1, 50, at(ms));
            let level = if ms >= 1_000 {
                44
            } else if (500..530).contains(&ms) {
                20
            } else {
                45
            };
            group.report(2, level, at(ms));
            let changed = group.tick(at(ms));
            if !changed.is_empty() {
                changes.push((ms, changed));
            }
        }
        assert_eq!(changes, [(0, vec![(0, Some(1))]), (1_060, vec![(0, Some(2))])]);
    }

    #[test]
    fn an_owner_keeps_its_slot_for_a_while() {
        let mut group = group(1);
        group.report(1, 90, at(0));
        group.tick(at(0));
        let mut changes = Vec::new();
        for ms in (5..600).step_by(5) {
            group.report(1, 90, at(ms));
            group.report(2, 10, at(ms));
            changes.extend(group.tick(at(ms)).into_iter().map(|change| (ms, change)));
        }
        assert_eq!(changes, [(300, (0, Some(2)))]);
    }

    #[test]
    fn who_is_removed_leaves_at_once() {
        let mut group = group(1);
        group.report(1, 30, at(0));
        group.report(2, 40, at(0));
        assert_eq!(group.tick(at(0)), [(0, Some(1))]);
        group.remove(&1);
        assert_eq!(group.owner(&0), None);
        assert_eq!(group.tick(at(1)), [(0, Some(2))]);
        group.remove_slot(&0);
        assert_eq!(group.tick(at(2)), []);
    }

    proptest! {
        /// Over random talk: nobody holds two slots, slots are not left empty while somebody loud waits, owners are
        /// not thrown out early, and what `tick` says is what changed.
        #[test]
        fn holds(talk in proptest::collection::vec((0u32..8, 20u8..128, 0u64..60), 1..400)) {
            let mut group = group(3);
            let mut seen: BTreeMap<u8, Option<u32>> = (0..3).map(|slot| (slot, None)).collect();
            let mut since: BTreeMap<u8, u64> = BTreeMap::new();
            let mut heard: BTreeMap<u32, (u64, u8)> = BTreeMap::new();
            let mut now = 0;
            for (who, level, wait) in talk {
                group.report(who, level, at(now));
                heard.insert(who, (now, level));
                for (slot, owner) in group.tick(at(now)) {
                    if let (Some(from), Some(_)) = (seen[&slot], owner) {
                        let (last, level) = heard[&from];
                        let left = now - last >= 500 || level >= SILENT;
                        prop_assert!(left || now - since[&slot] >= 300, "{from} lost {slot} at {now}");
                    }
                    seen.insert(slot, owner);
                    since.insert(slot, now);
                }
                let owners: Vec<u32> = seen.values().flatten().copied().collect();
                let distinct: std::collections::BTreeSet<u32> = owners.iter().copied().collect();
                prop_assert_eq!(owners.len(), distinct.len());
                for (slot, owner) in &seen {
                    prop_assert_eq!(group.owner(slot).copied(), *owner);
                }
                let waiting = heard.iter().any(|(name, (last, level))| {
                    now - last < 500 && *level < SILENT && !owners.contains(name)
                });
                prop_assert!(!waiting || owners.len() == 3);
                prop_assert!(owners.iter().all(|owner| now - heard[owner].0 < 500));
                now += wait;
            }
        }
    }
}
