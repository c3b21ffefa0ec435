//! The connections to the forwarder: table transactions, events, packets. Never decides what a row says.
