//! `sluice-forwarder`.
fn main() {}
