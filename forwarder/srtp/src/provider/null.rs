//! The provider without cryptography: payload copied, a zero tag of the profile's length. It exists to measure
//! everything around the cipher and must never carry a real call.

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
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

    #[inline]
    fn seal_batch<const TAG: usize>(&mut self, profile: Profile, jobs: &mut [SealJob<'_>]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 was detected.
            return unsafe { self.seal_batch_avx2::<TAG>(profile, jobs) };
        }
        self.seal_batch_with::<TAG>(profile, jobs, <[u8]>::copy_from_slice);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn seal_batch_avx2<const TAG: usize>(&mut self, profile: Profile, jobs: &mut [SealJob<'_>]) {
        self.seal_batch_with::<TAG>(profile, jobs, |to, from| copy_avx2(to, from));
    }

    #[inline(always)]
    fn seal_batch_with<const TAG: usize>(
        &mut self,
        profile: Profile,
        jobs: &mut [SealJob<'_>],
        copy: impl Fn(&mut [u8], &[u8]),
    ) {
        debug_assert_eq!(profile.rtp_tag_len(), TAG);
        for job in jobs {
            if !matches!(job.keys.material, KeyMaterial::Null) || job.keys.profile() != profile {
                check::refuse_seal(job, &mut self.refused);
                continue;
            }
            let Some((body, tag)) = room::<TAG>(job.frame, job.header_len, job.plain.len()) else {
                check::refuse_seal(job, &mut self.refused);
                continue;
            };
            copy(body, job.plain);
            *tag = [0; TAG];
        }
    }
}

/// Where a job's payload and tag go; `None` if its frame is too short.
#[inline(always)]
fn room<const TAG: usize>(frame: &mut [u8], header_len: usize, len: usize) -> Option<(&mut [u8], &mut [u8; TAG])> {
    let (_, rest) = frame.split_at_mut_checked(header_len)?;
    let (body, rest) = rest.split_at_mut_checked(len)?;
    Some((body, rest.first_chunk_mut()?))
}

/// Copies between slices of one length. A call to `memcpy` costs more than an audio payload itself.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
#[allow(clippy::cast_ptr_alignment, reason = "loads and stores of the unaligned kind")]
fn copy_avx2(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_storeu_si256};
    let len = from.len().min(to.len());
    if !(32..=512).contains(&len) {
        to[..len].copy_from_slice(&from[..len]);
        return;
    }
    let (to, from) = (to.as_mut_ptr(), from.as_ptr());
    // SAFETY: `at + 32` is at most the length of both slices, which do not overlap; any alignment is allowed.
    let block = |at: usize| unsafe {
        let block = _mm256_loadu_si256(from.add(at).cast::<__m256i>());
        _mm256_storeu_si256(to.add(at).cast::<__m256i>(), block);
    };
    let mut at = 0;
    while len - at >= 128 {
        for part in 0..4 {
            block(at + part * 32);
        }
        at += 128;
    }
    if len - at >= 64 {
        block(at);
        block(at + 32);
        at += 64;
    }
    if len - at >= 32 {
        block(at);
    }
    // The rest, over bytes that were copied already.
    block(len - 32);
}

impl Provider for NullProvider {
    fn expand(&mut self, master: &MasterKey) -> SessionKeys {
        SessionKeys::new(master.profile(), KeyMaterial::Null)
    }

    #[inline]
    fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        match profile.rtp_tag_len() {
            16 => self.seal_batch::<16>(profile, jobs),
            10 => self.seal_batch::<10>(profile, jobs),
            _ => self.seal_batch::<4>(profile, jobs),
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
