//! The provider without cryptography: payload copied, a zero tag of the profile's length. It exists to measure
//! everything around the cipher and must never carry a real call.

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};
use crate::provider::{KeyMaterial, Provider, check};
use crate::srtcp::MAX_SRTCP_INDEX;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct NullProvider {
    refused: u64,
}

impl NullProvider {
    /// A provider.
    pub const fn new() -> Self {
        NullProvider { refused: 0 }
    }
}

impl Provider for NullProvider {
    fn expand(&mut self, master: &MasterKey) -> SessionKeys {
        SessionKeys::new(master.profile(), KeyMaterial::Null)
    }

    #[inline]
    fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        for job in jobs {
            let (Some(len), KeyMaterial::Null) = (check::seal_len(job, profile), &job.keys.material) else {
                check::refuse_seal(job, &mut self.refused);
                continue;
            };
            let (payload, tag) = job.frame[job.header_len..len].split_at_mut(job.plain.len());
            payload.copy_from_slice(job.plain);
            tag.fill(0);
        }
    }

    #[inline]
    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        for job in jobs {
            let KeyMaterial::Null = &job.keys.material else {
                check::refuse_open(job, OpenError::Refused, &mut self.refused);
                continue;
            };
            match check::open_len(job, profile) {
                Ok(len) => {
                    job.out[..len].copy_from_slice(&job.packet[job.header_len..][..len]);
                    job.result = Ok(len);
                }
                Err(error) => check::refuse_open(job, error, &mut self.refused),
            }
        }
    }

    fn seal_rtcp(&mut self, keys: &SessionKeys, _ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        if !check::rtcp_fits(keys, index, packet.len(), len) || !matches!(keys.material, KeyMaterial::Null) {
            self.refused += 1;
            return 0;
        }
        let sealed = len + keys.profile().rtcp_tag_len() + 4;
        packet[len..sealed].fill(0);
        // Where the profile has its index word: last for GCM (RFC 7714 §9.1), before the tag otherwise.
        let at = if keys.profile().is_aead() { sealed - 4 } else { len };
        packet[at..at + 4].copy_from_slice(&(index | 1 << 31).to_be_bytes());
        sealed
    }

    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        if !matches!(keys.material, KeyMaterial::Null) {
            self.refused += 1;
            return Err(OpenError::Refused);
        }
        let tag = keys.profile().rtcp_tag_len();
        let len = packet.len().checked_sub(tag + 4).filter(|len| *len >= 8).ok_or(OpenError::Short)?;
        let at = if keys.profile().is_aead() { packet.len() - 4 } else { len };
        let word = u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        Ok((len, word & MAX_SRTCP_INDEX))
    }

    fn refused(&self) -> u64 {
        self.refused
    }
}
