//! What two peers tell each other to connect: ICE credentials, certificate fingerprints, roles and candidates.
//! Never parses a session description; `crate::sdp` does.

use std::fmt;
use std::net::SocketAddr;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// An ICE user fragment and password (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    /// User fragment, 4 to 256 characters of RFC 8839's `ice-char`.
    pub ufrag: String,
    /// Password, 22 to 256 characters of `ice-char`.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// A hash function of certificate fingerprints (RFC 8122 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashFunction {
    /// `sha-256`.
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl HashFunction {
    /// As it is written in a description.
    pub const fn name(self) -> &'static str {
        match self {
            HashFunction::Sha256 => "sha-256",
            HashFunction::Sha384 => "sha-384",
            HashFunction::Sha512 => "sha-512",
        }
    }

    /// Length of the hash in bytes.
    #[allow(clippy::len_without_is_empty, reason = "no hash is empty")]
    pub const fn len(self) -> usize {
        match self {
            HashFunction::Sha256 => 32,
            HashFunction::Sha384 => 48,
            HashFunction::Sha512 => 64,
        }
    }

    /// By its name, in any case; `None` for one that is not accepted.
    pub fn from_name(name: &str) -> Option<HashFunction> {
        [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512]
            .into_iter()
            .find(|hash| hash.name().eq_ignore_ascii_case(name))
    }
}

/// A certificate's fingerprint; shows as `sha-256 AB:CD:...`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// The hash function.
    pub hash: HashFunction,
    /// The hash, [`HashFunction::len`] bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.hash.name())?;
        for (at, byte) in self.bytes.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// Who opens the DTLS association (RFC 8842 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// Client.
    Active,
    /// Server.
    Passive,
    /// Either; only in offers.
    ActPass,
}

/// What a candidate's address is (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// As a STUN server saw it.
    ServerReflexive,
    /// As the peer saw it.
    PeerReflexive,
    /// At a TURN server.
    Relayed,
}

/// A UDP candidate of component 1. Others are left out when a description is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Address and port.
    pub address: SocketAddr,
    /// What it is.
    pub kind: CandidateKind,
    /// Priority (RFC 8445 §5.1.2), 1 to 2^31 - 1.
    pub priority: u32,
    /// Foundation, 1 to 32 characters.
    pub foundation: String,
}

/// What a peer's description says about how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDescription {
    /// Its ICE credentials.
    pub credentials: Credentials,
    /// Fingerprints its certificate may have, at least one; any that matches is enough.
    pub fingerprints: Vec<Fingerprint>,
    /// Its DTLS role.
    pub setup: Setup,
    /// Whether it is an ICE-lite agent.
    pub ice_lite: bool,
    /// Its candidates so far.
    pub candidates: Vec<Candidate>,
    /// Largest data channel message it takes, in bytes (RFC 8841 §6); 65,536 unless it says otherwise, 0 no limit.
    pub max_message_size: u64,
}
