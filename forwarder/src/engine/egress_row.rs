//! An egress stream's slot: its configuration, staged, and what runs with it while the key behind it lives.

use sluice_srtp::window::SentWindow;
use sluice_srtp::{PacketIndex, Ssrc};
use sluice_table::Kind;

use super::flow::{Flow, prefetch};
use super::gate::Gate;
use super::index_store::PinnedRow;
use super::payload_types::PayloadTypeMap;
use super::rewrite::Rewriter;
use super::staged::Staged;

/// The repair stream of an egress stream (RFC 4588).
#[derive(Clone, Debug)]
pub struct RtxConfig {
    /// SSRC on the wire.
    pub ssrc: Ssrc,
    /// Payload types out to the ones they are repaired with.
    pub payload_types: PayloadTypeMap,
    /// Where the next send index is kept.
    pub index: PinnedRow,
    /// The first index to use.
    pub first_index: u64,
}

/// Configuration of an egress stream at its leg's owner.
#[derive(Clone, Debug)]
pub struct EgressConfig {
    /// Slot of its leg.
    pub leg: u32,
    /// The list it is a member of.
    pub list: u32,
    /// SSRC on the wire.
    pub ssrc: Ssrc,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// Audio or video.
    pub kind: Kind,
    /// Payload types.
    pub payload_types: PayloadTypeMap,
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// Whether the source's SSRC goes out as CSRC.
    pub csrc: bool,
    /// Value of the mid extension, if the leg has one.
    pub mid: Option<arrayvec::ArrayString<16>>,
    /// Where the next send index is kept.
    pub index: PinnedRow,
    /// The first index to use.
    pub first_index: u64,
    /// How lost packets are sent again; without it they are sent as they were.
    pub rtx: Option<Box<RtxConfig>>,
    /// How far behind the newest packet one can be asked for.
    pub history: u16,
    /// Timestamp and when it was sent (milliseconds of engine time), of a predecessor to continue.
    pub resume_timing: Option<(u32, u32)>,
    /// Changes when send state must start over (another key).
    pub incarnation: u64,
    /// Changes whenever the stream is given to another list.
    pub binding: u64,
    /// Highest layer to forward; `None` is the highest there is.
    pub layer: Option<u8>,
}

/// An egress stream's slot. Ordered so that a packet in order touches three lines: the end of the window with the
/// front of the rewriter, and two of the flow.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct EgressRow {
    /// Indexes issued under (key, SSRC).
    pub window: SentWindow,
    /// Sequence and timestamp mapping.
    pub rewriter: Rewriter,
    /// Which incarnation the state above belongs to; 0 is none.
    pub incarnation: u64,
    pub(super) flow: Flow,
    /// What it got of a virtual source.
    pub(super) gate: Gate,
    /// Configuration.
    pub config: Staged<Box<EgressConfig>>,
}

const _: () = assert!(std::mem::offset_of!(EgressRow, flow) == 256, "the lines are where they are said to be");

impl Default for EgressRow {
    fn default() -> Self {
        EgressRow {
            window: SentWindow::new(PacketIndex::MAX),
            rewriter: Rewriter::default(),
            incarnation: 0,
            flow: Flow::default(),
            gate: Gate::default(),
            config: Staged::default(),
        }
    }
}

impl EgressRow {
    /// Packets sealed.
    pub fn packets(&self) -> u64 {
        self.flow.packets
    }

    /// Bytes sealed, RTP header and tag included.
    pub fn bytes(&self) -> u64 {
        self.flow.bytes
    }

    /// Fetches what a packet of a virtual source touches besides.
    #[inline(always)]
    pub(super) fn prefetch_gate(&self) {
        prefetch(&raw const self.gate);
    }

    /// Payload bytes sealed, as sender reports count them.
    pub fn payload_bytes(&self) -> u64 {
        let Flow { packets, bytes, overhead, extension_bytes, .. } = &self.flow;
        bytes.saturating_sub(packets * u64::from(*overhead) + extension_bytes)
    }

    /// Fetches the lines that a packet in order touches.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(&raw const self.rewriter);
        prefetch(&raw const self.flow);
        prefetch(&raw const self.flow.template);
        // The template starts in the flow's first line and goes on in the second.
        prefetch((&raw const self.flow.template).wrapping_add(1));
    }
}
