//! The connections to the forwarder: table transactions, events, packets. Never decides what a row says.
//!
//! One task keeps three Unix connections (table, events, packets), makes them anew when they break, and never lets a forwarder that is slow or
//! stopped block the node: every queue is bounded, what does not fit is counted, and a table queue that overflows
//! costs the connection, so that the node programs the whole table again.

mod counters;
mod error;
mod handle;
mod session;
mod task;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use sluice_table::protocol::{EventRecord, PacketMessage, Refused, Snapshot};

pub use counters::{Count, Counters};
pub use error::LinkError;
pub use handle::{Events, Link};

/// How the forwarder is reached.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// How long a handshake may take, and how long no open request may be answered, before the link goes down.
    pub timeout: Duration,
    /// Wait before the first attempt to connect again; doubles up to [`LinkConfig::retry_most`].
    pub retry_least: Duration,
    /// Longest wait between attempts.
    pub retry_most: Duration,
    /// Transactions and questions that may wait to be written.
    pub table_queue: usize,
    /// Packets that may wait to be written.
    pub packet_queue: usize,
    /// Events that may wait for the node; packets only use three quarters of it.
    pub event_queue: usize,
}

impl LinkConfig {
    /// The usual values.
    pub fn new(socket: PathBuf) -> LinkConfig {
        LinkConfig {
            socket,
            timeout: Duration::from_secs(10),
            retry_least: Duration::from_millis(50),
            retry_most: Duration::from_secs(2),
            table_queue: 8192,
            packet_queue: 4096,
            event_queue: 8192,
        }
    }
}

/// What the node hears.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected, with what the forwarder's table is. Whatever was sent before and not committed is void: program
    /// the difference to this.
    Up(Box<Snapshot>),
    /// Events were lost; this is the table now. Transactions that are under way stay so.
    Gap(Box<Snapshot>),
    /// The table, behind every transaction sent before [`Link::ask_table`].
    Table(Box<Snapshot>),
    /// Disconnected, or an attempt to connect failed for another reason than the last one. Said once.
    Down(String),
    /// A transaction was answered; answers come in the order of the transactions.
    Committed {
        /// The transaction.
        id: u64,
        /// The table's generation, or why nothing was changed.
        result: Result<u64, Refused>,
    },
    /// Something happened at the forwarder.
    Event(EventRecord),
    /// A packet for control.
    Packet(PacketMessage),
}

/// Starts the link's task on the current tokio runtime. It ends when the [`Events`] are dropped.
pub fn spawn(config: LinkConfig) -> (Link, Events) {
    let (link, events, inside) = handle::pair(&config);
    tokio::spawn(task::run(config, inside));
    (link, events)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
