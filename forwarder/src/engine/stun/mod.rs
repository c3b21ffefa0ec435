//! STUN of established legs (RFC 8489, RFC 8445 §7, RFC 7675): the leg's owner answers correct binding requests and
//! keeps the consent to send. Everything else about ICE goes up to control. Never sends media and never lets a
//! request's source become a destination.

pub mod consent;
pub mod message;
mod respond;

use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sluice_table::Ice;

use self::message::{IntegrityKey, Role, TransactionId};
use super::police::{Bucket, Rate};
use super::ports::PortId;
use super::time::Nanos;
use crate::wire::frame::Address;
use crate::wire::template::Template;

/// Binding requests of one leg that are looked at.
const REQUESTS: Rate = Rate::per_second(100, Nanos::from_millis(1_000));
/// STUN of one leg that goes up to control.
const LEG_STUN_UP: Rate = Rate::per_second(50, Nanos::from_millis(1_000));
/// STUN, and likewise DTLS, of unknown tuples that goes up to control, per worker.
const UNKNOWN_UP: Rate = Rate::per_second(1_000, Nanos::from_millis(250));

/// ICE state of an established leg.
#[derive(Debug)]
pub struct IceConfig {
    /// Our user fragment.
    pub local_ufrag: Box<str>,
    /// The peer's user fragment.
    pub remote_ufrag: Box<str>,
    /// Our password: requests to us carry it.
    pub local_key: IntegrityKey,
    /// The peer's password: responses to our checks carry it.
    pub remote_key: IntegrityKey,
    /// Our role.
    pub role: Role,
    /// Our tie-breaker.
    pub tie_breaker: u64,
    /// Validated tuples, the selected one first.
    pub tuples: ArrayVec<IceTuple, { Ice::MAX_TUPLES }>,
    /// Changes when consent must start over: other credentials or another selected tuple.
    pub incarnation: u64,
}

impl IceConfig {
    /// The validated tuple of a remote address.
    pub fn tuple(&self, remote: Address) -> Option<&IceTuple> {
        self.tuples.iter().find(|tuple| tuple.remote == remote)
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<Address> {
        self.tuples.first().map(|tuple| tuple.remote)
    }
}

/// A validated tuple and the way to it.
#[derive(Debug)]
pub struct IceTuple {
    /// The peer.
    pub remote: Address,
    /// Port frames leave by.
    pub port: PortId,
    /// Prepared headers; `None` while no next hop is known.
    pub template: Option<Template>,
    /// Largest UDP payload of the route, in bytes.
    pub room: u16,
}

/// Our checks that may still be answered.
const ASKED: usize = 6;

/// ICE state of a leg's slot. Of a leg without ICE it allows everything.
#[derive(Debug)]
#[repr(C)]
pub struct IceState {
    /// Nothing but STUN is sent from then on.
    until: Nanos,
    /// The incarnation that the rest belongs to; 0 without ICE.
    incarnation: u64,
    next_check: Nanos,
    lost: bool,
    starting: bool,
    asked: ArrayVec<(TransactionId, Address), ASKED>,
    requests: Bucket,
    up: Bucket,
}

impl Default for IceState {
    fn default() -> Self {
        IceState {
            incarnation: 0,
            until: Nanos::NEVER,
            next_check: Nanos::NEVER,
            lost: false,
            starting: false,
            asked: ArrayVec::new(),
            requests: Bucket::default(),
            up: Bucket::default(),
        }
    }
}

impl IceState {
    /// Whether the peer allows us to send (RFC 7675 §5.1).
    #[inline(always)]
    pub fn may_send(&self, now: Nanos) -> bool {
        now < self.until
    }

    /// Whether consent ran out and did not come back.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

/// What a worker needs for STUN besides its legs.
#[derive(Debug)]
pub(super) struct StunState {
    pub(super) timers: super::timers::Timers,
    ids: Ids,
    unknown_stun: Bucket,
    unknown_dtls: Bucket,
}

impl StunState {
    /// For `legs` legs; `seed` must be secret and random outside of tests.
    pub(super) fn new(legs: usize, worker: u8, seed: [u64; 2]) -> Self {
        StunState {
            timers: super::timers::Timers::new(legs),
            ids: Ids::new(worker, seed),
            unknown_stun: Bucket::default(),
            unknown_dtls: Bucket::default(),
        }
    }
}

/// Transaction ids that nobody without the seed can guess: HMAC-SHA1 of a counter.
struct Ids {
    key: Hmac<Sha1>,
    count: u64,
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ids({})", self.count)
    }
}

impl Ids {
    fn new(worker: u8, seed: [u64; 2]) -> Self {
        let mut block = hmac::digest::Key::<Hmac<Sha1>>::default();
        block[..8].copy_from_slice(&seed[0].to_le_bytes());
        block[8..16].copy_from_slice(&seed[1].to_le_bytes());
        block[16] = worker;
        Ids { key: <Hmac<Sha1> as KeyInit>::new(&block), count: 0 }
    }

    /// A transaction id and 64 more random bits.
    fn next(&mut self) -> (TransactionId, u64) {
        self.count += 1;
        let mut mac = self.key.clone();
        mac.update(b"sluice stun transaction");
        mac.update(&self.count.to_le_bytes());
        let bytes = mac.finalize().into_bytes();
        let (mut id, mut rest) = ([0; 12], [0; 8]);
        id.copy_from_slice(&bytes[..12]);
        rest.copy_from_slice(&bytes[12..]);
        (id, u64::from_le_bytes(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_differ_by_count_worker_and_seed() {
        let mut seen = std::collections::HashSet::new();
        for (worker, seed) in [(0, [1, 2]), (1, [1, 2]), (0, [1, 3])] {
            let mut ids = Ids::new(worker, seed);
            assert!((0..1_000).all(|_| seen.insert(ids.next().0)));
        }
    }
}
