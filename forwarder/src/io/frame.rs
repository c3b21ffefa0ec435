//! Handles to frame memory. A handle is the only way to a frame and is never cloned, so a frame has one
//! owner at a time: kernel, port, or the code holding the handle.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::TX_CAPACITY;

/// A received frame: the bytes from the Ethernet header on.
#[derive(Debug)]
#[must_use = "a received frame must go back to its port"]
pub struct RxFrame {
    data: NonNull<u8>,
    len: u32,
    token: u64,
}

impl RxFrame {
    /// Wraps `len` bytes at `data`; `token` tells the port which frame this is.
    ///
    /// # Safety
    /// The bytes must stay valid, unwritten and reachable through no other handle until the port takes the
    /// frame back. A port that is dropped while handles are out must leak the memory.
    pub unsafe fn from_raw(data: NonNull<u8>, len: u32, token: u64) -> Self {
        RxFrame { data, len, token }
    }

    /// What the port gave when it made the handle.
    pub fn token(&self) -> u64 {
        self.token
    }
}

impl Deref for RxFrame {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `from_raw` promises `len` readable bytes for the life of the handle.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }
}

/// How many frames ahead of the one handed out a port fetches. Frames are many and used in turn, so they are in no cache
/// of the first level, and what is written into one would wait for its lines.
pub(crate) const FRAMES_AHEAD: u32 = 6;

/// Fetches the start of a frame that is handed out soon: headers and an audio packet's payload. Any address is
/// allowed.
#[inline(always)]
pub(crate) fn prefetch_frame(data: *const u8) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..4 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.wrapping_add(line * 64).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// A transmit frame: room for one Ethernet frame of up to [`TX_CAPACITY`] bytes.
#[derive(Debug)]
#[must_use = "a transmit frame must be submitted or cancelled"]
pub struct TxFrame {
    data: NonNull<u8>,
    number: u32,
}

impl TxFrame {
    /// Wraps the [`TX_CAPACITY`] bytes at `data`; `number` tells the port which frame this is.
    ///
    /// # Safety
    /// As for [`RxFrame::from_raw`], with the bytes writable.
    #[inline(always)]
    pub unsafe fn from_raw(data: NonNull<u8>, number: u32) -> Self {
        TxFrame { data, number }
    }

    /// Takes a handle apart, for [`from_raw`](Self::from_raw) to put together again.
    #[inline(always)]
    pub fn into_raw(self) -> (NonNull<u8>, u32) {
        (self.data, self.number)
    }

    /// What the port gave when it made the handle.
    #[inline(always)]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Deref for TxFrame {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `from_raw` promises that many readable bytes for the life of the handle.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), TX_CAPACITY) }
    }
}

impl DerefMut for TxFrame {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `from_raw` promises that many writable bytes reached through this handle only.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), TX_CAPACITY) }
    }
}
