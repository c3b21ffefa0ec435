//! What a transaction costs is what it changes, however much there is beside it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

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

/// Counts what this thread allocates. Whatever goes through a table to find, compare or check rows keeps notes, so it
/// shows here; time on a busy machine would show anything.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(bytes: usize) {
    // A thread that ends has nothing left to count for.
    let _ = ALLOCATED.try_with(|cell| {
        let (times, sum) = cell.get();
        cell.set((times + 1, sum + bytes as u64));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` by one of the functions here.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as in `dealloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Joins and leaves of one more leg: the least allocations and bytes of both together. A map that grows just then is
/// none of the transaction's cost.
fn measure(local: &mut Local) -> (u64, u64) {
    let mut least = (u64::MAX, u64::MAX);
    for _ in 0..10 {
        let (join, leave) = (join(LEGS + 5), leave(LEGS + 5));
        let before = ALLOCATED.get();
        local.transact(join).unwrap();
        local.transact(leave).unwrap();
        let after = ALLOCATED.get();
        least = (least.0.min(after.0 - before.0), least.1.min(after.1 - before.1));
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
    for n in 0..LEGS {
        local.transact(join(n)).unwrap();
    }
    let full = measure(&mut local);
    println!("join and leave, allocations and bytes: {empty:?} in an empty table, {full:?} beside {LEGS} legs");
    // Trees are a level or two deeper; going through 16,000 rows would take a hundred times as much.
    assert!(full.0 <= empty.0 * 3 / 2 && full.1 <= empty.1 * 3 / 2, "{empty:?} empty, {full:?} beside {LEGS} legs");
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
