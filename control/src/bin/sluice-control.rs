//! `sluice-control`: the control plane's process.

fn main() {}
