//! A fixed-capacity hash map for lookups per packet: open addressing, a keyed hash against chosen collisions,
//! no allocation after it was made.

/// Something that can be a key: two words that identify it.
pub trait Key: Copy + Eq {
    /// The key as words; equal keys give equal words.
    fn words(self) -> [u64; 3];
}

/// The map. Holds at most the capacity it was made with.
#[derive(Debug)]
pub struct FlatMap<K, V> {
    slots: Vec<Option<(K, V)>>,
    mask: usize,
    len: usize,
    capacity: usize,
    seed: [u64; 2],
}

/// The map is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<K: Key, V: Copy> FlatMap<K, V> {
    /// A map for `capacity` entries; `seed` should be unpredictable to whoever chooses keys.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let size = (capacity.max(4) * 2).next_power_of_two();
        let mut slots = Vec::with_capacity(size);
        slots.resize_with(size, || None);
        FlatMap { slots, mask: size - 1, len: 0, capacity, seed: [seed[0] | 1, seed[1]] }
    }

    /// Multiply-fold over the words: full 128-bit products keep every input bit in play.
    #[inline(always)]
    fn bucket(&self, key: K) -> usize {
        let fold = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            (wide as u64) ^ ((wide >> 64) as u64)
        };
        let [a, b, c] = key.words();
        let mixed = fold(a ^ self.seed[0], b ^ self.seed[1] ^ 0x9e37_79b9_7f4a_7c15);
        fold(mixed ^ c, self.seed[0]) as usize & self.mask
    }

    #[inline(always)]
    fn find(&self, key: K) -> Result<usize, usize> {
        let mut at = self.bucket(key);
        loop {
            match &self.slots[at] {
                Some((k, _)) if *k == key => return Ok(at),
                None => return Err(at),
                Some(_) => at = (at + 1) & self.mask,
            }
        }
    }

    /// The value under `key`.
    #[inline(always)]
    pub fn get(&self, key: K) -> Option<V> {
        self.find(key).ok().and_then(|at| self.slots[at].as_ref().map(|(_, v)| *v))
    }

    /// The value under `key`, to change.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.slots[at].as_mut().map(|(_, v)| v)
    }

    /// Adds or replaces.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), Full> {
        match self.find(key) {
            Ok(at) => self.slots[at] = Some((key, value)),
            Err(_) if self.len == self.capacity => return Err(Full),
            Err(at) => {
                self.slots[at] = Some((key, value));
                self.len += 1;
            }
        }
        Ok(())
    }

    /// Removes, closing the gap so that later keys of the same run stay reachable.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let mut hole = self.find(key).ok()?;
        let removed = self.slots[hole].take();
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let Some((k, _)) = &self.slots[at] else { break };
            let home = self.bucket(*k);
            // Move back unless its home lies between the hole (exclusive) and its place.
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                self.slots[hole] = self.slots[at].take();
                hole = at;
            }
        }
        removed.map(|(_, v)| v)
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Key for u32 {
        fn words(self) -> [u64; 3] {
            [u64::from(self), 0, 0]
        }
    }

    #[test]
    fn behaves_like_a_hash_map_over_random_operations() {
        let mut ours = FlatMap::new(64, [3, 5]);
        let mut model: HashMap<u32, u32> = HashMap::new();
        let mut state = 7u64;
        for step in 0..200_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (state >> 33) as u32 % 100;
            match (state >> 60) & 3 {
                0 | 1 => {
                    let fits = model.len() < 64 || model.contains_key(&key);
                    assert_eq!(ours.insert(key, step).is_ok(), fits);
                    if fits {
                        model.insert(key, step);
                    }
                }
                2 => assert_eq!(ours.remove(key), model.remove(&key)),
                _ => assert_eq!(ours.get(key), model.get(&key).copied()),
            }
            assert_eq!(ours.len(), model.len());
        }
        for key in 0..100 {
            assert_eq!(ours.get(key), model.get(&key).copied());
        }
    }
}
