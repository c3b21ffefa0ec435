//! What can be asked of control and what it answers, as JSON. Never holds a secret.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
pub enum Query {
    /// How the node is. Report: [`Report::Status`].
    Status,
    /// Every conference. Report: [`Report::Conferences`].
    Conferences,
    /// Participants. Report: [`Report::Participants`].
    Participants {
        /// Only those of this conference.
        conference: Option<String>,
    },
    /// Everything about one participant. Report: [`Report::Show`].
    Show {
        /// Its id, e.g. `p7`.
        participant: String,
    },
    /// Ends a participant's connection. Report: [`Report::Kicked`].
    Kick {
        /// Its id, e.g. `p7`.
        participant: String,
    },
    /// Takes no new conferences and participants from now on. Report: [`Report::Draining`].
    Drain,
    /// What the node counts. Report: [`Report::Metrics`].
    Metrics,
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", content = "value", rename_all = "snake_case")]
pub enum Report {
    /// See [`Query::Status`].
    Status(NodeStatus),
    /// See [`Query::Conferences`].
    Conferences(Vec<ConferenceRow>),
    /// See [`Query::Participants`].
    Participants(Vec<ParticipantRow>),
    /// See [`Query::Show`].
    Show(Box<ShowReport>),
    /// See [`Query::Kick`].
    Kicked {
        /// Who.
        participant: String,
    },
    /// See [`Query::Drain`].
    Draining {
        /// Conferences that go on.
        conferences: u64,
        /// Participants in them.
        participants: u64,
    },
    /// See [`Query::Metrics`].
    Metrics(NodeMetrics),
    /// The conference or participant named does not exist.
    NotFound {
        /// What was looked for, e.g. `participant p9`.
        what: String,
    },
}

/// How the node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The URL clients are told.
    pub public_url: String,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Conferences.
    pub conferences: u64,
    /// Participants whose channel is open.
    pub participants: u64,
    /// Allocations no client has used yet.
    pub allocations: u64,
}

/// How control is: what `sluice status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Release of control.
    pub software: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs, in milliseconds.
    pub uptime_ms: u64,
    /// Whether the forwarder is connected.
    pub forwarder_connected: bool,
    /// The node.
    #[serde(flatten)]
    pub node: NodeStatus,
}

/// One conference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConferenceRow {
    /// Its name, as clients call it.
    pub name: String,
    /// Protocol of its clients, e.g. `wire`.
    pub dialect: String,
    /// Participants whose channel is open.
    pub participants: u64,
    /// Milliseconds since it began.
    pub started_ms: u64,
    /// What it is doing, e.g. `active`.
    pub state: String,
}

/// How far a participant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantState {
    /// Has an offer and was not heard of since.
    Allocated,
    /// Connects.
    Connecting,
    /// Is connected; its channel is not open yet.
    Connected,
    /// In the conference.
    Joined,
    /// On its way out.
    Leaving,
}

impl ParticipantState {
    /// The spelling in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            ParticipantState::Allocated => "allocated",
            ParticipantState::Connecting => "connecting",
            ParticipantState::Connected => "connected",
            ParticipantState::Joined => "joined",
            ParticipantState::Leaving => "leaving",
        }
    }
}

/// One participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParticipantRow {
    /// Its id, e.g. `p7`.
    pub id: String,
    /// Its conference.
    pub conference: String,
    /// Its user as the client says; a pseudonym with Wire.
    pub user: String,
    /// How far it is.
    pub state: ParticipantState,
    /// Where it is.
    pub tuple: Option<SocketAddr>,
    /// DTLS version, e.g. `1.2`.
    pub dtls: Option<String>,
    /// SRTP profile.
    pub profile: Option<String>,
    /// Round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Streams it sends.
    pub streams_in: u64,
    /// Streams it receives.
    pub streams_out: u64,
    /// Milliseconds since it joined; `None` before.
    pub joined_ms: Option<u64>,
}

/// Two addresses that reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Ours.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
}

/// What the node wants of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNote {
    /// The stream's name in the forwarder's table.
    pub stream: String,
    /// What it is for, e.g. `p4 wanted as high`.
    pub what: String,
    /// `audio` or `video`.
    pub kind: String,
    /// The encodings it may carry, lowest first, or is one of. Empty where there is no choice.
    #[serde(default)]
    pub layers: Vec<LayerNote>,
    /// Place in `layers` of the highest that may be carried, or of the one it is.
    #[serde(default)]
    pub top: usize,
}

/// One encoding of a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerNote {
    /// Its rid.
    pub label: String,
    /// Name of its stream in the forwarder's table.
    pub stream: String,
}

/// Everything about a participant. The node leaves `path` and `streams` empty; they are the forwarder's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShowReport {
    /// Its row.
    pub participant: ParticipantRow,
    /// Its leg in the forwarder's table, once there is one.
    pub leg: Option<String>,
    /// Our candidates.
    pub local_candidates: Vec<String>,
    /// The client's candidates.
    pub remote_candidates: Vec<String>,
    /// The chosen pair.
    pub pair: Option<Pair>,
    /// How packets of the leg come in.
    #[serde(default)]
    pub path: Option<LegPath>,
    /// What else there is to say about it.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What the node wants of its streams.
    #[serde(default)]
    pub notes: Vec<StreamNote>,
    /// Streams with what the forwarder counts.
    #[serde(default)]
    pub streams: Vec<StreamRow>,
}

/// How packets of a leg come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegPath {
    /// What the leg is doing, e.g. `active`.
    pub state: String,
    /// Worker that owns it.
    pub worker: u16,
    /// By AF_XDP to the owner.
    pub fast: u64,
    /// By the kernel socket.
    pub slow: u64,
    /// By another worker.
    pub stray: u64,
    /// How its endpoint does I/O, e.g. `xdp_copy`.
    #[serde(default)]
    pub io: Option<String>,
    /// Why packets do not all come the fast way.
    #[serde(default)]
    pub why: Vec<String>,
    /// Drops by reason, without zeros.
    pub drops: Vec<(String, u64)>,
}

/// One stream of a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRow {
    /// Its name in the forwarder's table.
    pub name: String,
    /// `in` from the client, `out` to it.
    pub direction: String,
    /// `audio` or `video`.
    pub kind: Option<String>,
    /// Its SSRC.
    pub ssrc: u32,
    /// SSRC it carries now, of what is sent.
    pub carries: Option<u32>,
    /// Participant it carries now, of what is sent.
    #[serde(default)]
    pub from: Option<String>,
    /// Encoding it is or carries, by its rid.
    pub layer: Option<String>,
    /// `fast` by AF_XDP, `slow` by the kernel socket, or `mixed`; a leg's packets all come one way.
    #[serde(default)]
    pub path: Option<String>,
    /// Packets.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Packets lost on the way in, or dropped on the way out.
    pub lost: u64,
    /// Why it is as it is.
    pub why: Option<String>,
}

/// What the node counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Participants now.
    pub participants: u64,
    /// Conferences now.
    pub conferences: u64,
    /// Participants since the start.
    pub participants_total: u64,
    /// Conferences since the start.
    pub conferences_total: u64,
    /// Values that go up and down, by name in snake case.
    pub gauges: Vec<(String, u64)>,
    /// Counters by name in snake case; refusals among them.
    pub counters: Vec<(String, u64)>,
}

/// One line of the Unix socket's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Report(Report),
    /// [`Query::Status`] with what the process itself knows.
    Status(Status),
    /// Not done.
    Failed {
        /// What was attempted and why it cannot be.
        message: String,
        /// What to do.
        hint: String,
    },
}
