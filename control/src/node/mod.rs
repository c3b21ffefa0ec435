//! The owner of every peer connection and conference: turns requests, packets and time into actions.
