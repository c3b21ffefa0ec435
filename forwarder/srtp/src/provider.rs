//! The provider contract: expand keys, seal and open batches out of place. Which back ends exist, how one is
//! chosen and how it proves itself at start. Never decides what is sealed or under which index.

mod check;
mod hmac;
#[cfg(ipsec_mb)]
pub mod ipsec_mb;
pub mod null;
pub mod portable;
mod selftest;
mod stream;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};

#[cfg(ipsec_mb)]
pub use ipsec_mb::IpsecMbProvider;
pub use null::NullProvider;
pub use portable::PortableProvider;

/// A crypto back end, one instance per thread.
///
/// A job whose keys another kind of provider expanded, whose profile differs from the batch's first job, or whose
/// `frame` or `out` is too short is *refused*: nothing is sealed or opened, the frame behind the header or `out`
/// is zeroed (a receiver drops it as unauthentic), an open job gets an error, and [`refused`](Self::refused)
/// counts it. Such a job is a defect of the caller, so the count belongs in an alarm.
pub trait Provider: Send {
    /// Expands a master key into RTP and RTCP session keys; done on the management thread, never per packet.
    fn expand(&mut self, master: &MasterKey) -> SessionKeys;
    /// Seals a batch of one profile. Every `frame` then holds header, ciphertext and tag.
    fn seal(&mut self, jobs: &mut [SealJob<'_>]);
    /// Opens a batch of one profile and sets every `result`. `out` of a refused job holds no plaintext.
    fn open(&mut self, jobs: &mut [OpenJob<'_>]);
    /// Seals one RTCP packet in place: `packet[..len]` is clear; returns the sealed length (RFC 3711 §3.4), or 0 when
    /// refused: `len` below 8, `packet` shorter than `len` + [`Profile::rtcp_tag_len`](crate::Profile::rtcp_tag_len)
    /// + 4, `index` above 2^31 - 1, or keys of another provider.
    fn seal_rtcp(&mut self, keys: &SessionKeys, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize;
    /// Opens one SRTCP packet in place; returns the clear length and the SRTCP index.
    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError>;
    /// Jobs refused since the provider was made because the caller broke the contract.
    fn refused(&self) -> u64;
}

/// The back ends there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderKind {
    /// aws-lc GCM and `RustCrypto` AES-CM; everywhere.
    #[serde(rename = "portable")]
    Portable,
    /// Intel's multi-buffer library; x86-64.
    #[serde(rename = "ipsec-mb")]
    IpsecMb,
    /// No cryptography at all: measuring only.
    #[serde(rename = "null")]
    Null,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [ProviderKind; 3] = [ProviderKind::Portable, ProviderKind::IpsecMb, ProviderKind::Null];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            ProviderKind::Portable => "portable",
            ProviderKind::IpsecMb => "ipsec-mb",
            ProviderKind::Null => "null",
        }
    }

    /// The fastest kind that starts on this machine; never [`ProviderKind::Null`].
    pub fn best() -> ProviderKind {
        if AnyProvider::new(ProviderKind::IpsecMb).is_ok() { ProviderKind::IpsecMb } else { ProviderKind::Portable }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A provider name nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown crypto provider `{0}`; expected portable, ipsec-mb or null")]
pub struct UnknownProvider(String);

impl FromStr for ProviderKind {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownProvider(name.to_owned()))
    }
}

/// Why a provider did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Not usable in this build or on this machine.
    #[error("crypto provider {kind} is not available: {reason}")]
    Unavailable {
        /// Kind asked for.
        kind: ProviderKind,
        /// What is missing and how to get it.
        reason: String,
    },
    /// A known answer came out wrong: the library or the machine is not to be trusted with media.
    #[error("crypto provider {kind} failed its self-test ({what}); use the portable provider and report this machine")]
    SelfTest {
        /// Kind asked for.
        kind: ProviderKind,
        /// The failing answer.
        what: &'static str,
    },
}

/// What a provider keeps inside [`SessionKeys`].
pub(crate) enum KeyMaterial {
    #[cfg(ipsec_mb)]
    IpsecMb(ipsec_mb::IpsecKeys),
    Portable(Box<portable::PortableKeys>),
    Null,
}

impl KeyMaterial {
    pub(crate) const fn kind(&self) -> ProviderKind {
        match self {
            KeyMaterial::Portable(_) => ProviderKind::Portable,
            #[cfg(ipsec_mb)]
            KeyMaterial::IpsecMb(_) => ProviderKind::IpsecMb,
            KeyMaterial::Null => ProviderKind::Null,
        }
    }
}

/// One provider of any kind, chosen at start.
#[derive(Debug)]
pub enum AnyProvider {
    /// See [`ProviderKind::IpsecMb`].
    #[cfg(ipsec_mb)]
    IpsecMb(IpsecMbProvider),
    /// See [`ProviderKind::Portable`].
    Portable(PortableProvider),
    /// See [`ProviderKind::Null`].
    Null(NullProvider),
}

impl AnyProvider {
    /// Starts a provider and lets it prove itself on known answers of every profile.
    pub fn new(kind: ProviderKind) -> Result<AnyProvider, ProviderError> {
        let mut provider = match kind {
            ProviderKind::Null => AnyProvider::Null(NullProvider::new()),
            ProviderKind::Portable => AnyProvider::Portable(PortableProvider::new()),
            ProviderKind::IpsecMb => new_ipsec_mb()?,
        };
        if kind != ProviderKind::Null {
            selftest::run(&mut provider).map_err(|what| ProviderError::SelfTest { kind, what })?;
        }
        Ok(provider)
    }

    /// The kind.
    pub fn kind(&self) -> ProviderKind {
        match self {
            AnyProvider::Portable(_) => ProviderKind::Portable,
            #[cfg(ipsec_mb)]
            AnyProvider::IpsecMb(_) => ProviderKind::IpsecMb,
            AnyProvider::Null(_) => ProviderKind::Null,
        }
    }
}

#[cfg(ipsec_mb)]
fn new_ipsec_mb() -> Result<AnyProvider, ProviderError> {
    let kind = ProviderKind::IpsecMb;
    IpsecMbProvider::new().map(AnyProvider::IpsecMb).map_err(|reason| ProviderError::Unavailable { kind, reason })
}

#[cfg(not(ipsec_mb))]
fn new_ipsec_mb() -> Result<AnyProvider, ProviderError> {
    let reason = "this build has no ipsec-mb (x86-64 with cargo feature `ipsec-mb` has); use portable".to_owned();
    Err(ProviderError::Unavailable { kind: ProviderKind::IpsecMb, reason })
}

macro_rules! each {
    ($any:expr, $provider:ident => $call:expr) => {
        match $any {
            AnyProvider::Portable($provider) => $call,
            #[cfg(ipsec_mb)]
            AnyProvider::IpsecMb($provider) => $call,
            AnyProvider::Null($provider) => $call,
        }
    };
}

impl Provider for AnyProvider {
    fn expand(&mut self, master: &MasterKey) -> SessionKeys {
        each!(self, provider => provider.expand(master))
    }

    #[inline]
    fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        each!(self, provider => provider.seal(jobs));
    }

    #[inline]
    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        each!(self, provider => provider.open(jobs));
    }

    fn seal_rtcp(&mut self, keys: &SessionKeys, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        each!(self, provider => provider.seal_rtcp(keys, ssrc, index, packet, len))
    }

    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        each!(self, provider => provider.open_rtcp(keys, packet))
    }

    fn refused(&self) -> u64 {
        each!(self, provider => provider.refused())
    }
}
