//! Session descriptions (RFC 8866), read tolerantly and written exactly. Never negotiates.
//!
//! What is not known passes through word for word. What is known is checked: a value that cannot be read is an error
//! that names its line and what was expected there, never the text itself, which holds passwords.

mod attribute;
mod candidate;
mod description;
mod error;
mod fields;
mod media;
mod remote;
mod simulcast;
mod write;

pub use attribute::{
    Attribute, Direction, Extmap, Group, Msid, Password, RtcpFeedback, Rtpmap, SsrcAttribute, SsrcGroup,
};
pub use candidate::CandidateLine;
pub use description::{Line, Origin, SessionDescription};
pub use error::{Limits, SdpError};
pub use media::{Media, MediaKind};
pub use simulcast::{Alternative, Rid, RidDirection, Simulcast};
