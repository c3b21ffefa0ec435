//! The dialect of Wire's Conference Calling 2.0. Never touches a socket or a clock.

pub mod answer;
pub mod offer;
