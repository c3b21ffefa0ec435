//! Frame memory of the ports that bring their own, and the count of handles that are out. Never knows what a
//! frame holds.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::frame::{FRAMES_AHEAD, prefetch_frame};

/// Bytes of one frame. The largest frame the engine makes (1,500 bytes of IP, Ethernet and one tag) fits with
/// room for a receive header in front.
pub const FRAME_SIZE: usize = 2048;

/// A block of equal frames, each [`FRAME_SIZE`] bytes and aligned to a cache line.
///
/// The arena hands out bare pointers; which code may touch which frame is decided by the handles of the port
/// that owns it.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    frames: u32,
}

// SAFETY: the arena itself never reads or writes its memory; access is ordered by whoever passes frame numbers
// between threads.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` only computes addresses.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates `frames` zeroed frames (at least one).
    pub fn new(frames: u32) -> Self {
        let frames = frames.max(1);
        let layout = Self::layout(frames);
        // SAFETY: the layout is never empty.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Arena { base, frames }
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The first byte of frame `index`.
    ///
    /// # Panics
    /// If `index` is not below [`frames`](Self::frames); that would be an error of the port.
    #[inline]
    pub fn frame(&self, index: u32) -> NonNull<u8> {
        assert!(index < self.frames, "frame {index} of {}", self.frames);
        // SAFETY: the index was checked, so the address lies inside the allocation.
        unsafe { self.base.add(index as usize * FRAME_SIZE) }
    }

    /// As [`frame`](Self::frame), where the index is one that this arena's port made.
    ///
    /// # Safety
    /// `index` must be below [`frames`](Self::frames).
    #[inline(always)]
    pub(crate) unsafe fn frame_unchecked(&self, index: u32) -> NonNull<u8> {
        debug_assert!(index < self.frames);
        // SAFETY: the caller promises that the address lies inside the allocation.
        unsafe { self.base.add(index as usize * FRAME_SIZE) }
    }

    /// Fetches the start of a frame that is written soon; any number is allowed.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u32) {
        prefetch_frame(self.base.as_ptr().wrapping_add(index as usize * FRAME_SIZE));
    }

    fn layout(frames: u32) -> Layout {
        Layout::from_size_align(frames as usize * FRAME_SIZE, 4096)
            .expect("a u32 count of 2 KiB fits the address space")
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout and never freed elsewhere.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.frames)) }
    }
}

/// Handles of one port that are out: the difference between what it handed out and what came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Received frames not yet released.
    pub rx: u32,
    /// Transmit frames neither submitted nor cancelled.
    pub tx: u32,
}

impl Ledger {
    /// Whether every handle came back.
    pub fn is_settled(&self) -> bool {
        *self == Ledger::default()
    }
}

/// A ring of frame numbers: first in, first out, so that frames are reused in the order a NIC would.
#[derive(Debug)]
pub(crate) struct FreeRing {
    /// A power of two of them, and what masks a position.
    slots: Box<[u32]>,
    mask: u32,
    /// Numbers taken out and put in so far, modulo 2^32.
    head: u32,
    tail: u32,
}

impl FreeRing {
    /// A ring with room for `capacity` numbers, holding those below `filled`.
    pub(crate) fn new(capacity: u32, filled: u32) -> Self {
        let size = capacity.max(1).next_power_of_two();
        FreeRing { slots: (0..size).collect(), mask: size - 1, head: 0, tail: filled.min(size) }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        if self.head == self.tail {
            return None;
        }
        let at = (self.head & self.mask) as usize;
        self.head = self.head.wrapping_add(1);
        // SAFETY: masked by the length, which is a power of two.
        Some(unsafe { *self.slots.get_unchecked(at) })
    }

    /// The number that comes a few turns after the next one, or one that came before if there are not so many: a hint.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> u32 {
        let at = (self.head.wrapping_add(FRAMES_AHEAD) & self.mask) as usize;
        // SAFETY: masked by the length, which is a power of two.
        unsafe { *self.slots.get_unchecked(at) }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, value: u32) {
        debug_assert!(self.len() < self.slots.len(), "more frames came back than exist");
        let at = (self.tail & self.mask) as usize;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: masked by the length, which is a power of two.
        unsafe { *self.slots.get_unchecked_mut(at) = value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_aligned_and_apart() {
        let arena = Arena::new(3);
        let first = arena.frame(0).as_ptr() as usize;
        assert_eq!(first % 64, 0);
        assert_eq!(arena.frame(2).as_ptr() as usize - first, 2 * FRAME_SIZE);
    }

    #[test]
    #[should_panic(expected = "frame 3 of 3")]
    fn a_frame_past_the_end_is_refused() {
        let _ = Arena::new(3).frame(3);
    }

    #[test]
    fn the_ring_keeps_order_over_many_turns() {
        let mut ring = FreeRing::new(5, 5);
        let mut expected = 0;
        for _ in 0..1000 {
            let number = ring.pop().unwrap();
            assert_eq!(number, expected);
            expected = (expected + 1) % 5;
            ring.push(number);
        }
        while ring.pop().is_some() {}
        assert_eq!(ring.len(), 0);
    }
}
