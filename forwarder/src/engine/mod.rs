//! The engine: one worker's forwarding, pure and bounded. Takes time, received frames, commands and transmit
//! credit as arguments; gives frames, events and counts. Never touches a socket, a clock or a file, and never
//! allocates per packet.

mod admit;
pub mod cell;
pub mod command;
pub mod counters;
pub mod cursor;
mod early;
mod egress_row;
pub mod event;
mod extension_ids;
pub mod feedback;
mod flow;
mod gate;
pub mod index_store;
pub mod inputs;
mod key_frame;
pub mod learn;
pub mod link;
pub mod list;
pub mod map;
mod outgoing;
mod payload_types;
pub mod police;
pub mod ports;
pub mod receive;
pub mod rewrite;
pub mod rows;
pub mod rtcp;
pub mod run;
pub mod staged;
pub mod stun;
pub mod time;
pub mod timers;
pub mod trace;
mod transmit;

pub use command::Command;
pub use counters::Counters;
pub use ports::{PortId, Ports};
pub use receive::Path;
pub use run::{Capacity, Engine, StepOutcome};
pub use time::Nanos;
