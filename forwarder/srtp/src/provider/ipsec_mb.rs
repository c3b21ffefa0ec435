//! Intel's multi-buffer library: VAES GCM straight from the shared plaintext into the frame, and AES-CM with up to
//! 16 SHA-1 computations side by side. SRTCP goes through [`stream`](super::stream): it is too rare to pay
//! for a second set of expanded keys.

mod cm;
mod ffi;
mod gcm;
mod manager;

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::kdf::{self, SessionSecrets};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
use crate::provider::stream::StreamKeys;
use crate::provider::{KeyMaterial, Provider, check};

pub(crate) use cm::CmKeys;
pub(crate) use gcm::GcmKeys;
use manager::Manager;

/// Keys in the library's own form. They depend on the instruction set the library chose, which is the same for every
/// manager of one process.
pub(crate) enum IpsecKeys {
    Gcm(Box<GcmKeys>),
    Cm(Box<CmKeys>),
}

/// See the [module](self). `Send`, not `Sync`: the library keeps work in progress in its manager.
pub struct IpsecMbProvider {
    manager: Manager,
    gcm: Box<gcm::Context>,
    cm: Box<cm::Workspace>,
    refused: u64,
}

impl std::fmt::Debug for IpsecMbProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpsecMbProvider").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl IpsecMbProvider {
    /// A provider with a manager of its own, or why the library does not work here. Use
    /// [`AnyProvider::new`](crate::AnyProvider::new) for one that has tested itself.
    pub fn new() -> Result<Self, String> {
        let manager = Manager::new()?;
        Ok(IpsecMbProvider { manager, gcm: Box::new(gcm::Context::new()), cm: cm::Workspace::new(), refused: 0 })
    }

    pub(crate) fn expand_secrets(&self, profile: Profile, secrets: &SessionSecrets) -> SessionKeys {
        let rtcp = StreamKeys::new(profile, &secrets.rtcp);
        let keys = if profile.is_aead() {
            IpsecKeys::Gcm(GcmKeys::new(&self.manager, profile, &secrets.rtp, rtcp))
        } else {
            IpsecKeys::Cm(CmKeys::new(&self.manager, &secrets.rtp, rtcp))
        };
        SessionKeys::new(profile, KeyMaterial::IpsecMb(keys))
    }
}

/// The RTCP keys inside session keys of this provider.
fn rtcp_of(keys: &SessionKeys) -> Option<&StreamKeys> {
    match &keys.material {
        KeyMaterial::IpsecMb(IpsecKeys::Gcm(own)) => Some(&own.rtcp),
        KeyMaterial::IpsecMb(IpsecKeys::Cm(own)) => Some(&own.rtcp),
        _ => None,
    }
}

impl Provider for IpsecMbProvider {
    fn expand(&mut self, master: &MasterKey) -> SessionKeys {
        self.expand_secrets(master.profile(), &kdf::derive(master))
    }

    fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        if profile.is_aead() {
            self.gcm.seal(&self.manager, profile, jobs, &mut self.refused);
        } else {
            for chunk in jobs.chunks_mut(cm::BATCH) {
                self.cm.seal(&self.manager, profile, chunk, &mut self.refused);
            }
        }
    }

    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        if profile.is_aead() {
            self.gcm.open(&self.manager, profile, jobs, &mut self.refused);
        } else {
            for chunk in jobs.chunks_mut(cm::BATCH) {
                self.cm.open(&self.manager, profile, chunk, &mut self.refused);
            }
        }
    }

    fn seal_rtcp(&mut self, keys: &SessionKeys, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        match rtcp_of(keys) {
            Some(rtcp) if check::rtcp_fits(keys, index, packet.len(), len) => rtcp.seal_rtcp(ssrc, index, packet, len),
            _ => {
                self.refused += 1;
                0
            }
        }
    }

    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        if let Some(rtcp) = rtcp_of(keys) {
            rtcp.open_rtcp(packet)
        } else {
            self.refused += 1;
            Err(OpenError::Refused)
        }
    }

    fn refused(&self) -> u64 {
        self.refused
    }
}
