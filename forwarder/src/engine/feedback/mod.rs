//! RTCP that a leg's owner sends and takes by itself: transport-wide feedback, reports, requests for key frames.
//! Messages are built when they are due, straight into transmit frames; nothing is allocated after start.

mod anchor;
mod arrivals;
mod chains;
mod gaps;
mod history;
mod incoming;
mod requests;
mod resend;
mod restore;
mod send;
mod stream;

use sluice_srtp::Ssrc;
use sluice_srtp::window::SentSequence;
use sluice_table::Kind;

pub use anchor::Anchor;

use self::anchor::{Anchors, Offset};
use self::arrivals::Arrivals;
use self::chains::Chains;
use self::gaps::Gaps;
pub(super) use self::history::History;
use self::stream::{KeyFrames, Reception};
use super::map::FlatMap;
use super::police::Bucket;
use super::rows::{EgressConfig, StreamKey};
use super::run::Capacity;
use super::time::Nanos;
use super::timers::Timers;

/// SSRC of what is said on no stream's behalf, as browsers have it too.
pub const US: Ssrc = Ssrc(1);

/// How often reports are made, on average.
const REPORTS: Nanos = Nanos::from_millis(1_000);
/// The same while streams of the leg are new.
const FIRST_REPORTS: Nanos = Nanos::from_millis(200);
/// How many of those there are after a change of the leg's streams.
const FIRST_ROUNDS: u8 = 8;

/// What is remembered of a leg.
#[derive(Debug)]
struct LegFeedback {
    arrivals: Arrivals,
    offset: Offset,
    /// Round trip time as the peer's last report showed it.
    rtt: Option<Nanos>,
    /// When something of its kind is due.
    requests: Nanos,
    transport: Nanos,
    reports: Nanos,
    /// The earliest of them that a timer was set for.
    armed: Nanos,
    round: u32,
    /// Quick rounds left.
    first_rounds: u8,
    /// Budget for packets sent again.
    again: Bucket,
    /// Whether the peer ever asked for a key frame or a packet itself.
    asks: bool,
}

impl Default for LegFeedback {
    fn default() -> Self {
        let never = Nanos::NEVER;
        LegFeedback {
            arrivals: Arrivals::default(),
            offset: Offset::default(),
            rtt: None,
            requests: never,
            transport: never,
            reports: never,
            armed: never,
            round: 0,
            first_rounds: 0,
            again: Bucket::default(),
            asks: false,
        }
    }
}

/// What is remembered of a received stream.
#[derive(Debug, Default)]
struct InFeedback {
    reception: Reception,
    key_frames: KeyFrames,
    gaps: Gaps,
}

/// What is remembered of a sent stream.
#[derive(Debug, Default)]
struct OutFeedback {
    /// Packets when its last report was made.
    reported: u64,
    /// Report round it was last told in.
    round: u32,
    /// When a key frame was last asked for on its receiver's behalf.
    wanted: Option<Nanos>,
    /// Since when it has gone without a report for want of one from its source.
    waits_since: Option<Nanos>,
    /// Packets its receiver lost by its last report.
    lost: i32,
    /// Its repair stream: SSRC, incarnation, and the indexes issued.
    repair: Option<((Ssrc, u64), SentSequence)>,
    /// The kind it has packets kept of for its repair stream.
    keeps: Option<Kind>,
}

/// A worker's feedback.
#[derive(Debug)]
pub(super) struct FeedbackState {
    pub(super) timers: Timers,
    legs: Vec<LegFeedback>,
    streams: Chains,
    ingress: Vec<InFeedback>,
    sends: Chains,
    egress: Vec<OutFeedback>,
    /// Egress slots by leg and SSRC on the wire.
    outs: FlatMap<StreamKey, u32>,
    anchors: Anchors,
    pub(super) history: History,
    /// Canonical name of everything sent here (RFC 7022 §4.2): all of it is timed by one clock.
    name: [u8; 16],
}

impl FeedbackState {
    pub(super) fn new(capacity: &Capacity, worker: u8, seed: [u64; 2]) -> Self {
        let ingress = capacity.ingress + capacity.learned;
        let word = (seed[0] ^ 0x5352_4350).wrapping_mul(seed[1] | 1).rotate_left(u32::from(worker)) ^ seed[1];
        let mut name = [0; 16];
        for (at, digit) in name.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(word >> (4 * at)) as usize & 15];
        }
        FeedbackState {
            timers: Timers::new(capacity.legs),
            legs: std::iter::repeat_with(LegFeedback::default).take(capacity.legs).collect(),
            streams: Chains::new(capacity.legs, ingress),
            ingress: std::iter::repeat_with(InFeedback::default).take(ingress).collect(),
            sends: Chains::new(capacity.legs, capacity.egress),
            egress: std::iter::repeat_with(OutFeedback::default).take(capacity.egress).collect(),
            outs: FlatMap::new(capacity.egress, seed),
            anchors: Anchors::new(capacity.lists),
            history: History::new(capacity.history(), seed),
            name,
        }
    }

    /// A stream of a leg is received here from now on.
    pub(super) fn add_ingress(&mut self, leg: u32, slot: u32) {
        if self.streams.add(leg, slot) {
            self.ingress[slot as usize] = InFeedback::default();
            self.hurry(leg);
        }
    }

    /// A stream's slot is free again.
    pub(super) fn remove_ingress(&mut self, slot: u32) {
        self.streams.remove(slot);
    }

    /// A stream is sent to a leg from now on.
    pub(super) fn add_egress(&mut self, slot: u32, config: &EgressConfig) {
        let (leg, ssrc) = (config.leg, config.ssrc);
        if self.sends.add(leg, slot) {
            self.set_keeps(slot, None);
            self.egress[slot as usize] = OutFeedback::default();
            let inserted = self.outs.insert(StreamKey { leg, ssrc }, slot);
            debug_assert!(inserted.is_ok(), "as many as slots");
        }
        self.set_keeps(slot, config.rtx.as_ref().map(|_| config.kind));
        self.hurry(leg);
    }

    /// A stream's slot is free again.
    pub(super) fn remove_egress(&mut self, leg: u32, slot: u32, ssrc: Ssrc) {
        self.sends.remove(slot);
        self.set_keeps(slot, None);
        let key = StreamKey { leg, ssrc };
        if self.outs.get(key) == Some(slot) {
            self.outs.remove(key);
        }
    }

    fn set_keeps(&mut self, slot: u32, keeps: Option<Kind>) {
        let before = std::mem::replace(&mut self.egress[slot as usize].keeps, keeps);
        for (kind, by) in before.map(|kind| (kind, -1)).into_iter().chain(keeps.map(|kind| (kind, 1))) {
            self.history.count(kind, by);
        }
    }

    /// A leg's configuration changed; `gone` if it has none any more.
    pub(super) fn follow_leg(&mut self, leg: u32, gone: bool) {
        if gone {
            self.legs[leg as usize] = LegFeedback::default();
            self.timers.clear(leg);
        } else {
            self.hurry(leg);
        }
    }

    /// Reports come soon after a change.
    fn hurry(&mut self, leg: u32) {
        self.legs[leg as usize].first_rounds = FIRST_ROUNDS;
        self.set_reports(leg, Nanos(0));
    }

    fn set_reports(&mut self, leg: u32, at: Nanos) {
        let row = &mut self.legs[leg as usize];
        row.reports = row.reports.min(at);
        self.arm(leg);
    }

    fn set_requests(&mut self, leg: u32, at: Nanos) {
        let row = &mut self.legs[leg as usize];
        row.requests = row.requests.min(at);
        self.arm(leg);
    }

    /// Sets the leg's timer if something is due earlier than it says.
    fn arm(&mut self, leg: u32) {
        let row = &mut self.legs[leg as usize];
        let due = row.requests.min(row.transport).min(row.reports);
        if due < row.armed {
            row.armed = due;
            self.timers.set(leg, due);
        }
    }

    /// A packet with a transport-wide number authenticated.
    #[inline]
    pub(super) fn arrived(&mut self, now: Nanos, leg: u32, number: u16, media: Ssrc) {
        let row = &mut self.legs[leg as usize];
        if let Some(due) = row.arrivals.note(now, number, media)
            && due < row.transport
        {
            row.transport = due;
            self.arm(leg);
        }
    }

    /// Packets from `first` to before `end` are missing. Returns how many older ones were given up.
    #[cold]
    pub(super) fn missing(&mut self, now: Nanos, leg: u32, slot: u32, first: u64, end: u64) -> u64 {
        let (due, given_up) = self.ingress[slot as usize].gaps.found(now, first, end);
        self.set_requests(leg, due);
        given_up
    }

    /// A packet of a stream was accepted.
    #[inline]
    pub(super) fn received(
        &mut self,
        now: Nanos,
        slot: u32,
        incarnation: u64,
        (index, timestamp): (u64, u32),
        clock_rate: u32,
    ) {
        self.ingress[slot as usize].reception.note(now, incarnation, index, timestamp, clock_rate);
    }
}
