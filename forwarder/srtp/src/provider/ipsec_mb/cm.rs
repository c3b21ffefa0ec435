//! AES-CM and HMAC-SHA1 in bursts: the cipher runs over a whole burst, then up to 16 SHA-1 computations side by side.
//! Both calls are synchronous, so no job outlives the call and completion order does not matter.

use zeroize::Zeroize;

use super::manager::Manager;
use super::{IpsecKeys, ffi};
use crate::iv;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::kdf::StreamSecrets;
use crate::profile::Profile;
use crate::provider::hmac::HmacKey;
use crate::provider::stream::StreamKeys;
use crate::provider::{KeyMaterial, check};

/// Jobs handed to the library at once: four fills of its 16 SHA-1 lanes, and the frames still fit the L2 cache.
pub(super) const BATCH: usize = 64;
/// The library writes 12 or 20 tag bytes; SRTP wants the first 10 or 4.
const LIBRARY_TAG: u64 = 12;
/// SHA-1 computations the library runs side by side where it has AVX-512.
const LANES: usize = 16;
/// A pass over the lanes takes its time however few are filled; up to this many packets are faster one by one.
const FEW: usize = 3;
/// Room a packet has in the scratch; longer ones are copied to the heap (no Ethernet frame is).
const SCRATCH: usize = 2048;

/// Expanded RTP keys, and the RTCP keys of the same leg.
#[repr(C, align(64))]
pub(crate) struct CmKeys {
    rounds: [u8; 176],
    mac: HmacKey,
    salt: [u8; 14],
    pub(super) rtcp: StreamKeys,
}

impl CmKeys {
    pub(super) fn new(manager: &Manager, rtp: &StreamSecrets, rtcp: StreamKeys) -> Box<Self> {
        let mut keys = Box::new(CmKeys { rounds: [0; 176], mac: HmacKey::new(&rtp.auth), salt: rtp.salt, rtcp });
        let mut decrypt = Rounds([0; 176]);
        // SAFETY: 16 key bytes in; both outputs hold 11 round keys and are 16-byte aligned.
        unsafe {
            (manager.aes128_expand)(
                rtp.key.as_ptr().cast(),
                keys.rounds.as_mut_ptr().cast(),
                decrypt.0.as_mut_ptr().cast(),
            );
        }
        decrypt.0.zeroize();
        keys
    }
}

impl Drop for CmKeys {
    fn drop(&mut self) {
        self.rounds.zeroize();
        self.salt.zeroize();
    }
}

#[repr(align(16))]
struct Rounds([u8; 176]);

#[repr(align(16))]
#[derive(Clone, Copy)]
struct Iv([u8; 16]);

#[inline]
fn own(material: &KeyMaterial) -> Option<&CmKeys> {
    match material {
        KeyMaterial::IpsecMb(IpsecKeys::Cm(keys)) => Some(keys),
        _ => None,
    }
}

/// What a burst needs besides the jobs of the caller; made once per provider.
pub(super) struct Workspace {
    jobs: Vec<ffi::IMB_JOB>,
    ivs: [Iv; BATCH],
    tags: [[u8; 32]; BATCH],
    /// Which of the caller's jobs a slot works for.
    origin: [u8; BATCH],
    /// Opening: header, ciphertext and rollover counter in one piece, `SCRATCH` bytes a slot.
    signed: Vec<u8>,
}

// SAFETY: the raw pointers inside the job slots are written before each burst and used only during it.
unsafe impl Send for Workspace {}

impl Workspace {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: IMB_JOB is plain data; zero is a valid value of every field (null pointers, `None` callbacks).
        let blank: ffi::IMB_JOB = unsafe { std::mem::zeroed() };
        let mut space = Box::new(Workspace {
            jobs: vec![blank; BATCH],
            ivs: [Iv([0; 16]); BATCH],
            tags: [[0; 32]; BATCH],
            origin: [0; BATCH],
            signed: vec![0; BATCH * SCRATCH],
        });
        for job in &mut space.jobs {
            job.key_len_in_bytes = 16;
            job.iv_len_in_bytes = 16;
            job.auth_tag_output_len_in_bytes = LIBRARY_TAG;
            job.cipher_mode = ffi::IMB_CIPHER_MODE_IMB_CIPHER_CNTR;
            job.cipher_direction = ffi::IMB_CIPHER_DIRECTION_IMB_DIR_ENCRYPT;
            job.hash_alg = ffi::IMB_HASH_ALG_IMB_AUTH_HMAC_SHA_1;
            job.chain_order = ffi::IMB_CHAIN_ORDER_IMB_ORDER_CIPHER_HASH;
        }
        space
    }

    /// Fills the fields that both directions share.
    #[inline]
    fn keyed(&mut self, slot: usize, keys: &CmKeys, iv: [u8; 16]) -> &mut ffi::IMB_JOB {
        self.ivs[slot].0 = iv;
        let job = &mut self.jobs[slot];
        job.iv = self.ivs[slot].0.as_ptr();
        job.auth_tag_output = self.tags[slot].as_mut_ptr();
        job.enc_keys = keys.rounds.as_ptr().cast();
        job.user_data = (&raw const keys.mac).cast_mut().cast();
        job.u.HMAC._hashed_auth_key_xor_ipad = keys.mac.inner.as_ptr().cast();
        job.u.HMAC._hashed_auth_key_xor_opad = keys.mac.outer.as_ptr().cast();
        job
    }

    /// Seals at most [`BATCH`] jobs.
    pub(super) fn seal(&mut self, manager: &Manager, profile: Profile, jobs: &mut [SealJob<'_>], refused: &mut u64) {
        let mut used = 0;
        for (at, job) in jobs.iter_mut().enumerate() {
            let (Some(_), Some(keys)) = (check::seal_len(job, profile), own(&job.keys.material)) else {
                check::refuse_seal(job, refused);
                continue;
            };
            let index = job.index.index();
            let signed = job.header_len + job.plain.len();
            // The rollover counter is signed behind the packet (RFC 3711 §4.2), where the tag goes afterwards.
            job.frame[signed..signed + 4].copy_from_slice(&index.roc().to_be_bytes());
            let slot = self.keyed(used, keys, iv::counter_mode(&keys.salt, job.ssrc, index.as_u64()));
            let frame = job.frame.as_mut_ptr();
            slot.__bindgen_anon_1.src = job.plain.as_ptr();
            slot.__bindgen_anon_2.dst = frame.wrapping_add(job.header_len);
            slot.__bindgen_anon_4.msg_len_to_cipher_in_bytes = job.plain.len() as u64;
            // The library hashes from its *source*; the distance leads to the frame.
            slot.hash_start_src_offset_in_bytes = (frame as u64).wrapping_sub(job.plain.as_ptr() as u64);
            slot.__bindgen_anon_5.msg_len_to_hash_in_bytes = signed as u64 + 4;
            self.origin[used] = at as u8;
            used += 1;
        }
        // SAFETY: each slot points into the borrows of its job: `plain`, and a frame with room for payload and 4 bytes.
        let done = unsafe { self.cipher(manager, used) && self.sign(manager, used) };
        let tag = profile.rtp_tag_len();
        for (slot, at) in self.origin[..used].iter().enumerate() {
            let job = &mut jobs[*at as usize];
            let signed = job.header_len + job.plain.len();
            if done {
                job.frame[signed..signed + tag].copy_from_slice(&self.tags[slot][..tag]);
            } else {
                check::refuse_seal(job, refused);
            }
        }
    }

    /// Opens at most [`BATCH`] jobs: all tags first, then only what authenticated is decrypted.
    pub(super) fn open(&mut self, manager: &Manager, profile: Profile, jobs: &mut [OpenJob<'_>], refused: &mut u64) {
        let tag = profile.rtp_tag_len();
        // Only for packets that no Ethernet frame can carry.
        let mut long: Vec<Vec<u8>> = Vec::new();
        let mut used = 0;
        for (at, job) in jobs.iter_mut().enumerate() {
            let checked = own(&job.keys.material).ok_or(OpenError::Refused);
            let (keys, len) = match checked.and_then(|keys| Ok((keys, check::open_len(job, profile)?))) {
                Ok(parts) => parts,
                Err(error) => {
                    check::refuse_open(job, error, refused);
                    continue;
                }
            };
            let signed = job.header_len + len;
            let roc = job.index.roc().to_be_bytes();
            let source = if signed + 4 <= SCRATCH {
                let copy = &mut self.signed[used * SCRATCH..][..signed + 4];
                copy[..signed].copy_from_slice(&job.packet[..signed]);
                copy[signed..].copy_from_slice(&roc);
                copy.as_ptr()
            } else {
                long.push([&job.packet[..signed], &roc].concat());
                long[long.len() - 1].as_ptr()
            };
            let slot = self.keyed(used, keys, iv::counter_mode(&keys.salt, job.ssrc, job.index.as_u64()));
            slot.__bindgen_anon_1.src = source;
            slot.__bindgen_anon_2.dst = source.cast_mut();
            slot.hash_start_src_offset_in_bytes = 0;
            slot.__bindgen_anon_5.msg_len_to_hash_in_bytes = signed as u64 + 4;
            self.origin[used] = at as u8;
            used += 1;
        }
        // SAFETY: each source is `signed + 4` bytes of the workspace or of `long`, both alive and not moved until the end.
        let hashed = unsafe { self.sign(manager, used) };
        let mut kept = 0;
        for slot in 0..used {
            let at = self.origin[slot];
            let job = &mut jobs[at as usize];
            let signed = job.packet.len() - tag;
            let len = signed - job.header_len;
            let matches = check::tags_match(&self.tags[slot][..tag], &job.packet[signed..]);
            let Some(keys) = own(&job.keys.material).filter(|_| hashed && matches) else {
                job.out[..len].fill(0);
                job.result = Err(if hashed { OpenError::Tag } else { OpenError::Refused });
                continue;
            };
            job.result = Ok(len);
            let packet = job.packet.as_ptr();
            let out = job.out.as_mut_ptr();
            let slot = self.keyed(kept, keys, iv::counter_mode(&keys.salt, job.ssrc, job.index.as_u64()));
            slot.__bindgen_anon_1.src = packet.wrapping_add(job.header_len);
            slot.__bindgen_anon_2.dst = out;
            slot.__bindgen_anon_4.msg_len_to_cipher_in_bytes = len as u64;
            self.origin[kept] = at;
            kept += 1;
        }
        // SAFETY: each slot reads `len` bytes of its packet behind the header and writes `len` bytes of its `out`.
        if !unsafe { self.cipher(manager, kept) } {
            for at in &self.origin[..kept] {
                check::refuse_open(&mut jobs[*at as usize], OpenError::Refused, refused);
            }
        }
    }

    /// Runs the cipher over the first `used` slots, around empty payloads: the library refuses those.
    ///
    /// # Safety
    /// As [`Manager::counter_mode`].
    unsafe fn cipher(&mut self, manager: &Manager, used: usize) -> bool {
        self.jobs[..used].split_mut(|job| length(job) == 0).filter(|run| !run.is_empty()).all(|run| {
            // SAFETY: the caller's promise.
            unsafe { manager.counter_mode(run) }
        })
    }

    /// Computes the tags of the first `used` slots.
    ///
    /// # Safety
    /// As [`Manager::hmac_sha1`]; the slots were filled by [`keyed`](Self::keyed) with keys still alive, and the signed
    /// bytes are part of the allocation `dst` points into.
    unsafe fn sign(&mut self, manager: &Manager, used: usize) -> bool {
        let rest = used % LANES;
        let wide = if rest <= FEW { used - rest } else { used };
        for (job, tag) in self.jobs[wide..used].iter().zip(&mut self.tags[wide..]) {
            // SAFETY: reading u64 and pointer members of unions filled for this burst.
            let (start, offset, len, buffer) = unsafe {
                let src = job.__bindgen_anon_1.src;
                let len = job.__bindgen_anon_5.msg_len_to_hash_in_bytes;
                (src.addr(), job.hash_start_src_offset_in_bytes as usize, len as usize, job.__bindgen_anon_2.dst)
            };
            // The signed bytes lie in the buffer that `dst` points into.
            let signed = buffer.cast_const().with_addr(start.wrapping_add(offset));
            // SAFETY: the caller's promise; `keyed` left the address of a live key and nothing writes to either now.
            let (key, signed) =
                unsafe { (&*job.user_data.cast_const().cast::<HmacKey>(), std::slice::from_raw_parts(signed, len)) };
            tag[..20].copy_from_slice(&key.tag(signed, &[]));
        }
        // SAFETY: the caller's promise.
        wide == 0 || unsafe { manager.hmac_sha1(&mut self.jobs[..wide]) }
    }
}

#[inline]
fn length(job: &ffi::IMB_JOB) -> u64 {
    // SAFETY: every member of the union is a u64.
    unsafe { job.__bindgen_anon_4.msg_len_to_cipher_in_bytes }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.tags.as_flattened_mut().zeroize();
    }
}
