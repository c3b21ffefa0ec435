//! Why the administration cannot start or be asked.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {source}; set admin.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}; set admin.socket", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process answers there.
    #[error("another sluice-control listens on {}; stop it or set admin.socket", .0.display())]
    Taken(PathBuf),
}
