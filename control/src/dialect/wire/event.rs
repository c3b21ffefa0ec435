//! What happens to the dialect and what it wants done.

use std::net::IpAddr;

use bytes::Bytes;
use http::Method;
use sluice_table::{Change, EntryKind, Name};

use crate::conference::{Connection, ParticipantId, Path};
use crate::transport::{Credentials, RemoteDescription};

/// A request of the public listener that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What happens to the dialect. Events of a participant that is gone change nothing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asked something; [`Action::Reply`] follows in the same call.
    Http {
        /// To answer.
        request: RequestId,
        /// Its method.
        method: Method,
        /// Its path, decoded, any prefix kept.
        path: String,
        /// Its body.
        body: Vec<u8>,
        /// Who asked.
        client: IpAddr,
    },
    /// A transport has keys and a validated tuple.
    Connected {
        /// Whose.
        participant: ParticipantId,
        /// Keys and addresses.
        connection: Box<Connection>,
    },
    /// A connected peer is reached elsewhere.
    Moved {
        /// Who.
        participant: ParticipantId,
        /// Where.
        path: Box<Path>,
    },
    /// The channel asked for by [`Action::OpenChannel`] is open.
    ChannelOpen {
        /// Whose.
        participant: ParticipantId,
    },
    /// A message came over the channel.
    Message {
        /// From whom.
        participant: ParticipantId,
        /// Its bytes.
        text: Vec<u8>,
    },
    /// A transport ended by itself; after [`Action::Close`] nothing has to be said.
    Closed {
        /// Whose.
        participant: ParticipantId,
        /// Why, for the counters: short, letters, digits and `_`.
        reason: &'static str,
    },
    /// Time passed; due at [`Wire::next_deadline`](super::Wire::next_deadline).
    Tick,
    /// Take no new conference or participant from now on.
    Drain,
    /// An operator removes a participant.
    Kick {
        /// Who.
        participant: ParticipantId,
    },
    /// The forwarder came back empty or events were missed: tell it everything again.
    Reprogram {
        /// Rows it has now. Those of conferences that are not expected are removed; endpoints and rows of others stay.
        present: Vec<(EntryKind, Name)>,
        /// Only this conference, by the number its rows' names start with.
        only: Option<u64>,
    },
}

/// What the dialect wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// HTTP status.
        status: u16,
        /// `Content-Type`.
        content_type: &'static str,
        /// Body.
        body: String,
        /// `Location`.
        location: Option<String>,
    },
    /// Make a transport. It must cost little until its first valid STUN.
    Open {
        /// Whose.
        participant: ParticipantId,
        /// Our ICE credentials; the user fragment is unique.
        credentials: Credentials,
        /// Whether we are the controlling agent.
        controlling: bool,
    },
    /// Tell a transport what its peer said.
    Answer {
        /// Whose.
        participant: ParticipantId,
        /// The peer.
        remote: Box<RemoteDescription>,
    },
    /// Open a reliable ordered channel, in-band, once the transport can.
    OpenChannel {
        /// Whose.
        participant: ParticipantId,
        /// Its label.
        label: &'static str,
    },
    /// Send text over the channel.
    Send {
        /// To whom.
        participant: ParticipantId,
        /// The text, shared among its receivers.
        text: Bytes,
    },
    /// Send a list of participants over the channel. It takes the place of an earlier list that waits: whoever is slow to
    /// take lists gets the newest one next, not all of them.
    SendList {
        /// To whom.
        participant: ParticipantId,
        /// The list, shared among its receivers.
        text: Bytes,
    },
    /// End a transport once what was sent went out; the participant is gone.
    Close {
        /// Whose.
        participant: ParticipantId,
    },
    /// One transaction of the forwarder's table.
    Table(Vec<Change>),
    /// Draining, and the last call ended. Comes once.
    Drained,
}
