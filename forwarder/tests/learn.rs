//! Learn rules and learned addresses: what an unlisted SSRC must prove, and what it costs.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::{DropReason, Kind, Learn, Remote};
use support::{Peer, Publisher, World, base_table, egress, ingress, key, name, peer, publisher_leg, receiver_leg};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 64, tuples: 64, ingress: 8, learned: 40, egress: 64, lists: 64, cells: 128 };

/// A one-byte extension block with mid (id 4) and rid (id 10).
fn announce(mid: &str, rid: &str) -> Vec<u8> {
    let mut block = vec![0xbe, 0xde, 0, 0];
    for (id, value) in [(4u8, mid), (10, rid)] {
        block.push((id << 4) | (value.len() - 1) as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block.resize(block.len().next_multiple_of(4), 0);
    block[3] = ((block.len() - 4) / 4) as u8;
    block
}

fn rule(rid: &str) -> Learn {
    Learn {
        leg: name("pub"),
        mid: Some("0".to_owned()),
        rid: Some(rid.to_owned()),
        repaired_rid: None,
        kind: Kind::Video,
        clock_rate: 90_000,
        payload_types: vec![111],
        role: sluice_table::StreamRole::default(),
    }
}

fn world() -> (World, sluice_table::Table) {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let mut table = base_table();
    publisher_leg(&mut table, "pub", peer(0), &key(Profile::AeadAes256Gcm, 1));
    let extensions = &mut table.legs.get_mut(&name("pub")).unwrap().extensions;
    (extensions.mid, extensions.rid) = (Some(4), Some(10));
    table.learn.insert(name("high"), rule("h"));
    table.learn.insert(name("low"), rule("l"));
    receiver_leg(&mut table, "rx", peer(1), &key(Profile::AeadAes128Gcm, 2));
    egress(&mut table, "rx-video", "rx", 500, "high");
    world.peers.insert(peer(1), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
    world.local.apply(table.clone()).unwrap();
    (world, table)
}

fn events(world: &mut World) -> Vec<String> {
    let mut all = Vec::new();
    for engine in &mut world.local.engines {
        for event in engine.events() {
            match event {
                Event::StreamLearned { ssrc, .. } => all.push(format!("learned {}", ssrc.0)),
                Event::StreamForgotten { ssrc, .. } => all.push(format!("forgot {}", ssrc.0)),
                Event::RemoteLearned { remote, .. } => {
                    all.push(format!("remote {}", std::net::SocketAddr::from(remote)));
                }
                _ => {}
            }
        }
    }
    all
}

#[test]
fn simulcast_layers_announce_themselves_once_and_then_go_without() {
    let (mut world, table) = world();
    let publisher_key = key(Profile::AeadAes256Gcm, 1);
    let mut high = Publisher::new(peer(0), Ssrc(10), 111, &publisher_key, 100);
    let mut low = Publisher::new(peer(0), Ssrc(11), 111, &publisher_key, 200);
    for n in 0..20u8 {
        let block = if n < 3 { announce("0", "h") } else { Vec::new() };
        let packet = high.packet(&[1, n], &block);
        world.arrive(usize::from(n % 2), &high.wrap(&packet));
        let block = if n < 3 { announce("0", "l") } else { Vec::new() };
        let packet = low.packet(&[2, n], &block);
        world.arrive(0, &low.wrap(&packet));
        world.settle();
    }
    let mut seen = events(&mut world);
    seen.sort();
    assert_eq!(seen, ["learned 10", "learned 11"]);
    let got = &world.peers[&peer(1)].streams[&Ssrc(500)].packets;
    assert_eq!(got.len(), 20, "{}", world.drops());
    assert!(got.iter().all(|(_, _, _, payload)| payload[0] == 1));

    // The sender restarts its encoder under a new SSRC: the rule follows it, the old one is forgotten.
    let mut again = Publisher::new(peer(0), Ssrc(77), 111, &publisher_key, 9);
    let packet = again.packet(&[3, 0], &announce("0", "h"));
    world.arrive(0, &again.wrap(&packet));
    world.settle();
    assert_eq!(events(&mut world), ["forgot 10", "learned 77"]);
    assert_eq!(world.peers[&peer(1)].streams[&Ssrc(500)].packets.len(), 21);

    // Without its rule the stream is unknown again, and its slot is free.
    let mut without = table;
    without.egress.clear();
    without.learn.clear();
    world.local.apply(without).unwrap();
    let packet = again.packet(&[3, 1], &[]);
    world.arrive(0, &again.wrap(&packet));
    world.settle();
    assert_eq!(world.dropped(DropReason::UnknownSsrc), 1);
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn what_does_not_authenticate_or_match_makes_nothing_and_costs_tokens() {
    let (mut world, _) = world();
    let mut stranger = Publisher::new(peer(0), Ssrc(66), 111, &key(Profile::AeadAes256Gcm, 99), 5);
    for _ in 0..200 {
        let packet = stranger.packet(&[0; 20], &announce("0", "h"));
        world.arrive(0, &stranger.wrap(&packet));
        world.arrive(1, &stranger.wrap(&packet));
    }
    world.settle();
    assert!(events(&mut world).is_empty());
    let (tried, refused) = (world.dropped(DropReason::AuthTag), world.dropped(DropReason::LearnBudget));
    assert_eq!(tried + refused, 400);
    assert!(tried <= 60, "{tried} attempts in no time");

    // A second later there are tokens again; a rid that no rule names is refused although it authenticates.
    world.now = world.now + Nanos::from_millis(2_000);
    let mut other = Publisher::new(peer(0), Ssrc(67), 111, &key(Profile::AeadAes256Gcm, 1), 5);
    let packet = other.packet(&[0; 20], &announce("0", "x"));
    world.arrive(0, &other.wrap(&packet));
    world.settle();
    assert!(events(&mut world).is_empty());
    assert_eq!(world.dropped(DropReason::UnknownSsrc), 1);
    world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn a_leg_learns_at_most_sixteen_streams() {
    let (mut world, mut table) = world();
    for n in 0..20 {
        table.learn.insert(name(&format!("extra{n}")), rule(&format!("r{n}")));
    }
    world.local.apply(table).unwrap();
    for n in 0..20u32 {
        let mut layer = Publisher::new(peer(0), Ssrc(1000 + n), 111, &key(Profile::AeadAes256Gcm, 1), 5);
        let packet = layer.packet(&[0; 20], &announce("0", &format!("r{n}")));
        world.arrive(0, &layer.wrap(&packet));
        world.settle();
    }
    assert_eq!(events(&mut world).len(), 16);
    assert_eq!(world.dropped(DropReason::LearnFull), 4);
}

#[test]
fn an_address_is_learned_from_the_first_packet_that_authenticates() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let mut table = base_table();
    publisher_leg(&mut table, "pub", peer(0), &key(Profile::Aes128CmSha1_80, 1));
    table.legs.get_mut(&name("pub")).unwrap().remote = Remote::Learn;
    ingress(&mut table, "in", "pub", 10, Kind::Audio);
    receiver_leg(&mut table, "rx", peer(1), &key(Profile::AeadAes128Gcm, 2));
    egress(&mut table, "out", "rx", 500, "in");
    world.peers.insert(peer(1), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
    world.local.apply(table).unwrap();

    let mut forger = Publisher::new(peer(8), Ssrc(10), 111, &key(Profile::Aes128CmSha1_80, 99), 5);
    let forged = forger.frame(b"forged");
    world.arrive(0, &forged);
    world.settle();
    assert!(events(&mut world).is_empty());
    assert_eq!(world.dropped(DropReason::AuthTag), 1);

    let mut publisher = Publisher::new(peer(3), Ssrc(10), 111, &key(Profile::Aes128CmSha1_80, 1), 5);
    for _ in 0..5 {
        let frame = publisher.frame(b"real");
        world.arrive(1, &frame);
        world.settle();
    }
    assert_eq!(events(&mut world), [format!("remote {}", peer(3))]);
    // The same key from elsewhere: fixed means fixed.
    publisher.remote = peer(4);
    let frame = publisher.frame(b"moved");
    world.arrive(0, &frame);
    world.settle();
    assert_eq!(world.dropped(DropReason::SourceSpoofed), 1);
    assert_eq!(world.peers[&peer(1)].streams[&Ssrc(500)].packets.len(), 5, "{}", world.drops());
}
