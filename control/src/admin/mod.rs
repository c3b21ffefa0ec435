//! What operators reach: metrics and administration on a loopback listener and a Unix socket. Never serves clients.

/// Where control listens for the `sluice` command unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/control.sock";
