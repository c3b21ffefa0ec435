//! Conferences, pure and free of dialects: who is in, what each sends and wants, and the table rows that follow.
//! Never touches a socket, a clock or a client's protocol.

mod id;

pub use id::ParticipantId;
