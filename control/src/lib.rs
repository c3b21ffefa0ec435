//! The control plane and the `sluice` command. Never touches media.

pub mod cli;
pub mod doctor;
pub mod netdev;
pub mod pcapng;
