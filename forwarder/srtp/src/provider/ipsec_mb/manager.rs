//! One `IMB_MGR` and the entry points taken from it. The only place that reads the library's tables.

use std::ptr::NonNull;

use super::ffi;

/// The oldest library the bindings and the traps handled here were checked against, as the library counts.
const OLDEST: u32 = 0x1_0300;

type GcmFn = unsafe extern "C" fn(
    *const ffi::gcm_key_data,
    *mut ffi::gcm_context_data,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);
type GcmPreFn = unsafe extern "C" fn(*const std::ffi::c_void, *mut ffi::gcm_key_data);
type KeyExpFn = unsafe extern "C" fn(*const std::ffi::c_void, *mut std::ffi::c_void, *mut std::ffi::c_void);
type CipherBurstFn = unsafe extern "C" fn(
    *mut ffi::IMB_MGR,
    *mut ffi::IMB_JOB,
    u32,
    ffi::IMB_CIPHER_MODE,
    ffi::IMB_CIPHER_DIRECTION,
    ffi::IMB_KEY_SIZE_BYTES,
) -> u32;
type HashBurstFn = unsafe extern "C" fn(*mut ffi::IMB_MGR, *mut ffi::IMB_JOB, u32, ffi::IMB_HASH_ALG) -> u32;

/// The GCM entry points of one key length.
#[derive(Clone, Copy)]
pub(super) struct GcmCalls {
    pub(super) seal: GcmFn,
    pub(super) open: GcmFn,
    pub(super) expand: GcmPreFn,
}

/// A manager of the library, freed on drop.
pub(super) struct Manager {
    raw: NonNull<ffi::IMB_MGR>,
    pub(super) gcm128: GcmCalls,
    pub(super) gcm256: GcmCalls,
    pub(super) aes128_expand: KeyExpFn,
    cipher_burst: CipherBurstFn,
    hash_burst: HashBurstFn,
}

// SAFETY: the manager is heap memory without ties to a thread; `Manager` is not `Sync`, so one thread at a time uses it.
unsafe impl Send for Manager {}

impl Manager {
    pub(super) fn new() -> Result<Self, String> {
        // SAFETY: takes nothing and reads a constant.
        let version = unsafe { ffi::imb_get_version() };
        if version < OLDEST {
            return Err(format!(
                "libipsec-mb {version:#x} is older than 1.3 ({OLDEST:#x}); install a newer libipsec-mb1"
            ));
        }
        // SAFETY: flags 0 ask for every extension the CPU has; the result may be null, checked next.
        let raw = NonNull::new(unsafe { ffi::alloc_mb_mgr(0) }).ok_or("libipsec-mb could not allocate a manager")?;
        let mut arch: ffi::IMB_ARCH = ffi::IMB_ARCH_IMB_ARCH_NONE;
        // SAFETY: `raw` was just allocated by the library for this call, `arch` outlives it.
        unsafe { ffi::init_mb_mgr_auto(raw.as_ptr(), &raw mut arch) };
        // SAFETY: initialised above, and nothing else refers to it.
        let table = unsafe { raw.as_ref() };
        let calls = || {
            Some(Manager {
                raw,
                gcm128: GcmCalls { seal: table.gcm128_enc?, open: table.gcm128_dec?, expand: table.gcm128_pre? },
                gcm256: GcmCalls { seal: table.gcm256_enc?, open: table.gcm256_dec?, expand: table.gcm256_pre? },
                aes128_expand: table.keyexp_128?,
                cipher_burst: table.submit_cipher_burst_nocheck?,
                hash_burst: table.submit_hash_burst_nocheck?,
            })
        };
        if let (false, Some(manager)) = (arch == ffi::IMB_ARCH_IMB_ARCH_NONE, calls()) {
            return Ok(manager);
        }
        // SAFETY: allocated above and not used again.
        unsafe { ffi::free_mb_mgr(raw.as_ptr()) };
        Err("libipsec-mb found no instruction set it can use on this CPU".to_owned())
    }

    /// AES-128-CTR over a burst; whether all of it was done.
    ///
    /// # Safety
    /// Every job holds valid keys, IV, source and destination for its non-zero length.
    pub(super) unsafe fn counter_mode(&self, jobs: &mut [ffi::IMB_JOB]) -> bool {
        let count = jobs.len() as u32;
        // SAFETY: the manager is alive and used by this thread alone; the jobs are the caller's promise.
        let done = unsafe {
            (self.cipher_burst)(
                self.raw.as_ptr(),
                jobs.as_mut_ptr(),
                count,
                ffi::IMB_CIPHER_MODE_IMB_CIPHER_CNTR,
                ffi::IMB_CIPHER_DIRECTION_IMB_DIR_ENCRYPT,
                ffi::IMB_KEY_SIZE_BYTES_IMB_KEY_128_BYTES,
            )
        };
        done == count
    }

    /// HMAC-SHA1 over a burst; whether all of it was done.
    ///
    /// # Safety
    /// Every job holds valid HMAC states, source range and room for its tag.
    pub(super) unsafe fn hmac_sha1(&self, jobs: &mut [ffi::IMB_JOB]) -> bool {
        let count = jobs.len() as u32;
        // SAFETY: as above.
        let done = unsafe {
            (self.hash_burst)(self.raw.as_ptr(), jobs.as_mut_ptr(), count, ffi::IMB_HASH_ALG_IMB_AUTH_HMAC_SHA_1)
        };
        done == count
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: allocated by `alloc_mb_mgr`, freed once; bursts are synchronous, so no job is in flight.
        unsafe { ffi::free_mb_mgr(self.raw.as_ptr()) };
    }
}
