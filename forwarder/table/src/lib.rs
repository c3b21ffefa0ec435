//! What the forwarder can be told: the table model, changes to it, static table files and the protocol that
//! carries both. Never forwards a packet and never opens a media socket.

pub mod model;
pub mod reason;

pub use model::{
    Change, Egress, Endpoint, Entry, EntryKind, ExtensionIds, Ingress, Kind, Learn, Leg, LegKind, Limits, Name, Remote,
    Source, Table,
};
pub use reason::DropReason;
