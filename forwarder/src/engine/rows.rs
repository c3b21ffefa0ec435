//! The rows of a worker's tables: legs, ingress streams, egress streams. Configuration is staged; running state
//! stays with its slot while the key behind it lives.

use std::cell::Cell;
use std::sync::Arc;

use sluice_srtp::key::SessionKeys;
use sluice_srtp::replay::Receiver;
use sluice_srtp::window::SentWindow;
use sluice_srtp::{PacketIndex, Ssrc};
use sluice_table::{Hears, Kind};

use super::flow::{Flow, prefetch};
use super::gate::Gate;
use super::index_store::PinnedRow;
use super::map::Key;
use super::police::{Bucket, Rate};
use super::ports::PortId;
use super::rewrite::Rewriter;
use super::staged::Staged;
use crate::io::TX_CAPACITY;
use crate::select::meter::Meter;
use crate::wire::checksum::PADDING;
use crate::wire::frame::{Address, ETHERNET_LEN, VLAN_LEN};
use crate::wire::template::Template;

/// What a header extension id stands for on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Meaning {
    /// sdes:mid; written per leg, never carried over.
    Mid,
    /// sdes:rtp-stream-id; read by learn rules, never carried over.
    Rid,
    /// sdes:repaired-rtp-stream-id; read by learn rules, never carried over.
    RepairedRid,
    /// ssrc-audio-level (RFC 6464).
    AudioLevel,
    /// Transport-wide sequence number; written per leg, never carried over.
    TransportCc,
    /// abs-send-time; written per leg, never carried over.
    AbsSendTime,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// generic-frame-descriptor-00.
    FrameDescriptor,
    /// Video orientation (3GPP TS 26.114).
    VideoOrientation,
}

impl Meaning {
    /// How many meanings there are.
    pub const COUNT: usize = 9;

    /// Whether the element describes the hop and is therefore never carried to another leg.
    #[inline(always)]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(self, Meaning::Mid | Meaning::Rid | Meaning::RepairedRid | Meaning::TransportCc | Meaning::AbsSendTime)
    }
}

/// The ids under which a leg is sent what packets out can carry, mid excepted: legs of one shape get the same extension
/// block, but for the transport-wide number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape(u64);

impl Shape {
    const MEANINGS: [Meaning; 6] = [
        Meaning::AudioLevel,
        Meaning::TransportCc,
        Meaning::AbsSendTime,
        Meaning::DependencyDescriptor,
        Meaning::FrameDescriptor,
        Meaning::VideoOrientation,
    ];
    /// Of a leg without any.
    pub const NONE: Shape = Shape(0);
}

/// A leg's header extension ids, in both directions of look-up.
#[derive(Clone, Debug)]
pub struct ExtensionMap {
    meanings: [Option<Meaning>; 256],
    ids: [u8; Meaning::COUNT],
}

impl ExtensionMap {
    /// From (meaning, id) pairs; id 0 is ignored.
    pub fn new(pairs: impl IntoIterator<Item = (Meaning, u8)>) -> Self {
        let mut map = ExtensionMap { meanings: [None; 256], ids: [0; Meaning::COUNT] };
        for (meaning, id) in pairs.into_iter().filter(|(_, id)| *id != 0) {
            map.meanings[usize::from(id)] = Some(meaning);
            map.ids[meaning as usize] = id;
        }
        map
    }

    /// What the leg is sent.
    pub fn shape(&self) -> Shape {
        let id = |meaning: Meaning| u64::from(self.ids[meaning as usize]);
        Shape(Shape::MEANINGS.into_iter().fold(0, |ids, meaning| ids << 8 | id(meaning)))
    }

    /// What an id of a received packet means.
    #[inline(always)]
    pub fn meaning(&self, id: u8) -> Option<Meaning> {
        self.meanings[usize::from(id)]
    }

    /// The id to send a meaning under.
    #[inline(always)]
    pub fn id(&self, meaning: Meaning) -> Option<u8> {
        Some(self.ids[meaning as usize]).filter(|id| *id != 0)
    }
}

/// Configuration of a leg at its owner.
#[derive(Debug)]
pub struct LegConfig {
    /// Endpoint index.
    pub endpoint: u16,
    /// Where the peer is; `None` until learned.
    pub remote: Option<Address>,
    /// Whether packets carry no SRTP (lab).
    pub plain: bool,
    /// Keys of packets from the peer.
    pub inbound: Option<Arc<SessionKeys>>,
    /// Keys of packets to the peer.
    pub outbound: Option<Arc<SessionKeys>>,
    /// Prepared headers; `None` while no next hop is known.
    pub template: Option<Template>,
    /// Port packets leave by.
    pub port: PortId,
    /// Largest RTP packet, tag included, that fits the route's MTU and a transmit frame, in bytes.
    pub largest_rtp: u16,
    /// Header extension ids.
    pub extensions: ExtensionMap,
    /// How unlisted SSRCs become streams.
    pub rules: Box<[LearnRule]>,
    /// Changes with the inbound key: learned streams of another key are forgotten.
    pub inbound_incarnation: u64,
    /// Bytes a second from the peer.
    pub byte_rate: Rate,
    /// Packets a second from the peer.
    pub packet_rate: Rate,
    /// ICE state once the leg is established; `None` on static legs.
    pub ice: Option<Box<super::stun::IceConfig>>,
    /// Where SRTCP indexes are kept.
    pub rtcp: super::rtcp::RtcpConfig,
    /// The peer's number in its conference.
    pub member: Option<u16>,
    /// Whom the peer hears; `None` means everybody.
    pub hears: Option<Hears>,
    /// RTCP sent without being asked.
    pub feedback: sluice_table::Feedback,
}

impl LegConfig {
    /// Whether the peer is choosy about whom a virtual source brings.
    pub fn is_choosy(&self) -> bool {
        self.member.is_some() || self.hears.is_some()
    }

    /// Whether a virtual source may bring what a member sends; `u16::MAX` stands for a sender that is no member.
    pub fn hears(&self, member: u16) -> bool {
        self.member != Some(member) && self.hears.as_ref().is_none_or(|hears| hears.contains(member))
    }

    /// What [`largest_rtp`](Self::largest_rtp) is for a route.
    pub fn largest_rtp_of(template: &Template, mtu: u16) -> u16 {
        // The checksum reads whole blocks, so room for one more is kept behind the packet.
        let room = TX_CAPACITY - ETHERNET_LEN - VLAN_LEN - PADDING;
        usize::from(mtu).min(room).saturating_sub(template.overhead()) as u16
    }
}

/// A leg's slot. Whether the peer may be sent to is asked with every packet and lies beside the configuration's
/// switch, so that it costs no cache line of its own.
#[derive(Debug, Default)]
#[repr(C)]
pub struct LegRow {
    /// Configuration.
    pub config: Staged<LegConfig>,
    /// Consent and STUN policing.
    pub ice: super::stun::IceState,
    /// Policing by bytes.
    pub bytes: Bucket,
    /// Policing by packets.
    pub packets: Bucket,
    /// Budget for opening packets of unlisted SSRCs.
    pub attempts: Bucket,
    /// Next transport-wide sequence number.
    pub transport_seq: Cell<u16>,
    /// The address its first authenticated packet came from, while the configuration does not hold it yet.
    pub learned: Option<Address>,
    /// Slots of streams learned on this leg.
    pub learned_streams: arrayvec::ArrayVec<u32, MAX_LEARNED>,
    /// SRTCP receive state.
    pub rtcp: super::rtcp::RtcpState,
    /// Counts.
    pub stats: LegStats,
}

/// Streams a leg may learn at a time.
pub const MAX_LEARNED: usize = 16;

/// Turns an unlisted SSRC of a leg into an ingress stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnRule {
    /// The list its receivers are in; also its identity.
    pub list: u32,
    /// Required value of the mid extension.
    pub mid: Option<arrayvec::ArrayString<16>>,
    /// Required value of the rid extension.
    pub rid: Option<arrayvec::ArrayString<16>>,
    /// Required value of the repaired-rid extension.
    pub repaired_rid: Option<arrayvec::ArrayString<16>>,
    /// Payload types that match, one bit each.
    pub payload_types: u128,
    /// Audio or video.
    pub kind: Kind,
    /// Bytes a second of the stream.
    pub byte_rate: Rate,
    /// SSRC the sender is known by, if not the stream's own.
    pub announced: Option<Ssrc>,
    /// Whether its level is reported.
    pub candidate: bool,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// What it repairs, if it is a repair stream.
    pub repairs: Option<RepairConfig>,
    /// The stream it stood for when its leg was prepared.
    pub known: Option<super::learn::KnownStream>,
}

impl LearnRule {
    /// Whether a packet with these extension values matches. A rule without any requirement matches all.
    pub fn matches(&self, payload_type: u8, value: impl Fn(Meaning) -> Option<Vec16>) -> bool {
        let holds = |wanted: &Option<arrayvec::ArrayString<16>>, meaning| {
            wanted.as_ref().is_none_or(|wanted| value(meaning).is_some_and(|got| got.as_slice() == wanted.as_bytes()))
        };
        // A plain rid names the stream itself; a packet with a repaired rid is of its RTX stream.
        let repairs = value(Meaning::RepairedRid).is_some();
        self.payload_types & (1 << (payload_type & 0x7f)) != 0
            && (self.repaired_rid.is_some() == repairs
                || (self.rid.is_none() && self.repaired_rid.is_none() && !repairs))
            && holds(&self.mid, Meaning::Mid)
            && holds(&self.rid, Meaning::Rid)
            && holds(&self.repaired_rid, Meaning::RepairedRid)
    }
}

/// A short extension value.
pub type Vec16 = arrayvec::ArrayVec<u8, 16>;

/// Counts of a leg.
#[derive(Clone, Copy, Debug, Default)]
pub struct LegStats {
    /// Packets received on an AF_XDP socket by the owner.
    pub fast: u64,
    /// Packets received by a kernel socket.
    pub slow: u64,
    /// Packets that arrived at another worker first.
    pub stray: u64,
    /// Bytes received, UDP payload only.
    pub bytes: u64,
    /// When the last packet authenticated, in engine time.
    pub last_authenticated: super::time::Nanos,
    /// Packets dropped after the leg was known.
    pub dropped: u64,
}

/// Configuration of an ingress stream at its leg's owner.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Slot of its leg.
    pub leg: u32,
    /// SSRC.
    pub ssrc: Ssrc,
    /// The list its receivers are in.
    pub list: u32,
    /// What egress streams tell it from other sources by: new with every key and every stream.
    pub source: u32,
    /// Audio or video.
    pub kind: Kind,
    /// Allowed payload types, one bit each.
    pub payload_types: u128,
    /// Bytes a second of this stream.
    pub byte_rate: Rate,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// What it repairs, if it is a repair stream.
    pub repairs: Option<RepairConfig>,
    /// Where the highest received index is kept.
    pub index: PinnedRow,
    /// One past the highest index received under this key before; 0 when fresh.
    pub resume: u64,
    /// Changes when receive state must start over (another key).
    pub incarnation: u64,
    /// SSRC the sender is known by, if not the stream's own.
    pub announced: Option<Ssrc>,
    /// Whether its level is reported.
    pub candidate: bool,
    /// Whether a learn rule made it; then `list` names the rule.
    pub learned: bool,
}

/// An ingress stream's slot.
#[derive(Debug, Default)]
pub struct IngressRow {
    /// Configuration.
    pub config: Staged<IngressConfig>,
    /// Which incarnation `receiver` belongs to.
    pub incarnation: u64,
    /// Rollover and replay state; `None` before the first packet.
    pub receiver: Option<Receiver>,
    /// Policing.
    pub bytes: Bucket,
    /// Index of the first packet opened.
    pub first_index: Option<u64>,
    /// Packets opened.
    pub packets: u64,
    /// Payload bytes opened.
    pub payload_bytes: u64,
    /// Packets dropped after the stream was known.
    pub dropped: u64,
    /// How loud it is.
    pub meter: Meter,
}

/// Payload types in and out, up to four pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadTypeMap {
    pairs: [(u8, u8); 4],
    len: u8,
}

impl PayloadTypeMap {
    /// Pairs a map holds.
    pub const MAX: usize = 4;

    /// From pairs; `None` if there are more than [`MAX`](Self::MAX).
    pub fn new(pairs: &[(u8, u8)]) -> Option<Self> {
        let mut map = PayloadTypeMap { pairs: [(0, 0); 4], len: pairs.len() as u8 };
        map.pairs.get_mut(..pairs.len())?.copy_from_slice(pairs);
        Some(map)
    }

    /// The payload type out, if listed.
    pub fn find(&self, payload_type: u8) -> Option<u8> {
        let known = &self.pairs[..usize::from(self.len & 7).min(4)];
        known.iter().find(|(from, _)| *from == payload_type).map(|(_, to)| *to)
    }

    /// The payload type out; one not listed goes out as it came.
    #[inline(always)]
    pub fn map(&self, payload_type: u8) -> u8 {
        let known = &self.pairs[..usize::from(self.len & 7).min(4)];
        known.iter().find(|(from, _)| *from == payload_type).map_or(payload_type, |(_, to)| *to)
    }
}

/// What a received repair stream (RFC 4588) repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairConfig {
    /// The stream, on the same leg.
    pub target: RepairTarget,
    /// Payload types to the ones they restore; others are dropped.
    pub payload_types: PayloadTypeMap,
}

/// A stream that is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairTarget {
    /// A listed one.
    Stream(Ssrc),
    /// The one that the learn rule of this list made.
    Rule(u32),
}

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

/// A peer's tuple at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TupleKey {
    /// Endpoint index.
    pub endpoint: u16,
    /// The peer.
    pub remote: Address,
}

impl Key for TupleKey {
    #[inline(always)]
    fn words(self) -> [u64; 3] {
        let ports = (u64::from(self.endpoint) << 16) | u64::from(self.remote.port);
        [self.remote.ip as u64, (self.remote.ip >> 64) as u64, ports]
    }
}

/// Which leg a tuple belongs to, in force and staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleOwner {
    /// The leg's worker.
    pub worker: u8,
    /// The leg's slot at that worker.
    pub leg: u32,
}

/// An ingress stream's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// Slot of the leg.
    pub leg: u32,
    /// SSRC.
    pub ssrc: Ssrc,
}

impl Key for StreamKey {
    #[inline(always)]
    fn words(self) -> [u64; 3] {
        [(u64::from(self.leg) << 32) | u64::from(self.ssrc.0), 0x5353_5243, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_map_or_pass() {
        let map = PayloadTypeMap::new(&[(111, 96), (100, 97)]).unwrap();
        assert_eq!((map.map(111), map.map(100), map.map(8)), (96, 97, 8));
        assert!(PayloadTypeMap::new(&[(0, 0); 5]).is_none());
        assert_eq!(PayloadTypeMap::default().map(0), 0);
    }

    #[test]
    fn extension_ids_both_ways() {
        let map = ExtensionMap::new([(Meaning::Mid, 4), (Meaning::AudioLevel, 1), (Meaning::Rid, 0)]);
        assert_eq!(map.meaning(4), Some(Meaning::Mid));
        assert_eq!(map.meaning(0), None);
        assert_eq!(map.id(Meaning::AudioLevel), Some(1));
        assert_eq!(map.id(Meaning::Rid), None);
        assert_eq!(map.shape(), ExtensionMap::new([(Meaning::AudioLevel, 1), (Meaning::Mid, 9)]).shape());
        assert_ne!(map.shape(), ExtensionMap::new([(Meaning::AudioLevel, 2)]).shape());
        assert_eq!(ExtensionMap::new([(Meaning::Mid, 4)]).shape(), Shape::NONE);
    }
}
