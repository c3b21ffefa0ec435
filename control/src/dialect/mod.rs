//! Dialects: each translates the protocol of one kind of client to conference events and back.

pub mod wire;
