//! The control plane and the `sluice` command. Never touches media.

pub mod admin;
pub mod cli;
pub mod conference;
pub mod config;
mod counters;
pub mod dialect;
pub mod doctor;
pub mod http;
pub mod link;
pub mod netdev;
pub mod node;
pub mod pcapng;
pub mod sdp;
pub mod service;
pub mod transport;
