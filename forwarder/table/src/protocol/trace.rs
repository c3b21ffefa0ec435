//! Traced packets: headers only, sampled. Never holds payload.

use serde::{Deserialize, Serialize};
use sluice_srtp::Ssrc;

use crate::model::Name;
use crate::reason::DropReason;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// Which packets are traced; a field that is `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// Of this leg.
    pub leg: Option<Name>,
    /// With this SSRC.
    pub ssrc: Option<Ssrc>,
    /// Received or sent.
    pub direction: Option<Direction>,
    /// Only packets that were dropped.
    pub dropped_only: bool,
}

/// Headers of one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// When, in nanoseconds of the Unix epoch.
    pub at_unix_ns: u64,
    /// Worker that saw it.
    pub worker: u16,
    /// Received or sent.
    pub direction: Direction,
    /// Its leg, if one was found.
    pub leg: Option<Name>,
    /// Why it was dropped, if it was.
    pub dropped: Option<DropReason>,
    /// Length of the whole frame in bytes.
    pub length: u32,
    /// The frame from its Ethernet header to the end of its RTP or RTCP header, at most [`TraceRecord::MAX_HEADER`]
    /// bytes.
    pub header: Vec<u8>,
}

impl TraceRecord {
    /// Most header bytes a record holds: Ethernet with one VLAN tag, IPv6, UDP, RTP with 15 CSRCs and extensions.
    pub const MAX_HEADER: usize = 256;
}
