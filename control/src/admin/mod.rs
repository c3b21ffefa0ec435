//! What operators reach: metrics and administration on a loopback listener and a Unix socket. Never serves clients.
