//! Two transports against each other in simulated time.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod channels;
mod connect;
mod hostile;
mod link;
mod moves;
