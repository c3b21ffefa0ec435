//! Packet indexes that outlive the process: one row per (key, SSRC) and direction, stored before a packet is
//! sealed. Rows live in memory the caller provides (a shared mapping on tmpfs in production); no keys, only
//! their one-way ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One row. Written by the worker that owns the stream, read by the management thread.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct IndexRow {
    /// One-way id of the key; zero in a free row.
    pub key: [AtomicU64; 2],
    /// SSRC in the lower half; direction and generation flags above.
    pub tag: AtomicU64,
    /// Send: the lowest index never used. Receive: one past the highest index accepted.
    pub next: AtomicU64,
    /// Send: last timestamp in the upper half, milliseconds of the monotonic clock in the lower.
    pub timing: AtomicU64,
    /// SRTCP: the lowest index never used (send), one past the highest accepted (receive).
    pub rtcp_next: AtomicU64,
    reserved: [AtomicU64; 2],
}

/// A handle to a row that keeps its memory alive.
#[derive(Clone)]
pub struct IndexHandle {
    memory: Arc<dyn IndexMemory>,
    row: u32,
}

/// Memory that holds rows.
pub trait IndexMemory: Send + Sync {
    /// The rows; always the same slice.
    fn rows(&self) -> &[IndexRow];
}

impl IndexMemory for Box<[IndexRow]> {
    fn rows(&self) -> &[IndexRow] {
        self
    }
}

impl std::fmt::Debug for IndexHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexHandle({})", self.row)
    }
}

impl IndexHandle {
    /// A handle to row `row`; `None` past the end.
    pub fn new(memory: Arc<dyn IndexMemory>, row: u32) -> Option<Self> {
        memory.rows().get(row as usize)?;
        Some(IndexHandle { memory, row })
    }

    /// A row of its own, for tests and benches.
    pub fn detached() -> Self {
        let rows: Box<[IndexRow]> = Box::new([IndexRow::default()]);
        IndexHandle { memory: Arc::new(rows), row: 0 }
    }

    /// Which row this is.
    pub fn row(&self) -> u32 {
        self.row
    }

    fn get(&self) -> &IndexRow {
        &self.memory.rows()[self.row as usize]
    }

    /// A pointer-sized view for the worker.
    pub fn pin(&self) -> PinnedRow {
        PinnedRow { row: std::ptr::from_ref(self.get()), _memory: self.memory.clone() }
    }

    /// The stored next index.
    pub fn next(&self) -> u64 {
        self.get().next.load(Ordering::Acquire)
    }

    /// The stored (timestamp, monotonic milliseconds), if any was stored.
    pub fn timing(&self) -> Option<(u32, u32)> {
        match self.get().timing.load(Ordering::Acquire) {
            0 => None,
            v => Some(((v >> 32) as u32, v as u32)),
        }
    }
}

/// A row as the worker holds it: one load away.
#[derive(Clone)]
pub struct PinnedRow {
    row: *const IndexRow,
    _memory: Arc<dyn IndexMemory>,
}

impl std::fmt::Debug for PinnedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinnedRow")
    }
}

// SAFETY: the row consists of atomics and lives as long as the memory handle beside it.
unsafe impl Send for PinnedRow {}

impl PinnedRow {
    #[inline(always)]
    fn get(&self) -> &IndexRow {
        // SAFETY: the row lies in the memory that `_memory` keeps alive, and `rows()` never moves.
        unsafe { &*self.row }
    }

    /// Stores the lowest index never used, before the one below it is sealed.
    #[inline(always)]
    pub fn store_next(&self, next: u64) {
        self.get().next.store(next, Ordering::Release);
    }

    /// Stores when (in milliseconds) which timestamp was sent.
    #[inline(always)]
    pub fn store_timing(&self, timestamp: u32, ms: u32) {
        // Zero means "never stored"; the clock's low bit gives way.
        let value = (u64::from(timestamp) << 32) | u64::from(ms | 1);
        self.get().timing.store(value, Ordering::Relaxed);
    }

    /// Stores the next SRTCP index, before the one below it is sealed.
    pub fn store_rtcp_next(&self, next: u64) {
        self.get().rtcp_next.store(next, Ordering::Release);
    }
}
