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
        self.seal_batch_with::<TAG>(profile, jobs, copy);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn seal_batch_avx2<const TAG: usize>(&mut self, profile: Profile, jobs: &mut [SealJob<'_>]) {
        self.seal_batch_with::<TAG>(profile, jobs, copy_avx2);
    }

    #[inline(always)]
    fn seal_batch_with<const TAG: usize>(
        &mut self,
        profile: Profile,
        jobs: &mut [SealJob<'_>],
        copy: unsafe fn(*mut u8, *const u8, usize),
    ) {
        debug_assert_eq!(profile.rtp_tag_len(), TAG);
        for job in jobs {
            if !matches!(job.keys.material, KeyMaterial::Null) || job.keys.profile() != profile {
                check::refuse_seal(job, &mut self.refused);
                continue;
            }
            let len = job.plain.len();
            if job.header_len.checked_add(len + TAG).is_none_or(|end| end > job.frame.len()) {
                check::refuse_seal(job, &mut self.refused);
                continue;
            }
            // SAFETY: header, payload and tag fit, as was just found; the frame is borrowed exclusively, so it is apart
            // from the payload.
            unsafe {
                let body = job.frame.as_mut_ptr().add(job.header_len);
                copy(body, job.plain.as_ptr(), len);
                body.add(len).cast::<[u8; TAG]>().write([0; TAG]);
            }
        }
    }
}

/// Copies `len` bytes.
///
/// # Safety
/// Both must be valid for `len` bytes and may not overlap.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { to.copy_from_nonoverlapping(from, len) };
}

/// As [`copy`]. A call to `memcpy` costs more than an audio payload itself, so what is not long is copied as two blocks
/// that may share bytes.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_avx2(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: blocks at the start and at the end, each no longer than `len`.
    unsafe {
        match len {
            128..=256 => ends::<128>(to, from, len),
            64..128 => ends::<64>(to, from, len),
            32..64 => ends::<32>(to, from, len),
            _ => copy(to, from, len),
        }
    }
}

/// Copies the first and the last `N` of `len` bytes.
///
/// # Safety
/// As for [`copy`], and `len` must be at least `N`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn ends<const N: usize>(to: *mut u8, from: *const u8, len: usize) {
    for at in [0, len - N] {
        // SAFETY: as the caller promises.
        unsafe { to.add(at).cast::<[u8; N]>().write(from.add(at).cast::<[u8; N]>().read()) };
    }
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
