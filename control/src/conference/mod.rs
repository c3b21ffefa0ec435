//! Conferences, pure and free of dialects: who is in, what each sends and wants, and the table rows that follow.
//! Never touches a socket, a clock or a client's protocol.

mod agreement;
mod core;
mod description;
mod event;
mod id;
mod ledger;
mod member;
mod rows;
mod streams;

pub use self::core::{Conference, ConferenceLimits};
pub use description::{AudioIn, Description, DescriptionError, Layer, Slots, VideoIn, VideoSlot};
pub use event::{Action, Event, Quality, Refusal, Subscription};
pub use id::ParticipantId;
pub use streams::{LayerView, SlotView};

// What a leg is made of and where it is reached: a transport finds out, a conference writes it down.
pub use crate::transport::{Connection, Path};
