//! GCM by the library's direct calls: one call seals a packet out of place. Opening compares the tag here, in constant
//! time, because the library only computes it.

use zeroize::Zeroize;

use super::manager::{GcmCalls, Manager};
use super::{IpsecKeys, ffi};
use crate::iv;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::kdf::StreamSecrets;
use crate::profile::Profile;
use crate::provider::stream::StreamKeys;
use crate::provider::{KeyMaterial, check};

const TAG: usize = 16;
const KEY_BYTES: usize = size_of::<ffi::gcm_key_data>();

/// The library reads these with aligned 64-byte loads.
#[repr(C, align(64))]
struct KeyData([u8; KEY_BYTES]);

/// Expanded RTP keys, and the RTCP keys of the same leg.
#[repr(C)]
pub(crate) struct GcmKeys {
    data: KeyData,
    salt: [u8; 12],
    pub(super) rtcp: StreamKeys,
}

impl GcmKeys {
    pub(super) fn new(manager: &Manager, profile: Profile, rtp: &StreamSecrets, rtcp: StreamKeys) -> Box<Self> {
        let mut salt = [0; 12];
        salt.copy_from_slice(&rtp.salt[..12]);
        let mut keys = Box::new(GcmKeys { data: KeyData([0; KEY_BYTES]), salt, rtcp });
        // SAFETY: the key has the profile's length; `data` has the size and alignment of `gcm_key_data`.
        unsafe { (calls(manager, profile).expand)(rtp.key.as_ptr().cast(), keys.data.0.as_mut_ptr().cast()) };
        keys
    }

    #[inline]
    fn data(&self) -> *const ffi::gcm_key_data {
        self.data.0.as_ptr().cast()
    }
}

impl Drop for GcmKeys {
    fn drop(&mut self) {
        self.data.0.zeroize();
        self.salt.zeroize();
    }
}

fn calls(manager: &Manager, profile: Profile) -> GcmCalls {
    if profile == Profile::AeadAes256Gcm { manager.gcm256 } else { manager.gcm128 }
}

#[inline]
fn own(material: &KeyMaterial) -> Option<&GcmKeys> {
    match material {
        KeyMaterial::IpsecMb(IpsecKeys::Gcm(keys)) => Some(keys),
        _ => None,
    }
}

/// The library's scratch of one packet, reused. It ends with state of the last packet and is cleared on drop.
#[repr(C, align(64))]
pub(super) struct Context([u8; size_of::<ffi::gcm_context_data>()]);

impl Context {
    pub(super) const fn new() -> Self {
        Context([0; size_of::<ffi::gcm_context_data>()])
    }

    #[inline]
    fn raw(&mut self) -> *mut ffi::gcm_context_data {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn seal(&mut self, manager: &Manager, profile: Profile, jobs: &mut [SealJob<'_>], refused: &mut u64) {
        let calls = calls(manager, profile);
        for job in jobs {
            let (Some(len), Some(keys)) = (check::seal_len(job, profile), own(&job.keys.material)) else {
                check::refuse_seal(job, refused);
                continue;
            };
            let iv = iv::gcm_rtp(&keys.salt, job.ssrc, job.index.index());
            let (header, body) = job.frame[..len].split_at_mut(job.header_len);
            let (body, tag) = body.split_at_mut(job.plain.len());
            // SAFETY: `body` and `plain` are `plain.len()` bytes and do not overlap (one is borrowed mutably), the header
            // is the AAD, the IV 12 bytes, `tag` 16; keys and context are aligned and of the library's size.
            unsafe {
                (calls.seal)(
                    keys.data(),
                    self.raw(),
                    body.as_mut_ptr(),
                    job.plain.as_ptr(),
                    job.plain.len() as u64,
                    iv.as_ptr(),
                    header.as_ptr(),
                    header.len() as u64,
                    tag.as_mut_ptr(),
                    TAG as u64,
                );
            }
        }
    }

    pub(super) fn open(&mut self, manager: &Manager, profile: Profile, jobs: &mut [OpenJob<'_>], refused: &mut u64) {
        let calls = calls(manager, profile);
        for job in jobs {
            let checked = own(&job.keys.material).ok_or(OpenError::Refused);
            let (keys, len) = match checked.and_then(|keys| Ok((keys, check::open_len(job, profile)?))) {
                Ok(parts) => parts,
                Err(error) => {
                    check::refuse_open(job, error, refused);
                    continue;
                }
            };
            let iv = iv::gcm_rtp(&keys.salt, job.ssrc, job.index);
            let (header, body) = job.packet.split_at(job.header_len);
            let (body, tag) = body.split_at(len);
            let out = &mut job.out[..len];
            let mut made = [0; TAG];
            // SAFETY: as in `seal`, with `out` of the ciphertext's length and `made` of 16 bytes.
            unsafe {
                (calls.open)(
                    keys.data(),
                    self.raw(),
                    out.as_mut_ptr(),
                    body.as_ptr(),
                    len as u64,
                    iv.as_ptr(),
                    header.as_ptr(),
                    header.len() as u64,
                    made.as_mut_ptr(),
                    TAG as u64,
                );
            }
            job.result = if check::tags_match(&made, tag) {
                Ok(len)
            } else {
                // The library has decrypted already.
                out.fill(0);
                Err(OpenError::Tag)
            };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
