//! Why a question to the forwarder has no answer, or a connection broke.

use std::path::PathBuf;

use sluice_table::protocol::{FrameError, Refused};

/// What can go wrong with the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The link is down.
    #[error("the forwarder is not connected; see the log of sluice-control for why")]
    Down,
    /// The queue of transactions and questions is full.
    #[error("the forwarder is too far behind to be asked; try again later")]
    Busy,
    /// It did not answer in time.
    #[error("the forwarder did not answer within {0:?}; is it stopped or overloaded?")]
    Timeout(std::time::Duration),
    /// Nothing listens at the socket.
    #[error("no forwarder listens at {}: {source}; start sluice-forwarder or set forwarder.socket", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to the forwarder broke while {doing}: {source}")]
    Broken {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A message cannot be sent or understood.
    #[error("the forwarder and sluice-control misunderstand each other: {0}; install both from one release")]
    Frame(#[from] FrameError),
    /// An answer that does not fit the question.
    #[error("the forwarder gave an unexpected answer to {0}; install both from one release")]
    Unexpected(&'static str),
    /// The forwarder refused.
    #[error("the forwarder refused: {0}")]
    Refused(Refused),
    /// The queue of transactions overflowed.
    #[error("the forwarder fell so far behind that {0} table changes waited; the table is programmed anew")]
    Overflow(usize),
}
