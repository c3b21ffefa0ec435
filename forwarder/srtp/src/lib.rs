//! SRTP and SRTCP for many keys at once: profiles, key derivation, packet indexes, replay and sent
//! windows, and the providers that seal and open batches. Never touches sockets, clocks or tables.

pub mod index;
pub mod job;
pub mod key;
pub mod profile;
pub mod provider;
pub mod replay;
pub mod window;

pub use index::{PacketIndex, Seq, Ssrc};
pub use profile::Profile;
