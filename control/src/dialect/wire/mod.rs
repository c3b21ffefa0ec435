//! The dialect of Wire's Conference Calling 2.0. Never touches a socket or a clock.

mod allocation;
pub mod answer;
mod blacklist;
mod call;
mod capacity;
mod channel;
mod config;
mod counters;
mod describe;
mod event;
mod http;
mod machine;
mod message;
pub mod offer;
mod reply;
mod room;
pub mod token;
mod views;

pub use blacklist::{Blacklist, BlacklistError};
pub use capacity::Pools;
pub use config::{WireConfig, WireLimits};
pub use counters::{Counters, Reason};
pub use event::{Action, Event, RequestId};
pub use machine::{CHANNEL, Wire};
pub use views::{ConferenceView, ParticipantView};
