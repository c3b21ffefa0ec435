//! The running process: sockets, clocks, files and randomness around the node.

mod banner;
mod error;
mod media;
mod random;
mod run;
mod trim;

pub use error::ServiceError;
pub(crate) use random::Secure;
pub use run::run;
