//! What the link counts about itself. Never resets.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Something the link counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $variant,)* }

        impl Count {
            /// Every count, in order.
            pub const ALL: &'static [Count] = &[$(Count::$variant,)*];
            /// The stable name used in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Count::$variant => $name,)* }
            }
        }
    };
}

counts! {
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

/// The counts' values.
#[derive(Debug)]
pub struct Counters([AtomicU64; Count::ALL.len()]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    pub(super) fn add(&self, count: Count) {
        self.0[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The value of one count.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }

    /// Every name with its value.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        Count::ALL.iter().map(|count| (count.name(), self.get(*count))).collect()
    }
}
