//! Calls whose transport is not up yet: how many there may be, altogether and of one source. Never ends a call itself;
//! it says which one has to go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::counters::Reason;
use crate::conference::ParticipantId;

/// Who a call is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// The holder of a token.
    Token(String),
    /// A /24 of IPv4.
    Net4([u8; 3]),
    /// A /56 of IPv6.
    Net6([u8; 7]),
}

impl Origin {
    /// The network of an address.
    pub(super) fn net(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Origin::Net4([a, b, c])
            }
            IpAddr::V6(address) => {
                let mut net = [0; 7];
                net.copy_from_slice(&address.octets()[..7]);
                Origin::Net6(net)
            }
        }
    }
}

/// Unanswered ones go first, then by age.
type Rank = (bool, ParticipantId);

/// Calls whose transport is not up yet.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    calls: BTreeMap<ParticipantId, (Origin, bool)>,
    ranks: BTreeSet<Rank>,
    origins: HashMap<Origin, BTreeSet<Rank>>,
}

impl Allocations {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Adds a call; returns the one that has to go for it and why.
    pub(super) fn add(
        &mut self,
        participant: ParticipantId,
        origin: Origin,
        limit: usize,
        limit_per_origin: usize,
    ) -> Option<(ParticipantId, Reason)> {
        let same = self.origins.get(&origin);
        let evicted = match same {
            Some(same) if same.len() >= limit_per_origin.max(1) => same.first().map(|r| (r.1, Reason::SourceLimit)),
            _ if self.calls.len() >= limit.max(1) => self.ranks.first().map(|r| (r.1, Reason::AllocationLimit)),
            _ => None,
        };
        self.ranks.insert((false, participant));
        self.origins.entry(origin.clone()).or_default().insert((false, participant));
        self.calls.insert(participant, (origin, false));
        evicted
    }

    /// Its answer came.
    pub(super) fn answered(&mut self, participant: ParticipantId) {
        if let Some((origin, false)) = self.calls.get(&participant).cloned() {
            self.remove(participant);
            self.ranks.insert((true, participant));
            self.origins.entry(origin.clone()).or_default().insert((true, participant));
            self.calls.insert(participant, (origin, true));
        }
    }

    /// Its transport is up, or it is gone.
    pub(super) fn remove(&mut self, participant: ParticipantId) {
        let Some((origin, answered)) = self.calls.remove(&participant) else { return };
        self.ranks.remove(&(answered, participant));
        if let Some(same) = self.origins.get_mut(&origin) {
            same.remove(&(answered, participant));
            if same.is_empty() {
                self.origins.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unanswered_one_of_the_source_goes_first() {
        let mut calls = Allocations::default();
        let net = |text: &str| Origin::net(text.parse().unwrap());
        assert_eq!(calls.add(ParticipantId(1), net("192.0.2.1"), 10, 2), None);
        assert_eq!(calls.add(ParticipantId(2), net("192.0.2.200"), 10, 2), None);
        assert_eq!(calls.add(ParticipantId(3), net("192.0.3.1"), 10, 2), None);
        calls.answered(ParticipantId(1));
        let evicted = calls.add(ParticipantId(4), net("::ffff:192.0.2.7"), 10, 2);
        assert_eq!(evicted, Some((ParticipantId(2), Reason::SourceLimit)));
        calls.remove(ParticipantId(2));
        calls.remove(ParticipantId(4));
        let evicted = calls.add(ParticipantId(5), net("2001:db8::1"), 2, 2);
        assert_eq!(evicted, Some((ParticipantId(3), Reason::AllocationLimit)));
        assert_eq!(net("2001:db8:0:1::1"), net("2001:db8:0:ff::2"));
        assert_ne!(net("2001:db8:0:100::1"), net("2001:db8:0:ff::2"));
        for participant in 1..=5 {
            calls.remove(ParticipantId(participant));
        }
        assert_eq!(calls.len(), 0);
        assert!(calls.origins.is_empty() && calls.ranks.is_empty());
    }
}
