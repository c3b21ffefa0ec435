//! What the forwarder reports by itself to subscribers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sluice_srtp::Ssrc;

use super::status::IoMode;
use crate::model::Name;

/// An event with its place in the connection's sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Counts up by one for each event of the forwarder, delivered or not: a gap means events were lost to a slow
    /// connection, and the subscriber takes a snapshot.
    pub sequence: u64,
    /// When, in nanoseconds of the Unix epoch.
    pub at_unix_ns: u64,
    /// What.
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A leg's selected destination was fixed or moved.
    LegTuple {
        /// The leg.
        leg: Name,
        /// Where it is now.
        address: SocketAddr,
    },
    /// A learn rule made an ingress stream.
    StreamLearned {
        /// The rule.
        rule: Name,
        /// Leg the stream arrives on.
        leg: Name,
        /// Its SSRC.
        ssrc: Ssrc,
    },
    /// A learned stream was forgotten.
    StreamForgotten {
        /// The rule.
        rule: Name,
        /// Leg the stream arrived on.
        leg: Name,
        /// Its SSRC.
        ssrc: Ssrc,
    },
    /// Nothing authenticated arrived from a leg for a while.
    LegSilent {
        /// The leg.
        leg: Name,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// A silent leg sends again.
    LegBack {
        /// The leg.
        leg: Name,
    },
    /// A peer's consent ran out; nothing is sent to it any more (RFC 7675).
    ConsentLost {
        /// The leg.
        leg: Name,
    },
    /// A peer answered a check again after its consent had run out.
    ConsentBack {
        /// The leg.
        leg: Name,
    },
    /// A key nears its last index and must be replaced.
    KeyWearing {
        /// The leg.
        leg: Name,
        /// The egress stream's SSRC.
        ssrc: Ssrc,
        /// Packets left.
        left: u64,
    },
    /// An endpoint's way to the wire changed.
    EndpointIo {
        /// The endpoint.
        endpoint: Name,
        /// How it does I/O now.
        mode: IoMode,
        /// Why it changed.
        why: String,
    },
    /// The table changed by a request of any connection.
    TableChanged {
        /// Its generation now.
        generation: u64,
    },
}
