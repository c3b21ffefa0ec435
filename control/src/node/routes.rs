//! Which participant a packet belongs to: requests by the ufrag they name, responses by the transaction they answer,
//! DTLS by tuple. Bounded per participant. Never looks inside a packet beyond what routing needs.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use sluice_table::Name;

use crate::conference::ParticipantId;

/// Tuples a participant may be known at; the oldest is forgotten.
const TUPLES: usize = 24;
/// Checks of a participant that may be unanswered; the oldest is forgotten.
const CHECKS: usize = 64;

type Tuple = (Name, SocketAddr);
type Transaction = [u8; 12];

/// STUN header: type, length, magic cookie, transaction (RFC 8489 §5).
const STUN_HEADER: usize = 20;

#[derive(Debug, Default)]
struct Owned {
    ufrags: Vec<String>,
    tuples: VecDeque<Tuple>,
    checks: VecDeque<Transaction>,
}

/// The routing tables.
#[derive(Debug, Default)]
pub(super) struct Routes {
    ufrags: HashMap<String, ParticipantId>,
    tuples: HashMap<Tuple, ParticipantId>,
    checks: HashMap<Transaction, ParticipantId>,
    owned: HashMap<ParticipantId, Owned>,
}

impl Routes {
    /// Routes requests that name this local user fragment.
    pub(super) fn add_ufrag(&mut self, participant: ParticipantId, ufrag: &str) {
        self.ufrags.insert(ufrag.to_owned(), participant);
        self.owned.entry(participant).or_default().ufrags.push(ufrag.to_owned());
    }

    /// Notes what a participant sends where: answers to its checks, and DTLS from there, are its own. A tuple that
    /// was another participant's moves at once.
    pub(super) fn sent(&mut self, participant: ParticipantId, endpoint: &Name, to: SocketAddr, bytes: &[u8]) {
        let Some(owned) = self.owned.get_mut(&participant) else { return };
        if let Some(transaction) = transaction(bytes) {
            if bytes[0] == 0 && bytes[1] == 1 && self.checks.insert(transaction, participant).is_none() {
                owned.checks.push_back(transaction);
                if owned.checks.len() > CHECKS
                    && let Some(oldest) = owned.checks.pop_front()
                {
                    self.checks.remove(&oldest);
                }
            }
            // A check goes to addresses the peer only claims to have; a response goes to one that authenticated.
            if bytes[0] == 0 {
                return;
            }
        }
        let tuple = (endpoint.clone(), to);
        if self.tuples.get(&tuple) == Some(&participant) {
            return;
        }
        owned.tuples.push_back(tuple.clone());
        let oldest = if owned.tuples.len() > TUPLES { owned.tuples.pop_front() } else { None };
        if let Some(oldest) = oldest
            && self.tuples.get(&oldest) == Some(&participant)
        {
            self.tuples.remove(&oldest);
        }
        self.tuples.insert(tuple, participant);
    }

    /// Whose a packet is; `ufrag` is the local user fragment that a binding request names.
    pub(super) fn find(
        &self,
        endpoint: &Name,
        from: SocketAddr,
        ufrag: Option<&str>,
        bytes: &[u8],
    ) -> Option<ParticipantId> {
        if let Some(ufrag) = ufrag {
            return self.ufrags.get(ufrag).copied();
        }
        let check = transaction(bytes).and_then(|transaction| self.checks.get(&transaction));
        check.or_else(|| self.tuples.get(&(endpoint.clone(), from))).copied()
    }

    /// Forgets a participant.
    pub(super) fn remove(&mut self, participant: ParticipantId) {
        let Some(owned) = self.owned.remove(&participant) else { return };
        for ufrag in &owned.ufrags {
            self.ufrags.remove(ufrag);
        }
        for check in &owned.checks {
            self.checks.remove(check);
        }
        for tuple in &owned.tuples {
            if self.tuples.get(tuple) == Some(&participant) {
                self.tuples.remove(tuple);
            }
        }
    }

    /// Whether nothing is routed.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.ufrags.is_empty() && self.tuples.is_empty() && self.checks.is_empty() && self.owned.is_empty()
    }
}

/// The transaction of a STUN message.
fn transaction(bytes: &[u8]) -> Option<Transaction> {
    if bytes.len() < STUN_HEADER || bytes[0] > 3 {
        return None;
    }
    bytes[8..STUN_HEADER].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ParticipantId = ParticipantId(1);
    const B: ParticipantId = ParticipantId(2);

    fn endpoint() -> Name {
        Name::new("m0").unwrap()
    }

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn stun(kind: u16, transaction: u8) -> Vec<u8> {
        let mut bytes = vec![0; STUN_HEADER];
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        bytes[8..].fill(transaction);
        bytes
    }

    #[test]
    fn requests_go_by_ufrag_responses_by_transaction_dtls_by_tuple() {
        let mut routes = Routes::default();
        routes.add_ufrag(A, "aaaa");
        routes.add_ufrag(B, "bbbb");
        assert_eq!(routes.find(&endpoint(), at(1), Some("bbbb"), &stun(1, 9)), Some(B));
        assert_eq!(routes.find(&endpoint(), at(1), Some("cccc"), &stun(1, 9)), None);
        routes.sent(A, &endpoint(), at(7), &stun(1, 5));
        assert_eq!(routes.find(&endpoint(), at(8), None, &stun(0x101, 5)), Some(A), "from another address as well");
        assert_eq!(routes.find(&endpoint(), at(7), None, &[22; 40]), None, "nobody authenticated there yet");
        routes.sent(A, &endpoint(), at(7), &stun(0x101, 6));
        assert_eq!(routes.find(&endpoint(), at(7), None, &[22; 40]), Some(A));
        routes.sent(B, &endpoint(), at(7), &stun(0x101, 6));
        assert_eq!(routes.find(&endpoint(), at(7), None, &[22; 40]), Some(B), "moved at once");
        routes.remove(A);
        assert_eq!(routes.find(&endpoint(), at(7), None, &[22; 40]), Some(B));
        routes.remove(B);
        assert!(routes.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut routes = Routes::default();
        routes.add_ufrag(A, "aaaa");
        for n in 0..1_000u16 {
            let mut check = stun(1, 0);
            check[8..10].copy_from_slice(&n.to_be_bytes());
            routes.sent(A, &endpoint(), at(n), &check);
            routes.sent(A, &endpoint(), at(n), &stun(0x101, 0));
        }
        assert_eq!((routes.tuples.len(), routes.checks.len()), (TUPLES, CHECKS));
        routes.remove(A);
        assert!(routes.is_empty());
    }
}
