//! Properties of the layout that both sides rely on.

use std::collections::HashSet;
use std::mem::size_of;

use sluice_xdp_layout::maps::{BucketRate, map_ipv4};
use sluice_xdp_layout::{
    Config, EndpointKey, EndpointValue, STAMP, Stamp, TupleKey, TupleValue, VERDICTS, VERSION, Verdict,
};

#[test]
fn verdicts_are_dense_and_named_once() {
    let mut names = HashSet::new();
    for (index, verdict) in VERDICTS.iter().enumerate() {
        assert_eq!(verdict.index() as usize, index);
        assert!(names.insert(verdict.name()), "{} occurs twice", verdict.name());
    }
    assert_eq!(VERDICTS.last(), Some(&Verdict::DropLength));
}

#[test]
fn keys_and_values_have_no_padding() {
    assert_eq!(size_of::<EndpointKey>(), 20);
    assert_eq!(size_of::<TupleKey>(), 36);
    assert_eq!(size_of::<EndpointValue>(), 4);
    assert_eq!(size_of::<TupleValue>(), 4);
    assert_eq!(size_of::<Config>(), 48);
    assert_eq!(size_of::<Stamp>(), Stamp::LEN);
}

#[test]
fn keys_hold_network_byte_order() {
    let key = EndpointKey::new(map_ipv4([192, 0, 2, 1]), 0x1234);
    assert_eq!(key.port, [0x12, 0x34]);
    assert_eq!(key.address[10..], [0xff, 0xff, 192, 0, 2, 1]);
}

#[test]
fn a_bucket_allows_its_burst_and_then_its_rate() {
    let rate = BucketRate::per_second(10, 4);
    let (mut debt, mut passed) = (0, 0);
    let start = 5_000_000_000;
    for _ in 0..20 {
        if let Some(next) = rate.admit(debt, start) {
            (debt, passed) = (next, passed + 1);
        }
    }
    assert_eq!(passed, 4);
    // One packet every 100 ms from here on.
    for step in 1..=50 {
        let now = start + step * 10_000_000;
        if let Some(next) = rate.admit(debt, now) {
            (debt, passed) = (next, passed + 1);
        }
    }
    assert_eq!(passed, 4 + 5);
}

#[test]
fn a_rate_of_zero_lets_nothing_pass() {
    let rate = BucketRate::per_second(0, 100);
    assert!([0, 1, u64::MAX / 2, u64::MAX].iter().all(|now| rate.admit(0, *now).is_none()));
}

#[test]
fn a_stamp_is_found_in_an_object() {
    let mut object = vec![0_u8; 100];
    assert_eq!(Stamp::find(&object), None);
    object.extend_from_slice(&STAMP.magic);
    assert_eq!(Stamp::find(&object), None);
    object.extend_from_slice(&STAMP.version);
    object.extend_from_slice(&STAMP.hash);
    let found = Stamp::find(&object).unwrap();
    assert_eq!((found, found.version()), (STAMP, VERSION));
}

#[test]
fn the_committed_object_was_built_from_these_sources() {
    let object = include_bytes!("../../object/sluice.bpf.o");
    let found = Stamp::find(object).expect("the object has a stamp");
    assert_eq!(found, STAMP, "ebpf/object/sluice.bpf.o is stale: run scripts/build-ebpf and commit it");
}
