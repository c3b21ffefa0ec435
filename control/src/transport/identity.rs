//! The certificate this process shows to every peer. Never leaves the process but as its fingerprint.

use std::fmt;

use aws_lc_rs::digest;
use dimpl::DtlsCertificate;

use super::{Fingerprint, HashFunction};

/// Why no certificate could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not make a self-signed ECDSA P-256 certificate for DTLS; the system's random source may be missing")]
pub struct IdentityError;

/// A self-signed ECDSA P-256 certificate with its key; one per process, shared by every transport.
pub struct Identity {
    certificate: DtlsCertificate,
}

impl Identity {
    /// A new certificate.
    pub fn generate() -> Result<Identity, IdentityError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|_| IdentityError)?;
        Ok(Identity { certificate })
    }

    /// The fingerprint peers are told.
    pub fn fingerprint(&self, hash: HashFunction) -> Fingerprint {
        fingerprint(&self.certificate.certificate, hash)
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
    fn fingerprints_have_the_length_of_their_hash() {
        let identity = Identity::generate().unwrap();
        for hash in [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512] {
            assert_eq!(identity.fingerprint(hash).bytes.len(), hash.len());
        }
        assert_ne!(
            identity.fingerprint(HashFunction::Sha256),
            Identity::generate().unwrap().fingerprint(HashFunction::Sha256)
        );
        assert!(format!("{identity:?}").starts_with("Identity(sha-256 "));
    }
}
