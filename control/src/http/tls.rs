//! The certificate: made and kept, or read from files, and read again on demand. Never shows a private key.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, RwLock};

use aws_lc_rs::digest;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::server::HttpError;
use crate::config::Tls;
use crate::transport::{Fingerprint, HashFunction};

/// Certificate and key of our own making, in the state directory.
const OWN: &str = "https.pem";

/// Where the certificate comes from, and the one in use.
#[derive(Debug)]
pub(super) struct Source {
    kind: Tls,
    current: RwLock<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

impl Source {
    /// `names` are put into a certificate of our own.
    pub(super) fn open(kind: &Tls, state: Option<&Path>, names: Vec<String>) -> Result<Option<Source>, HttpError> {
        let current = match kind {
            Tls::Off => return Ok(None),
            Tls::Files { certificate, key } => files(certificate, key)?,
            Tls::SelfSigned => own(state, names)?,
        };
        Ok(Some(Source { kind: kind.clone(), current: RwLock::new(current) }))
    }

    /// Reads the files again; without files nothing happens. After an error the old certificate stays.
    pub(super) fn reload(&self) -> Result<bool, HttpError> {
        let Tls::Files { certificate, key } = &self.kind else { return Ok(false) };
        let new = files(certificate, key)?;
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = new;
        Ok(true)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.current().fingerprint
    }
}

fn files(certificate: &Path, key: &Path) -> Result<Current, HttpError> {
    let read = |path: &Path| {
        fs::read(path).map(Zeroizing::new).map_err(|source| HttpError::File { path: path.to_owned(), source })
    };
    let (chain, secret) = (read(certificate)?, read(key)?);
    server(&chain, &secret, certificate, key)
}

/// Makes a configuration of PEM texts; the paths are for errors.
fn server(chain: &[u8], secret: &[u8], certificate: &Path, key: &Path) -> Result<Current, HttpError> {
    let bad = |path: &Path, why: String| HttpError::Certificate { path: path.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|e| bad(certificate, e.to_string()))?;
    let leaf = chain.first().ok_or_else(|| bad(certificate, "there is no certificate in it".to_owned()))?;
    let fingerprint =
        Fingerprint { hash: HashFunction::Sha256, bytes: digest::digest(&digest::SHA256, leaf).as_ref().to_vec() };
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|e| bad(key, e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|e| bad(certificate, format!("{e}; do certificate and key belong together?")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current { config: Arc::new(config), fingerprint })
}

/// The certificate in the state directory, made if there is none, so that its fingerprint stays.
fn own(state: Option<&Path>, names: Vec<String>) -> Result<Current, HttpError> {
    let Some(state) = state else {
        let pem = make(names)?;
        return server(&pem, &pem, Path::new("a new certificate"), Path::new("a new key"));
    };
    let path = state.join(OWN);
    let failed = |source: io::Error| HttpError::File { path: path.clone(), source };
    let pem = match fs::read(&path) {
        Ok(pem) => Zeroizing::new(pem),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
            let pem = make(names)?;
            keep(&path, &pem).map_err(failed)?;
            pem
        }
        Err(e) => return Err(failed(e)),
    };
    server(&pem, &pem, &path, &path)
}

/// Writes a file that only its owner may read, whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// A self-signed ECDSA P-256 certificate with its key, as PEM.
fn make(names: Vec<String>) -> Result<Zeroizing<Vec<u8>>, HttpError> {
    let made = || -> Result<Vec<u8>, rcgen::Error> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Sluice");
        let certificate = params.self_signed(&key)?;
        let secret = Zeroizing::new(key.serialize_pem());
        Ok([certificate.pem().as_bytes(), secret.as_bytes()].concat())
    };
    made().map(Zeroizing::new).map_err(|e| HttpError::Make(e.to_string()))
}
