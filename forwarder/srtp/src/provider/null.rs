//! The provider without cryptography: payload copied, a zero tag of the profile's length. It exists to measure
//! everything around the cipher and must never carry a real call.

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};
use crate::provider::{KeyMaterial, Provider};
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
        for job in jobs {
            let tag = job.keys.profile().rtp_tag_len();
            let body = job.frame.get_mut(job.header_len..).unwrap_or_default();
            match body.split_at_mut_checked(job.plain.len()) {
                Some((payload, rest)) if rest.len() >= tag && matches!(job.keys.material, KeyMaterial::Null) => {
                    payload.copy_from_slice(job.plain);
                    rest[..tag].fill(0);
                }
                _ => {
                    job.frame.get_mut(job.header_len..).unwrap_or_default().fill(0);
                    self.refused += 1;
                }
            }
        }
    }

    #[inline]
    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.result = open_one(job);
            if job.result == Err(OpenError::Refused) {
                job.out.fill(0);
                self.refused += 1;
            }
        }
    }

    fn seal_rtcp(&mut self, keys: &SessionKeys, _ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        let sealed = len + keys.profile().rtcp_tag_len() + 4;
        if len < 8 || index > MAX_SRTCP_INDEX || packet.len() < sealed || !matches!(keys.material, KeyMaterial::Null) {
            self.refused += 1;
            return 0;
        }
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

#[inline]
fn open_one(job: &mut OpenJob<'_>) -> Result<usize, OpenError> {
    if !matches!(job.keys.material, KeyMaterial::Null) {
        return Err(OpenError::Refused);
    }
    let tag = job.keys.profile().rtp_tag_len();
    let body = job.packet.get(job.header_len..).ok_or(OpenError::Short)?;
    let len = body.len().checked_sub(tag).ok_or(OpenError::Short)?;
    let out = job.out.get_mut(..len).ok_or(OpenError::Refused)?;
    out.copy_from_slice(&body[..len]);
    Ok(len)
}
