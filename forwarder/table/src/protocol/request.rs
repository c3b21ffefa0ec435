//! What a client asks of the forwarder on the table connection.

use serde::{Deserialize, Serialize};

use super::trace::TraceFilter;
use crate::model::{Change, Table};

/// One request. Requests of a connection are answered in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client; the reply, and every push the request causes, carries it.
    pub id: u32,
    /// The request.
    pub request: Request,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Make the whole table look like this, all or nothing. Answer: [`Response::Applied`](super::Response::Applied).
    Apply {
        /// The table wanted.
        table: Box<Table>,
        /// Only say what would change.
        dry_run: bool,
    },
    /// Apply these changes, all or nothing. Answer: [`Response::Committed`](super::Response::Committed).
    Transaction {
        /// Chosen by control; echoed. A repeated id with the same changes is answered again and not applied twice.
        id: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Remove every row. Answer: [`Response::Applied`](super::Response::Applied).
    Clear,
    /// The table without keys. Answer: [`Response::Snapshot`](super::Response::Snapshot).
    Snapshot,
    /// Every counter. Answer: [`Response::Counters`](super::Response::Counters).
    Counters,
    /// Process, workers, endpoints, capacity. Answer: [`Response::Status`](super::Response::Status).
    Status,
    /// A row for each leg. Answer: [`Response::Legs`](super::Response::Legs).
    Legs,
    /// A row for each stream. Answer: [`Response::Streams`](super::Response::Streams).
    Streams,
    /// Copy headers of passing packets. Answer: [`Response::Ok`](super::Response::Ok), then
    /// [`Response::Trace`](super::Response::Trace) pushes and one [`Response::TraceEnd`](super::Response::TraceEnd).
    Trace {
        /// Which packets.
        filter: TraceFilter,
        /// Every how many-th matching packet; 1 means all, 0 is refused.
        sample: u32,
        /// Stop after this many; 0 means when the connection closes.
        count: u64,
    },
    /// Events from now on. Answer: [`Response::Ok`](super::Response::Ok), then
    /// [`Response::Event`](super::Response::Event) pushes.
    Subscribe,
}
