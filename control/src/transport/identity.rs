//! The certificate this process shows to every peer. Never leaves the process but as its fingerprint.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest;
use dimpl::{Config, DtlsCertificate};

use super::{Fingerprint, HashFunction};

/// Times until the first retransmission of a handshake flight, one configuration each: making one runs `dimpl`'s checks
/// of its ciphers, which cost more than a handshake.
const RTO_MILLIS: [u64; 4] = [50, 100, 150, 200];
/// Largest datagram sent, in bytes.
const MTU: usize = 1_200;
/// 50 ms doubled nine times passes [`HANDSHAKE`].
const RETRIES: usize = 9;
const HANDSHAKE: Duration = Duration::from_secs(20);

/// Why no certificate could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not make a self-signed ECDSA P-256 certificate for DTLS; the system's random source may be missing")]
pub struct IdentityError;

/// A self-signed ECDSA P-256 certificate with its key; one per process, shared by every transport.
pub struct Identity {
    certificate: DtlsCertificate,
    configs: [OnceLock<Arc<Config>>; RTO_MILLIS.len()],
}

impl Identity {
    /// A new certificate.
    pub fn generate() -> Result<Identity, IdentityError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|_| IdentityError)?;
        Ok(Identity { certificate, configs: Default::default() })
    }

    /// The fingerprint peers are told.
    pub fn fingerprint(&self, hash: HashFunction) -> Fingerprint {
        fingerprint(&self.certificate.certificate, hash)
    }

    /// The configuration of associations over a path with this round trip: they retransmit first after twice that.
    pub(super) fn config(&self, rtt: Option<Duration>) -> Result<Arc<Config>, dimpl::Error> {
        let wanted = rtt.map_or(100, |rtt| rtt.as_millis() * 2);
        let last = RTO_MILLIS.len() - 1;
        let at = RTO_MILLIS.iter().position(|rto| u128::from(*rto) >= wanted).unwrap_or(last);
        if let Some(config) = self.configs[at].get() {
            return Ok(config.clone());
        }
        let config = Config::builder()
            .mtu(MTU)
            .use_server_cookie(false)
            .flight_start_rto(Duration::from_millis(RTO_MILLIS[at]))
            .flight_retries(RETRIES)
            .handshake_timeout(HANDSHAKE)
            .build()?;
        Ok(self.configs[at].get_or_init(|| Arc::new(config)).clone())
    }

    pub(super) fn certificate(&self) -> DtlsCertificate {
        self.certificate.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint(HashFunction::Sha256))
    }
}

/// The fingerprint of a certificate in DER.
pub(super) fn fingerprint(der: &[u8], hash: HashFunction) -> Fingerprint {
    let algorithm = match hash {
        HashFunction::Sha256 => &digest::SHA256,
        HashFunction::Sha384 => &digest::SHA384,
        HashFunction::Sha512 => &digest::SHA512,
    };
    Fingerprint { hash, bytes: digest::digest(algorithm, der).as_ref().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_and_retransmission_times() {
        let identity = Identity::generate().unwrap();
        for hash in [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512] {
            assert_eq!(identity.fingerprint(hash).bytes.len(), hash.len());
        }
        assert_ne!(
            identity.fingerprint(HashFunction::Sha256),
            Identity::generate().unwrap().fingerprint(HashFunction::Sha256)
        );
        let rto = |rtt| identity.config(rtt).unwrap().flight_start_rto().as_millis();
        assert_eq!(rto(None), 100);
        let millis = |rtt| rto(Some(Duration::from_millis(rtt)));
        assert_eq!([0, 25, 26, 60, 90, 5_000].map(millis), [50, 50, 100, 150, 200, 200]);
        assert!(format!("{identity:?}").starts_with("Identity(sha-256 "));
    }
}
