//! STUN at a leg's owner: who is answered, what goes up, when consent ends and comes back. Simulated time.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use sluice_forwarder::engine::command::Command;
use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::stun::consent::LIFETIME;
use sluice_forwarder::engine::stun::message::{BINDING, Builder, Class, IntegrityKey, Message, Role, TransactionId};
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_srtp::{Profile, ProviderKind, Ssrc};
use sluice_table::protocol::PacketInReason;
use sluice_table::{DropReason, Ice, Kind, Table};
use support::{
    Peer, Publisher, World, base_table, egress, ingress, key, name, peer, publisher_leg, receiver_leg, wrap,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 1200, tuples: 2400, ingress: 64, egress: 512, lists: 256, cells: 256, learned: 16 };
const OURS: &str = "ours";
const OUR_PASSWORD: &str = "our-password-0123456789";
const THEIRS: &str = "theirs";
const THEIR_PASSWORD: &str = "their-password-01234567";
/// The selected tuple, a validated one beside it, and one nobody validated.
const SELECTED: u32 = 1;
const OTHER: u32 = 2;
const STRANGER: u32 = 3;

fn ice(tuples: &[SocketAddr]) -> Ice {
    Ice {
        local_ufrag: OURS.to_owned(),
        local_password: OUR_PASSWORD.replace('-', "+"),
        remote_ufrag: THEIRS.to_owned(),
        remote_password: THEIR_PASSWORD.replace('-', "+"),
        controlling: false,
        tie_breaker: 7,
        tuples: tuples.to_vec(),
    }
}

fn our_key() -> IntegrityKey {
    IntegrityKey::new(&OUR_PASSWORD.replace('-', "+"))
}

fn their_key() -> IntegrityKey {
    IntegrityKey::new(&THEIR_PASSWORD.replace('-', "+"))
}

/// A publisher and a receiver; the receiver has ICE state.
fn table() -> Table {
    let mut table = base_table();
    publisher_leg(&mut table, "pub", peer(0), &key(Profile::AeadAes128Gcm, 1));
    ingress(&mut table, "audio", "pub", 1111, Kind::Audio);
    receiver_leg(&mut table, "rx", peer(SELECTED), &key(Profile::AeadAes128Gcm, 2));
    table.legs.get_mut(&name("rx")).unwrap().ice = Some(ice(&[peer(SELECTED), peer(OTHER)]));
    egress(&mut table, "rx-audio", "rx", 5000, "audio");
    table
}

struct Scene {
    world: World,
    publisher: Publisher,
    events: Vec<Event>,
}

impl Scene {
    fn new(workers: u8) -> Self {
        let mut world = World::new(ProviderKind::Portable, workers, SMALL);
        world.peers.insert(peer(SELECTED), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
        world.local.apply(table()).unwrap();
        let publisher = Publisher::new(peer(0), Ssrc(1111), 111, &key(Profile::AeadAes128Gcm, 1), 10);
        let mut scene = Scene { world, publisher, events: Vec::new() };
        scene.settle();
        scene
    }

    fn settle(&mut self) {
        self.world.settle();
        for engine in &mut self.world.local.engines {
            self.events.extend(engine.events().filter(|event| !matches!(event, Event::Flipped(_))));
        }
    }

    fn arrive(&mut self, from: u32, packet: &[u8]) {
        self.world.arrive(0, &wrap(peer(from), packet));
        self.settle();
    }

    /// What was sent since the last call, other than media.
    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.world.control)
    }

    /// Why packets went up since the last call.
    fn up(&mut self) -> Vec<(PacketInReason, bool)> {
        let up = self.events.iter().filter_map(|event| match event {
            Event::PacketIn { reason, leg, .. } => Some((*reason, leg.is_some())),
            _ => None,
        });
        let up = up.collect();
        self.events.clear();
        up
    }

    /// Publishes a packet; returns whether the receiver got it.
    fn media(&mut self) -> bool {
        let got = |world: &World| world.peers[&peer(SELECTED)].streams.get(&Ssrc(5000)).map_or(0, |s| s.packets.len());
        let before = got(&self.world);
        let frame = self.publisher.frame(b"audio");
        self.world.arrive(0, &frame);
        self.settle();
        got(&self.world) > before
    }

    /// Our checks that were sent to the peer: when, and under which transaction id.
    fn checks(&mut self) -> Vec<TransactionId> {
        let checks = self.sent().into_iter().map(|(to, packet)| {
            let message = Message::parse(&packet).unwrap();
            assert_eq!((to, message.class, message.method), (peer(SELECTED), Class::Request, BINDING));
            assert!(message.is_for(THEIRS, OURS) && message.fingerprint && message.verify(&their_key()));
            assert_eq!(message.role, Some((Role::Controlled, 7)));
            assert!(message.priority.is_some() && !message.use_candidate);
            message.transaction
        });
        checks.collect()
    }

    /// Lets time pass in steps of the engine's deadlines; returns every check with its time.
    fn pass(&mut self, until: Nanos) -> Vec<(Nanos, TransactionId)> {
        let mut checks = Vec::new();
        loop {
            let next = self.world.deadline.min(until);
            self.world.now = next.max(self.world.now);
            self.settle();
            let now = self.world.now;
            checks.extend(self.checks().into_iter().map(|id| (now, id)));
            if now >= until {
                return checks;
            }
        }
    }
}

fn built(build: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut bytes = vec![0; 640];
    let len = build(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn request(id: u8, role: Role, nominate: bool, ufrag: &str, key: &IntegrityKey) -> Vec<u8> {
    built(|out| {
        let builder = Builder::new(out, Class::Request, BINDING, &[id; 12]).username(ufrag, THEIRS).role(role, 99);
        if nominate { builder.use_candidate().finish(key) } else { builder.finish(key) }
    })
}

fn response(id: TransactionId, key: &IntegrityKey) -> Vec<u8> {
    let mapped = support::LOCAL.parse::<SocketAddr>().unwrap().into();
    built(|out| Builder::new(out, Class::Success, BINDING, &id).mapped(mapped).finish(key))
}

#[test]
fn correct_requests_of_validated_tuples_are_answered_where_they_came_from() {
    for workers in [1, 2] {
        let mut scene = Scene::new(workers);
        for from in [SELECTED, OTHER] {
            for worker in 0..usize::from(workers) {
                let packet = request(from as u8, Role::Controlling, from == SELECTED, OURS, &our_key());
                scene.world.arrive(worker, &wrap(peer(from), &packet));
                scene.settle();
                let sent = scene.sent();
                assert_eq!(sent.len(), 1, "{}", scene.world.drops());
                assert_eq!(sent[0].0, peer(from));
                let answer = Message::parse(&sent[0].1).unwrap();
                assert_eq!((answer.class, answer.method), (Class::Success, BINDING));
                assert_eq!(answer.transaction, [from as u8; 12]);
                assert_eq!(answer.mapped, Some(peer(from).into()));
                assert!(answer.fingerprint && answer.verify(&our_key()));
            }
        }
        assert_eq!(scene.up(), []);
        // A request moves no media: it still goes to the selected tuple.
        assert!(scene.media());
    }
}

#[test]
fn what_needs_a_decision_goes_up_and_nothing_is_answered() {
    let mut scene = Scene::new(1);
    let (key, controlling) = (our_key(), Role::Controlling);
    let of = |class, method| built(|out| Builder::new(out, class, method, &[9; 12]).finish(&key));
    let cases = [
        ("role conflict", SELECTED, request(1, Role::Controlled, false, OURS, &key)),
        ("another pair nominated", OTHER, request(2, controlling, true, OURS, &key)),
        ("restart", SELECTED, request(3, controlling, false, "fresh", &IntegrityKey::new("some new password"))),
        ("indication", SELECTED, of(Class::Indication, BINDING)),
        ("another method", SELECTED, of(Class::Request, 3)),
        ("response to control's own check", OTHER, response([77; 12], &their_key())),
    ];
    for (what, from, packet) in cases {
        scene.arrive(from, &packet);
        assert_eq!(scene.up(), [(PacketInReason::StunPolicy, true)], "{what}");
    }
    scene.arrive(0, &request(1, controlling, false, OURS, &key));
    assert_eq!(scene.up(), [(PacketInReason::StunUnknown, true)], "a leg without ICE state");
    scene.arrive(STRANGER, &request(1, controlling, false, OURS, &key));
    assert_eq!(scene.up(), [(PacketInReason::StunUnknown, false)], "a tuple nobody validated");
    scene.arrive(STRANGER, &[22, 254, 253]);
    scene.arrive(SELECTED, &[22, 254, 253]);
    assert_eq!(scene.up(), [(PacketInReason::Dtls, false), (PacketInReason::Dtls, true)]);
    assert!(scene.sent().is_empty());
}

#[test]
fn what_does_not_authenticate_is_counted_and_nothing_else() {
    let mut scene = Scene::new(1);
    let nobody = IntegrityKey::new("guess");
    scene.arrive(SELECTED, &request(1, Role::Controlling, false, OURS, &nobody));
    scene.arrive(SELECTED, &built(|out| Builder::new(out, Class::Request, BINDING, &[1; 12]).finish(&our_key())));
    assert_eq!(scene.world.dropped(DropReason::StunIntegrity), 2);
    let mut bent = request(1, Role::Controlling, false, OURS, &our_key());
    *bent.last_mut().unwrap() ^= 1;
    scene.arrive(SELECTED, &bent);
    scene.arrive(STRANGER, &bent);
    scene.arrive(STRANGER, &[0, 1, 0, 0]);
    assert_eq!(scene.world.dropped(DropReason::StunMalformed), 3);
    assert_eq!(scene.up(), []);
    assert!(scene.sent().is_empty());
}

#[test]
fn floods_towards_control_and_the_responder_are_limited() {
    let mut scene = Scene::new(1);
    let conflict = request(1, Role::Controlled, false, OURS, &our_key());
    for _ in 0..80 {
        scene.arrive(SELECTED, &conflict);
    }
    assert_eq!(scene.up().len(), 51);
    assert_eq!(scene.world.dropped(DropReason::PacketInLimited), 29);
    let good = request(1, Role::Controlling, false, OURS, &our_key());
    for _ in 0..80 {
        scene.arrive(SELECTED, &good);
    }
    assert_eq!(scene.sent().len(), 21, "100 requests a second are looked at");
    assert_eq!(scene.world.dropped(DropReason::PolicedLeg), 59);
    for _ in 0..400 {
        scene.arrive(STRANGER, &good);
    }
    assert_eq!(scene.up().len(), 251, "1,000 a second in bursts of a quarter of a second");
    assert_eq!(scene.world.dropped(DropReason::PacketInLimited), 29 + 149);
}

#[test]
fn consent_is_asked_for_every_five_seconds_and_ends_after_thirty() {
    let mut scene = Scene::new(1);
    let start = scene.world.now;
    let end = start + LIFETIME;
    let checks = scene.pass(Nanos(end.0 - 1));
    assert!((5..=7).contains(&checks.len()), "{}", checks.len());
    let mut last = start;
    for (at, _) in &checks {
        let apart = at.since(last);
        assert!((Nanos::from_millis(4_000)..=Nanos::from_millis(6_000)).contains(&apart), "{apart:?}");
        last = *at;
    }
    assert!(scene.media(), "one nanosecond before the end");
    scene.world.now = end;
    assert!(!scene.media(), "at the end");
    assert_eq!(scene.world.dropped(DropReason::ConsentLost), 1);
    assert!(matches!(scene.events[..], [Event::ConsentLost { .. }]));
    scene.events.clear();

    // RTCP and packets of control wait for consent, too; STUN does not.
    let (_, slot) = scene.world.local.planner.leg(&name("rx")).unwrap();
    let engine = &mut scene.world.local.engines[0];
    engine.command(Command::Rtcp { leg: slot, bytes: vec![0x80, 201, 0, 1, 0, 0, 0, 1].into() });
    engine.command(Command::Packet { leg: slot, to: peer(OTHER).into(), bytes: vec![22, 254, 253].into() });
    engine.command(Command::Packet { leg: slot, to: peer(OTHER).into(), bytes: vec![0, 1, 0, 0].into() });
    scene.settle();
    assert_eq!(scene.world.dropped(DropReason::ConsentLost), 3);
    assert_eq!(scene.sent(), [(peer(OTHER), vec![0, 1, 0, 0])]);

    let late = scene.pass(end + Nanos::from_millis(20_000));
    let (_, id) = *late.last().expect("checks go on");
    assert!(!scene.media());
    scene.arrive(SELECTED, &response(id, &their_key()));
    assert!(matches!(scene.events[..], [Event::ConsentBack { .. }]), "{:?}", scene.events);
    assert!(scene.media());
    let back = scene.world.now;
    scene.pass(Nanos((back + LIFETIME).0 - 1));
    assert!(scene.media());
    scene.world.now = back + LIFETIME;
    assert!(!scene.media());
}

#[test]
fn answered_checks_keep_consent_for_ever() {
    let mut scene = Scene::new(1);
    let end = scene.world.now + Nanos::from_millis(600_000);
    let mut answered = 0;
    while scene.world.now < end {
        let until = scene.world.now + Nanos::from_millis(1_000);
        for (_, id) in scene.pass(until) {
            // Five of six responses get lost.
            answered += 1;
            if answered % 5 == 0 {
                scene.arrive(SELECTED, &response(id, &their_key()));
            }
        }
        assert!(scene.media(), "after {:?}", scene.world.now);
    }
    assert!(scene.events.is_empty(), "{:?}", scene.events);
    assert!((100..=150).contains(&answered), "{answered}");
}

#[test]
fn only_the_response_to_our_check_renews_and_only_once() {
    let mut scene = Scene::new(1);
    let start = scene.world.now;
    let (_, id) = scene.pass(start + Nanos::from_millis(7_000))[0];
    // Forged, from another tuple, of nobody's check, an error.
    scene.arrive(SELECTED, &response(id, &our_key()));
    scene.arrive(OTHER, &response(id, &their_key()));
    assert_eq!(scene.world.dropped(DropReason::StunIntegrity), 2);
    scene.arrive(SELECTED, &response([5; 12], &their_key()));
    assert_eq!(scene.up(), [(PacketInReason::StunPolicy, true)]);
    assert!(scene.world.local.engines[0].counters().consent_renewed == 0);

    let good = response(id, &their_key());
    scene.arrive(SELECTED, &good);
    assert_eq!(scene.world.local.engines[0].counters().consent_renewed, 1);
    let renewed = scene.world.now;
    let checks = scene.pass(renewed + Nanos::from_millis(7_000));
    // The same response again is one to nobody's check; an authentic error response goes up.
    scene.arrive(SELECTED, &good);
    let refused = built(|out| Builder::new(out, Class::Error, BINDING, &checks[0].1).error(487).finish(&their_key()));
    scene.arrive(SELECTED, &refused);
    assert_eq!(scene.up(), [(PacketInReason::StunPolicy, true); 2]);
    assert_eq!(scene.world.local.engines[0].counters().consent_renewed, 1);
    scene.pass(Nanos((renewed + LIFETIME).0 - 1));
    assert!(scene.media());
    scene.world.now = renewed + LIFETIME;
    assert!(!scene.media());
}

#[test]
fn another_destination_starts_over_and_the_same_one_does_not() {
    let mut scene = Scene::new(1);
    let start = scene.world.now;
    scene.pass(start + Nanos::from_millis(20_000));
    // Something else of the leg changes: consent goes on where it was.
    let mut next = table();
    next.legs.get_mut(&name("rx")).unwrap().limits.packets_per_second = 77;
    scene.world.local.apply(next.clone()).unwrap();
    scene.pass(Nanos((start + LIFETIME).0 - 1));
    assert!(scene.media());
    scene.world.now = start + LIFETIME;
    assert!(!scene.media());
    // The other tuple is selected: control validated it just now.
    let leg = next.legs.get_mut(&name("rx")).unwrap();
    leg.ice.as_mut().unwrap().tuples.swap(0, 1);
    leg.remote = sluice_table::Remote::Fixed(peer(OTHER));
    scene.world.peers.insert(peer(OTHER), Peer::new(&key(Profile::AeadAes128Gcm, 2)));
    scene.world.local.apply(next).unwrap();
    let frame = scene.publisher.frame(b"audio");
    scene.world.arrive(0, &frame);
    scene.settle();
    assert_eq!(scene.world.peers[&peer(OTHER)].streams[&Ssrc(5000)].packets.len(), 1);
}

#[test]
fn tuples_move_between_legs_in_one_commit() {
    let mut scene = Scene::new(2);
    let mut next = table();
    // Named before and after the leg that gives them up.
    for (leg, tuple, seed) in [("a", OTHER, 40), ("z", SELECTED, 41)] {
        receiver_leg(&mut next, leg, peer(tuple), &key(Profile::AeadAes128Gcm, seed));
        next.legs.get_mut(&name(leg)).unwrap().ice = Some(ice(&[peer(tuple)]));
    }
    let rx = next.legs.get_mut(&name("rx")).unwrap();
    rx.ice.as_mut().unwrap().tuples = vec![peer(STRANGER)];
    rx.remote = sluice_table::Remote::Fixed(peer(STRANGER));
    scene.world.local.apply(next.clone()).unwrap();
    for (tuple, leg) in [(OTHER, "a"), (SELECTED, "z"), (STRANGER, "rx")] {
        let (_, slot) = scene.world.local.planner.leg(&name(leg)).unwrap();
        scene.arrive(tuple, &request(1, Role::Controlled, false, OURS, &our_key()));
        assert!(matches!(scene.events[..], [Event::PacketIn { leg: Some(at), .. }] if at == slot), "{leg}");
        scene.events.clear();
    }
    // Everything goes: nobody is known any more, and no timer stays.
    scene.world.local.apply(base_table()).unwrap();
    scene.arrive(SELECTED, &request(1, Role::Controlled, false, OURS, &our_key()));
    assert_eq!(scene.up(), [(PacketInReason::StunUnknown, false)]);
    assert_eq!(scene.world.deadline, Nanos::NEVER);
}

#[test]
fn a_thousand_legs_are_asked_in_turn() {
    let mut world = World::new(ProviderKind::Portable, 1, SMALL);
    let mut table = base_table();
    for n in 0..1_000u32 {
        let leg = format!("leg{n}");
        let mut key = vec![0; 28];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let key = sluice_srtp::MasterKey::from_bytes(Profile::AeadAes128Gcm, &key).unwrap();
        receiver_leg(&mut table, &leg, peer(n), &key);
        table.legs.get_mut(&name(&leg)).unwrap().ice = Some(ice(&[peer(n)]));
    }
    world.local.apply(table).unwrap();
    world.settle();
    let start = world.now;
    let mut asked = std::collections::HashMap::<SocketAddr, u32>::new();
    for second in 1..=29u64 {
        world.now = start + Nanos::from_millis(second * 1_000);
        world.settle();
        for (to, _) in world.control.drain(..) {
            *asked.entry(to).or_default() += 1;
        }
    }
    assert_eq!(asked.len(), 1_000);
    assert!(asked.values().all(|n| (4..=7).contains(n)), "{asked:?}");
}
