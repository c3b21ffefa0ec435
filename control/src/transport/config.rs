//! What a transport is told and what it tells: configuration, limits, outputs, errors. No behaviour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_srtp::key::MasterKey;
use sluice_table::{Ice, Name};

use super::{Credentials, Identity};

/// Which DTLS versions to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsVersion {
    /// 1.2 only; as server it gets browsers to use `AEAD_AES_256_GCM`.
    #[default]
    V1_2,
    /// 1.3 only.
    V1_3,
    /// 1.3 where the peer speaks it.
    Auto,
}

/// A local address media may arrive at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// The endpoint whose socket it is.
    pub endpoint: Name,
    /// What the socket is bound to and packets leave from.
    pub address: SocketAddr,
    /// What peers are told; another address than `address` behind 1:1 NAT.
    pub advertised: SocketAddr,
}

/// Bounds of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from creation until the transport must be connected.
    pub establish: Duration,
    /// Remote candidates taken from descriptions; more are ignored and counted.
    pub candidates: usize,
    /// Candidate pairs kept, learned ones included.
    pub pairs: usize,
    /// Data channels open at a time.
    pub channels: usize,
    /// Bytes of messages waiting to be sent or acknowledged, over all channels.
    pub send_buffer: usize,
    /// Largest message taken from the peer, in bytes.
    pub message: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            establish: Duration::from_secs(30),
            candidates: 64,
            pairs: 64,
            channels: 8,
            send_buffer: 1 << 20,
            message: 256 << 10,
        }
    }
}

/// How a transport is made.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Whether this side starts as the controlling ICE agent: the side that made the offer.
    pub controlling: bool,
    /// Random number that settles role conflicts (RFC 8445 §5.2).
    pub tie_breaker: u64,
    /// Our user fragment and password.
    pub credentials: Credentials,
    /// Where packets may arrive and leave, preferred first.
    pub locals: Vec<LocalCandidate>,
    /// Our certificate.
    pub identity: Arc<Identity>,
    /// DTLS versions.
    pub dtls: DtlsVersion,
    /// Whether to open the SCTP association instead of waiting for the peer's INIT. Browsers always send one.
    pub sctp_connect: bool,
    /// Bounds.
    pub limits: Limits,
}

/// A data channel of one transport; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u32);

/// A message to send. Its bytes are not copied before they are sealed: many channels may send the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Text in UTF-8.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Payload {
    pub(super) fn into_bytes(self) -> (bool, Bytes) {
        match self {
            Payload::Text(text) => (true, text),
            Payload::Binary(bytes) => (false, bytes),
        }
    }
}

/// What a leg is made of, once keys exist and a tuple answered our own check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Endpoint the peer talks to.
    pub endpoint: Name,
    /// Key of packets from the peer.
    pub inbound: MasterKey,
    /// Key of packets to the peer.
    pub outbound: MasterKey,
    /// What the forwarder needs to answer checks and keep consent; the first tuple is the selected one.
    pub ice: Ice,
}

/// Where a connected peer is now: another tuple, other credentials or another role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Endpoint the peer talks to.
    pub endpoint: Name,
    /// What the forwarder keeps consent with; the first tuple is the selected one.
    pub ice: Ice,
}

/// What a transport wants done or has to tell.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// Endpoint whose socket it leaves from.
        endpoint: Name,
        /// Where it goes.
        to: SocketAddr,
        /// What it is.
        bytes: Vec<u8>,
    },
    /// Keys and a validated tuple: make the leg, then call [`Transport::release`](super::Transport::release). Once per transport.
    Connected(Box<Connection>),
    /// The peer is somewhere else.
    Moved(Path),
    /// A channel is open, ours or the peer's.
    ChannelOpen {
        /// Which.
        channel: ChannelId,
        /// Its label.
        label: String,
    },
    /// A message arrived.
    Message {
        /// On which channel.
        channel: ChannelId,
        /// Whether the peer sent it as text; it may still not be UTF-8.
        text: bool,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A channel is gone.
    ChannelClosed(ChannelId),
    /// The transport is finished; nothing follows but its last datagrams. Exactly once.
    Closed(CloseReason),
}

/// Why a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum CloseReason {
    /// [`Transport::close`](super::Transport::close) was called.
    #[error("closed here")]
    Local,
    /// DTLS `close_notify` or SCTP abort.
    #[error("closed by the peer")]
    Peer,
    /// Not connected within [`Limits::establish`]; no datagram with our credentials came.
    #[error("no binding request arrived in time; check that the client can reach the advertised addresses")]
    Unreachable,
    /// Not connected within [`Limits::establish`]; the peer asked but never answered our checks.
    #[error("the peer never answered a check of ours; its address cannot be reached from here")]
    NoAnswer,
    /// Not connected within [`Limits::establish`]; ICE did, DTLS did not.
    #[error("the DTLS handshake did not finish in time")]
    DtlsTimeout,
    /// The peer's certificate is not the one of its description.
    #[error("the peer's certificate has none of the fingerprints of its description")]
    Fingerprint,
    /// The peer's certificate is not ECDSA on P-256 or P-384, RSA for example.
    #[error("the peer's certificate is not an ECDSA one on P-256 or P-384; RSA is not supported")]
    Certificate,
    /// No common version, cipher or extension.
    #[error("the peer offers no DTLS version, cipher or extension in common with ours")]
    DtlsParameters,
    /// The handshake ended without an SRTP profile.
    #[error("the peer offers no SRTP profile")]
    SrtpProfile,
    /// Another error of the handshake.
    #[error("the DTLS handshake failed")]
    Dtls,
    /// The SCTP association was lost by error.
    #[error("the SCTP association failed")]
    Sctp,
}

impl CloseReason {
    /// Every reason, for counters.
    pub const ALL: [CloseReason; 11] = [
        CloseReason::Local,
        CloseReason::Peer,
        CloseReason::Unreachable,
        CloseReason::NoAnswer,
        CloseReason::DtlsTimeout,
        CloseReason::Fingerprint,
        CloseReason::Certificate,
        CloseReason::DtlsParameters,
        CloseReason::SrtpProfile,
        CloseReason::Dtls,
        CloseReason::Sctp,
    ];

    /// A short name for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Local => "local",
            CloseReason::Peer => "peer",
            CloseReason::Unreachable => "unreachable",
            CloseReason::NoAnswer => "no_answer",
            CloseReason::DtlsTimeout => "dtls_timeout",
            CloseReason::Fingerprint => "fingerprint",
            CloseReason::Certificate => "certificate",
            CloseReason::DtlsParameters => "dtls_parameters",
            CloseReason::SrtpProfile => "srtp_profile",
            CloseReason::Dtls => "dtls",
            CloseReason::Sctp => "sctp",
        }
    }
}

/// Why a remote description was not taken; the transport is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No fingerprint.
    #[error("the description has no fingerprint (a=fingerprint) of sha-256, sha-384 or sha-512")]
    NoFingerprint,
    /// Fingerprints changed while the session lives.
    #[error("the description has other fingerprints than before; a new certificate needs a new connection")]
    FingerprintChanged,
    /// User fragment or password out of range (RFC 8839 §5.4).
    #[error("a=ice-ufrag needs 4 to 256 characters and a=ice-pwd 22 to 256")]
    Credentials,
    /// The transport is closed.
    #[error("the connection is closed")]
    Closed,
}

/// Why a channel was not opened or a message not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The transport is closed.
    #[error("the connection is closed")]
    Closed,
    /// No such channel, or not open yet, or not any more.
    #[error("channel {} is not open", .0.0)]
    NotOpen(ChannelId),
    /// The peer or SCTP takes no message of that size.
    #[error("a message of {length} bytes is too large, the peer takes {limit}")]
    TooLarge {
        /// Bytes of the message.
        length: usize,
        /// Largest message.
        limit: usize,
    },
    /// Too much is waiting; the peer does not read fast enough.
    #[error("{waiting} bytes wait to be sent, at most {limit} may; send again once the peer took some")]
    Full {
        /// Bytes waiting.
        waiting: usize,
        /// [`Limits::send_buffer`].
        limit: usize,
    },
    /// Too many channels.
    #[error("{0} channels are open, which is the limit")]
    TooManyChannels(usize),
    /// SCTP refused it.
    #[error("the SCTP association took no message")]
    Sctp,
}
