//! SRTP and SRTCP for many keys at once: profiles, key derivation, packet indexes, replay and sent
//! windows, and the providers that seal and open batches. Never touches sockets, clocks or tables.

pub mod bench;
mod bitmap;
pub mod index;
mod iv;
pub mod job;
mod kdf;
pub mod key;
pub mod profile;
pub mod provider;
pub mod replay;
pub mod srtcp;
#[cfg(test)]
mod vectors;
pub mod window;

pub use index::{PacketIndex, Seq, Ssrc};
pub use key::{Fingerprint, KeyError, KeyId, MasterKey, SessionKeys};
pub use profile::Profile;
pub use provider::{AnyProvider, Provider, ProviderError, ProviderKind};
pub use replay::{Receiver, ReplayError};
pub use srtcp::{SrtcpReceiver, SrtcpSender};
pub use window::{IssueError, SendIndex, SentSequence, SentWindow};
