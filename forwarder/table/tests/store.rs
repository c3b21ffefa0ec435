//! The incremental store agrees with validation of the whole table.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{egress, key, leg, name, table};
use proptest::prelude::*;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::{Change, Endpoint, Entry, EntryKind, Kind, LegKind, Name, Store, Table};

/// Changes over few names and few values, so that most transactions collide with something.
fn change() -> impl Strategy<Value = Change> {
    (0u8..15, 0u8..5, 0u8..5, 0u8..4).prop_map(|(what, id, a, b)| {
        let endpoint = |id: u8| name(&format!("e{}", id % 2));
        let leg_name = |id: u8| name(&format!("l{}", id % 4));
        // Ingress streams, rules and sources draw from overlapping names.
        let carried = |id: u8| name(&format!("c{id}"));
        match what {
            0 => {
                let address = format!("192.0.2.{}:1", a % 2 + 1).parse().unwrap();
                Change::Put(endpoint(id), Entry::Endpoint(Endpoint { interface: "eth0".to_owned(), address }))
            }
            1 | 2 => {
                let mut row = leg(a * 10, &format!("192.0.2.{}:5", 10 + a));
                row.endpoint = endpoint(b);
                if b == 3 {
                    row.outbound = None;
                }
                if b == 2 && a == 0 {
                    (row.kind, row.inbound, row.outbound) = (LegKind::Plain, None, None);
                }
                Change::Put(leg_name(id), Entry::Leg(row))
            }
            3 => {
                let mut row = table().ingress["alice-cam"].clone();
                (row.leg, row.ssrc) = (leg_name(a), Ssrc(u32::from(b)));
                row.kind = if id == 0 { Kind::Audio } else { Kind::Video };
                Change::Put(carried(id), Entry::Ingress(row))
            }
            4 => {
                let mut row = table().learn["bob-hi"].clone();
                row.leg = leg_name(a);
                row.rid = Some(format!("r{b}"));
                Change::Put(carried(id), Entry::Learn(row))
            }
            5 => {
                let mut row = table().sources["stage"].clone();
                row.input = (b > 0).then(|| carried(a));
                Change::Put(carried(id), Entry::Source(row))
            }
            6 | 7 => {
                let row = egress(leg_name(a).as_str(), u32::from(b), carried(id).as_str());
                Change::Put(name(&format!("x{id}")), Entry::Egress(row))
            }
            8 => Change::Switch { source: carried(id), input: (b > 0).then(|| carried(a)) },
            9 => Change::Remove(EntryKind::ALL[usize::from(b)], if b < 2 { leg_name(id) } else { carried(id) }),
            10 => Change::Remove(EntryKind::Leg, leg_name(id)),
            12 => {
                // Groups, their sources and who competes for them.
                let mut row = table().sources["stage"].clone();
                row.input = None;
                row.select = (b > 0).then(|| name(&format!("g{}", a % 2)));
                row.clock_rate = if b == 3 { 48_000 } else { 90_000 };
                Change::Put(carried(id), Entry::Source(row))
            }
            13 => {
                let mut row = table().ingress["alice-cam"].clone();
                (row.leg, row.ssrc) = (leg_name(a), Ssrc(u32::from(id) + 200));
                row.role.candidate = (b > 0).then(|| name(&format!("g{}", a % 2)));
                row.clock_rate = if b == 3 { 48_000 } else { 90_000 };
                Change::Put(carried(id), Entry::Ingress(row))
            }
            14 => {
                let mut row = table().sources["stage"].clone();
                row.input = None;
                row.layers = vec![carried(a), carried(b)];
                Change::Put(carried(id), Entry::Source(row))
            }
            _ => Change::Remove(EntryKind::Egress, name(&format!("x{id}"))),
        }
    })
}

/// A start from which many changes are valid.
fn seed() -> Vec<Change> {
    let mut changes = Vec::new();
    for id in 0..2u8 {
        let address = format!("192.0.2.{}:1", id + 1).parse().unwrap();
        let row = Endpoint { interface: "eth0".to_owned(), address };
        changes.push(Change::Put(name(&format!("e{id}")), Entry::Endpoint(row)));
    }
    for id in 0..4u8 {
        let mut row = leg(100 + id, &format!("192.0.2.{}:5", 50 + id));
        row.endpoint = name("e0");
        row.outbound = Some(key(Profile::AeadAes256Gcm, 100 + id));
        changes.push(Change::Put(name(&format!("l{id}")), Entry::Leg(row)));
    }
    for id in 1..3u8 {
        let mut row = table().ingress["alice-cam"].clone();
        (row.leg, row.ssrc) = (name("l0"), Ssrc(u32::from(id) + 100));
        changes.push(Change::Put(name(&format!("c{id}")), Entry::Ingress(row)));
    }
    let row = sluice_table::Source {
        kind: Kind::Video,
        clock_rate: 90_000,
        input: Some(name("c1")),
        layers: Vec::new(),
        select: None,
    };
    changes.push(Change::Put(name("c3"), Entry::Source(row)));
    changes.push(Change::Put(name("x0"), Entry::Egress(egress("l1", 9, "c3"))));
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(5), cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_whole_validation(transactions in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..25)) {
        let mut store = Store::new();
        let mut whole = Table::default();
        prop_assert_eq!(store.apply(&seed()), Ok(()));
        whole.apply(&seed()).unwrap();
        for changes in &transactions {
            let wanted = whole.apply(changes);
            let got = store.apply(changes);
            prop_assert_eq!(got.is_ok(), wanted.is_ok(), "{:?}: store {:?}, whole {:?}", changes, got, wanted);
            prop_assert_eq!(store.table(), &whole);
            if let (Err(got), Err(wanted)) = (got, wanted) {
                prop_assert!(!got.is_empty());
                for problem in &got {
                    prop_assert!(wanted.contains(problem), "{} is not among {:?}", problem, wanted);
                }
            }
        }
    }
}

#[test]
fn a_hundred_thousand_streams_in_small_transactions() {
    let mut store = Store::new();
    let mut changes = seed();
    for id in 0..1000u32 {
        let mut row = leg(0, &format!("198.51.{}.{}:7", id / 250, id % 250 + 1));
        row.endpoint = name("e0");
        let bytes: Vec<u8> = (0..28).map(|at| if at < 4 { id.to_le_bytes()[at] } else { 77 }).collect();
        row.outbound = Some(sluice_srtp::key::MasterKey::from_bytes(Profile::AeadAes128Gcm, &bytes).unwrap());
        changes.push(Change::Put(name(&format!("many{id}")), Entry::Leg(row)));
    }
    assert_eq!(store.apply(&changes), Ok(()));
    let started = std::time::Instant::now();
    for batch in 0..100u32 {
        let changes: Vec<Change> = (0..1000u32)
            .map(|leg| {
                let row = egress(&format!("many{leg}"), batch, "c3");
                Change::Put(Name::new(&format!("many{leg}/{batch}")).unwrap(), Entry::Egress(row))
            })
            .collect();
        assert_eq!(store.apply(&changes), Ok(()));
    }
    println!("100,000 egress streams in 100 transactions: {:?}", started.elapsed());
    assert_eq!(store.table().egress.len(), 100_001);
    let duplicate = Change::Put(name("again"), Entry::Egress(egress("many5", 7, "c3")));
    assert!(store.apply(&[duplicate]).unwrap_err()[0].message.contains("has this SSRC already"));
    let started = std::time::Instant::now();
    assert_eq!(store.apply(&[Change::Switch { source: name("c3"), input: Some(name("c2")) }]), Ok(()));
    println!("switching their source: {:?}", started.elapsed());
}
