//! STUN of established legs (RFC 8489, RFC 8445 §7, RFC 7675): the leg's owner answers correct binding requests and
//! keeps the consent to send. Everything else about ICE goes up to control. Never sends media and never lets a
//! request's source become a destination.

pub mod message;
