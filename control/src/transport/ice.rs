//! The ICE agent (RFC 8445, full): answers and sends checks, learns peer-reflexive addresses, settles role conflicts.
//! Which tuple is used is decided in `select`. Keeps no consent; the forwarder does once it knows the leg.
//!
//! `is` reads and writes the messages. Its agent is not used: it keeps every address it ever heard of, does not tell which
//! tuples answered, lets a response come from anywhere, and sends more to a spoofed address than that address sent.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use is::stun::{StunMessage, TransId};

use super::config::{Limits, LocalCandidate};
use super::pair::{Pair, Tuple};
use super::select::Selection;
use super::status::{Ignored, PairState};
use super::stun::{self, Check};
use super::{Candidate, CandidateKind, Credentials};

/// Between first checks of pairs (RFC 8445 §14.2 allows 5 ms; browsers use 50 ms).
const PACE: Duration = Duration::from_millis(20);
/// Learned addresses kept before the remote description is known.
const EARLY: usize = 16;
const MAX_PRIORITY: u32 = (1 << 31) - 1;

/// One ICE session of a transport; a restart replaces credentials and pairs.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) local: Credentials,
    pub(super) remote: Option<Credentials>,
    /// The session a restart replaces, until a tuple of the new one is validated.
    pub(super) former: Option<Former>,
    pub(super) controlling: bool,
    pub(super) tie_breaker: u64,
    pub(super) locals: Vec<LocalCandidate>,
    pub(super) pairs: Vec<Pair>,
    /// Requests from before the remote description: where from, and the user fragment they claimed.
    early: Vec<(Tuple, String)>,
    candidates: usize,
    limits: Limits,
    pub(super) selection: Selection,
    transmits: VecDeque<(Tuple, Vec<u8>)>,
    next_start: Option<Instant>,
    pub(super) heard: bool,
    pub(super) ignored: Ignored,
    pub(super) withheld: u64,
}

/// What stays of a session that is being replaced.
#[derive(Debug)]
pub(super) struct Former {
    local: Credentials,
    pub(super) tuples: Vec<Tuple>,
}

impl Agent {
    pub(super) fn new(
        local: Credentials,
        controlling: bool,
        tie_breaker: u64,
        locals: Vec<LocalCandidate>,
        limits: Limits,
    ) -> Agent {
        Agent {
            local,
            remote: None,
            former: None,
            controlling,
            tie_breaker,
            locals,
            pairs: Vec::new(),
            early: Vec::new(),
            candidates: 0,
            limits,
            selection: Selection::default(),
            transmits: VecDeque::new(),
            next_start: None,
            heard: false,
            ignored: Ignored::default(),
            withheld: 0,
        }
    }

    /// Sets or changes the peer's credentials; others than before start its half of a restart.
    pub(super) fn set_remote(&mut self, now: Instant, remote: &Credentials, lite: bool) {
        if self.remote.as_ref() == Some(remote) {
            return;
        }
        if self.remote.is_some() {
            self.begin_again(self.local.clone());
        }
        self.remote = Some(remote.clone());
        if lite {
            self.set_role(true);
        }
        for (tuple, ufrag) in std::mem::take(&mut self.early) {
            if ufrag != remote.ufrag {
                self.ignored.forged += 1;
                self.pairs.retain(|pair| pair.tuple != tuple);
            } else if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.tuple == tuple) {
                pair.ask_now(now);
                self.heard = true;
                self.selection.last_request = Some(tuple);
            }
        }
        self.next_start = Some(now);
    }

    /// New local credentials; the path in use stays until the peer answers with its own.
    pub(super) fn restart(&mut self, local: Credentials) {
        self.begin_again(local);
        self.remote = None;
    }

    fn begin_again(&mut self, local: Credentials) {
        let tuples: Vec<Tuple> = self.selection.tuples(&self.pairs);
        let former_local = std::mem::replace(&mut self.local, local);
        // A second restart before the first one came through: the path in use is still the one before both.
        if !tuples.is_empty() || self.former.is_none() {
            self.former = Some(Former { local: former_local, tuples });
        }
        self.pairs.clear();
        self.early.clear();
        self.candidates = 0;
        self.selection.begin_again();
        self.next_start = None;
    }

    /// Pairs a signalled candidate with every local address of its family.
    pub(super) fn add_candidate(&mut self, now: Instant, candidate: &Candidate) {
        let known = self.pairs.iter().any(|pair| pair.signalled && pair.tuple.remote == candidate.address);
        if !reachable(candidate.address) || !known && self.candidates >= self.limits.candidates {
            self.ignored.crowded += 1;
            return;
        }
        self.candidates += usize::from(!known);
        for local in 0..self.locals.len() {
            let address = self.locals[local].address;
            let tuple = Tuple { local, remote: candidate.address };
            let crosses = candidate.address.ip().is_loopback() && !address.ip().is_loopback();
            if address.is_ipv4() != candidate.address.is_ipv4() || crosses {
                continue;
            }
            let Some(at) = self.pair_or_new(tuple, candidate.kind, candidate.priority) else { continue };
            let pair = &mut self.pairs[at];
            (pair.signalled, pair.kind, pair.remote_priority) = (true, candidate.kind, clamp(candidate.priority));
            self.rank(at);
            if self.pairs[at].state == PairState::Waiting {
                self.next_start.get_or_insert(now);
            }
        }
    }

    /// The pair's place, made if there is room: an expendable pair gives way.
    fn pair_or_new(&mut self, tuple: Tuple, kind: CandidateKind, priority: u32) -> Option<usize> {
        if let Some(at) = self.pairs.iter().position(|pair| pair.tuple == tuple) {
            return Some(at);
        }
        if self.pairs.len() >= self.limits.pairs {
            let in_use = self.selection.tuples(&self.pairs);
            let (at, victim) = self
                .pairs
                .iter()
                .enumerate()
                .filter(|(_, pair)| !in_use.contains(&pair.tuple))
                .max_by_key(|(_, pair)| (pair.expendable(), std::cmp::Reverse(pair.last_request)))?;
            // Who asks is there; who is only named may not be.
            let needed = if kind == CandidateKind::PeerReflexive { 1 } else { 2 };
            self.ignored.crowded += 1;
            if victim.expendable() < needed {
                return None;
            }
            self.pairs.swap_remove(at);
        }
        self.pairs.push(Pair::new(tuple, kind, clamp(priority)));
        let at = self.pairs.len() - 1;
        self.rank(at);
        Some(at)
    }

    fn local_preference(local: usize) -> u32 {
        0xffff_u32.saturating_sub(local as u32) << 8 | 0xff
    }

    fn rank(&mut self, at: usize) {
        let pair = &mut self.pairs[at];
        pair.rank(126 << 24 | Self::local_preference(pair.tuple.local), self.controlling);
    }

    fn set_role(&mut self, controlling: bool) {
        if self.controlling == controlling {
            return;
        }
        self.controlling = controlling;
        for at in 0..self.pairs.len() {
            self.rank(at);
        }
        self.selection.role_changed(&mut self.pairs);
    }

    /// A STUN message from the tuple.
    pub(super) fn handle(&mut self, now: Instant, tuple: Tuple, bytes: &[u8]) {
        if bytes.len() > stun::MAX_STUN {
            self.ignored.malformed += 1;
            return;
        }
        match StunMessage::parse(bytes) {
            Ok(message) if message.is_binding_request() => self.handle_request(now, tuple, &message, bytes.len()),
            Ok(message) if message.is_successful_binding_response() || message.is_failed_binding_response() => {
                self.handle_response(now, tuple, &message);
            }
            Ok(_) => self.ignored.unexpected += 1,
            Err(_) => self.ignored.malformed += 1,
        }
    }

    fn handle_request(&mut self, now: Instant, tuple: Tuple, message: &StunMessage<'_>, length: usize) {
        let Some((to, from)) = message.split_username() else {
            self.ignored.malformed += 1;
            return;
        };
        let current = to == self.local.ufrag;
        let former = self.former.as_ref().filter(|former| to == former.local.ufrag);
        let password = match former {
            _ if current => &self.local.password,
            Some(former) => &former.local.password,
            None => {
                self.ignored.forged += 1;
                return;
            }
        };
        let claimed = self.remote.as_ref().is_none_or(|remote| remote.ufrag == from);
        if !message.verify(password.as_bytes(), stun::hmac_sha1) || (current && !claimed) {
            self.ignored.forged += 1;
            return;
        }
        if !current {
            self.answer_former(tuple, message.trans_id());
            return;
        }
        if message.use_candidate() && message.ice_controlled().is_some() {
            self.ignored.malformed += 1;
            return;
        }
        let early = self.remote.is_none() && !self.early.iter().any(|(known, _)| *known == tuple);
        if early && self.early.len() >= EARLY {
            self.ignored.crowded += 1;
            return;
        }
        let priority = message.prio().unwrap_or(1);
        let Some(at) = self.pair_or_new(tuple, CandidateKind::PeerReflexive, priority) else { return };
        self.pairs[at].count_received(length);
        if !self.settle_roles(message) {
            let reply = stun::write_role_conflict(&self.local, message.trans_id());
            self.transmit(at, reply);
            return;
        }
        if early {
            self.early.push((tuple, from.to_owned()));
        }
        let reply = stun::write_reply(&self.local, message.trans_id(), tuple.remote);
        self.transmit(at, reply);
        self.pairs[at].last_request = Some(now);
        let nominated = message.use_candidate() && !self.controlling;
        self.pairs[at].asked_to_use |= nominated;
        if self.remote.is_none() {
            return;
        }
        self.heard = true;
        self.selection.requested(now, at, nominated, &mut self.pairs);
    }

    /// The old session of a restart is answered where it already ran, but learns nothing any more.
    fn answer_former(&mut self, tuple: Tuple, transaction: TransId) {
        if let Some(former) = &self.former
            && former.tuples.contains(&tuple)
            && let Some(reply) = stun::write_reply(&former.local, transaction, tuple.remote)
        {
            self.transmits.push_back((tuple, reply));
        }
    }

    /// RFC 8445 §7.3.1.1; whether the request may be answered.
    fn settle_roles(&mut self, message: &StunMessage<'_>) -> bool {
        let theirs = if self.controlling { message.ice_controlling() } else { message.ice_controlled() };
        let Some(theirs) = theirs else { return true };
        let keep = self.controlling == (self.tie_breaker >= theirs);
        if !keep {
            self.set_role(!self.controlling);
        }
        !keep
    }

    fn handle_response(&mut self, now: Instant, tuple: Tuple, message: &StunMessage<'_>) {
        let transaction: TransId = message.trans_id();
        let at = self.pairs.iter().position(|pair| pair.tuple == tuple && pair.has_asked(transaction));
        let (Some(at), Some(remote)) = (at, &self.remote) else {
            self.ignored.unexpected += 1;
            return;
        };
        if !message.verify(remote.password.as_bytes(), stun::hmac_sha1) {
            self.ignored.forged += 1;
            return;
        }
        let pair = &mut self.pairs[at];
        if message.is_failed_binding_response() {
            let role = pair.refused(transaction);
            if message.error_code().is_some_and(|(code, _)| code == 487) && role == Some(self.controlling) {
                self.set_role(!self.controlling);
                self.pairs[at].ask_now(now);
            }
            return;
        }
        let Some(answered) = pair.answered(now, transaction) else { return };
        self.heard = true;
        self.selection.answered(now, at, answered, self.controlling, &mut self.pairs);
        if self.former.is_some() {
            self.former = None;
        }
    }

    fn transmit(&mut self, at: usize, bytes: Option<Vec<u8>>) {
        let pair = &mut self.pairs[at];
        match bytes {
            Some(bytes) if pair.spend(bytes.len()) => self.transmits.push_back((pair.tuple, bytes)),
            Some(bytes) => self.withheld += bytes.len() as u64,
            None => {}
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.remote.as_ref()?;
        let checks = self.pairs.iter().filter_map(|pair| pair.next);
        checks.chain(self.next_start).chain(self.selection.next_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(remote) = self.remote.clone() else { return };
        if self.next_start.is_some_and(|at| at <= now) {
            let waiting = self.pairs.iter_mut().filter(|pair| pair.state == PairState::Waiting);
            let best = waiting.max_by_key(|pair| pair.priority);
            self.next_start = best.is_some().then(|| now + PACE);
            if let Some(pair) = best {
                pair.ask_now(now);
            }
        }
        self.selection.handle_timeout(now, self.controlling, &mut self.pairs);
        for at in 0..self.pairs.len() {
            let pair = &mut self.pairs[at];
            if pair.next.is_none_or(|next| next > now) {
                continue;
            }
            let nominate = pair.nominating && self.controlling;
            let Some(transaction) = pair.ask(now, self.controlling) else {
                self.selection.failed(now, at, &mut self.pairs);
                continue;
            };
            let check = Check {
                transaction,
                controlling: self.controlling,
                tie_breaker: self.tie_breaker,
                priority: 110 << 24 | Self::local_preference(pair.tuple.local),
                nominate,
            };
            let bytes = stun::write_check(&self.local, &remote, &check);
            self.transmit(at, bytes);
        }
    }

    pub(super) fn poll(&mut self) -> Option<(Tuple, Vec<u8>)> {
        self.transmits.pop_front()
    }

    fn is_former(&self, tuple: Tuple) -> bool {
        self.former.as_ref().is_some_and(|former| former.tuples.contains(&tuple))
    }

    /// Whether DTLS from the tuple may be looked at: it sent an authenticated request or answered a check.
    pub(super) fn admits(&mut self, tuple: Tuple, length: usize) -> bool {
        if self.is_former(tuple) {
            return true;
        }
        let known = self.pairs.iter_mut().find(|pair| pair.tuple == tuple);
        let Some(pair) = known.filter(|pair| pair.validated() || pair.last_request.is_some()) else { return false };
        pair.count_received(length);
        true
    }

    /// Where to send what is not STUN, if anywhere.
    pub(super) fn target(&self) -> Option<Tuple> {
        let former = || self.former.as_ref().and_then(|former| former.tuples.first().copied());
        self.selection.target(&self.pairs, former)
    }

    /// Whether so many bytes that are not STUN may be sent to the tuple now; counts them.
    pub(super) fn spend(&mut self, tuple: Tuple, length: usize) -> bool {
        let free = self.is_former(tuple);
        let pair = self.pairs.iter_mut().find(|pair| pair.tuple == tuple);
        let allowed = free || pair.is_some_and(|pair| pair.spend(length));
        if !allowed {
            self.withheld += length as u64;
        }
        allowed
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        let target = self.target()?;
        let pair = self.pairs.iter().find(|pair| pair.tuple == target)?;
        pair.rtt.or_else(|| self.pairs.iter().filter_map(|pair| pair.rtt).min())
    }
}

fn clamp(priority: u32) -> u32 {
    priority.clamp(1, MAX_PRIORITY)
}

/// Whether an address may be asked at all.
fn reachable(address: SocketAddr) -> bool {
    let sound = match address.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    sound && address.port() != 0
}
