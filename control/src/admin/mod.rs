//! What operators reach: metrics and administration on a loopback listener and a Unix socket. Never serves clients.
//!
//! The loopback listener answers GET `/metrics`, `/healthz` and `/readyz`, nothing else. The Unix socket (0600) takes
//! one [`Query`] a line as JSON and answers each with one [`Reply`] a line. The node answers queries with what it
//! knows; what only the forwarder knows is added here.

pub mod client;
mod error;
mod merge;
mod metrics;
mod query;
mod serve;
mod server;
#[cfg(test)]
mod tests;

pub use error::AdminError;
pub use query::{
    ConferenceRow, LayerNote, LegPath, NodeMetrics, NodeStatus, Pair, ParticipantRow, ParticipantState, Query, Reply,
    Report, ShowReport, Status, StreamNote, StreamRow,
};
pub use server::{Asked, Server, Sources};

/// Where control listens for the `sluice` command unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/control.sock";

/// The environment variable that names another socket.
pub const SOCKET_ENV: &str = "SLUICE_CONTROL_SOCKET";
