//! RTCP at a leg's owner: SRTCP in and out, replay, indexes that outlive keys' users and processes.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use sluice_forwarder::engine::Capacity;
use sluice_forwarder::engine::command::Command;
use sluice_forwarder::engine::event::Event;
use sluice_forwarder::index_file::IndexFile;
use sluice_forwarder::index_file::store::IndexStore;
use sluice_forwarder::manage::local::Local;
use sluice_forwarder::manage::route::FixedRoute;
use sluice_srtp::{Profile, ProviderKind};
use sluice_table::{DropReason, Kind, LegKind, Table};
use support::rtcp::RtcpPeer;
use support::{World, base_table, ingress, key, name, peer, publisher_leg, wrap};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 16, tuples: 32, ingress: 16, egress: 16, lists: 32, cells: 64, learned: 16 };

/// A receiver report and a source description of a sender, marked by a byte.
fn report(sender: u32, mark: u8) -> Vec<u8> {
    let mut bytes = vec![0x80, 201, 0, 1];
    bytes.extend(sender.to_be_bytes());
    bytes.extend([0x81, 202, 0, 2]);
    bytes.extend(sender.to_be_bytes());
    bytes.extend([1, 1, mark, 0]);
    bytes
}

const LISTED: u32 = 1111;

fn table(profile: Profile) -> Table {
    let mut table = base_table();
    publisher_leg(&mut table, "leg", peer(1), &key(profile, 1));
    table.legs.get_mut(&name("leg")).unwrap().outbound = Some(key(profile, 2));
    ingress(&mut table, "audio", "leg", LISTED, Kind::Audio);
    table
}

fn received(world: &mut World, packet: &[u8]) -> Vec<Vec<u8>> {
    world.arrive(0, &wrap(peer(1), packet));
    world.settle();
    let rtcp = world.local.engines.iter_mut().flat_map(|engine| {
        engine.events().filter_map(|event| match event {
            Event::RtcpIn { bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
    });
    rtcp.collect()
}

fn send(world: &mut World, bytes: &[u8]) -> Option<Vec<u8>> {
    let (worker, leg) = world.local.planner.leg(&name("leg")).unwrap();
    world.local.engines[usize::from(worker)].command(Command::Rtcp { leg, bytes: bytes.into() });
    world.settle();
    assert!(world.control.len() <= 1);
    let (to, packet) = world.control.pop()?;
    assert_eq!(to, peer(1));
    Some(packet)
}

#[test]
fn crosses_in_clear_both_ways_under_every_profile() {
    for (profile, workers) in Profile::ALL.into_iter().flat_map(|profile| [(profile, 1), (profile, 2)]) {
        let mut world = World::new(ProviderKind::best(), workers, SMALL);
        world.local.apply(table(profile)).unwrap();
        let mut far = RtcpPeer::new(&key(profile, 1), &key(profile, 2));
        let clear = report(7, 1);
        let sealed = far.seal(&clear, 5);
        assert_eq!(received(&mut world, &sealed), std::slice::from_ref(&clear), "{profile:?}");
        assert!(received(&mut world, &sealed).is_empty());
        assert_eq!(world.dropped(DropReason::SrtcpReplayed), 1);
        let mut bent = far.seal(&clear, 6);
        bent[9] ^= 1;
        assert!(received(&mut world, &bent).is_empty());
        assert_eq!(world.dropped(DropReason::SrtcpAuthTag), 1);
        let late = far.seal(&clear, 4);
        assert_eq!(received(&mut world, &late).len(), 1, "late, not replayed");

        for n in 0..5u32 {
            // One counter for all senders of the key.
            let clear = report(900 + n % 2, n as u8);
            let packet = send(&mut world, &clear).unwrap();
            assert!(!packet.windows(4).any(|w| w == &clear[16..]), "sealed");
            assert_eq!(far.open(packet), (clear, n));
        }
    }
}

#[test]
fn what_cannot_be_sealed_is_counted() {
    let mut world = World::new(ProviderKind::Portable, 1, SMALL);
    let mut table = table(Profile::AeadAes128Gcm);
    world.local.apply(table.clone()).unwrap();
    assert_eq!(send(&mut world, &[0x80, 201, 0, 9, 0, 0, 0, 1]), None);
    assert_eq!(send(&mut world, &[0x80, 201]), None);
    assert_eq!(world.dropped(DropReason::RtcpHeader), 2);
    let mut long = vec![0x80, 201, 1, 0x70];
    long.resize(4 * 0x171, 0);
    assert_eq!(send(&mut world, &long), None, "1,476 bytes and a tag do not fit into 1,500");
    assert_eq!(world.dropped(DropReason::Mtu), 1);
    assert_eq!(world.local.engines[0].garbage().count(), 3, "bytes are freed by the management thread");
    table.legs.get_mut(&name("leg")).unwrap().outbound = None;
    world.local.apply(table.clone()).unwrap();
    assert_eq!(send(&mut world, &report(1, 1)), None);
    assert_eq!(world.dropped(DropReason::SrtcpNoKey), 1);

    let leg = table.legs.get_mut(&name("leg")).unwrap();
    (leg.kind, leg.inbound) = (LegKind::Plain, None);
    world.local.apply(table).unwrap();
    assert_eq!(send(&mut world, &report(1, 1)), Some(report(1, 1)));
    assert_eq!(received(&mut world, &report(1, 2)), [report(1, 2)]);
}

#[test]
fn a_new_key_starts_over_and_an_old_one_goes_on() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let profile = Profile::AeadAes256Gcm;
    let first = table(profile);
    let mut second = table(profile);
    let leg = second.legs.get_mut(&name("leg")).unwrap();
    (leg.inbound, leg.outbound) = (Some(key(profile, 3)), Some(key(profile, 4)));
    let mut far =
        [RtcpPeer::new(&key(profile, 1), &key(profile, 2)), RtcpPeer::new(&key(profile, 3), &key(profile, 4))];
    let mut next = [0, 0];
    for round in 0..6u8 {
        let which = usize::from(round % 2);
        if round == 4 {
            world.local.apply(base_table()).unwrap(); // the leg goes and comes back
        }
        world.local.apply([&first, &second][which].clone()).unwrap();
        for _ in 0..3 {
            let (clear, index) = far[which].open(send(&mut world, &report(1, round)).unwrap());
            assert_eq!((clear, index), (report(1, round), next[which]), "round {round}");
            next[which] += 1;
        }
        // Under the new key index 0 is new, under the old one it is not.
        let packet = far[which].seal(&report(LISTED, round), u32::from(round / 2));
        assert_eq!(received(&mut world, &packet).len(), 1, "round {round}: {}", world.drops());
        assert_eq!(received(&mut world, &packet).len(), 0);
    }
    assert_eq!(world.dropped(DropReason::SrtcpReplayed), 6);
}

fn restarted(file: &Path) -> World {
    let file = IndexFile::open(file, 256).unwrap();
    let indexes = IndexStore::new(Arc::new(file)).unwrap();
    let local = Local::with(ProviderKind::Portable, 1, SMALL, indexes, FixedRoute::default()).unwrap();
    let mut world = World::around(local);
    world.local.apply(table(Profile::Aes128CmSha1_80)).unwrap();
    world
}

#[test]
fn a_restart_reuses_no_index_and_accepts_no_replay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice/indexes");
    let profile = Profile::Aes128CmSha1_80;
    let mut far = RtcpPeer::new(&key(profile, 1), &key(profile, 2));
    let mut old: Vec<Vec<u8>> = Vec::new();
    for life in 0..4u32 {
        let mut world = restarted(&file);
        for packet in &old {
            assert!(received(&mut world, packet).is_empty(), "life {life}: a replay was accepted");
        }
        assert_eq!(world.dropped(DropReason::SrtcpReplayed), old.len() as u64);
        for n in 0..3 {
            let (_, index) = far.open(send(&mut world, &report(1, 1)).unwrap());
            assert_eq!(index, life * 3 + n);
            // A listed stream and one that is not, each with indexes of its own.
            for (sender, base) in [(LISTED, 10), (55, 1_000)] {
                let packet = far.seal(&report(sender, 1), base + life * 3 + n);
                assert_eq!(received(&mut world, &packet).len(), 1, "life {life}: {}", world.drops());
                old.push(packet);
            }
        }
    }
}
