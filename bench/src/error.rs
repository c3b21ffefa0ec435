//! What can go wrong in a bench run. Every error names what was attempted.

use std::fmt::Display;
use std::path::PathBuf;

/// Why a run did not happen or does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else refused: a provider, a port, the forwarder.
    #[error("{what}: {why}")]
    Refused {
        /// What was attempted.
        what: String,
        /// Why it cannot be, and what to do.
        why: String,
    },
    /// A session file cannot be used.
    #[error("session file {}: {why}", path.display())]
    Session {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
    },
    /// A signal came.
    #[error("interrupted; what was set up is removed")]
    Interrupted,
    /// The guards discarded every run.
    #[error("every run was discarded: {0}; let the machine come to rest or raise --attempts")]
    Noisy(String),
}

impl BenchError {
    /// For `map_err`: the system refused `what`.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::System { what, source }
    }

    /// For `map_err`: anything with a text.
    pub(crate) fn refused<E: Display>(what: impl Into<String>) -> impl FnOnce(E) -> BenchError {
        let what = what.into();
        move |why| BenchError::Refused { what, why: why.to_string() }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            BenchError::Noisy(_) => 4,
            _ => 1,
        }
    }
}
