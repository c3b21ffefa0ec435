//! What `sluice show` prints of a transport. Holds no secret.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_srtp::profile::Profile;
use sluice_table::Name;

use super::{CandidateKind, ChannelId, CloseReason};

/// How far a transport is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the remote description or for the first check.
    New,
    /// Checking candidate pairs.
    Checking,
    /// DTLS handshake.
    Securing,
    /// Keys and a validated tuple.
    Connected,
    /// Finished.
    Closed(CloseReason),
}

/// How far the check of a candidate pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// Not asked yet.
    Waiting,
    /// Asked.
    Checking,
    /// Answered.
    Validated,
    /// Asked often enough.
    Failed,
}

/// A candidate pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// Local endpoint.
    pub endpoint: Name,
    /// The address told to the peer.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// What the peer's address is.
    pub kind: CandidateKind,
    /// Its state.
    pub state: PairState,
    /// Whether it is the chosen one.
    pub selected: bool,
    /// Round trip of the last answered check.
    pub rtt: Option<Duration>,
    /// Checks sent since the last answer.
    pub unanswered: u8,
}

/// A data channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStatus {
    /// Its number.
    pub channel: ChannelId,
    /// Its label.
    pub label: String,
    /// Whether it is open.
    pub open: bool,
    /// Bytes waiting to be sent or acknowledged.
    pub buffered: usize,
}

/// Datagrams that changed nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Unreadable STUN.
    pub malformed: u64,
    /// STUN with a wrong user fragment or a tag that does not verify.
    pub forged: u64,
    /// Responses to nothing we asked, or from elsewhere than asked.
    pub unexpected: u64,
    /// DTLS from an address without an authenticated request, or before the remote description.
    pub early: u64,
    /// DTLS handshakes that failed before anything was sent; the peer's next hello begins again.
    pub garbled: u64,
    /// On an endpoint that is not ours, or neither STUN nor DTLS.
    pub stray: u64,
    /// Checks from, or candidates for, more addresses than are kept.
    pub crowded: u64,
}

/// A transport as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportStatus {
    /// How far it is.
    pub phase: Phase,
    /// Whether we are the controlling ICE agent.
    pub controlling: bool,
    /// Candidate pairs, best first; those of signalled and of learned remote candidates.
    pub pairs: Vec<PairStatus>,
    /// DTLS version, once known.
    pub dtls: Option<&'static str>,
    /// SRTP profile, once known.
    pub profile: Option<Profile>,
    /// Data channels.
    pub channels: Vec<ChannelStatus>,
    /// Datagrams that changed nothing.
    pub ignored: Ignored,
    /// Bytes not sent because an unvalidated address had not sent enough.
    pub withheld: u64,
}
