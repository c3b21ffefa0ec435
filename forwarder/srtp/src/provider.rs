//! The provider contract: expand keys, seal and open batches out of place.

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};

/// A crypto back end, one instance per thread.
pub trait Provider: Send {
    /// Expands a master key into RTP and RTCP session keys; done on the management thread, never per packet.
    fn expand(&mut self, master: &MasterKey) -> SessionKeys;
    /// Seals a batch of one profile. Every `frame` then holds header, ciphertext and tag.
    fn seal(&mut self, jobs: &mut [SealJob<'_>]);
    /// Opens a batch of one profile and sets every `result`. `out` of a refused job holds no plaintext.
    fn open(&mut self, jobs: &mut [OpenJob<'_>]);
    /// Seals one RTCP packet in place: `packet[..len]` is clear; returns the sealed length (RFC 3711 §3.4).
    fn seal_rtcp(&mut self, keys: &SessionKeys, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize;
    /// Opens one SRTCP packet in place; returns the clear length and the SRTCP index.
    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError>;
}
