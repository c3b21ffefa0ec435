//! GCM by aws-lc, AES-CM and HMAC-SHA1 by `RustCrypto`: no platform needed, one packet at a time.

use crate::index::Ssrc;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::kdf::{self, SessionSecrets};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
use crate::provider::stream::StreamKeys;
use crate::provider::{KeyMaterial, Provider, check};

/// RTP and RTCP keys of one master key.
pub(crate) struct PortableKeys {
    rtp: StreamKeys,
    rtcp: StreamKeys,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct PortableProvider {
    refused: u64,
}

impl PortableProvider {
    /// A provider; use [`AnyProvider::new`](crate::AnyProvider::new) for one that has tested itself.
    pub const fn new() -> Self {
        PortableProvider { refused: 0 }
    }

    pub(crate) fn expand_secrets(profile: Profile, secrets: &SessionSecrets) -> SessionKeys {
        let rtp = StreamKeys::new(profile, &secrets.rtp);
        let rtcp = StreamKeys::new(profile, &secrets.rtcp);
        SessionKeys::new(profile, KeyMaterial::Portable(Box::new(PortableKeys { rtp, rtcp })))
    }
}

impl Provider for PortableProvider {
    fn expand(&mut self, master: &MasterKey) -> SessionKeys {
        Self::expand_secrets(master.profile(), &kdf::derive(master))
    }

    fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        for job in jobs {
            let (Some(len), KeyMaterial::Portable(keys)) = (check::seal_len(job, profile), &job.keys.material) else {
                check::refuse_seal(job, &mut self.refused);
                continue;
            };
            let frame = &mut job.frame[..len];
            match &keys.rtp {
                StreamKeys::Gcm(rtp) => rtp.seal_rtp(job.ssrc, job.index.index(), job.plain, frame, job.header_len),
                StreamKeys::Cm(rtp) => rtp.seal_rtp(job.ssrc, job.index.index(), job.plain, frame, job.header_len),
            }
        }
    }

    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        let Some(profile) = jobs.first().map(|job| job.keys.profile()) else { return };
        for job in jobs {
            let KeyMaterial::Portable(keys) = &job.keys.material else {
                check::refuse_open(job, OpenError::Refused, &mut self.refused);
                continue;
            };
            let len = match check::open_len(job, profile) {
                Ok(len) => len,
                Err(error) => {
                    check::refuse_open(job, error, &mut self.refused);
                    continue;
                }
            };
            let out = &mut job.out[..len];
            job.result = match &keys.rtp {
                StreamKeys::Gcm(rtp) => rtp.open_rtp(job.ssrc, job.index, job.packet, job.header_len, out),
                StreamKeys::Cm(rtp) => rtp.open_rtp(job.ssrc, job.index, job.packet, job.header_len, out),
            };
        }
    }

    fn seal_rtcp(&mut self, keys: &SessionKeys, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        match &keys.material {
            KeyMaterial::Portable(own) if check::rtcp_fits(keys, index, packet.len(), len) => {
                own.rtcp.seal_rtcp(ssrc, index, packet, len)
            }
            _ => {
                self.refused += 1;
                0
            }
        }
    }

    fn open_rtcp(&mut self, keys: &SessionKeys, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        if let KeyMaterial::Portable(own) = &keys.material {
            own.rtcp.open_rtcp(packet)
        } else {
            self.refused += 1;
            Err(OpenError::Refused)
        }
    }

    fn refused(&self) -> u64 {
        self.refused
    }
}
