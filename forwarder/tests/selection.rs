//! Slots that the forwarder fills by audio level, and whom a member hears through them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::{Change, Kind, Source, Table};
use support::{
    Peer, Publisher, World, base_table, egress, element, ingress, key, name, peer, publisher_leg, receiver_leg,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 64, tuples: 64, ingress: 32, learned: 0, egress: 64, lists: 64, cells: 256 };
const LEVEL: u8 = 1;
const SLOTS: u32 = 2;
const RECEIVERS: u32 = 4;

fn slot(select: Option<&str>, input: Option<&str>) -> Source {
    let (select, input) = (select.map(name), input.map(name));
    Source { kind: Kind::Audio, clock_rate: 48_000, input, layers: Vec::new(), select }
}

/// `speakers` legs that are members 0.. of a conference with two slots, and four receivers, members 10...
fn conference(world: &mut World, speakers: u32) -> (Table, Vec<Publisher>) {
    let mut table = base_table();
    let mut publishers = Vec::new();
    for n in 0..speakers {
        let publisher_key = key(Profile::AeadAes128Gcm, n as u8 + 1);
        publisher_leg(&mut table, &format!("mic{n}"), peer(n), &publisher_key);
        let leg = table.legs.get_mut(&name(&format!("mic{n}"))).unwrap();
        (leg.member, leg.extensions.audio_level) = (Some(n as u16), Some(LEVEL));
        ingress(&mut table, &format!("audio{n}"), &format!("mic{n}"), 10 + n, Kind::Audio);
        table.ingress.get_mut(&name(&format!("audio{n}"))).unwrap().role.candidate = Some(name("room"));
        publishers.push(Publisher::new(peer(n), Ssrc(10 + n), 111, &publisher_key, 1_000));
    }
    for at in 0..SLOTS {
        table.sources.insert(name(&format!("slot{at}")), slot(Some("room"), None));
    }
    for n in 0..RECEIVERS {
        receiver(world, &mut table, n);
        table.legs.get_mut(&name(&format!("rx{n}"))).unwrap().member = Some(10 + n as u16);
    }
    world.local.apply(table.clone()).unwrap();
    (table, publishers)
}

fn receiver(world: &mut World, table: &mut Table, n: u32) {
    let receiver_key = key(Profile::AeadAes256Gcm, n as u8 + 50);
    receiver_leg(table, &format!("rx{n}"), peer(100 + n), &receiver_key);
    for at in 0..SLOTS {
        egress(table, &format!("rx{n}-{at}"), &format!("rx{n}"), 900 + at, &format!("slot{at}"));
    }
    world.peers.insert(peer(100 + n), Peer::new(&receiver_key));
}

/// Runs until `until` ms: speakers send every 20 ms at the level they have then, slots are switched every 5 ms.
fn run(world: &mut World, publishers: &mut [Publisher], until: u64, level: impl Fn(usize, u64) -> Option<u8>) {
    let start = world.now.0 / 1_000_000 + 1;
    for ms in start..until {
        world.now = Nanos::from_millis(ms);
        for (n, publisher) in publishers.iter_mut().enumerate() {
            // Speakers are a millisecond apart, and strays: every packet arrives at the worker of that number.
            if ms % 20 != n as u64 {
                continue;
            }
            if let Some(level) = level(n, ms) {
                let mut payload = ms.to_be_bytes().to_vec();
                payload.push(n as u8);
                let packet = publisher.packet(&payload, &element(LEVEL, level));
                world.arrive(n % world.local.engines.len(), &publisher.wrap(&packet));
            }
        }
        if ms % 5 == 0 {
            world.settle();
            world.local.tick(world.now);
        }
        world.settle();
    }
}

/// (when, who) of everything a receiver got in a slot.
fn heard(world: &World, n: u32, at: u32) -> Vec<(u64, u8)> {
    let stream = world.peers[&peer(100 + n)].streams.get(&Ssrc(900 + at));
    let packets = stream.map_or(&[][..], |s| &s.packets);
    packets.iter().map(|(.., p)| (u64::from_be_bytes(p[..8].try_into().unwrap()), p[8])).collect()
}

fn speakers(world: &World, n: u32, at: u32) -> Vec<u8> {
    let mut all: Vec<u8> = heard(world, n, at).into_iter().map(|(_, who)| who).collect();
    all.dedup();
    all
}

#[test]
fn the_loud_are_heard_within_twenty_milliseconds_by_everybody() {
    for workers in [1, 2] {
        let mut world = World::new(ProviderKind::Portable, workers, SMALL);
        let (_, mut publishers) = conference(&mut world, 4);
        run(&mut world, &mut publishers, 1_000, |_, _| Some(127));
        assert!((0..RECEIVERS).all(|n| heard(&world, n, 0).is_empty()), "silence is not forwarded");
        // One after the other; 3 is louder than both and takes the place of the quieter one after a while.
        let level = |n: usize, ms: u64| {
            let (from, level) = [(1_000, 50), (1_100, 40), (9_000, 0), (1_500, 20)][n];
            Some(if ms >= from && ms < 3_000 { level } else { 127 })
        };
        run(&mut world, &mut publishers, 5_000, level);
        for n in 0..RECEIVERS {
            assert_eq!((speakers(&world, n, 0), speakers(&world, n, 1)), (vec![0, 3], vec![1]), "receiver {n}");
            let first = |at: u32, who: u8| heard(&world, n, at).iter().find(|(_, w)| *w == who).unwrap().0;
            // A packet every 20 ms: the one after that which made it loud is forwarded.
            assert!(first(0, 0) <= 1_000 + 20 && first(1, 1) <= 1_101 + 20, "receiver {n}");
            assert!((1_560..1_640).contains(&first(0, 3)), "hysteresis: {}", first(0, 3));
            // Released after a second of silence.
            let last = heard(&world, n, 1).last().unwrap().0;
            assert!((3_900..4_200).contains(&last), "{last}");
        }
        world.assert_no_cell_is_lost(SMALL.cells);
    }
}

#[test]
fn who_stops_sending_frees_the_slot_and_coming_back_is_no_loss() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let (_, mut publishers) = conference(&mut world, 1);
    // Loud, silent long enough to be released while packets keep coming, loud again.
    run(&mut world, &mut publishers, 6_000, |_, ms| Some(if (1_000..4_000).contains(&ms) { 127 } else { 30 }));
    let packets = &world.peers[&peer(100)].streams[&Ssrc(900)].packets;
    let times = heard(&world, 0, 0);
    assert!(times.iter().all(|(ms, _)| !(2_200..4_000).contains(ms)), "silence is not forwarded");
    let gaps: Vec<u64> = packets.windows(2).map(|p| p[1].0 - p[0].0).filter(|gap| *gap != 1).collect();
    assert_eq!(gaps, [2], "a pause looks like a switch and not like a hundred lost packets");
    // Nothing at all for 500 ms: another one gets the slot at once.
    assert_eq!(speakers(&world, 0, 0), [0]);
}

#[test]
fn selections_survive_transactions_and_cannot_be_switched() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let (mut table, mut publishers) = conference(&mut world, 3);
    run(&mut world, &mut publishers, 500, |n, _| Some(if n < 2 { 30 } else { 127 }));
    assert_eq!((speakers(&world, 0, 0), speakers(&world, 0, 1)), (vec![0], vec![1]));
    // Somebody joins: nothing changes for the others, and the newcomer hears both at once.
    receiver(&mut world, &mut table, 7);
    world.local.apply(table.clone()).unwrap();
    let before = heard(&world, 0, 0).len();
    run(&mut world, &mut publishers, 600, |n, _| Some(if n < 2 { 30 } else { 127 }));
    assert_eq!(heard(&world, 0, 0).len(), before + 5);
    assert_eq!((heard(&world, 7, 0).len(), heard(&world, 7, 1).len()), (5, 5));
    // Choosing is the forwarder's: a switch is refused, to nothing it is harmless.
    let mut switched = table.clone();
    let to = |input: Option<&str>| Change::Switch { source: name("slot0"), input: input.map(name) };
    assert!(switched.apply(&[to(Some("audio2"))]).is_err());
    switched.apply(&[to(None)]).unwrap();
    world.local.apply(switched).unwrap();
    run(&mut world, &mut publishers, 700, |n, _| Some(if n < 2 { 30 } else { 127 }));
    assert_eq!(heard(&world, 0, 0).len(), before + 10);
    // A candidate that is removed leaves at once, and its slot is the next one's.
    table.ingress.remove(&name("audio0"));
    table.legs.remove(&name("mic0"));
    world.local.apply(table).unwrap();
    let before = heard(&world, 0, 0).len();
    run(&mut world, &mut publishers, 800, |n, ms| Some(if n == 2 && ms < 740 { 127 } else { 30 }));
    let after: Vec<(u64, u8)> = heard(&world, 0, 0).split_off(before);
    assert!(after.iter().all(|(ms, who)| *who == 2 && *ms <= 800), "{after:?}");
    assert!(after[0].0 <= 765, "{after:?}");
}

/// Slots a member hears leave out its own voice and everybody it does not hear; what it subscribes to itself does not.
#[test]
fn members_hear_whom_they_may_and_never_themselves() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let (mut table, mut publishers) = conference(&mut world, 2);
    table.sources.insert(name("slot0"), slot(None, Some("audio0")));
    table.sources.insert(name("slot1"), slot(None, Some("audio1")));
    let member = |table: &mut Table, n: u32, member: Option<u16>, hears: Option<&[u16]>| {
        let leg = table.legs.get_mut(&name(&format!("rx{n}"))).unwrap();
        (leg.member, leg.hears) = (member, hears.map(|of| of.iter().copied().collect()));
    };
    member(&mut table, 0, Some(0), None); // the same person as mic0
    member(&mut table, 1, Some(11), Some(&[1]));
    member(&mut table, 2, None, Some(&[]));
    member(&mut table, 3, None, None);
    egress(&mut table, "direct", "rx2", 950, "audio0");
    world.local.apply(table.clone()).unwrap();
    run(&mut world, &mut publishers, 200, |_, _| Some(30));
    let counts = |world: &World, n: u32| (heard(world, n, 0).len(), heard(world, n, 1).len());
    assert_eq!([0, 1, 2, 3].map(|n| counts(&world, n)), [(0, 9), (0, 9), (0, 0), (9, 9)]);
    assert_eq!(world.peers[&peer(102)].streams[&Ssrc(950)].packets.len(), 9, "a subscription is not filtered");
    // Authorised for a while and then not: at once, and without a hole in what is heard.
    member(&mut table, 1, Some(11), Some(&[0, 1]));
    world.local.apply(table.clone()).unwrap();
    run(&mut world, &mut publishers, 400, |_, _| Some(30));
    member(&mut table, 1, Some(11), Some(&[1]));
    world.local.apply(table.clone()).unwrap();
    run(&mut world, &mut publishers, 600, |_, _| Some(30));
    member(&mut table, 1, Some(11), None);
    world.local.apply(table).unwrap();
    run(&mut world, &mut publishers, 800, |_, _| Some(30));
    assert_eq!([0, 1, 2, 3].map(|n| counts(&world, n)), [(0, 39), (20, 39), (0, 0), (39, 39)]);
    let packets = &world.peers[&peer(101)].streams[&Ssrc(900)].packets;
    let gaps: Vec<u64> = packets.windows(2).map(|p| p[1].0 - p[0].0).filter(|gap| *gap != 1).collect();
    assert_eq!(gaps, [2]);
}
