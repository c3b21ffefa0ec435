//! `sluice-bench`.
fn main() {}
