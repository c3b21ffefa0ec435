//! What the dialect is configured with. Never reads a file.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_table::Limits;

use super::blacklist::Blacklist;
use super::offer::TOOL;
use super::token::Secret;
use crate::conference::ConferenceLimits;
use crate::sdp;
use crate::transport::Fingerprint;

/// Configuration of the dialect.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// URL clients join a conference of this process at, without `/sft/...`.
    pub public_url: String,
    /// Every server's URL for `sft_servers_all.json`; [`WireConfig::public_url`] alone if empty.
    pub servers: Vec<String>,
    /// What the `a=tool` line of offers says.
    pub tool: String,
    /// Our certificate.
    pub fingerprint: Fingerprint,
    /// Addresses clients reach us at, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// Secret that tokens are checked with; without one everybody may start and join.
    pub tokens: Option<Secret>,
    /// Whether a client needs a token where there is a secret; if not, one that it shows must still be right.
    pub tokens_required: bool,
    /// Client versions that are turned away.
    pub blacklist: Blacklist,
    /// Where new calls are sent while draining.
    pub redirect: Option<String>,
    /// Number of the first conference. Rows of conferences of different processes must differ by it, since an earlier
    /// process may have left some in the forwarder.
    pub first_conference: u64,
    /// Bounds.
    pub limits: WireLimits,
}

impl WireConfig {
    /// Defaults for an open node.
    pub fn new(public_url: &str, fingerprint: Fingerprint, candidates: Vec<SocketAddr>) -> WireConfig {
        WireConfig {
            public_url: public_url.trim_end_matches('/').to_owned(),
            servers: Vec::new(),
            tool: TOOL.to_owned(),
            fingerprint,
            candidates,
            tokens: None,
            tokens_required: true,
            blacklist: Blacklist::default(),
            redirect: None,
            first_conference: 1,
            limits: WireLimits::default(),
        }
    }
}

/// Bounds of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Of each conference.
    pub conference: ConferenceLimits,
    /// Conferences of the server.
    pub conferences: usize,
    /// Participants of the server, those still connecting included.
    pub participants: usize,
    /// Calls whose transport is not up yet, all together. The oldest goes when there are more.
    pub allocations: usize,
    /// The same per token, or per /24 or /56 for clients without one.
    pub allocations_per_source: usize,
    /// From the offer to the answer.
    pub setup: Duration,
    /// From the answer to the open channel.
    pub connect: Duration,
    /// Between two PINGs.
    pub alive: Duration,
    /// Of a session description.
    pub description: sdp::Limits,
    /// Bytes of a message on the channel. What a client says about every participant of a large conference may be
    /// longer: [`WireLimits::message_per_participant`] is added for each.
    pub message: usize,
    /// See [`WireLimits::message`].
    pub message_per_participant: usize,
    /// Bytes of a message on the channel, however large the conference is.
    pub message_most: usize,
    /// Messages a second on one channel.
    pub message_rate: u32,
    /// Messages at once on one channel.
    pub message_burst: u32,
    /// Bytes of the properties a client keeps for others to read.
    pub properties: usize,
    /// Video streams a client may ask for, at most 32.
    pub video_slots: u8,
    /// Packets of a video stream kept to be sent again, 0 to 1,024.
    pub history: u16,
    /// Policing of every leg.
    pub leg: Limits,
    /// Least time between two broadcasts of who takes part.
    pub broadcast_least: Duration,
    /// The same in a conference of [`WireLimits::broadcast_full`] participants; in between it grows with them.
    pub broadcast_most: Duration,
    /// See [`WireLimits::broadcast_most`].
    pub broadcast_full: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        WireLimits {
            conference: ConferenceLimits::default(),
            conferences: 10_000,
            participants: 50_000,
            allocations: 20_000,
            allocations_per_source: 64,
            setup: Duration::from_secs(10),
            connect: Duration::from_secs(15),
            alive: Duration::from_secs(20),
            description: sdp::Limits::default(),
            message: 64 << 10,
            message_per_participant: 320,
            message_most: 256 << 10,
            message_rate: 50,
            message_burst: 100,
            properties: 4 << 10,
            video_slots: 32,
            history: 256,
            leg: Limits::default(),
            broadcast_least: Duration::from_millis(50),
            broadcast_most: Duration::from_secs(1),
            broadcast_full: 500,
        }
    }
}
