//! A row with two versions: the one in force and the one a commit is preparing. A commit takes effect for every
//! row of a worker at once, when the worker's generation reaches the one they were staged for.

use std::cell::Cell;

/// A worker's table generation. Grows by one per commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    /// No worker gets there.
    pub(super) const NEVER: Generation = Generation(u64::MAX);
}

/// Two versions of a row. Reading picks the right one; nothing is moved or freed by it.
#[derive(Debug)]
pub struct Staged<T> {
    versions: [Option<T>; 2],
    current: Cell<u8>,
    switch_at: Cell<Generation>,
}

impl<T> Default for Staged<T> {
    fn default() -> Self {
        Staged { versions: [None, None], current: Cell::new(0), switch_at: Cell::new(Generation::NEVER) }
    }
}

impl<T> Staged<T> {
    /// The version in force at `now`.
    #[inline(always)]
    pub fn get(&self, now: Generation) -> Option<&T> {
        if self.switch_at.get() <= now {
            self.current.set(self.current.get() ^ 1);
            self.switch_at.set(Generation::NEVER);
        }
        self.versions[usize::from(self.current.get() & 1)].as_ref()
    }

    /// Prepares the version for `at`, which must lie ahead of `now`; returns what stood in its place.
    pub fn stage(&mut self, now: Generation, at: Generation, next: Option<T>) -> Option<T> {
        let _ = self.get(now);
        self.switch_at.set(at);
        std::mem::replace(&mut self.versions[usize::from((self.current.get() & 1) ^ 1)], next)
    }

    /// Makes `value` the version in force at once; for rows that belong to the worker alone.
    pub fn set(&mut self, value: T) {
        self.current.set(0);
        self.switch_at.set(Generation::NEVER);
        self.versions = [Some(value), None];
    }

    /// Takes out the version no longer in force; call after the switch.
    pub fn sweep(&mut self, now: Generation) -> Option<T> {
        let _ = self.get(now);
        if self.switch_at.get() != Generation::NEVER {
            return None; // still staged
        }
        self.versions[usize::from((self.current.get() & 1) ^ 1)].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_at_its_generation_and_not_before() {
        let mut row = Staged::default();
        let (g0, g1, g2) = (Generation(0), Generation(1), Generation(2));
        assert_eq!(row.get(g0), None);
        assert_eq!(row.stage(g0, g1, Some("a")), None);
        assert_eq!(row.get(g0), None);
        assert_eq!(row.sweep(g0), None);
        assert_eq!(row.get(g1), Some(&"a"));
        row.stage(g1, g2, Some("b"));
        assert_eq!(row.get(g1), Some(&"a"));
        assert_eq!(row.get(g2), Some(&"b"));
        assert_eq!(row.sweep(g2), Some("a"));
        assert_eq!(row.sweep(g2), None);
        row.stage(g2, Generation(3), None);
        assert_eq!(row.get(g2), Some(&"b"));
        assert_eq!(row.get(Generation(5)), None);
        assert_eq!(row.sweep(Generation(5)), Some("b"));
    }

    #[test]
    fn staging_twice_returns_the_unused_version() {
        let mut row = Staged::default();
        row.stage(Generation(0), Generation(1), Some(1));
        assert_eq!(row.stage(Generation(0), Generation(1), Some(2)), Some(1));
        assert_eq!(row.get(Generation(1)), Some(&2));
    }
}
