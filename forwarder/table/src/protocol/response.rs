//! What the forwarder answers and pushes on the table connection.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::EventRecord;
use super::snapshot::Snapshot;
use super::status::{CounterGroup, LegRow, Status, StreamRows};
use super::trace::TraceRecord;
use crate::describe::ChangeView;
use crate::validate::Problem;

/// One answer or push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request it belongs to.
    pub id: u32,
    /// The answer.
    pub response: Response,
}

/// An answer or a push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// Done; pushes may follow.
    Ok,
    /// A table was applied, or would be.
    Applied {
        /// The table's generation now; unchanged by a dry run or when nothing differed.
        generation: u64,
        /// What changed, or would.
        changes: Vec<ChangeView>,
    },
    /// A transaction was applied: nothing is sealed any more for what it removed, and everything opened from now on
    /// reaches what it added.
    Committed {
        /// The transaction.
        id: u64,
        /// The table's generation now.
        generation: u64,
    },
    /// The table without keys.
    Snapshot(Box<Snapshot>),
    /// Counters in groups.
    Counters(Vec<CounterGroup>),
    /// Process, workers, endpoints, capacity.
    Status(Box<Status>),
    /// Legs.
    Legs(Vec<LegRow>),
    /// Streams.
    Streams(StreamRows),
    /// Push: headers of one packet.
    Trace(TraceRecord),
    /// Push: the trace is over.
    TraceEnd {
        /// Packets that matched and were sampled but not pushed because the connection was slow.
        missed: u64,
    },
    /// Push: something happened.
    Event(EventRecord),
    /// Nothing was done.
    Refused(Refused),
}

/// A refused request: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The class of the refusal.
    pub reason: Refusal,
    /// What was attempted and why it cannot be.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// The rows at fault, if it was a table.
    pub problems: Vec<Problem>,
}

impl Refused {
    /// A refusal without rows.
    pub fn new(reason: Refusal, detail: impl Into<String>, hint: impl Into<String>) -> Refused {
        Refused { reason, detail: detail.into(), hint: hint.into(), problems: Vec::new() }
    }

    /// The refusal of a table that does not validate.
    pub fn invalid(problems: Vec<Problem>) -> Refused {
        let detail = match problems.as_slice() {
            [one] => one.to_string(),
            many => format!("{} problems in the table", many.len()),
        };
        let hint = "mend the rows named; the running table is unchanged".to_owned();
        Refused { reason: Refusal::InvalidTable, detail, hint, problems }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason.name())
    }
}

impl std::error::Error for Refused {}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Why a request was refused. Variants are only ever appended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Refusal { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }
        impl Refusal {
            /// The stable name used in logs and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    /// The client speaks another protocol version.
    Version "version";
    /// The message could not be decoded, or does not belong on this connection.
    BadMessage "bad_message";
    /// The table, or the table after the changes, does not validate.
    InvalidTable "invalid_table";
    /// A pool of the capacity table is full.
    Capacity "capacity";
    /// A static outbound key was used before, no index row is left for it, and `accept_key_reuse` is not set.
    KeyReuse "key_reuse";
    /// An endpoint cannot be opened: interface missing, address not local, port taken, no permission.
    Endpoint "endpoint";
    /// A transaction id was used before for other changes.
    TransactionId "transaction_id";
    /// An argument is out of range.
    BadArgument "bad_argument";
    /// Another request of the kind is running and only one may.
    Busy "busy";
    /// The forwarder is stopping.
    Stopping "stopping";
    /// Something failed inside the forwarder; its log says more.
    Internal "internal";
}
