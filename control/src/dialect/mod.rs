//! Dialects: each translates the protocol of one kind of client to conference events and back.

mod random;
pub mod wire;

pub use random::Random;
