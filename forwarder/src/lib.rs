//! The data plane: packet I/O, the engine, workers, and the management thread that programs them.
//! Never terminates ICE, DTLS or HTTP; depends on nothing of the control plane.

pub mod config;
pub mod engine;
pub mod hops;
pub mod index_file;
pub mod io;
pub mod manage;
pub mod process;
pub mod select;
pub mod wire;
pub mod worker;
pub mod xdp;
