//! Media before keys: what an established leg sends while its key is on the way runs once the key is there, newest
//! first to stay, in order, within bounds. Simulated time.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{MasterKey, Profile, ProviderKind, Ssrc};
use sluice_table::{DropReason, Ice, Kind, Limits, Table};
use support::rtcp::RtcpPeer;
use support::{
    Peer, Publisher, World, base_table, egress, ingress, key, name, peer, publisher_leg, receiver_leg, wrap,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 64, tuples: 64, ingress: 64, learned: 8, egress: 64, lists: 128, cells: 1024 };
/// What may be kept at a time.
const SHARE: usize = SMALL.cells / 8;
const WAIT: Nanos = Nanos::from_millis(300);

fn ice(n: u32) -> Ice {
    Ice {
        local_ufrag: format!("ours{n}"),
        local_password: "our+password+0123456789".to_owned(),
        remote_ufrag: format!("theirs{n}"),
        remote_password: "their+password+01234567".to_owned(),
        controlling: false,
        tie_breaker: 7,
        tuples: vec![peer(n)],
    }
}

fn publisher_key(n: u32) -> MasterKey {
    key(Profile::AeadAes256Gcm, n as u8 + 10)
}

/// Publishers 0 to `legs` - 1 with ICE, and one receiver of all of them at peer 100.
fn table(legs: u32) -> Table {
    let mut table = base_table();
    receiver_leg(&mut table, "rx", peer(100), &key(Profile::AeadAes128Gcm, 2));
    for n in 0..legs {
        publisher_leg(&mut table, &format!("pub{n}"), peer(n), &publisher_key(n));
        table.legs.get_mut(&name(&format!("pub{n}"))).unwrap().ice = Some(ice(n));
        ingress(&mut table, &format!("in{n}"), &format!("pub{n}"), 10 + n, Kind::Audio);
        egress(&mut table, &format!("out{n}"), "rx", 500 + n, &format!("in{n}"));
    }
    table
}

fn without_keys(mut table: Table) -> Table {
    table.legs.values_mut().filter(|leg| leg.ice.is_some()).for_each(|leg| leg.inbound = None);
    table
}

fn world(workers: u8, table: Table) -> World {
    let mut world = World::new(ProviderKind::Portable, workers, SMALL);
    world.peers.insert(peer(100), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
    world.local.apply(table).unwrap();
    world.settle();
    world
}

fn publisher(n: u32) -> Publisher {
    Publisher::new(peer(n), Ssrc(10 + n), 111, &publisher_key(n), 1000)
}

fn send(world: &mut World, publisher: &mut Publisher, payload: &[u8]) {
    let frame = publisher.frame(payload);
    let worker = publisher.next as usize % world.local.engines.len();
    world.arrive(worker, &frame);
    world.settle();
}

/// First payload bytes of what the receiver got of a publisher.
fn got(world: &World, n: u32) -> Vec<u8> {
    let stream = world.peers[&peer(100)].streams.get(&Ssrc(500 + n));
    stream.map_or_else(Vec::new, |stream| stream.packets.iter().map(|(.., payload)| payload[0]).collect())
}

#[test]
fn the_newest_packets_run_in_order_when_the_key_comes() {
    for workers in [1, 2] {
        let mut world = world(workers, without_keys(table(2)));
        let (mut one, mut two) = (publisher(0), publisher(1));
        for n in 0..70u8 {
            world.now = world.now + Nanos::from_millis(2);
            send(&mut world, &mut one, &[n]);
            if n < 10 {
                send(&mut world, &mut two, &[n]);
            }
        }
        assert_eq!(world.dropped(DropReason::PendingExpired), 6, "{}", world.drops());
        assert!(got(&world, 0).is_empty());
        // The commit and newer packets come in one burst: those that waited go first.
        world.local.apply(table(2)).unwrap();
        for n in 70..90u8 {
            let frame = one.frame(&[n]);
            world.arrive(0, &frame);
        }
        world.settle();
        assert_eq!(got(&world, 0), (6..90).collect::<Vec<u8>>(), "{}", world.drops());
        assert_eq!(got(&world, 1), (0..10).collect::<Vec<u8>>());
        assert_eq!(world.dropped(DropReason::PendingExpired), 6);
        world.assert_no_cell_is_lost(SMALL.cells);
        // From now on nothing waits.
        send(&mut world, &mut one, &[90]);
        assert_eq!(got(&world, 0).last(), Some(&90));
    }
}

#[test]
fn several_bursts_run_in_order_of_arrival() {
    let mut world = world(1, without_keys(table(2)));
    let mut publishers = [publisher(0), publisher(1)];
    for n in 0..60u8 {
        for publisher in &mut publishers {
            send(&mut world, publisher, &[n]);
        }
    }
    // One leg gets its key, and then the other: what waits for the second stays where it is.
    let mut half = table(2);
    half.legs.get_mut(&name("pub1")).unwrap().inbound = None;
    world.local.apply(half).unwrap();
    world.settle();
    assert_eq!((got(&world, 0).len(), got(&world, 1).len()), (60, 0));
    world.local.apply(table(2)).unwrap();
    world.settle();
    for n in 0..2 {
        assert_eq!(got(&world, n), (0..60).collect::<Vec<u8>>());
    }
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn what_waits_too_long_is_given_up() {
    let mut world = world(1, without_keys(table(1)));
    let mut one = publisher(0);
    let first = world.now;
    send(&mut world, &mut one, &[0]);
    world.now = first + Nanos::from_millis(200);
    send(&mut world, &mut one, &[1]);
    // The engine says by itself when there is something to give up.
    assert_eq!(world.deadline, first + WAIT);
    world.now = first + WAIT;
    world.settle();
    assert_eq!(world.dropped(DropReason::PendingExpired), 1);
    assert_eq!(world.deadline, first + Nanos::from_millis(500));
    // What became too old in the very step that brings the key does not run either.
    world.now = first + Nanos::from_millis(450);
    send(&mut world, &mut one, &[2]);
    world.now = first + Nanos::from_millis(500);
    world.local.apply(table(1)).unwrap();
    world.settle();
    assert_eq!(got(&world, 0), [2]);
    assert_eq!(world.dropped(DropReason::PendingExpired), 2);
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn a_flood_of_legs_without_keys_stays_within_its_share() {
    let mut all = without_keys(table(40));
    publisher_leg(&mut all, "calm", peer(50), &publisher_key(50));
    ingress(&mut all, "calm-in", "calm", 60, Kind::Audio);
    egress(&mut all, "calm-out", "rx", 550, "calm-in");
    let mut world = world(1, all.clone());
    let mut calm = publisher(50);
    let mut flood: Vec<Publisher> = (0..40).map(publisher).collect();
    let mut sent = 0;
    for n in 0..40u8 {
        world.now = world.now + Nanos::from_millis(1);
        for publisher in &mut flood {
            let frame = publisher.frame(&[n; 100]);
            world.arrive(0, &frame);
            sent += 1;
        }
        send(&mut world, &mut calm, &[n]);
        assert!(world.local.engines[0].free_cells() >= SMALL.cells - SHARE, "more than its share is kept");
    }
    assert_eq!(got(&world, 50), (0..40).collect::<Vec<u8>>(), "others lose nothing");
    assert_eq!(world.dropped(DropReason::PendingExpired), sent - SHARE as u64, "{}", world.drops());
    // A leg that comes now finds a place all the same.
    let key = all.legs.get_mut(&name("pub7")).map(|leg| leg.inbound = Some(publisher_key(7)));
    assert!(key.is_some());
    world.local.apply(all).unwrap();
    world.settle();
    let kept = got(&world, 7);
    assert!(!kept.is_empty() && kept.last() == Some(&39), "{kept:?}");
    world.now = world.now + WAIT;
    world.settle();
    assert_eq!(world.dropped(DropReason::PendingExpired), sent - kept.len() as u64);
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn limits_come_first_and_rubbish_is_told_at_once() {
    let mut keyless = without_keys(table(1));
    let limits = Limits { packets_per_second: 20, ..Limits::default() };
    keyless.legs.get_mut(&name("pub0")).unwrap().limits = limits;
    let mut world = world(1, keyless);
    let mut one = publisher(0);
    for n in 0..40u8 {
        send(&mut world, &mut one, &[n]);
    }
    let policed = world.dropped(DropReason::PolicedLeg);
    assert!((25..40).contains(&policed), "{policed} of 40 at 20 a second with half a second's burst");
    world.now = world.now + WAIT;
    world.settle();
    assert_eq!(world.dropped(DropReason::PendingExpired), 40 - policed);
    world.now = world.now + Nanos::from_millis(1_000);
    // Half a header, and an RTP header that is longer than its packet.
    for rubbish in [&[0x80, 111, 0, 1, 0][..], &[0x8f, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 10, 1, 2]] {
        world.arrive(0, &wrap(peer(0), rubbish));
    }
    world.settle();
    assert_eq!([DropReason::Truncated, DropReason::RtpHeader].map(|reason| world.dropped(reason)), [1, 1]);
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn only_established_legs_keep_and_those_that_end_keep_nothing() {
    let mut world = world(1, without_keys(table(1)));
    let mut one = publisher(0);
    for n in 0..5u8 {
        send(&mut world, &mut one, &[n]);
    }
    let mut gone = table(1);
    gone.egress.clear();
    gone.ingress.clear();
    gone.legs.remove(&name("pub0"));
    world.local.apply(gone).unwrap();
    world.settle();
    assert_eq!(world.dropped(DropReason::Removed), 5);
    world.assert_no_cell_is_lost(SMALL.cells);
    // A static leg that sends nothing by its table would wait for ever.
    let mut receives = base_table();
    receiver_leg(&mut receives, "rx", peer(0), &key(Profile::AeadAes128Gcm, 2));
    world.local.apply(receives).unwrap();
    send(&mut world, &mut one, &[5]);
    assert_eq!(world.dropped(DropReason::UnknownSsrc), 1, "{}", world.drops());
    world.assert_no_cell_is_lost(SMALL.cells);
    assert!(got(&world, 0).is_empty());
}

#[test]
fn what_does_not_authenticate_then_changes_nothing_and_rtcp_waits_as_well() {
    let mut world = world(1, without_keys(table(1)));
    let mut stranger = Publisher::new(peer(0), Ssrc(10), 111, &publisher_key(99), 1000);
    send(&mut world, &mut stranger, &[9]);
    let mut one = publisher(0);
    send(&mut world, &mut one, &[1]);
    let repeated = one.packet(&[2], &[]);
    for _ in 0..2 {
        world.arrive(0, &one.wrap(&repeated));
    }
    let mut far = RtcpPeer::new(&publisher_key(0), &key(Profile::AeadAes128Gcm, 3));
    let report = [&[0x80, 201, 0, 1][..], &10u32.to_be_bytes()].concat();
    world.arrive(0, &wrap(peer(0), &far.seal(&report, 3)));
    world.settle();
    assert_eq!(world.dropped(DropReason::SrtcpNoKey), 0);
    world.local.apply(table(1)).unwrap();
    world.settle();
    assert_eq!(got(&world, 0), [1, 2]);
    assert_eq!([DropReason::AuthTag, DropReason::Replayed].map(|reason| world.dropped(reason)), [1, 1]);
    let up: Vec<Vec<u8>> = world.local.engines[0]
        .events()
        .filter_map(|event| match event {
            Event::RtcpIn { bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(up, [report]);
    world.assert_no_cell_is_lost(SMALL.cells);
}
