//! One peer connection: ICE, DTLS, SCTP and data channels as one machine without sockets or clocks.
//! Never sees media; the forwarder does.

mod description;

pub use description::{Candidate, CandidateKind, Credentials, Fingerprint, HashFunction, RemoteDescription, Setup};
