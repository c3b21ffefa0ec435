//! Slot numbers: handed out lowest first, taken back, never grown.

/// A pool of slots.
#[derive(Debug)]
pub struct Pool {
    free: Vec<u32>,
    size: u32,
}

impl Pool {
    /// Slots 0 to `size` - 1, all free.
    pub fn new(size: usize) -> Self {
        Pool { free: (0..size as u32).rev().collect(), size: size as u32 }
    }

    /// A free slot.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes a slot back.
    pub fn give(&mut self, slot: u32) {
        debug_assert!(slot < self.size);
        self.free.push(slot);
    }

    /// Free slots.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.size as usize - self.free.len()
    }

    /// All slots.
    pub fn size(&self) -> usize {
        self.size as usize
    }
}
