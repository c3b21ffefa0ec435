//! What a running forwarder tells about itself: process, workers, endpoints, capacity, legs, streams,
//! counters. All totals are cumulative since the process started.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sluice_srtp::Ssrc;

use crate::model::{Kind, Name};
use crate::reason::DropReason;

/// A way to the wire, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoMode {
    /// AF_XDP, zero-copy, at the driver.
    XdpZeroCopy,
    /// AF_XDP, copy mode, at the driver.
    XdpCopy,
    /// AF_XDP, copy mode, generic XDP.
    XdpGeneric,
    /// The kernel's UDP socket.
    Udp,
    /// Connected rings in memory; for tests.
    Memory,
}

impl IoMode {
    /// The spelling in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            IoMode::XdpZeroCopy => "xdp_zero_copy",
            IoMode::XdpCopy => "xdp_copy",
            IoMode::XdpGeneric => "xdp_generic",
            IoMode::Udp => "udp",
            IoMode::Memory => "memory",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Never sleeps.
    Busy,
    /// Sleeps when idle.
    Adaptive,
    /// Sleeps whenever nothing is there.
    Interrupt,
}

/// A step of the I/O ladder that was tried and refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStep {
    /// The mode tried.
    pub mode: IoMode,
    /// Why it does not work here, with the operating system's error.
    pub reason: String,
}

/// Totals of ports; the same counts as the forwarder's I/O layer keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoTotals {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames queued for transmission.
    pub tx_frames: u64,
    /// Bytes queued for transmission.
    pub tx_bytes: u64,
    /// System calls made to wake the kernel or move data.
    pub kicks: u64,
    /// Frames the kernel dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Frames the kernel dropped because no buffer was on the fill ring.
    pub rx_fill_empty: u64,
    /// Frames the kernel dropped for any other reason.
    pub rx_dropped: u64,
    /// Descriptors the kernel refused.
    pub tx_invalid: u64,
    /// Frames that could not be sent.
    pub tx_failed: u64,
}

/// One endpoint at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The endpoint.
    pub endpoint: Name,
    /// Its interface.
    pub interface: String,
    /// Its address.
    pub address: SocketAddr,
    /// How it does I/O.
    pub mode: IoMode,
    /// Steps above `mode` that were refused.
    pub refused: Vec<RefusedStep>,
    /// Queues with an XSK; 0 with `udp`.
    pub queues: u32,
    /// Totals of its ports.
    pub io: IoTotals,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub worker: u16,
    /// The CPU it is pinned to, if it is.
    pub cpu: Option<u32>,
    /// How it waits.
    pub polling: Polling,
    /// Engine steps.
    pub steps: u64,
    /// Steps that found work.
    pub busy_steps: u64,
    /// CPU time used, in microseconds.
    pub cpu_us: u64,
    /// Legs it owns.
    pub legs: u64,
    /// Packets it opened.
    pub opened: u64,
    /// Packets it sealed.
    pub sealed: u64,
    /// Packets of other workers' legs it handed on.
    pub strays: u64,
    /// Packets it dropped for any reason.
    pub dropped: u64,
    /// Totals of its ports.
    pub io: IoTotals,
}

/// A pool sized at start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// What it holds, e.g. `legs`.
    pub what: String,
    /// In use.
    pub used: u64,
    /// Most that fit.
    pub limit: u64,
}

/// Where every frame is. The parts sum up to `total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Frames there are.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// Given to the kernel to receive into.
    pub fill: u64,
    /// Received and held by the engine.
    pub held: u64,
    /// Given to the kernel to send.
    pub transmit: u64,
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Release of the forwarder.
    pub software: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs, in milliseconds.
    pub uptime_ms: u64,
    /// The table's generation.
    pub generation: u64,
    /// Name of the crypto provider.
    pub provider: String,
    /// Crypto self-test: what was compared, and that it was right.
    pub provider_note: String,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Pools.
    pub capacity: Vec<Capacity>,
    /// Frames.
    pub ledger: Ledger,
    /// What works less well than it could, and why; empty when all is well.
    pub degraded: Vec<String>,
}

/// What a leg is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegState {
    /// Waits for the first authenticated packet to learn where the peer is.
    Learning,
    /// Has an address but not the keys it needs.
    AwaitingKeys,
    /// Forwards.
    Active,
    /// Nothing authenticated arrived lately.
    Silent,
    /// Consent ran out.
    ConsentLost,
    /// There is no route or neighbour.
    NoNextHop,
}

impl LegState {
    /// The spelling in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            LegState::Learning => "learning",
            LegState::AwaitingKeys => "awaiting_keys",
            LegState::Active => "active",
            LegState::Silent => "silent",
            LegState::ConsentLost => "consent_lost",
            LegState::NoNextHop => "no_next_hop",
        }
    }
}

/// One leg at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRow {
    /// The leg.
    pub leg: Name,
    /// Worker that owns it.
    pub owner: u16,
    /// What it is doing.
    pub state: LegState,
    /// Selected destination.
    pub remote: Option<SocketAddr>,
    /// Packets that came by AF_XDP to the owner.
    pub fast: u64,
    /// Packets that came by the kernel socket.
    pub slow: u64,
    /// Packets that came to another worker and were handed over.
    pub stray: u64,
    /// Packets received and accepted.
    pub rx_packets: u64,
    /// Bytes of them, UDP payload.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes of them, UDP payload.
    pub tx_bytes: u64,
    /// Drops by reason, without zeros.
    pub drops: Vec<(DropReason, u64)>,
    /// Milliseconds since the last authenticated packet; `None` if there was none.
    pub last_packet_ms: Option<u64>,
}

/// One stream received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressRow {
    /// The ingress stream, or the learn rule that made it.
    pub name: Name,
    /// Whether a learn rule made it.
    pub learned: bool,
    /// Its leg.
    pub leg: Name,
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Audio or video.
    pub kind: Kind,
    /// Packets opened.
    pub packets: u64,
    /// Payload bytes opened.
    pub bytes: u64,
    /// Packets expected and never seen; late ones are taken off again.
    pub lost: u64,
    /// Highest index received; `None` before the first packet.
    pub index: Option<u64>,
    /// Rollover counter, the index's upper 32 bits.
    pub roc: u32,
    /// Layer of a layered stream.
    pub layer: Option<u8>,
    /// Workers that have receivers of it.
    pub receivers: u32,
}

/// One stream sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRow {
    /// The egress stream.
    pub name: Name,
    /// Its leg.
    pub leg: Name,
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// What it carries by the table.
    pub source: Name,
    /// SSRC it carries now; `None` before the first packet.
    pub current: Option<Ssrc>,
    /// Packets sealed.
    pub packets: u64,
    /// Payload bytes sealed.
    pub bytes: u64,
    /// Packets dropped at egress for any reason.
    pub dropped: u64,
    /// Highest index issued; `None` before the first packet.
    pub index: Option<u64>,
    /// Source switches so far.
    pub epoch: u32,
}

/// Every stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRows {
    /// Received.
    pub ingress: Vec<IngressRow>,
    /// Sent.
    pub egress: Vec<EgressRow>,
}

/// Counters that belong together, e.g. `drops`, `xdp`, `worker.0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterGroup {
    /// The group.
    pub group: String,
    /// Names and values, in the forwarder's order.
    pub counters: Vec<(String, u64)>,
}

impl CounterGroup {
    /// The group `drops`: every reason with its count, indexed as [`DropReason::index`]. Missing ones count 0.
    pub fn drops(counts: &[u64]) -> CounterGroup {
        let counters = DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), counts.get(reason.index()).copied().unwrap_or(0)))
            .collect();
        CounterGroup { group: "drops".to_owned(), counters }
    }
}
