//! The rows of a worker's tables: legs and ingress streams; egress streams have a file of their own. Configuration is
//! staged; running state stays with its slot while the key behind it lives.

use std::cell::Cell;
use std::sync::Arc;

use sluice_srtp::Ssrc;
use sluice_srtp::key::SessionKeys;
use sluice_srtp::replay::Receiver;
use sluice_table::{Hears, Kind};

pub use super::egress_row::{EgressConfig, EgressRow, RtxConfig};
pub use super::extension_ids::{ExtensionMap, Meaning, Shape};
use super::index_store::PinnedRow;
use super::map::Key;
pub use super::payload_types::PayloadTypeMap;
use super::police::{Bucket, Rate};
use super::ports::PortId;
use super::staged::Staged;
use crate::io::TX_CAPACITY;
use crate::select::meter::Meter;
use crate::wire::checksum::PADDING;
use crate::wire::frame::{Address, ETHERNET_LEN, VLAN_LEN};
use crate::wire::template::Template;

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
