//! Packet I/O: one trait, three back ends (`xdp`, `udp`, `memory`), all speaking whole Ethernet frames so
//! that the engine has one path. Never looks past the UDP header.

pub mod arena;
pub mod bare;
pub mod frame;
pub mod headers;
pub mod memory;
pub mod poll;
pub mod preloaded;
pub mod udp;
pub mod xdp;

use std::time::Duration;

use arrayvec::ArrayVec;

pub use frame::{RxFrame, TxFrame};
pub use memory::MemoryIo;
pub use poll::PollMode;
pub use preloaded::PreloadedIo;
pub use udp::UdpIo;
pub use xdp::XdpIo;

/// Frames received or gathered at a time.
pub const BURST: usize = 64;

/// Bytes of every transmit frame: half a page less the 256 bytes that the kernel keeps in front of
/// a packet.
pub const TX_CAPACITY: usize = 1792;

/// A receive burst.
pub type RxBurst = ArrayVec<RxFrame, BURST>;

/// A source and sink of frames, owned by one worker.
///
/// Every frame handed out comes back exactly once: received frames by [`release`](PacketIo::release),
/// acquired frames by [`submit`](PacketIo::submit) or [`cancel`](PacketIo::cancel).
pub trait PacketIo {
    /// Whether the caller must write the UDP checksum of submitted frames. Kernel sockets write their own.
    fn wants_checksum(&self) -> bool;

    /// Moves up to the burst's free capacity of received frames into it; returns how many. Never blocks.
    fn receive(&mut self, burst: &mut RxBurst) -> usize;

    /// Takes a received frame back for the fill ring.
    fn release(&mut self, frame: RxFrame);

    /// Frames that [`acquire`](PacketIo::acquire) can hand out now, after reaping completions.
    fn credit(&mut self) -> usize;

    /// A free transmit frame; `None` when all are in flight.
    fn acquire(&mut self) -> Option<TxFrame>;

    /// Queues the first `len` bytes of a frame for transmission.
    fn submit(&mut self, frame: TxFrame, len: usize);

    /// Takes an acquired frame back unsent.
    fn cancel(&mut self, frame: TxFrame);

    /// Publishes what was queued and released, and wakes the kernel if it asked for that.
    fn flush(&mut self);

    /// Sleeps until something may be receivable or `timeout` passed.
    fn wait(&mut self, timeout: Duration);

    /// Totals since the port was opened.
    fn counters(&mut self) -> IoCounters;
}

/// Totals of one port. All are cumulative and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct IoCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames queued for transmission.
    pub tx_frames: u64,
    /// Bytes queued for transmission.
    pub tx_bytes: u64,
    /// System calls made to wake the kernel or move data.
    pub kicks: u64,
    /// Frames the kernel dropped before they reached the receive ring because it was full.
    pub rx_ring_full: u64,
    /// Frames the kernel dropped because no buffer was on the fill ring.
    pub rx_fill_empty: u64,
    /// Frames dropped by the kernel for any other reason.
    pub rx_dropped: u64,
    /// Descriptors the kernel refused.
    pub tx_invalid: u64,
    /// Of the frames queued, those that could not be sent (socket errors, peer's queue full).
    pub tx_failed: u64,
}
