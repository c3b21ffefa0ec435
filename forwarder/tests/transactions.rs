//! What a transaction costs is what it changes, however much there is beside it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use sluice_forwarder::engine::Capacity;
use sluice_forwarder::manage::local::{self, Local};
use sluice_srtp::{MasterKey, Profile, ProviderKind, Ssrc};
use sluice_table::{Change, Egress, Entry, EntryKind, Ingress, Kind, Name, Source, StreamRole};
use support::{LOCAL, name};

const LEGS: u32 = 1_000;
const STREAMS: u32 = 14;

fn leg_key(n: u32, direction: u8) -> MasterKey {
    let bytes: Vec<u8> = (0..28).map(|at| if at < 4 { n.to_le_bytes()[at] } else { direction }).collect();
    MasterKey::from_bytes(Profile::AeadAes128Gcm, &bytes).unwrap()
}

/// A leg with one stream in, a candidate of its conference's group, and 14 out; conferences are of ten.
fn join(n: u32) -> Vec<Change> {
    let (leg, room) = (name(&format!("leg{n}")), format!("room{}", n / 10));
    let mut row = local::leg(&name("media"), format!("10.{}.{}.1:6000", n / 250, n % 250).parse().unwrap());
    (row.inbound, row.outbound) = (Some(leg_key(n, 1)), Some(leg_key(n, 2)));
    let mut changes = vec![Change::Put(leg.clone(), Entry::Leg(row))];
    let ingress = Ingress {
        leg: leg.clone(),
        ssrc: Ssrc(1),
        kind: Kind::Audio,
        clock_rate: 48_000,
        payload_types: vec![111],
        role: StreamRole { candidate: Some(name(&room)), ..StreamRole::default() },
    };
    changes.push(Change::Put(name(&format!("leg{n}/a")), Entry::Ingress(ingress)));
    for at in 0..STREAMS {
        let row = Egress {
            leg: leg.clone(),
            ssrc: Ssrc(100 + at),
            source: name(&format!("{room}/{}", at % 5)),
            payload_types: Vec::new(),
            first_sequence: None,
            mid: None,
            csrc: true,
            dscp: None,
            layer: None,
            rtx: None,
            history: 0,
        };
        changes.push(Change::Put(name(&format!("leg{n}/{at}")), Entry::Egress(row)));
    }
    changes
}

fn leave(n: u32) -> Vec<Change> {
    let egress = (0..STREAMS).map(|at| Change::Remove(EntryKind::Egress, name(&format!("leg{n}/{at}"))));
    let ingress = Change::Remove(EntryKind::Ingress, name(&format!("leg{n}/a")));
    egress.chain([ingress, Change::Remove(EntryKind::Leg, name(&format!("leg{n}")))]).collect()
}

fn base() -> Vec<Change> {
    let mut changes = vec![Change::Put(name("media"), Entry::Endpoint(local::endpoint(LOCAL.parse().unwrap())))];
    for room in 0..=LEGS / 10 {
        for at in 0..5 {
            let select = Some(name(&format!("room{room}")));
            let row = Source { kind: Kind::Audio, clock_rate: 48_000, input: None, layers: Vec::new(), select };
            changes.push(Change::Put(Name::new(&format!("room{room}/{at}")).unwrap(), Entry::Source(row)));
        }
    }
    changes
}

/// Joins and leaves of one more leg; the least time of both together.
fn measure(local: &mut Local) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..50 {
        let started = Instant::now();
        local.transact(join(LEGS + 5)).unwrap();
        local.transact(leave(LEGS + 5)).unwrap();
        least = least.min(started.elapsed());
    }
    least
}

#[test]
fn one_more_leg_costs_what_it_cost_the_first_time() {
    let capacity = Capacity {
        endpoints: 1,
        legs: 1_100,
        tuples: 1_100,
        ingress: 1_100,
        learned: 0,
        egress: 16_000,
        lists: 3_000,
        cells: 64,
    };
    let mut local = Local::new(ProviderKind::Portable, 1, capacity).unwrap();
    local.transact(base()).unwrap();
    let empty = measure(&mut local);
    let started = Instant::now();
    for n in 0..LEGS {
        local.transact(join(n)).unwrap();
    }
    let joined = started.elapsed();
    let full = measure(&mut local);
    println!("join and leave: {empty:?} in an empty table, {full:?} beside {LEGS} legs; {LEGS} joins: {joined:?}");
    // Many times more than measured, far less than going through the table would cost.
    assert!(full < empty * 10, "{empty:?} in an empty table, {full:?} beside {LEGS} legs");
    assert_eq!(local.planner.table().egress.len(), (LEGS * STREAMS) as usize);
    for n in 0..LEGS {
        local.transact(leave(n)).unwrap();
    }
    let used: Vec<(&str, usize)> = local.planner.pools().into_iter().map(|(what, used, _)| (what, used)).collect();
    assert!(used.iter().all(|(what, used)| matches!(*what, "endpoints" | "lists") || *used == 0), "{used:?}");
    assert_eq!(used.last(), Some(&("lists", (LEGS / 10 + 1) as usize * 5)));
}

/// A transaction that is refused, however late, leaves the table as it was.
#[test]
fn a_refused_transaction_changes_nothing() {
    let capacity =
        Capacity { endpoints: 1, legs: 8, tuples: 8, ingress: 8, learned: 0, egress: 20, lists: 1_000, cells: 64 };
    let mut local = Local::new(ProviderKind::Portable, 1, capacity).unwrap();
    local.transact(base()).unwrap();
    local.transact(join(1)).unwrap();
    let before = local.planner.table().clone();
    let generation = local.planner.generation();
    assert!(local.transact(join(2)).is_err(), "no room for 14 more streams");
    assert!(local.transact(vec![Change::Remove(EntryKind::Leg, name("leg1"))]).is_err());
    assert_eq!(local.planner.table(), &before);
    assert_eq!(local.planner.generation(), generation);
    local.transact(leave(1)).unwrap();
    local.transact(join(2)).unwrap();
}
