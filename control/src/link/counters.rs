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
    /// Microseconds from writing transactions to reading their answers, all together.
    CommitMicros "commit_us";
    /// The longest of them.
    CommitLongest "commit_longest_us";
    /// Packets received.
    PacketsIn "packets_in";
    /// Packets received and dropped because the node was behind.
    PacketsInDropped "packets_in_dropped";
    /// Packets written.
    PacketsOut "packets_out";
    /// Packets dropped because the forwarder was behind or away, or too long for the connection.
    PacketsOutDropped "packets_out_dropped";
}

impl Counters {
    /// Notes how long a transaction took.
    pub(super) fn committed(&self, time: std::time::Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = |count: Count| &self.0[count as usize];
        at(Count::CommitMicros).fetch_add(micros, std::sync::atomic::Ordering::Relaxed);
        at(Count::CommitLongest).fetch_max(micros, std::sync::atomic::Ordering::Relaxed);
    }
}
