//! Packet indexes that outlive the process: one row per (key, SSRC) and direction, stored before a packet is
//! sealed. Rows live in memory the caller provides (a shared mapping on tmpfs in production); no keys, only
//! their one-way ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_srtp::srtcp::MAX_SRTCP_INDEX;
use sluice_srtp::{KeyId, PacketIndex, Ssrc};

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
    /// Send: last timestamp in the upper half, milliseconds of the monotonic clock in the lower. Receive, in the row
    /// of SSRC 0 that every key has: sender and next SRTCP index of one sender that is no listed stream.
    pub timing: AtomicU64,
    /// SRTCP: the lowest index never used (send), one past the highest accepted (receive).
    pub rtcp_next: AtomicU64,
    /// Order of last use by whoever manages rows; larger is later.
    pub stamp: AtomicU64,
    /// Receive: names the learn rule whose stream this is, 0 for a listed one and for one that its rule left for another.
    pub rule: AtomicU64,
}

/// Whether a row's indexes are of packets we seal or of packets we open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sealed here.
    Send,
    /// Opened here.
    Receive,
}

/// What a row is for: its `tag` word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTag(u64);

impl RowTag {
    const RECEIVE: u64 = 1 << 32;
    const MARKER: u64 = 1 << 33;
    const LOST: u64 = 1 << 34;
    const VALID: u64 = 1 << 63;

    /// Of a stream's row.
    pub fn stream(ssrc: Ssrc, direction: Direction) -> RowTag {
        let receive = if direction == Direction::Receive { Self::RECEIVE } else { 0 };
        RowTag(Self::VALID | receive | u64::from(ssrc.0))
    }

    /// Of a key's marker row; `lost` if a row of the key was given to another key.
    pub fn marker(lost: bool) -> RowTag {
        RowTag(Self::VALID | Self::MARKER | if lost { Self::LOST } else { 0 })
    }

    /// The tag in a word read from memory: `Ok(None)` for a row without one, `Err` for what was never written.
    pub fn read(word: u64) -> Result<Option<RowTag>, u64> {
        let tag = RowTag(word);
        let known = if tag.is_marker() {
            Self::VALID | Self::MARKER | Self::LOST
        } else {
            Self::VALID | Self::RECEIVE | u64::from(u32::MAX)
        };
        match word {
            0 => Ok(None),
            _ if word & Self::VALID == 0 || word & !known != 0 => Err(word),
            _ => Ok(Some(tag)),
        }
    }

    /// Whether the row marks a key instead of holding a stream's indexes.
    pub fn is_marker(self) -> bool {
        self.0 & Self::MARKER != 0
    }

    /// Whether a row of the marked key was given to another key.
    pub fn is_lost(self) -> bool {
        self.0 & Self::LOST != 0
    }

    /// The stream's SSRC; zero in a marker.
    pub fn ssrc(self) -> Ssrc {
        Ssrc(self.0 as u32)
    }

    /// The stream's direction.
    pub fn direction(self) -> Direction {
        if self.0 & Self::RECEIVE == 0 { Direction::Send } else { Direction::Receive }
    }
}

impl IndexRow {
    /// The row's key; `None` in a free row.
    pub fn key_id(&self) -> Option<KeyId> {
        let words = [0, 1].map(|at: usize| self.key[at].load(Ordering::Acquire));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&words[0].to_ne_bytes());
        id[8..].copy_from_slice(&words[1].to_ne_bytes());
        (words != [0, 0]).then_some(KeyId(id))
    }

    /// What the row is for, see [`RowTag::read`].
    pub fn read_tag(&self) -> Result<Option<RowTag>, u64> {
        RowTag::read(self.tag.load(Ordering::Acquire))
    }

    /// Gives a row to nobody. No worker may hold it.
    pub fn clear(&self) {
        // The tag goes first and comes last: a process killed in between leaves a free row, never half of one.
        self.tag.store(0, Ordering::SeqCst);
        for word in self.key.iter().chain([&self.next, &self.timing, &self.rtcp_next, &self.stamp, &self.rule]) {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// Gives a row to a key, with all indexes zero. No worker may hold it.
    pub fn claim(&self, key: KeyId, tag: RowTag, stamp: u64) {
        self.clear();
        let (low, high) = key.0.split_at(8);
        for (word, half) in self.key.iter().zip([low, high]) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(half);
            word.store(u64::from_ne_bytes(bytes), Ordering::SeqCst);
        }
        self.stamp.store(stamp, Ordering::SeqCst);
        self.tag.store(tag.0, Ordering::SeqCst);
    }

    /// Changes what the row is for and leaves its indexes alone.
    pub fn retag(&self, tag: RowTag) {
        self.tag.store(tag.0, Ordering::SeqCst);
    }

    /// Stores the lowest index never used, before the one below it is sealed.
    #[inline(always)]
    pub fn store_next(&self, next: u64) {
        self.next.store(next, Ordering::Release);
    }

    /// Stores when (in milliseconds) which timestamp was sent.
    #[inline(always)]
    pub fn store_timing(&self, timestamp: u32, ms: u32) {
        // Zero means "never stored"; the clock's low bit gives way.
        self.timing.store((u64::from(timestamp) << 32) | u64::from(ms | 1), Ordering::Relaxed);
    }

    /// Whether the indexes are ones that can have been stored: at most 2^48 and, for SRTCP, 2^31.
    pub fn indexes_plausible(&self) -> bool {
        self.next.load(Ordering::Acquire) <= PacketIndex::MAX.as_u64() + 1
            && self.rtcp_next.load(Ordering::Acquire) <= 1 << 31
    }
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

    /// The row itself.
    pub fn get(&self) -> &IndexRow {
        &self.memory.rows()[self.row as usize]
    }

    /// The stored next SRTCP index.
    pub fn rtcp_next(&self) -> u64 {
        self.get().rtcp_next.load(Ordering::Acquire)
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

    /// The row's address; valid while this handle lives.
    pub(super) fn as_ptr(&self) -> *const IndexRow {
        self.row
    }

    /// Stores one past the highest index received.
    #[inline(always)]
    pub fn store_next(&self, next: u64) {
        self.get().store_next(next);
    }

    /// The stored next index.
    pub fn next(&self) -> u64 {
        self.get().next.load(Ordering::Acquire)
    }

    /// Takes over what another row holds, where that is further.
    pub fn take_over(&self, other: &PinnedRow) {
        let (row, other) = (self.get(), other.get());
        row.next.fetch_max(other.next.load(Ordering::Acquire), Ordering::AcqRel);
        row.rtcp_next.fetch_max(other.rtcp_next.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// Makes a row fresh that belongs to no key.
    pub(super) fn clear(&self) {
        self.get().clear();
    }

    /// The stored next SRTCP index.
    pub fn rtcp_next(&self) -> u64 {
        self.get().rtcp_next.load(Ordering::Acquire)
    }

    /// The SRTCP index for the next packet of the key, stored as used before it is given out; `None` when all 2^31
    /// are used. Safe with several users of the row.
    pub fn take_rtcp_index(&self) -> Option<u32> {
        let unused = |next: u64| (next <= u64::from(MAX_SRTCP_INDEX)).then_some(next + 1);
        let taken = self.get().rtcp_next.fetch_update(Ordering::AcqRel, Ordering::Acquire, unused);
        taken.ok().map(|index| index as u32)
    }

    /// In a key's own receive row: the sender that is no listed stream, and one past its highest SRTCP index.
    pub fn unlisted(&self) -> Option<(Ssrc, u32)> {
        match self.get().timing.load(Ordering::Acquire) {
            0 => None,
            word => Some((Ssrc((word >> 32) as u32), word as u32)),
        }
    }

    /// Stores what [`unlisted`](Self::unlisted) gives; `next` is not zero.
    pub fn store_unlisted(&self, sender: Ssrc, next: u32) {
        self.get().timing.store(u64::from(sender.0) << 32 | u64::from(next), Ordering::Release);
    }

    /// Stores the next SRTCP index, before the one below it is sealed.
    pub fn store_rtcp_next(&self, next: u64) {
        self.get().rtcp_next.store(next, Ordering::Release);
    }
}
