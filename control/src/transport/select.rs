//! Which tuple a peer is reached at: nomination, tuples that answered, and what happens when a peer shows up elsewhere.
//! Sends nothing itself; it only makes pairs ask.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_table::Ice;

use super::pair::{Answered, Pair, Tuple};
use super::status::PairState;

/// How long a better pair may still answer before we nominate what did.
const NOMINATE_AFTER: Duration = Duration::from_millis(100);
/// When a nomination nobody answered is tried again.
const NOMINATE_AGAIN: Duration = Duration::from_secs(5);
/// How long the selected tuple has to answer once the peer asked from another one; four checks.
const PROBE: Duration = Duration::from_secs(1);
/// Soonest next check of a pair the peer asks on meanwhile.
const HURRY: Duration = Duration::from_millis(100);

/// The choice among an agent's pairs.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Source of the last authenticated request.
    pub(super) last_request: Option<Tuple>,
    nominated: Option<Tuple>,
    selected: Option<Tuple>,
    established: bool,
    changed: bool,
    nominate_at: Option<Instant>,
    /// When the selected tuple, which is being asked, counts as gone.
    probe_until: Option<Instant>,
}

fn at(pairs: &[Pair], tuple: Tuple) -> Option<usize> {
    pairs.iter().position(|pair| pair.tuple == tuple)
}

fn is_valid(pairs: &[Pair], tuple: Tuple) -> bool {
    at(pairs, tuple).is_some_and(|at| pairs[at].validated())
}

fn best_valid(pairs: &[Pair]) -> Option<usize> {
    let valid = pairs.iter().enumerate().filter(|(_, pair)| pair.validated());
    valid.max_by_key(|(_, pair)| pair.priority).map(|(at, _)| at)
}

impl Selection {
    pub(super) fn begin_again(&mut self) {
        let Selection { established, .. } = *self;
        *self = Selection { established, ..Selection::default() };
    }

    pub(super) fn role_changed(&mut self, pairs: &mut [Pair]) {
        for pair in pairs {
            pair.nominating = false;
        }
        self.changed = true;
    }

    /// The peer asked on the pair.
    pub(super) fn requested(&mut self, now: Instant, at: usize, nominated: bool, pairs: &mut [Pair]) {
        let pair = &mut pairs[at];
        let tuple = pair.tuple;
        self.last_request = Some(tuple);
        if pair.validated() {
            pair.asked_to_use = false;
            if nominated {
                self.nominate(tuple, pairs);
            }
            self.changed = true;
            return;
        }
        match (pair.state, pair.next) {
            (PairState::Checking, Some(next)) => pair.next = Some(next.min(now + HURRY)),
            _ => pair.ask_now(now),
        }
        self.probe(now, tuple, pairs);
    }

    /// Asks the selected tuple whether it is still there, since the peer was seen at another.
    fn probe(&mut self, now: Instant, seen: Tuple, pairs: &mut [Pair]) {
        let Some(selected) = self.selected.filter(|selected| *selected != seen) else { return };
        if self.probe_until.is_none()
            && let Some(at) = at(pairs, selected)
        {
            pairs[at].ask_now(now);
            self.probe_until = Some(now + PROBE);
        }
    }

    /// The peer answered on the pair.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        at: usize,
        answered: Answered,
        controlling: bool,
        pairs: &mut [Pair],
    ) {
        let pair = &mut pairs[at];
        let (tuple, priority) = (pair.tuple, pair.priority);
        // Used up, or a later answer of the pair would nominate it again.
        let asked_to_use = std::mem::take(&mut pair.asked_to_use);
        if self.selected == Some(tuple) {
            self.probe_until = None;
        }
        if controlling == answered.controlling && answered.nominate || !controlling && asked_to_use {
            self.nominate(tuple, pairs);
        } else if controlling && self.nominated.is_none() && self.nominate_at.is_none() {
            let open = |pair: &Pair| matches!(pair.state, PairState::Waiting | PairState::Checking);
            let better = pairs.iter().any(|pair| open(pair) && pair.priority > priority);
            self.nominate_at = Some(if better { now + NOMINATE_AFTER } else { now });
        }
        if self.established && self.selected.is_none() {
            self.selected = Some(tuple);
        }
        if answered.first {
            self.changed = true;
            self.probe(now, tuple, pairs);
        }
    }

    fn nominate(&mut self, tuple: Tuple, pairs: &[Pair]) {
        let priority = |tuple| at(pairs, tuple).map_or(0, |at| pairs[at].priority);
        // A peer that nominates every pair means the best one, until one of them carries media.
        let better = |held: Tuple| !self.established && is_valid(pairs, held) && priority(held) > priority(tuple);
        if self.nominated.is_some_and(better) {
            return;
        }
        self.nominated = Some(tuple);
        if self.established && self.selected != Some(tuple) {
            self.selected = Some(tuple);
            self.changed = true;
            self.probe_until = None;
        }
    }

    /// The pair was asked often enough without an answer.
    pub(super) fn failed(&mut self, now: Instant, at: usize, pairs: &mut [Pair]) {
        let tuple = pairs[at].tuple;
        let others = pairs.iter().any(|pair| pair.tuple != tuple && pair.validated());
        if pairs[at].validated() && self.nominated.is_none() {
            self.nominate_at = Some(now + NOMINATE_AGAIN);
        }
        if !pairs[at].validated() || !others {
            return;
        }
        (pairs[at].validated_at, pairs[at].state) = (None, PairState::Failed);
        self.changed = true;
        if self.nominated == Some(tuple) || self.nominated.is_none() {
            (self.nominated, self.nominate_at) = (None, Some(now));
        }
        if self.selected == Some(tuple) {
            self.selected = best_valid(pairs).map(|at| pairs[at].tuple);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.nominate_at.into_iter().chain(self.probe_until).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, controlling: bool, pairs: &mut [Pair]) {
        if self.nominate_at.is_some_and(|at| at <= now) {
            self.nominate_at = None;
            let idle = self.nominated.is_none() && !pairs.iter().any(|pair| pair.nominating);
            if let Some(at) = best_valid(pairs).filter(|_| controlling && idle) {
                pairs[at].nominating = true;
                pairs[at].ask_now(now);
            }
        }
        if self.probe_until.is_some_and(|until| until <= now) {
            self.probe_until = None;
            self.leave(now, controlling, pairs);
        }
    }

    /// The selected tuple did not answer: goes to where the peer was seen last, if that answered.
    fn leave(&mut self, now: Instant, controlling: bool, pairs: &mut [Pair]) {
        let gone = self.selected;
        if let Some(at) = gone.and_then(|gone| at(pairs, gone)) {
            (pairs[at].next, pairs[at].unanswered) = (None, 0);
        }
        let elsewhere = pairs.iter_mut().filter(|pair| pair.validated() && Some(pair.tuple) != gone);
        let Some(pair) = elsewhere.max_by_key(|pair| pair.last_request.max(pair.validated_at)) else { return };
        self.selected = Some(pair.tuple);
        self.changed = true;
        if controlling {
            pair.nominating = true;
            pair.ask_now(now);
        }
    }

    /// Fixes the tuple media goes to, if one is validated; from then on only nomination or silence change it.
    pub(super) fn establish(&mut self, pairs: &[Pair]) -> bool {
        let target = self.target(pairs, || None).filter(|target| is_valid(pairs, *target));
        let Some(tuple) = target.or_else(|| best_valid(pairs).map(|at| pairs[at].tuple)) else { return false };
        self.selected = Some(tuple);
        self.established = true;
        self.changed = false;
        true
    }

    /// Whether the path may have changed since last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed) && self.established && self.selected.is_some()
    }

    /// Where datagrams that are not STUN go.
    pub(super) fn target(&self, pairs: &[Pair], former: impl Fn() -> Option<Tuple>) -> Option<Tuple> {
        let latest = || {
            let asked = pairs.iter().filter(|pair| pair.validated() && pair.last_request.is_some());
            asked.max_by_key(|pair| pair.last_request).map(|pair| pair.tuple)
        };
        let best = || best_valid(pairs).map(|at| pairs[at].tuple);
        let nominated = self.nominated.filter(|tuple| is_valid(pairs, *tuple));
        let current = self.selected.or(nominated).or_else(latest);
        current.or_else(former).or(self.last_request).or_else(best)
    }

    /// Validated tuples at the endpoint in use, the selected one first, then the newest.
    pub(super) fn tuples(&self, pairs: &[Pair]) -> Vec<Tuple> {
        let Some(first) = self.target(pairs, || None).filter(|tuple| is_valid(pairs, *tuple)) else {
            return Vec::new();
        };
        let here = |pair: &&Pair| pair.validated() && pair.tuple.local == first.local && pair.tuple != first;
        let mut rest: Vec<&Pair> = pairs.iter().filter(here).collect();
        rest.sort_by_key(|pair| std::cmp::Reverse(pair.last_request.max(pair.validated_at)));
        let rest = rest.into_iter().map(|pair| pair.tuple);
        std::iter::once(first).chain(rest).take(Ice::MAX_TUPLES).collect()
    }

    pub(super) fn is_selected(&self, tuple: Tuple) -> bool {
        self.selected.or(self.nominated) == Some(tuple)
    }
}

/// The addresses of tuples.
pub(super) fn addresses(tuples: &[Tuple]) -> Vec<SocketAddr> {
    tuples.iter().map(|tuple| tuple.remote).collect()
}
