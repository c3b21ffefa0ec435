//! Why the service cannot start or go on, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the service stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The host's addresses cannot be read.
    #[error("cannot read the addresses of this host: {0}")]
    Addresses(#[source] io::Error),
    /// Nothing to receive media at.
    #[error("this host has no address for media")]
    NoMediaAddress,
    /// A file with a secret cannot be read or is empty.
    #[error("cannot read the token secret {}: {reason}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate for media cannot be made.
    #[error("cannot make a certificate for DTLS: {0}")]
    Identity(#[from] crate::transport::IdentityError),
    /// The public listener cannot be opened.
    #[error("cannot open the public listener: {reason}")]
    Http {
        /// What went wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// Metrics or administration cannot be opened.
    #[error("cannot open the administration listener: {reason}")]
    Admin {
        /// What went wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The forwarder refuses our endpoints.
    #[error("the forwarder does not open the media endpoints: {reason}")]
    Endpoints {
        /// What it said.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl ServiceError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            ServiceError::Addresses(_) => "list them in [media] addresses of the configuration".to_owned(),
            ServiceError::NoMediaAddress => {
                "give an interface an address that is neither loopback nor link-local, or list one in [media] addresses"
                    .to_owned()
            }
            ServiceError::Secret { .. } => {
                "the file's first word is the secret; it must be readable by this process and by nobody else".to_owned()
            }
            ServiceError::Identity(_) => "this is a fault of the installation; see the reason given".to_owned(),
            ServiceError::Http { hint, .. }
            | ServiceError::Admin { hint, .. }
            | ServiceError::Endpoints { hint, .. } => hint.clone(),
            ServiceError::Runtime(_) => "see the reason given; `ulimit -n` may be too low".to_owned(),
        }
    }
}
