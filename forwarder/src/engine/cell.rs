//! Opened packets between ingress and fan-out: a bounded slab per worker whose cells other workers read by
//! handle. A cell has one writer, its worker, and is written only while nobody holds it.

use std::cell::UnsafeCell;
use std::sync::Arc;

use sluice_srtp::Ssrc;
use sluice_table::Kind;

use super::time::Nanos;

/// Room for an RTP header with extensions, in bytes; longer headers are dropped at ingress.
pub const HEADER_ROOM: usize = 256;
/// Room for an RTP payload, in bytes.
pub const PAYLOAD_ROOM: usize = 1_536;
/// Header extension elements kept of a packet.
pub const MAX_ELEMENTS: usize = 12;

/// What is known of an opened packet besides its bytes.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The ingress stream's list.
    pub list: u32,
    /// What egress streams tell sources apart by.
    pub source: u32,
    /// Extended sequence number at ingress.
    pub index: u64,
    /// RTP timestamp at ingress.
    pub timestamp: u32,
    /// SSRC at ingress.
    pub ssrc: Ssrc,
    /// SSRC the sender is known by, for the CSRC list.
    pub announced: Ssrc,
    /// The sending leg's number in its conference; `u16::MAX` if it has none.
    pub member: u16,
    /// Whether a receiver may be switched to the stream with this packet.
    pub key_frame: bool,
    /// When it was received.
    pub arrival: Nanos,
    /// Audio or video.
    pub kind: Kind,
    /// Payload type at ingress.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Padding bit.
    pub padding: bool,
    /// Payload length.
    pub payload_len: u16,
    /// Header length kept in `header`.
    pub header_len: u16,
    /// Header extension elements by meaning.
    pub elements: arrayvec::ArrayVec<KnownElement, MAX_ELEMENTS>,
}

/// A header extension element whose id was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownElement {
    /// What the id stands for on the ingress leg.
    pub meaning: super::rows::Meaning,
    /// Data length.
    pub len: u8,
    /// Where the data is in the cell's header.
    pub at: u16,
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            list: 0,
            source: 0,
            index: 0,
            timestamp: 0,
            ssrc: Ssrc(0),
            announced: Ssrc(0),
            member: u16::MAX,
            key_frame: false,
            arrival: Nanos(0),
            kind: Kind::Audio,
            payload_type: 0,
            marker: false,
            padding: false,
            payload_len: 0,
            header_len: 0,
            elements: arrayvec::ArrayVec::new_const(),
        }
    }
}

/// One cell: an opened RTP packet, or a packet of another worker's leg as it came.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Cell {
    /// Facts about the packet.
    pub meta: Meta,
    /// Its header as received.
    pub header: [u8; HEADER_ROOM],
    /// Its payload in clear; for a stray the whole UDP payload.
    pub payload: [u8; PAYLOAD_ROOM],
}

impl Default for Cell {
    fn default() -> Self {
        Cell { meta: Meta::default(), header: [0; HEADER_ROOM], payload: [0; PAYLOAD_ROOM] }
    }
}

/// The memory of a slab, shared between the worker that fills it and those that read from it.
#[derive(Debug)]
pub struct SlabMemory {
    cells: Box<[UnsafeCell<Cell>]>,
}

// SAFETY: a cell is written only by the slab's owner while its count of holders is zero, and read by others only
// between receiving its handle and returning it; the queues that carry handles order the two.
unsafe impl Sync for SlabMemory {}

impl SlabMemory {
    fn new(cells: usize) -> Arc<Self> {
        Arc::new(SlabMemory { cells: (0..cells).map(|_| UnsafeCell::new(Cell::default())).collect() })
    }

    /// Reads a cell whose handle the caller holds.
    #[inline(always)]
    pub fn read(&self, held: CellId) -> &Cell {
        // SAFETY: the caller holds the handle, so the owner does not write the cell (see `Sync`).
        unsafe { &*self.cells[held.0 as usize].get() }
    }
}

/// A cell's place in its slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellId(pub u32);

/// A worker's slab: hands out free cells and counts who still holds them.
#[derive(Debug)]
pub struct Slab {
    memory: Arc<SlabMemory>,
    free: Vec<u32>,
    holders: Vec<u16>,
}

impl Slab {
    /// A slab of `cells` free cells.
    pub fn new(cells: usize) -> Self {
        Slab { memory: SlabMemory::new(cells), free: (0..cells as u32).rev().collect(), holders: vec![0; cells] }
    }

    /// The memory, to share with the workers that read from it.
    pub fn memory(&self) -> &Arc<SlabMemory> {
        &self.memory
    }

    /// Takes a free cell, held once by the caller.
    #[inline(always)]
    pub fn take(&mut self) -> Option<CellId> {
        let id = self.free.pop()?;
        self.holders[id as usize] = 1;
        Some(CellId(id))
    }

    /// A cell to fill. The caller took it and has not shared its handle yet.
    #[inline(always)]
    pub fn write(&mut self, id: CellId) -> &mut Cell {
        debug_assert_eq!(self.holders[id.0 as usize], 1, "a shared cell is not written");
        // SAFETY: `&mut self` and one holder: no handle of this cell is anywhere else.
        unsafe { &mut *self.memory.cells[id.0 as usize].get() }
    }

    /// A raw pointer to a cell's payload, for opening several packets at once.
    #[inline(always)]
    pub(crate) fn payload_ptr(&mut self, id: CellId) -> *mut [u8; PAYLOAD_ROOM] {
        &raw mut self.write(id).payload
    }

    /// Adds a holder.
    #[inline(always)]
    pub fn hold(&mut self, id: CellId) {
        self.holders[id.0 as usize] += 1;
    }

    /// Drops a holder; the cell is free when the last one went.
    #[inline(always)]
    pub fn release(&mut self, id: CellId) {
        let holders = &mut self.holders[id.0 as usize];
        debug_assert!(*holders > 0, "released more often than held");
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            self.free.push(id.0);
        }
    }

    /// Free cells.
    pub fn free(&self) -> usize {
        self.free.len()
    }
}
