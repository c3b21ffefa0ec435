//! The engine against a naive model: what arrives, for whom, in which order, under which index.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::{DropReason, Kind};
use support::{
    Peer, Publisher, Random, World, base_table, egress, ingress, key, name, peer, publisher_leg, receiver_leg,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 256, tuples: 512, ingress: 64, learned: 32, egress: 512, lists: 256, cells: 512 };

/// One publisher, a receiver of each profile: everything arrives, whatever was lost before stays lost.
fn fan_out(kind: ProviderKind, workers: u8, seed: u64) -> Vec<Vec<(u64, Vec<u8>)>> {
    let mut world = World::new(kind, workers, SMALL);
    let mut table = base_table();
    let publisher_key = key(Profile::AeadAes128Gcm, 1);
    publisher_leg(&mut table, "pub", peer(0), &publisher_key);
    ingress(&mut table, "audio", "pub", 1111, Kind::Audio);
    let mut receivers = Vec::new();
    for n in 1..=12u32 {
        let profile = Profile::ALL[n as usize % 4];
        let receiver_key = key(profile, 10 + n as u8);
        receiver_leg(&mut table, &format!("rx{n}"), peer(n), &receiver_key);
        egress(&mut table, &format!("rx{n}-audio"), &format!("rx{n}"), 5000 + n, "audio");
        // Every first index is given, so that runs with other worker counts compare.
        table.egress.get_mut(&name(&format!("rx{n}-audio"))).unwrap().first_sequence = Some(100 + n as u16);
        world.peers.insert(peer(n), Peer::new(&receiver_key));
        receivers.push(peer(n));
    }
    world.local.apply(table).unwrap();

    let mut publisher = Publisher::new(peer(0), Ssrc(1111), 111, &publisher_key, 65_400);
    let mut random = Random(seed);
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut sent: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut first = None; // everything before the first packet that arrived has no place
    for n in 0..600u64 {
        let payload: Vec<u8> = (0..random.below(1_200)).map(|i| (i ^ n) as u8).collect();
        let index = publisher.next;
        let frame = publisher.frame(&payload);
        match random.below(20) {
            0 => continue,                 // lost
            1 => held.push(frame.clone()), // duplicated later
            2 => {
                held.push(frame); // late
                sent.push((index, payload));
                continue;
            }
            _ => {}
        }
        first.get_or_insert(index);
        sent.push((index, payload));
        world.arrive(random.below(u64::from(workers)) as usize, &frame);
        if random.below(7) == 0 && !held.is_empty() {
            let frame = held.remove(0);
            world.arrive(random.below(u64::from(workers)) as usize, &frame);
        }
        world.now = world.now + Nanos::from_millis(20);
        world.settle();
    }
    for frame in held {
        world.arrive(0, &frame);
    }
    world.settle();
    world.assert_no_cell_is_lost(SMALL.cells);
    assert!(world.dropped(DropReason::Replayed) > 0, "the run has duplicates");
    assert_eq!(world.dropped(DropReason::AuthTag), 0);

    let mut all = Vec::new();
    for (n, remote) in receivers.iter().enumerate() {
        let stream = &world.peers[remote].streams[&Ssrc(5001 + n as u32)];
        let mut got: Vec<(u64, Vec<u8>)> = stream.packets.iter().map(|(i, _, _, p)| (*i, p.clone())).collect();
        assert!(stream.packets.iter().all(|(_, _, pt, _)| *pt == 96));
        got.sort();
        // The model: a constant offset from the first packet that arrived, and nothing missing or added.
        let first = first.unwrap();
        let base = 101 + n as u64;
        let mut expected: Vec<(u64, Vec<u8>)> =
            sent.iter().filter(|(i, _)| *i >= first).map(|(i, p)| (i - first + base, p.clone())).collect();
        expected.sort();
        assert_eq!(got.len(), expected.len(), "receiver {n}");
        assert!(got == expected, "receiver {n}: payloads or indexes differ");
        all.push(got);
    }
    all
}

#[test]
fn every_receiver_gets_every_packet_of_every_profile() {
    for seed in 1..4 {
        fan_out(ProviderKind::Portable, 1, seed);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn providers_agree() {
    assert!(fan_out(ProviderKind::Portable, 1, 9) == fan_out(ProviderKind::IpsecMb, 1, 9));
}

#[test]
fn one_two_and_four_workers_send_the_same() {
    let one = fan_out(ProviderKind::Portable, 1, 5);
    assert!(one == fan_out(ProviderKind::Portable, 2, 5));
    assert!(one == fan_out(ProviderKind::Portable, 4, 5));
}

/// Commits at random moments: streams come and go, sources switch, keys stay. No index is ever used twice and
/// nobody gets what he is not subscribed to.
#[test]
fn random_commits_never_reuse_an_index_or_leak() {
    for (seed, workers) in [(3u64, 1u8), (4, 2), (5, 3)] {
        let mut random = Random(seed);
        let mut world = World::new(ProviderKind::Portable, workers, SMALL);
        let keys: Vec<_> = (0..3u8).map(|n| key(Profile::AeadAes128Gcm, 100 + n)).collect();
        let mut publishers: Vec<_> = (0..3u32)
            .map(|n| Publisher::new(peer(n), Ssrc(1000 + n), 111, &keys[n as usize], 1 + u64::from(n) * 1000))
            .collect();
        let receiver_keys: Vec<_> = (0..8u8).map(|n| key(Profile::ALL[usize::from(n) % 4], 30 + n)).collect();
        for (n, receiver_key) in receiver_keys.iter().enumerate() {
            world.peers.insert(peer(100 + n as u32), Peer::new(receiver_key));
        }
        let mut subscribed = [0usize; 8];
        for round in 0..120u64 {
            let mut table = base_table();
            for (n, publisher_key) in keys.iter().enumerate() {
                publisher_leg(&mut table, &format!("pub{n}"), peer(n as u32), publisher_key);
                ingress(&mut table, &format!("in{n}"), &format!("pub{n}"), 1000 + n as u32, Kind::Audio);
            }
            let floor = random.below(3) as usize;
            table.sources.insert(
                name("floor"),
                sluice_table::Source {
                    kind: Kind::Audio,
                    clock_rate: 48_000,
                    input: Some(name(&format!("in{floor}"))),
                    layers: Vec::new(),
                    select: None,
                },
            );
            for (n, receiver_key) in receiver_keys.iter().enumerate() {
                receiver_leg(&mut table, &format!("rx{n}"), peer(100 + n as u32), receiver_key);
                subscribed[n] = random.below(5) as usize;
                let source = match subscribed[n] {
                    0 => continue, // not subscribed this round
                    1 => "floor".to_owned(),
                    other => format!("in{}", other - 2),
                };
                egress(&mut table, &format!("rx{n}-a"), &format!("rx{n}"), 7000, &source);
            }
            world.local.apply(table).unwrap();
            let before: Vec<usize> = (0..8).map(|n| received(&world, n)).collect();
            for step in 0..5u64 {
                for (n, publisher) in publishers.iter_mut().enumerate() {
                    let frame = publisher.frame(&[n as u8, round as u8, step as u8]);
                    world.arrive(random.below(u64::from(workers)) as usize, &frame);
                }
                world.now = world.now + Nanos::from_millis(20);
                world.settle();
            }
            for n in 0..8 {
                let Some(stream) = world.peers[&peer(100 + n as u32)].streams.get(&Ssrc(7000)) else { continue };
                let new = &stream.packets[before[n].min(stream.packets.len())..];
                let source = match subscribed[n] {
                    0 => {
                        assert!(new.is_empty(), "round {round}: media to one who left");
                        continue;
                    }
                    1 => floor,
                    other => other - 2,
                };
                assert_eq!(new.len(), 5, "round {round} receiver {n}: packets are missing; {}", world.drops());
                assert!(new.iter().all(|(_, _, _, p)| usize::from(p[0]) == source && p[1] == round as u8));
            }
        }
        world.assert_no_cell_is_lost(SMALL.cells);
        assert_eq!(world.dropped(DropReason::IndexReissued), 0);
    }
}

fn received(world: &World, n: usize) -> usize {
    world.peers[&peer(100 + n as u32)].streams.get(&Ssrc(7000)).map_or(0, |s| s.packets.len())
}
