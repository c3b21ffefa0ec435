//! One peer connection: ICE, DTLS, SCTP and data channels as one machine without sockets or clocks.
//! Never sees media; the forwarder does.

mod config;
pub mod dcep;
mod description;
mod dtls;
#[cfg(test)]
mod garbage;
mod ice;
mod identity;
mod machine;
mod pair;
mod sctp;
mod select;
mod show;
mod status;
mod stun;

pub use config::{
    ChannelId, CloseReason, Connection, DtlsVersion, Limits, LocalCandidate, Output, Path, Payload, SendError,
    TransportConfig, TransportError,
};
pub use description::{Candidate, CandidateKind, Credentials, Fingerprint, HashFunction, RemoteDescription, Setup};
pub use identity::{Identity, IdentityError};
pub use machine::Transport;
pub use status::{ChannelStatus, Ignored, PairState, PairStatus, Phase, TransportStatus};
pub use stun::{Protocol, TransactionId, is_stun_request, is_stun_response, protocol, stun_ufrag, transaction_id};
