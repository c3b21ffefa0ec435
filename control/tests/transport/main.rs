//! Two transports against each other in simulated time.

mod channels;
mod connect;
mod hostile;
mod link;
mod moves;
