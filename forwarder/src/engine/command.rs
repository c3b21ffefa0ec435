//! What the management thread tells a worker. Rows arrive whole and by value: nothing is allocated or freed on
//! the worker, and what a row replaced goes back as [`Garbage`].

use arrayvec::ArrayVec;
use sluice_srtp::Ssrc;

use super::index_store::PinnedRow;
use super::inputs::Inputs;
use super::rows::{EgressConfig, IngressConfig, LegConfig, TupleKey, TupleOwner};
use super::staged::Generation;
use crate::wire::frame::Address;

/// Egress streams that one command sweeps.
const SWEPT: usize = 16;

/// One step of a commit. Staging commands prepare the generation after the current one.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be freed by the worker")]
pub enum Command {
    /// Adds an endpoint; endpoints are never staged, they only make addresses known.
    Endpoint {
        /// Its index.
        slot: u16,
        /// Its address, `None` to remove it.
        address: Option<Address>,
    },
    /// Prepares a leg.
    Leg {
        /// Its slot.
        slot: u32,
        /// Its next version.
        config: Option<LegConfig>,
    },
    /// Prepares who owns a tuple; sent to every worker.
    Tuple {
        /// The tuple.
        key: TupleKey,
        /// Its next owner.
        owner: Option<TupleOwner>,
    },
    /// Prepares an ingress stream.
    Ingress {
        /// Its slot.
        slot: u32,
        /// Its next version.
        config: Option<IngressConfig>,
    },
    /// Sets which workers have receivers of a list. A wider set than needed is harmless.
    Workers {
        /// The list.
        list: u32,
        /// One bit a worker.
        workers: u64,
    },
    /// Prepares an egress stream.
    Egress {
        /// Its slot.
        slot: u32,
        /// Its next version.
        config: Option<Box<EgressConfig>>,
    },
    /// Prepares what a virtual source carries.
    Input {
        /// The virtual source's list.
        list: u32,
        /// What it is to carry.
        inputs: Option<Inputs>,
    },
    /// Larger storage for a list's members or attached sources.
    Grow {
        /// The list.
        list: u32,
        /// Whether for attached sources.
        attached: bool,
        /// Empty, with the capacity wanted.
        storage: Vec<u32>,
    },
    /// A leg without a known address listens for its first authenticated packet at an endpoint; `None` ends it.
    Listen {
        /// The leg and its owner.
        owner: TupleOwner,
        /// Where.
        endpoint: Option<u16>,
        /// By which SSRC the leg is found.
        ssrc: Ssrc,
    },
    /// Seals and sends an RTCP compound.
    Rtcp {
        /// The leg's slot.
        leg: u32,
        /// The compound in clear; its sender's SSRC is the sealing one.
        bytes: Box<[u8]>,
    },
    /// Sends a datagram to one of a leg's tuples.
    Packet {
        /// The leg's slot.
        leg: u32,
        /// The tuple.
        to: Address,
        /// UDP payload.
        bytes: Box<[u8]>,
    },
    /// Asks the sender of a leg's stream for a key frame.
    KeyFrame {
        /// The leg's slot.
        leg: u32,
        /// The list that the stream feeds.
        list: u32,
        /// Whether it is for a receiver that is new to the stream; one is asked for several times then.
        new: bool,
    },
    /// Keeps the indexes of a learned stream in a row of its own from now on.
    KeepIndex {
        /// The leg's slot.
        leg: u32,
        /// The stream's SSRC.
        ssrc: Ssrc,
        /// Its number as a source; another stream's row stays as it is.
        source: u32,
        /// The row.
        index: PinnedRow,
    },
    /// Makes everything staged take effect.
    Flip(Generation),
    /// Takes out what a leg's, stream's or input's switch left behind.
    SweepLeg(u32),
    /// See [`Command::SweepLeg`].
    SweepTuple(TupleKey),
    /// See [`Command::SweepLeg`].
    SweepIngress(u32),
    /// See [`Command::SweepLeg`]; many at once, since tables consist of egress streams for the most part.
    SweepEgress(ArrayVec<u32, SWEPT>),
    /// See [`Command::SweepLeg`].
    SweepInput(u32),
}

impl Command {
    /// Entries it is about.
    pub fn entries(&self) -> usize {
        match self {
            Command::SweepEgress(slots) => slots.len(),
            _ => 1,
        }
    }
}

/// What a worker no longer needs; freed by whoever receives it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be allocated by the worker")]
pub enum Garbage {
    /// A leg's former version.
    Leg(LegConfig),
    /// An ingress stream's former version.
    Ingress(IngressConfig),
    /// An egress stream's former version.
    Egress(Box<EgressConfig>),
    /// A list's former storage.
    Storage(Vec<u32>),
    /// A packet that was sent or dropped.
    Bytes(Box<[u8]>),
}
