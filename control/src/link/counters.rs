//! What the link counts about itself. Never resets.

use crate::counters::counters;

counters! {
    /// Times the link went up.
    Connected "connected";
    /// Times the link went down.
    Disconnected "disconnected";
    /// Transactions written.
    Transactions "transactions";
    /// Transactions the forwarder refused.
    Refused "transactions_refused";
    /// Transactions dropped because they were made before the link went up again.
    Stale "transactions_stale";
    /// Times the queue of transactions was full, which costs the connection.
    Overflow "table_queue_overflows";
    /// Events received.
    Events "events";
    /// Times events were lost and a snapshot was taken.
    Gaps "event_gaps";
    /// Packets received.
    PacketsIn "packets_in";
    /// Packets received and dropped because the node was behind.
    PacketsInDropped "packets_in_dropped";
    /// Packets written.
    PacketsOut "packets_out";
    /// Packets dropped because the forwarder was behind or away, or too long for the connection.
    PacketsOutDropped "packets_out_dropped";
}
