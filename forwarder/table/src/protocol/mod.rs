//! The protocol between control (or the `sluice` command) and the forwarder: two Unix stream connections,
//! one for the table and one for packets, each a sequence of length-prefixed postcard messages that starts
//! with a version handshake. Never opens a socket except in [`client`].
//!
//! ```text
//! client                                   forwarder
//!   Hello { version, role }        ->
//!                                  <-      Greeting::Welcome(..) or Greeting::Refused(..)
//!   role Table:  Call { id, .. }   ->
//!                                  <-      Reply { id, .. }   (pushes carry the id of their request)
//!   role Packet: PacketMessage     <->     PacketMessage
//! ```

mod blob;
pub mod client;
pub mod event;
pub mod frame;
pub mod packet;
pub mod request;
pub mod response;
pub mod snapshot;
pub mod status;
pub mod trace;

use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError};
pub use event::{Event, EventRecord};
pub use frame::{Decoder, FrameError, PACKET_LIMIT, TABLE_LIMIT, append, encode};
pub use packet::{PacketInReason, PacketMessage};
pub use request::{Call, Request};
pub use response::{Refusal, Refused, Reply, Response};
pub use snapshot::{IceView, KeyView, LegView, Snapshot};
pub use status::{
    Capacity, CounterGroup, EgressRow, EndpointStatus, IngressRow, IoMode, IoTotals, Ledger, LegRow, LegState, Polling,
    RefusedStep, Status, StreamRows, WorkerStatus,
};
pub use trace::{Direction, TraceFilter, TraceRecord};

/// The protocol's version; a forwarder refuses any other.
pub const VERSION: u32 = 1;

/// Where the forwarder listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/table.sock";

/// The environment variable that names another socket.
pub const SOCKET_ENV: &str = "SLUICE_SOCKET";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Requests, replies, events and traces.
    Table,
    /// Packet-in and packet-out.
    Packet,
}

impl Role {
    /// Longest message body of such a connection, in bytes.
    pub const fn limit(self) -> usize {
        match self {
            Role::Table => TABLE_LIMIT,
            Role::Packet => PACKET_LIMIT,
        }
    }
}

/// First message of the client. At most [`PACKET_LIMIT`] bytes whatever the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The client's [`VERSION`].
    pub version: u32,
    /// What the connection is for.
    pub role: Role,
}

impl Hello {
    /// A hello of this version.
    pub const fn new(role: Role) -> Hello {
        Hello { version: VERSION, role }
    }

    /// What a forwarder of this version answers; `generation` is its table's.
    pub fn greet(self, generation: u64) -> Greeting {
        if self.version == VERSION {
            return Greeting::Welcome(Welcome {
                version: VERSION,
                software: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                generation,
            });
        }
        Greeting::Refused(Refused {
            reason: Refusal::Version,
            detail: format!("the forwarder speaks protocol version {VERSION}, the client version {}", self.version),
            hint: "install sluice and sluice-forwarder from the same release".to_owned(),
            problems: Vec::new(),
        })
    }
}

/// First message of the forwarder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    /// Go on.
    Welcome(Welcome),
    /// The connection is closed after this.
    Refused(Refused),
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The forwarder's [`VERSION`].
    pub version: u32,
    /// The forwarder's release.
    pub software: String,
    /// Its process id.
    pub pid: u32,
    /// Its table's generation.
    pub generation: u64,
}
