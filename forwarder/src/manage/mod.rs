//! The management side of the forwarder: turns tables into worker commands, owns keys and slots, and serves the
//! table protocol. Never sees a media packet.

pub mod indexes;
pub mod local;
pub mod planner;
pub mod pool;
pub mod route;

pub use planner::{Plan, Planner, PlannerConfig};
