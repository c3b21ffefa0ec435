//! Learn rules and learned addresses: what an unlisted SSRC must prove, and what it costs.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_forwarder::index_file::IndexFile;
use sluice_forwarder::index_file::store::IndexStore;
use sluice_forwarder::manage::local::Local;
use sluice_forwarder::manage::route::FixedRoute;
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::{DropReason, Kind, Learn, Remote, Repair, StreamRole, Table};
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

fn world() -> (World, Table) {
    let mut world = World::new(ProviderKind::Portable, 2, SMALL);
    let table = table();
    world.peers.insert(peer(1), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
    world.local.apply(table.clone()).unwrap();
    (world, table)
}

fn table() -> Table {
    let mut table = base_table();
    publisher_leg(&mut table, "pub", peer(0), &key(Profile::AeadAes256Gcm, 1));
    let extensions = &mut table.legs.get_mut(&name("pub")).unwrap().extensions;
    (extensions.mid, extensions.rid) = (Some(4), Some(10));
    table.learn.insert(name("high"), rule("h"));
    table.learn.insert(name("low"), rule("l"));
    receiver_leg(&mut table, "rx", peer(1), &key(Profile::AeadAes128Gcm, 2));
    egress(&mut table, "rx-video", "rx", 500, "high");
    table
}

/// Processes one after the other over one index file: engines and planner are new each time, peers stay.
struct Processes {
    file: Arc<IndexFile>,
    world: World,
}

impl Processes {
    fn new(table: &Table) -> Self {
        let file = Arc::new(IndexFile::anonymous(256).unwrap());
        let mut world = World::around(Self::local(&file));
        world.peers.insert(peer(1), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
        world.local.apply(table.clone()).unwrap();
        Processes { file, world }
    }

    fn local(file: &Arc<IndexFile>) -> Local {
        let indexes = IndexStore::new(file.clone()).unwrap();
        Local::with(ProviderKind::Portable, 2, SMALL, indexes, FixedRoute::default()).unwrap()
    }

    /// Another process, told the table again.
    fn restart(&mut self, table: &Table) {
        let world = World::around(Self::local(&self.file));
        let before = std::mem::replace(&mut self.world, world);
        (self.world.peers, self.world.now) = (before.peers, before.now);
        self.world.local.apply(table.clone()).unwrap();
    }

    fn send(&mut self, publisher: &mut Publisher, payload: &[u8], block: &[u8]) {
        let packet = publisher.packet(payload, block);
        self.world.arrive(0, &publisher.wrap(&packet));
        self.world.settle();
    }

    /// What the management thread was told of learned streams; it has acted on it by then.
    fn told(&mut self) -> Vec<(&'static str, u32)> {
        let told = |event| match event {
            Event::StreamLearned { ssrc, .. } => Some(("learned", ssrc.0)),
            Event::StreamForgotten { ssrc, .. } => Some(("forgot", ssrc.0)),
            _ => None,
        };
        self.world.local.tick(self.world.now).into_iter().filter_map(told).collect()
    }

    /// First payload bytes that the receiver got so far.
    fn got(&self) -> Vec<u8> {
        let stream = self.world.peers[&peer(1)].streams.get(&Ssrc(500));
        stream.map_or_else(Vec::new, |stream| stream.packets.iter().map(|(.., payload)| payload[0]).collect())
    }
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

#[test]
fn a_new_process_knows_a_stream_that_announces_itself_no_more() {
    let table = table();
    let mut processes = Processes::new(&table);
    // The rollover counter grows by one before each restart.
    let publisher_key = key(Profile::AeadAes256Gcm, 1);
    let mut high = Publisher::new(peer(0), Ssrc(10), 111, &publisher_key, 0xfff0);
    let mut old = Vec::new();
    for process in 0..3u8 {
        let rollover = u64::from(process) << 16;
        if process > 0 {
            // In steps that tell the counter apart.
            for step in 1..4 {
                high.next = rollover + 0x5000 * step;
                processes.send(&mut high, &[process], &[]);
            }
        }
        high.next = rollover + 0xfff0;
        for n in 0..40u8 {
            let block = if process == 0 && n < 3 { announce("0", "h") } else { Vec::new() };
            let packet = high.packet(&[process], &block);
            processes.world.arrive(usize::from(n % 2), &high.wrap(&packet));
            processes.world.settle();
            old.push(packet);
        }
        assert_eq!(processes.told(), [("learned", 10)], "in process {process}: {}", processes.world.drops());
        processes.restart(&table);
        // What a former process took is not taken again.
        for packet in old.iter().rev().take(20) {
            processes.world.arrive(0, &high.wrap(packet));
        }
        processes.world.settle();
        assert_eq!(processes.world.dropped(DropReason::Replayed), 20, "{}", processes.world.drops());
        assert!(processes.told().is_empty());
    }
    assert_eq!(processes.got().len(), 40 + 2 * 43);
    processes.world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn the_newest_stream_of_a_rule_is_the_one_that_is_known() {
    let table = table();
    let mut processes = Processes::new(&table);
    let publisher_key = key(Profile::AeadAes256Gcm, 1);
    let [mut first, mut second] = [10, 77].map(|ssrc| Publisher::new(peer(0), Ssrc(ssrc), 111, &publisher_key, 5));
    processes.send(&mut first, &[1], &announce("0", "h"));
    processes.send(&mut second, &[2], &announce("0", "h"));
    assert_eq!(processes.told(), [("learned", 10), ("forgot", 10), ("learned", 77)]);
    processes.restart(&table);
    processes.send(&mut first, &[3], &[]);
    assert_eq!(processes.world.dropped(DropReason::UnknownSsrc), 1, "the rule left it");
    processes.send(&mut second, &[4], &[]);
    // The client takes another SSRC: its rule stays able to follow, and late packets of the known one do not win it back.
    let mut third = Publisher::new(peer(0), Ssrc(78), 111, &publisher_key, 5);
    processes.send(&mut third, &[5], &announce("0", "h"));
    processes.send(&mut second, &[6], &[]);
    processes.send(&mut third, &[7], &[]);
    assert_eq!(processes.told(), [("learned", 77), ("forgot", 77), ("learned", 78)]);
    processes.restart(&table);
    processes.send(&mut third, &[8], &[]);
    assert_eq!(processes.got(), [1, 2, 4, 5, 7, 8], "{}", processes.world.drops());

    // A rule that asks for something else knows nothing of it, and neither does another key.
    let mut other = table.clone();
    other.learn.get_mut(&name("high")).unwrap().rid = Some("x".to_owned());
    processes.restart(&other);
    processes.send(&mut third, &[9], &[]);
    assert_eq!(processes.world.dropped(DropReason::UnknownSsrc), 1);
    let mut other = table.clone();
    other.legs.get_mut(&name("pub")).unwrap().inbound = Some(key(Profile::AeadAes256Gcm, 3));
    processes.restart(&other);
    let mut fresh = Publisher::new(peer(0), Ssrc(78), 111, &key(Profile::AeadAes256Gcm, 3), 5);
    processes.send(&mut fresh, &[10], &[]);
    assert_eq!(processes.world.dropped(DropReason::UnknownSsrc), 1);
    // The first key is back, and with it what was known under it.
    processes.world.local.apply(table).unwrap();
    processes.send(&mut third, &[11], &[]);
    assert_eq!(processes.got().last(), Some(&11), "{}", processes.world.drops());
    processes.world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn a_sender_of_ever_new_ssrcs_takes_no_more_than_its_rows() {
    let table = table();
    let mut processes = Processes::new(&table);
    let free = processes.world.local.indexes.free_rows();
    let publisher_key = key(Profile::AeadAes256Gcm, 1);
    let mut first = Publisher::new(peer(0), Ssrc(10), 111, &publisher_key, 5);
    for n in 0..600u32 {
        processes.world.now = processes.world.now + Nanos::from_millis(40);
        let mut stream = Publisher::new(peer(0), Ssrc(1_000 + n), 111, &publisher_key, 5);
        processes.send(&mut stream, &[1], &announce("0", "h"));
        if n % 7 == 0 {
            // One that comes back again and again, also while its leg is still prepared with it.
            processes.send(&mut first, &[2], &announce("0", "h"));
        }
        processes.told();
        if n % 10 == 0 {
            // The leg is prepared again.
            let mut other = table.clone();
            other.legs.get_mut(&name("pub")).unwrap().limits.packets_per_second -= 1 + n;
            processes.world.local.apply(other).unwrap();
        }
        assert!(processes.world.local.indexes.free_rows() + 2 >= free, "round {n}");
    }
    assert_eq!(processes.got().len(), 600 + 86, "{}", processes.world.drops());
    processes.world.assert_no_cell_is_lost(SMALL.cells);
}

#[test]
fn a_known_stream_costs_no_more_than_an_unknown_one_until_it_authenticates() {
    let table = table();
    let mut processes = Processes::new(&table);
    let mut high = Publisher::new(peer(0), Ssrc(10), 111, &key(Profile::AeadAes256Gcm, 1), 5);
    processes.send(&mut high, &[1], &announce("0", "h"));
    processes.told();
    processes.restart(&table);
    let mut stranger = Publisher::new(peer(0), Ssrc(10), 111, &key(Profile::AeadAes256Gcm, 99), 6);
    for _ in 0..200 {
        let packet = stranger.packet(&[0; 20], &[]);
        processes.world.arrive(0, &stranger.wrap(&packet));
    }
    processes.world.settle();
    let (tried, refused) =
        (processes.world.dropped(DropReason::AuthTag), processes.world.dropped(DropReason::LearnBudget));
    assert_eq!(tried + refused, 200);
    assert!(tried <= 60 && processes.told().is_empty(), "{tried} attempts in no time");
    processes.world.now = processes.world.now + Nanos::from_millis(2_000);
    processes.send(&mut high, &[2], &[]);
    assert_eq!((processes.told(), processes.got()), (vec![("learned", 10)], vec![1, 2]));
}

#[test]
fn a_known_repair_stream_repairs_what_is_known() {
    let mut table = table();
    table.legs.get_mut(&name("pub")).unwrap().extensions.repaired_rid = Some(10);
    table.legs.get_mut(&name("pub")).unwrap().extensions.rid = Some(11);
    let repairs = Repair { stream: name("high"), payload_types: vec![(112, 111)] };
    let role = StreamRole { repairs: Some(repairs), ..StreamRole::default() };
    let of = |rid: Option<&str>, repaired: Option<&str>| (rid.map(str::to_owned), repaired.map(str::to_owned));
    let (rid, repaired_rid) = of(None, Some("h"));
    table.learn.insert(name("high-r"), Learn { rid, repaired_rid, payload_types: vec![112], role, ..rule("h") });
    let mut processes = Processes::new(&table);
    let publisher_key = key(Profile::AeadAes256Gcm, 1);
    let mut high = Publisher::new(peer(0), Ssrc(10), 111, &publisher_key, 5);
    let mut repair = Publisher::new(peer(0), Ssrc(11), 112, &publisher_key, 0xffff);
    let mut named = announce("0", "h");
    // The same block with rid's id in place of the repaired one's.
    named[6] = 11 << 4;
    processes.send(&mut high, &[1], &named);
    let lost = high.packet(&[2], &[]);
    processes.send(&mut high, &[3], &[]);
    processes.send(&mut repair, &[&lost[2..4], &[2][..]].concat(), &announce("0", "h"));
    assert_eq!(processes.got(), [1, 3, 2], "{}", processes.world.drops());
    assert_eq!(processes.told(), [("learned", 10), ("learned", 11)]);
    processes.restart(&table);
    processes.send(&mut high, &[4], &[]);
    let lost = high.packet(&[5], &[]);
    processes.send(&mut high, &[6], &[]);
    processes.send(&mut repair, &[&lost[2..4], &[5][..]].concat(), &[]);
    assert_eq!(processes.got(), [1, 3, 2, 4, 6, 5], "{}", processes.world.drops());
    assert_eq!(processes.told(), [("learned", 10), ("learned", 11)]);
}
