//! The dialect of Wire's Conference Calling 2.0. Never touches a socket or a clock.

pub mod answer;
mod event;
pub mod offer;

pub use event::{Action, Event, RequestId};
