//! The table model: endpoints, legs, ingress streams, learn rules, virtual sources and egress streams, each
//! under a name its writer chose.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_srtp::Ssrc;
use sluice_srtp::key::MasterKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A row's name: 1 to 120 bytes of printable ASCII without spaces, unique within its kind.
/// [`Name::new`] checks that; so does every decoder.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub Arc<str>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything a forwarder forwards by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Local addresses media arrives at.
    pub endpoints: BTreeMap<Name, Endpoint>,
    /// Peers.
    pub legs: BTreeMap<Name, Leg>,
    /// Streams received.
    pub ingress: BTreeMap<Name, Ingress>,
    /// Streams that announce themselves by header extension.
    pub learn: BTreeMap<Name, Learn>,
    /// Switched sources.
    pub sources: BTreeMap<Name, Source>,
    /// Streams sent.
    pub egress: BTreeMap<Name, Egress>,
}

/// A local UDP address on an interface, with a kernel socket and an XDP match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Interface name, e.g. `eth0`.
    pub interface: String,
    /// Address and port; never the wildcard address.
    pub address: SocketAddr,
}

/// What a leg's peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegKind {
    /// A client with SRTP.
    Client,
    /// Another SFU.
    Trunk,
    /// RTP without SRTP; for the lab.
    Plain,
}

/// Where a leg's peer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// At this address.
    Fixed(SocketAddr),
    /// Wherever the first authenticated packet comes from; fixed after it.
    Learn,
}

/// Policing of a leg before anything is opened (DESIGN §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bits per second of the whole leg.
    pub bits_per_second: u64,
    /// Packets per second of the whole leg.
    pub packets_per_second: u32,
    /// Bits per second of one audio stream.
    pub audio_bits_per_second: u64,
    /// Bits per second of one video stream.
    pub video_bits_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bits_per_second: 12_000_000,
            packets_per_second: 2_000,
            audio_bits_per_second: 200_000,
            video_bits_per_second: 8_000_000,
        }
    }
}

/// RFC 8285 header extension ids of a leg, 1 to 255; `None` where not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`.
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`.
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`.
    pub repaired_rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level`.
    pub audio_level: Option<u8>,
    /// transport-wide-cc-extensions-01.
    pub transport_cc: Option<u8>,
    /// abs-send-time.
    pub abs_send_time: Option<u8>,
    /// AV1 dependency descriptor.
    pub dependency_descriptor: Option<u8>,
    /// generic-frame-descriptor-00.
    pub frame_descriptor: Option<u8>,
    /// urn:3gpp:video-orientation.
    pub video_orientation: Option<u8>,
}

/// A peer: addresses, keys, extension ids and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Endpoint the peer talks to.
    pub endpoint: Name,
    /// What the peer is.
    pub kind: LegKind,
    /// Where the peer is.
    pub remote: Remote,
    /// Key of packets from the peer; `None` only for a plain leg or one that sends nothing.
    pub inbound: Option<MasterKey>,
    /// Key of packets to the peer; `None` only for a plain leg or one that receives nothing.
    pub outbound: Option<MasterKey>,
    /// Allow a static outbound key that was in use before although no index row is left for it.
    pub accept_key_reuse: bool,
    /// Header extension ids.
    pub extensions: ExtensionIds,
    /// Policing.
    pub limits: Limits,
    /// ICE state handed over once control established the leg; `None` for static legs.
    pub ice: Option<Ice>,
    /// Feedback the forwarder sends on this leg by itself.
    pub feedback: Feedback,
    /// The peer's number in its conference, 0 to [`Hears::MEMBERS`] - 1. What a virtual source carries never goes to
    /// the member that sent it.
    pub member: Option<u16>,
    /// Members whose packets a virtual source may bring to this leg; `None` means all.
    pub hears: Option<Hears>,
}

/// A set of members of a conference (see [`Leg::member`]), one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hears(Vec<u64>);

impl Hears {
    /// Members a conference may have, 8,192.
    pub const MEMBERS: u16 = 8_192;

    /// Adds a member; one out of range is ignored.
    pub fn insert(&mut self, member: u16) {
        if member >= Self::MEMBERS {
            return;
        }
        let word = usize::from(member / 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (member % 64);
    }

    /// Removes a member.
    pub fn remove(&mut self, member: u16) {
        if let Some(word) = self.0.get_mut(usize::from(member / 64)) {
            *word &= !(1 << (member % 64));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Whether a member is in the set.
    pub fn contains(&self, member: u16) -> bool {
        self.0.get(usize::from(member / 64)).is_some_and(|word| word & (1 << (member % 64)) != 0)
    }

    /// The bits, lowest member first.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// How many members are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether nobody is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

impl FromIterator<u16> for Hears {
    fn from_iter<I: IntoIterator<Item = u16>>(members: I) -> Hears {
        let mut hears = Hears::default();
        members.into_iter().for_each(|member| hears.insert(member));
        hears
    }
}

/// RTCP the forwarder sends on a leg without being asked; each needs the peer's consent in its description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// Sender and receiver reports (RFC 3550 §6.4).
    pub reports: bool,
    /// Transport-wide congestion control feedback about what arrives (needs [`ExtensionIds::transport_cc`]).
    pub transport_cc: bool,
    /// Generic NACK (RFC 4585 §6.2.1) for what got lost on the way here.
    pub nack: bool,
    /// How a key frame is asked for.
    pub key_frame: Option<KeyFrameRequest>,
}

/// How a peer is asked for a key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFrameRequest {
    /// Picture loss indication (RFC 4585 §6.3.1).
    Pli,
    /// Full intra request (RFC 5104 §4.3.1).
    Fir,
}

/// What the forwarder needs to answer a leg's binding requests and to keep its consent (RFC 7675, RFC 8445 §7).
/// The passwords are zeroed on drop and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct Ice {
    /// Our user fragment, 4 to 256 characters.
    pub local_ufrag: String,
    /// Our password, 22 to 256 characters.
    pub local_password: String,
    /// The peer's user fragment.
    pub remote_ufrag: String,
    /// The peer's password.
    pub remote_password: String,
    /// Whether we are the controlling agent.
    pub controlling: bool,
    /// Our tie-breaker (RFC 8445 §5.1.1).
    pub tie_breaker: u64,
    /// Tuples of the peer that answered our own check, selected one first; 1 to [`Ice::MAX_TUPLES`].
    #[zeroize(skip)]
    pub tuples: Vec<SocketAddr>,
}

impl Ice {
    /// Validated tuples a leg may have at a time.
    pub const MAX_TUPLES: usize = 8;
}

impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice")
            .field("local_ufrag", &self.local_ufrag)
            .field("remote_ufrag", &self.remote_ufrag)
            .field("controlling", &self.controlling)
            .field("tuples", &self.tuples)
            .finish_non_exhaustive()
    }
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// A stream received on a leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Leg it arrives on.
    pub leg: Name,
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Audio or video.
    pub kind: Kind,
    /// RTP clock in Hz, 1 to 1,000,000.
    pub clock_rate: u32,
    /// Payload types it may carry, 0 to 127; others are dropped.
    pub payload_types: Vec<u8>,
    /// What the stream is beyond its packets.
    pub role: StreamRole,
}

/// What a received stream is beyond its packets; the same for a listed and a learned one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRole {
    /// SSRC to write as CSRC instead of the stream's own, where a conference announces another one.
    pub announced: Option<Ssrc>,
    /// Group of virtual sources it competes for by audio level (RFC 6464); see [`Source::select`].
    pub candidate: Option<Name>,
    /// The stream it repairs (RFC 4588); its packets are restored to that stream and never forwarded themselves.
    pub repairs: Option<Repair>,
}

/// What an RTX stream repairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// An ingress stream or learn rule of the same leg.
    pub stream: Name,
    /// RTX payload types to the ones they restore.
    pub payload_types: Vec<(u8, u8)>,
}

/// A rule that turns an unlisted SSRC into an ingress stream once a packet of it authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learn {
    /// Leg it belongs to.
    pub leg: Name,
    /// Required value of the mid extension.
    pub mid: Option<String>,
    /// Required value of the rid extension.
    pub rid: Option<String>,
    /// Required value of the repaired-rid extension (an RTX stream).
    pub repaired_rid: Option<String>,
    /// Audio or video.
    pub kind: Kind,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Payload types that match.
    pub payload_types: Vec<u8>,
    /// What streams made by the rule are beyond their packets.
    pub role: StreamRole,
}

/// A switched source: what its egress streams carry changes with one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Audio or video.
    pub kind: Kind,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// The ingress stream or learn rule it carries now; `None` where `layers` or `select` say what it carries.
    pub input: Option<Name>,
    /// Encodings of one picture, lowest first, at most [`Source::MAX_LAYERS`] ingress streams or learn rules. The
    /// source carries them all and each receiver gets one, see [`Egress::layer`].
    pub layers: Vec<Name>,
    /// Group whose candidates ([`StreamRole::candidate`]) the forwarder chooses among by audio level; the sources of a
    /// group always carry different candidates.
    pub select: Option<Name>,
}

impl Source {
    /// Encodings of one picture.
    pub const MAX_LAYERS: usize = 4;
}

/// A stream sent to a leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Leg it is sent to.
    pub leg: Name,
    /// SSRC on the wire; unique among the leg's egress streams.
    pub ssrc: Ssrc,
    /// What it carries: an ingress stream, a learn rule or a virtual source.
    pub source: Name,
    /// Payload types in to payload types out; one not listed is forwarded unchanged.
    pub payload_types: Vec<(u8, u8)>,
    /// First sequence number, 1 to 16,384; `None` draws one. Only used for an (key, SSRC) without an index row.
    pub first_sequence: Option<u16>,
    /// Value of the mid extension inserted until a receiver report arrives.
    pub mid: Option<String>,
    /// Carry the source's SSRC as the only CSRC.
    pub csrc: bool,
    /// DSCP, 0 to 63; `None` means 46 for audio and 34 for video.
    pub dscp: Option<u8>,
    /// Highest of the source's layers to forward, 0 is the lowest; `None` means the highest there is. Where the layer
    /// is not sent, the nearest lower one is forwarded, else the nearest higher one. Changes take effect at key frames.
    pub layer: Option<u8>,
    /// RTX stream that lost packets are sent again on; without one they are sent again as they were.
    pub rtx: Option<Rtx>,
    /// Packets kept to be sent again, 0 to 1,024.
    pub history: u16,
}

/// The repair stream of an egress stream (RFC 4588).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtx {
    /// Its SSRC; unique among the leg's egress streams.
    pub ssrc: Ssrc,
    /// Payload types out to the ones they are repaired with.
    pub payload_types: Vec<(u8, u8)>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// An endpoint.
    Endpoint(Endpoint),
    /// A leg.
    Leg(Leg),
    /// An ingress stream.
    Ingress(Ingress),
    /// A learn rule.
    Learn(Learn),
    /// A virtual source.
    Source(Source),
    /// An egress stream.
    Egress(Egress),
}

/// The kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// An endpoint.
    Endpoint,
    /// A leg.
    Leg,
    /// An ingress stream.
    Ingress,
    /// A learn rule.
    Learn,
    /// A virtual source.
    Source,
    /// An egress stream.
    Egress,
}

/// One change of a transaction; a transaction applies whole or not at all.
#[allow(clippy::large_enum_variant, reason = "changes come in bulk and most are rows; a box for each costs more")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Adds a row or replaces the row of that kind and name.
    Put(Name, Entry),
    /// Removes a row; streams of a removed leg must be removed in the same transaction.
    Remove(EntryKind, Name),
    /// Points a virtual source at another input.
    Switch {
        /// The source.
        source: Name,
        /// Its new input.
        input: Option<Name>,
    },
}
