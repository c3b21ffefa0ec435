//! What the forwarder can be told: the table model, changes to it, static table files and the protocol that
//! carries both. Never forwards a packet and never opens a media socket.

pub mod change;
pub mod describe;
pub mod file;
pub mod kinds;
pub mod model;
pub mod name;
pub mod protocol;
pub mod reason;
pub mod store;
pub mod validate;

pub use describe::{Action, ChangeView, FieldChange};
pub use model::{
    Change, Egress, Endpoint, Entry, EntryKind, ExtensionIds, Feedback, Hears, Ice, Ingress, KeyFrameRequest, Kind,
    Learn, Leg, LegKind, Limits, Name, Remote, Repair, Rtx, Source, StreamRole, Table,
};
pub use name::NameError;
pub use reason::DropReason;
pub use sluice_srtp::{Profile, Ssrc};
pub use store::{Store, Undo};
pub use validate::Problem;
