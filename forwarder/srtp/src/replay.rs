//! Receive side: index estimation and the replay window (RFC 3711 §3.3.1, §3.3.2).
