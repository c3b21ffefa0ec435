//! The management side of the forwarder: turns tables into worker commands, owns keys and slots, and serves the
//! table protocol. Never sees a media packet.

pub mod endpoints;
mod ice;
pub mod indexes;
pub mod local;
pub mod manager;
pub mod packets;
pub mod planner;
pub mod pool;
mod report;
pub mod route;
pub mod router;
pub mod selection;
pub mod serve;
pub mod tracing;

pub use planner::{Plan, Planner, PlannerConfig};
