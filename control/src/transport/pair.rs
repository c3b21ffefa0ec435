//! One candidate pair: its checks, their answers, and what may be sent to an address that has not answered yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::TransId;

use super::CandidateKind;
use super::status::PairState;

/// Times between checks of a pair that does not answer; after the last the pair has failed. Short at first, since the
/// peer is usually there and the first check opens its NAT.
const INTERVALS: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
    Duration::from_millis(1_600),
    Duration::from_millis(1_600),
];
/// Transactions remembered; a late answer to an older one is not needed.
const REMEMBERED: usize = 8;
/// Bytes an unvalidated address gets per byte it sent.
const AMPLIFICATION: u64 = 3;
/// Bytes an address gets because a description names it: five checks with long fragments.
const SIGNALLED: u64 = 600;

/// Which pair: local address by its index, and the remote address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) local: usize,
    pub(super) remote: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    transaction: TransId,
    at: Instant,
    nominate: bool,
    controlling: bool,
}

/// What an answer was to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) nominate: bool,
    pub(super) controlling: bool,
    /// Whether it is the pair's first answer.
    pub(super) first: bool,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) tuple: Tuple,
    pub(super) kind: CandidateKind,
    /// Named by a description.
    pub(super) signalled: bool,
    pub(super) remote_priority: u32,
    pub(super) priority: u64,
    pub(super) state: PairState,
    /// The peer sent USE-CANDIDATE.
    pub(super) asked_to_use: bool,
    /// We send USE-CANDIDATE until it is answered.
    pub(super) nominating: bool,
    pub(super) last_request: Option<Instant>,
    pub(super) validated_at: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    pub(super) unanswered: u8,
    /// When to ask again.
    pub(super) next: Option<Instant>,
    asked: Vec<Asked>,
    received: u64,
    sent: u64,
}

impl Pair {
    pub(super) fn new(tuple: Tuple, kind: CandidateKind, remote_priority: u32) -> Pair {
        Pair {
            tuple,
            kind,
            signalled: false,
            remote_priority,
            priority: 0,
            state: PairState::Waiting,
            asked_to_use: false,
            nominating: false,
            last_request: None,
            validated_at: None,
            rtt: None,
            unanswered: 0,
            next: None,
            asked: Vec::new(),
            received: 0,
            sent: 0,
        }
    }

    pub(super) fn validated(&self) -> bool {
        self.validated_at.is_some()
    }

    /// RFC 8445 §6.1.2.3.
    pub(super) fn rank(&mut self, local_priority: u32, controlling: bool) {
        let (ours, theirs) = (u64::from(local_priority), u64::from(self.remote_priority));
        let (g, d) = if controlling { (ours, theirs) } else { (theirs, ours) };
        self.priority = (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d);
    }

    /// Bytes arrived from the address, authenticated or on a tuple that was.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Whether so many bytes may be sent now, and counts them if so.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let signalled = if self.signalled { SIGNALLED } else { 0 };
        let allowed = self.received.saturating_mul(AMPLIFICATION).saturating_add(signalled);
        if !self.validated() && self.sent.saturating_add(bytes) > allowed {
            return false;
        }
        self.sent = self.sent.saturating_add(bytes);
        true
    }

    /// Asks from the beginning, at once.
    pub(super) fn ask_now(&mut self, now: Instant) {
        self.unanswered = 0;
        self.next = Some(now);
        if !self.validated() {
            self.state = PairState::Checking;
        }
    }

    /// Notes a check that is being sent; `None` when the pair was asked often enough and has failed.
    pub(super) fn ask(&mut self, now: Instant, controlling: bool) -> Option<TransId> {
        let Some(interval) = INTERVALS.get(usize::from(self.unanswered)) else {
            self.next = None;
            self.nominating = false;
            if !self.validated() {
                self.state = PairState::Failed;
            }
            return None;
        };
        self.unanswered += 1;
        self.next = Some(now + *interval);
        if !self.validated() {
            self.state = PairState::Checking;
        }
        if self.asked.len() == REMEMBERED {
            self.asked.remove(0);
        }
        let transaction = TransId::new();
        self.asked.push(Asked { transaction, at: now, nominate: self.nominating, controlling });
        Some(transaction)
    }

    pub(super) fn has_asked(&self, transaction: TransId) -> bool {
        self.asked.iter().any(|asked| asked.transaction == transaction)
    }

    /// Notes an authenticated success response.
    pub(super) fn answered(&mut self, now: Instant, transaction: TransId) -> Option<Answered> {
        let asked = *self.asked.iter().find(|asked| asked.transaction == transaction)?;
        self.asked.retain(|other| other.at > asked.at);
        let first = !self.validated();
        self.rtt = Some(now.saturating_duration_since(asked.at));
        self.validated_at.get_or_insert(now);
        self.state = PairState::Validated;
        self.unanswered = 0;
        if asked.nominate {
            self.nominating = false;
        }
        self.next = if self.nominating { Some(now) } else { None };
        Some(Answered { nominate: asked.nominate, controlling: asked.controlling, first })
    }

    /// Notes an authenticated error response; tells which role the request was sent in.
    pub(super) fn refused(&mut self, transaction: TransId) -> Option<bool> {
        let at = self.asked.iter().position(|asked| asked.transaction == transaction)?;
        Some(self.asked.remove(at).controlling)
    }

    /// How expendable the pair is when room is needed; higher goes first.
    pub(super) fn expendable(&self) -> u8 {
        match (self.validated(), self.state, self.signalled) {
            (true, ..) => 0,
            (false, PairState::Failed, _) => 3,
            (false, _, false) => 2,
            (false, _, true) => 1,
        }
    }
}
