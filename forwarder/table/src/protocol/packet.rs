//! The packet connection: what control must see and what it sends. One message a packet, both directions.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::Name;

/// Why control gets to see a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PacketInReason {
    /// STUN from a tuple of no leg, or of a leg without ICE state.
    StunUnknown,
    /// STUN of an established leg that the forwarder does not answer itself: role conflict, restart, another pair,
    /// another method.
    StunPolicy,
    /// A DTLS record.
    Dtls,
}

/// A message of the packet connection.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PacketMessage {
    /// Forwarder to control: a datagram's payload.
    PacketIn {
        /// Endpoint it arrived at.
        endpoint: Name,
        /// Leg its tuple belongs to, if any.
        leg: Option<Name>,
        /// Sender.
        from: SocketAddr,
        /// Why control sees it.
        reason: PacketInReason,
        /// UDP payload.
        #[serde(with = "super::blob")]
        bytes: Vec<u8>,
    },
    /// Control to forwarder: send a datagram.
    PacketOut {
        /// Endpoint it leaves from.
        endpoint: Name,
        /// Destination.
        to: SocketAddr,
        /// UDP payload.
        #[serde(with = "super::blob")]
        bytes: Vec<u8>,
    },
    /// Forwarder to control: an authenticated RTCP compound in clear.
    RtcpIn {
        /// Leg it arrived on.
        leg: Name,
        /// The compound without index and tag.
        #[serde(with = "super::blob")]
        bytes: Vec<u8>,
    },
    /// Control to forwarder: seal and send an RTCP compound.
    RtcpOut {
        /// Leg it goes to.
        leg: Name,
        /// The compound in clear.
        #[serde(with = "super::blob")]
        bytes: Vec<u8>,
    },
}

impl std::fmt::Debug for PacketMessage {
    /// Shows lengths only: RTCP in clear and DTLS records have no place in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PacketMessage::PacketIn { endpoint, leg, from, reason, bytes } => {
                write!(f, "PacketIn({endpoint}, {leg:?}, {from}, {reason:?}, {} bytes)", bytes.len())
            }
            PacketMessage::PacketOut { endpoint, to, bytes } => {
                write!(f, "PacketOut({endpoint}, {to}, {} bytes)", bytes.len())
            }
            PacketMessage::RtcpIn { leg, bytes } => write!(f, "RtcpIn({leg}, {} bytes)", bytes.len()),
            PacketMessage::RtcpOut { leg, bytes } => write!(f, "RtcpOut({leg}, {} bytes)", bytes.len()),
        }
    }
}
