//! Encodings of one picture: each receiver gets one, and is switched at key frames only.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::{Kind, Learn, Name, Source, StreamRole, Table};
use support::{
    Peer, Publisher, Random, World, base_table, egress, element, ingress, key, name, peer, publisher_leg, receiver_leg,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 64, tuples: 64, ingress: 16, learned: 32, egress: 64, lists: 64, cells: 256 };
const DESCRIPTOR: u8 = 11;
const KEY: u8 = 0xb0;
const DELTA: u8 = 0xf8;

/// A leg that publishes `streams` of layered video, and the source over them.
fn camera(table: &mut Table, leg: &str, n: u32, ssrcs: &[u32], descriptor: Option<u8>) {
    publisher_leg(table, leg, peer(n), &key(Profile::AeadAes128Gcm, n as u8 + 1));
    table.legs.get_mut(&name(leg)).unwrap().extensions.frame_descriptor = descriptor;
    let layers: Vec<Name> = ssrcs.iter().map(|ssrc| name(&format!("{leg}-{ssrc}"))).collect();
    for ssrc in ssrcs {
        ingress(table, &format!("{leg}-{ssrc}"), leg, *ssrc, Kind::Video);
    }
    let source = Source { kind: Kind::Video, clock_rate: 48_000, input: None, layers, select: None };
    table.sources.insert(name(&format!("{leg}/v")), source);
}

fn receiver(world: &mut World, table: &mut Table, n: u32, source: &str, layer: Option<u8>) {
    let receiver_key = key(Profile::AeadAes256Gcm, n as u8 + 50);
    receiver_leg(table, &format!("rx{n}"), peer(100 + n), &receiver_key);
    egress(table, &format!("rx{n}-v"), &format!("rx{n}"), 900, source);
    table.egress.get_mut(&name(&format!("rx{n}-v"))).unwrap().layer = layer;
    world.peers.insert(peer(100 + n), Peer::new(&receiver_key));
}

fn publishers(n: u32, ssrcs: &[u32]) -> Vec<Publisher> {
    let publisher_key = key(Profile::AeadAes128Gcm, n as u8 + 1);
    ssrcs.iter().map(|ssrc| Publisher::new(peer(n), Ssrc(*ssrc), 111, &publisher_key, u64::from(*ssrc))).collect()
}

fn send(world: &mut World, publisher: &mut Publisher, flags: u8, payload: &[u8]) {
    let packet = publisher.packet(payload, &element(DESCRIPTOR, flags));
    world.arrive(0, &publisher.wrap(&packet));
    world.settle();
}

fn received(world: &World, n: u32) -> Vec<(u64, Vec<u8>)> {
    let stream = world.peers[&peer(100 + n)].streams.get(&Ssrc(900));
    stream.map_or_else(Vec::new, |s| s.packets.iter().map(|(i, _, _, p)| (*i, p.clone())).collect())
}

fn wanted(world: &mut World) -> Vec<u32> {
    let mut all = Vec::new();
    for engine in &mut world.local.engines {
        all.extend(engine.events().filter_map(|event| match event {
            Event::KeyFrameWanted { source } => Some(source),
            _ => None,
        }));
    }
    all
}

/// What one receiver must get, written down as the rules say it.
struct Model {
    wish: Option<u8>,
    offered: [Option<u64>; 3],
    current: Option<usize>,
    expected: Vec<Vec<u8>>,
    withheld: u64,
}

impl Model {
    fn offer(&mut self, layer: usize, key_frame: bool, now: u64, payload: &[u8]) {
        self.offered[layer] = Some(now);
        let sent = |l: &usize| self.offered[*l].is_some_and(|at| now - at <= 500);
        let top = self.wish.map_or(2, |wish| usize::from(wish).min(2));
        let target = (0..=top).filter(sent).max().or_else(|| (top + 1..3).find(sent)).unwrap();
        if target == layer && self.current != Some(layer) {
            if key_frame {
                self.current = Some(layer);
            } else {
                self.withheld += 1;
            }
        }
        if self.current == Some(layer) {
            self.expected.push(payload.to_vec());
        }
    }
}

/// Random key frames, pauses of layers and wishes, against the model; on one worker and on two.
#[test]
fn every_receiver_gets_one_layer_as_the_model_says() {
    for (workers, seed) in [(1, 7), (2, 8), (2, 9)] {
        let mut world = World::new(ProviderKind::Portable, workers, SMALL);
        let mut table = base_table();
        let ssrcs = [10, 11, 12];
        camera(&mut table, "cam", 0, &ssrcs, Some(DESCRIPTOR));
        let wishes = [None, Some(0), Some(1), Some(2), None];
        let mut models = Vec::new();
        for (n, wish) in wishes.iter().enumerate() {
            receiver(&mut world, &mut table, n as u32, "cam/v", *wish);
            let (offered, expected) = ([None; 3], Vec::new());
            models.push(Model { wish: *wish, offered, current: None, expected, withheld: 0 });
        }
        world.local.apply(table.clone()).unwrap();
        let mut cameras = publishers(0, &ssrcs);
        let mut random = Random(seed);
        let (mut paused, mut asks) = ([0u64; 3], Vec::new());
        for round in 0..1_500u64 {
            world.now = world.now + Nanos::from_millis(20);
            let now = world.now.0 / 1_000_000;
            for layer in 0..3 {
                if paused[layer] > now {
                    continue;
                }
                if random.below(150) == 0 {
                    paused[layer] = now + random.below(1_500);
                }
                let key_frame = random.below(12) == 0;
                let payload = [layer as u8, round as u8, (round >> 8) as u8];
                send(&mut world, &mut cameras[layer], if key_frame { KEY } else { DELTA }, &payload);
                for model in &mut models {
                    model.offer(layer, key_frame, now, &payload);
                }
            }
            asks.push(wanted(&mut world));
            if random.below(100) == 0 {
                let n = random.below(5);
                let wish = [None, Some(0), Some(1), Some(2)][random.below(4) as usize];
                table.egress.get_mut(&name(&format!("rx{n}-v"))).unwrap().layer = wish;
                world.local.apply(table.clone()).unwrap();
                models[n as usize].wish = wish;
            }
        }
        for (n, model) in models.iter().enumerate() {
            let got = received(&world, n as u32);
            let payloads: Vec<Vec<u8>> = got.iter().map(|(_, payload)| payload.clone()).collect();
            assert!(payloads == model.expected, "receiver {n} of {workers} workers: {}", world.drops());
            assert!(model.expected.len() > 500 && model.withheld > 50);
            // Indexes go on without a hole but the one a switch leaves.
            let mut layer = got[0].1[0];
            for pair in got.windows(2) {
                let gap = pair[1].0 - pair[0].0;
                assert_eq!(gap, 1 + u64::from(pair[1].1[0] != layer), "receiver {n}");
                layer = pair[1].1[0];
            }
        }
        // A key frame is asked for while somebody waits, at most every 100 ms of a source and worker.
        assert!(asks.iter().map(Vec::len).sum::<usize>() > 20);
        for window in asks.windows(5) {
            let mut all: Vec<u32> = window.concat();
            all.sort_unstable();
            let most = all.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0);
            assert!(most <= usize::from(workers), "{window:?}");
        }
        world.assert_no_cell_is_lost(SMALL.cells);
    }
}

#[test]
fn another_source_starts_at_its_key_frame_and_keeps_the_stream() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let mut table = base_table();
    camera(&mut table, "a", 0, &[10, 11], Some(DESCRIPTOR));
    camera(&mut table, "b", 1, &[20, 21], Some(DESCRIPTOR));
    receiver(&mut world, &mut table, 0, "a/v", None);
    world.local.apply(table.clone()).unwrap();
    let (mut a, mut b) = (publishers(0, &[10, 11]), publishers(1, &[20, 21]));
    send(&mut world, &mut a[1], KEY, b"a0");
    send(&mut world, &mut b[1], KEY, b"b0");
    send(&mut world, &mut a[1], DELTA, b"a1");
    assert_eq!(received(&world, 0).len(), 2);
    table.egress.get_mut(&name("rx0-v")).unwrap().source = name("b/v");
    world.local.apply(table.clone()).unwrap();
    send(&mut world, &mut a[1], KEY, b"a2");
    send(&mut world, &mut b[1], DELTA, b"b1");
    assert_eq!(received(&world, 0).len(), 2, "neither the old source nor the middle of a picture");
    assert_eq!(wanted(&mut world).len(), 1);
    send(&mut world, &mut b[1], KEY, b"b2");
    send(&mut world, &mut b[1], DELTA, b"b3");
    // There and back with no packet in between: the stream was away and needs a key frame again.
    table.egress.get_mut(&name("rx0-v")).unwrap().source = name("a/v");
    world.local.apply(table.clone()).unwrap();
    table.egress.get_mut(&name("rx0-v")).unwrap().source = name("b/v");
    world.local.apply(table).unwrap();
    send(&mut world, &mut b[1], DELTA, b"b4");
    send(&mut world, &mut b[1], KEY, b"b5");
    let got = received(&world, 0);
    let payloads: Vec<&[u8]> = got.iter().map(|(_, payload)| payload.as_slice()).collect();
    assert_eq!(payloads, [b"a0", b"a1", b"b2", b"b3", b"b5"]);
    let gaps: Vec<u64> = got.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(gaps, [1, 2, 1, 2]);
}

#[test]
fn layers_of_a_source_can_change_while_one_of_them_is_forwarded() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let mut table = base_table();
    camera(&mut table, "a", 0, &[10, 11], Some(DESCRIPTOR));
    receiver(&mut world, &mut table, 0, "a/v", None);
    table.sources.get_mut(&name("a/v")).unwrap().layers = vec![name("a-11")];
    world.local.apply(table.clone()).unwrap();
    let mut a = publishers(0, &[10, 11]);
    send(&mut world, &mut a[1], KEY, b"h0");
    send(&mut world, &mut a[0], KEY, b"l0");
    // A lower layer comes in below: the one forwarded goes on without a key frame.
    table.sources.get_mut(&name("a/v")).unwrap().layers = vec![name("a-10"), name("a-11")];
    world.local.apply(table.clone()).unwrap();
    send(&mut world, &mut a[0], KEY, b"l1");
    send(&mut world, &mut a[1], DELTA, b"h1");
    table.sources.get_mut(&name("a/v")).unwrap().layers = vec![name("a-10")];
    world.local.apply(table).unwrap();
    send(&mut world, &mut a[1], KEY, b"h2");
    send(&mut world, &mut a[0], KEY, b"l2");
    let got: Vec<Vec<u8>> = received(&world, 0).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, [b"h0", b"h1", b"l2"], "{}", world.drops());
}

#[test]
fn without_descriptors_any_packet_switches() {
    let mut world = World::new(ProviderKind::Portable, 1, SMALL);
    let mut table = base_table();
    camera(&mut table, "a", 0, &[10, 11], None);
    receiver(&mut world, &mut table, 0, "a/v", None);
    world.local.apply(table).unwrap();
    let mut a = publishers(0, &[10, 11]);
    send(&mut world, &mut a[0], DELTA, b"l0");
    send(&mut world, &mut a[1], DELTA, b"h0");
    send(&mut world, &mut a[0], DELTA, b"l1");
    let got: Vec<Vec<u8>> = received(&world, 0).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, [b"l0", b"h0"]);
    assert!(wanted(&mut world).is_empty());
}

/// Listed and learned streams, here and at another worker.
#[test]
fn the_announced_ssrc_goes_out_as_csrc() {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let mut table = base_table();
    camera(&mut table, "a", 0, &[10], None);
    table.legs.get_mut(&name("a")).unwrap().extensions.rid = Some(4);
    table.ingress.get_mut(&name("a-10")).unwrap().role.announced = Some(Ssrc(0xaaaa));
    let rule = Learn {
        leg: name("a"),
        mid: None,
        rid: Some("h".to_owned()),
        repaired_rid: None,
        kind: Kind::Video,
        clock_rate: 48_000,
        payload_types: vec![111],
        role: StreamRole { announced: Some(Ssrc(0xbbbb)), ..StreamRole::default() },
    };
    table.learn.insert(name("a-h"), rule);
    for n in 0..4 {
        receiver(&mut world, &mut table, n, if n < 2 { "a-10" } else { "a-h" }, None);
        table.egress.get_mut(&name(&format!("rx{n}-v"))).unwrap().csrc = true;
    }
    world.local.apply(table.clone()).unwrap();
    let mut a = publishers(0, &[10, 11]);
    let rid = element(4, b'h');
    for _ in 0..3 {
        let listed = a[0].packet(b"listed", &[]);
        world.arrive(0, &a[0].wrap(&listed));
        let learned = a[1].packet(b"learned", &rid);
        world.arrive(1, &a[1].wrap(&learned));
        world.settle();
    }
    let csrcs = |world: &World, n: u32| world.peers[&peer(100 + n)].streams[&Ssrc(900)].csrcs.clone();
    for n in 0..4 {
        assert_eq!(csrcs(&world, n), [if n < 2 { 0xaaaa } else { 0xbbbb }; 3], "receiver {n}");
    }
    // Another value counts for a stream that was learned before, too; none means the stream's own.
    table.learn.get_mut(&name("a-h")).unwrap().role.announced = Some(Ssrc(0xcccc));
    table.ingress.get_mut(&name("a-10")).unwrap().role.announced = None;
    world.local.apply(table).unwrap();
    let packet = a[1].packet(b"learned", &[]);
    world.arrive(0, &a[1].wrap(&packet));
    let packet = a[0].packet(b"listed", &[]);
    world.arrive(0, &a[0].wrap(&packet));
    world.settle();
    assert_eq!((csrcs(&world, 3)[3], csrcs(&world, 0)[3]), (0xcccc, 10));
}
